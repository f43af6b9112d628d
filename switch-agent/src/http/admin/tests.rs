//! The admin API over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use switch_agent_core::desired::Desired;
use switch_agent_core::dhcp6::{AnswerType, MessageType, Refusal};
use switch_agent_core::frr::FrrObserved;
use switch_agent_core::machines::{LldpNeighbor, MachineEvent, ProxyStep};
use switch_agent_core::observed::{ApplDb, Kernel, Observed, Runtime, Source};
use switch_agent_core::ownership::Ledger;
use switch_agent_core::row::{ConfigDb, fields};
use switch_agent_core::status::{
    IsolationStatus, LeakStatus, PartitionStatus, Phase, PortStatus, Verdict, Waiting,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cli::AdminClient;
use crate::reconciler::inspection;
use crate::wake::Waker;

mod clear;
mod followers;
mod limits;
mod texts;

/// An agent's admin API with one ready and one waiting port, on sockets of its own.
pub(crate) struct Rig {
    pub(crate) socket: PathBuf,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) hub: Hub,
    pub(crate) metrics: Metrics,
    pub(crate) address: SocketAddr,
    cancel: CancellationToken,
    server: JoinHandle<()>,
    /// The loop's end; the rig answers in its place.
    reconciler: JoinHandle<()>,
    pub(crate) decisions: DecisionLog,
    directory: PathBuf,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.server.abort();
        self.reconciler.abort();
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

/// A directory of this test alone, short enough for a socket path (108 bytes).
fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("sa-admin-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Rig {
    pub(crate) async fn new(snapshot: Snapshot) -> Rig {
        Rig::with_limits(snapshot, AdminLimits::default()).await
    }

    async fn with_limits(snapshot: Snapshot, limits: AdminLimits) -> Rig {
        let directory = directory();
        let (snapshots, receiver) = watch::channel(Arc::new(snapshot));
        let metrics = Metrics::default();
        let hub = Hub::new(metrics.clone(), switch_agent_core::machines::Limits::default());
        let jwks = Arc::new(json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "AA" }] }));
        let decisions = DecisionLog::default();
        let waker = Waker::default();
        let (inspector, mut inspections) = inspection(waker.clone());
        let state = AdminState {
            snapshots: receiver,
            hub: hub.clone(),
            metrics: metrics.clone(),
            jwks,
            decisions: decisions.clone(),
            inspector,
        };
        let reconciler = tokio::spawn(async move {
            loop {
                waker.woken().await;
                let (desired, observed) = inputs();
                inspections.answer(&desired, &observed);
            }
        });
        let socket = directory.join("admin.sock");
        let listen = AdminListen { socket: Some(socket.clone()), address: Some(loopback()) };
        let server = AdminServer::bind(&listen, limits, state).await.unwrap();
        let address = server.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let server = tokio::spawn(server.run(cancel.clone()));
        Rig { socket, snapshots, hub, metrics, address, cancel, server, reconciler, decisions, directory }
    }

    fn client(&self) -> AdminClient {
        AdminClient::new(&self.socket)
    }

    async fn status_of(&self, path: &str) -> StatusCode {
        self.client().fetch(path).await.unwrap().0
    }

    async fn text(&self, path: &str) -> String {
        String::from_utf8(self.client().fetch(path).await.unwrap().1.to_vec()).unwrap()
    }

    /// A request as bytes over TCP, and everything that comes back until the server closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

/// What a pass plans from on a switch whose operator put secrets where none belong.
fn inputs() -> (Desired, Observed) {
    let mut config = ConfigDb::default();
    let partition = [
        ("prefix", "2001:db8::/56"),
        ("boot_kernel_url", "https://images.example.com/kernel?X-Amz-Signature=PRIVATE&arch=amd64"),
        ("boot_cmdline", "quiet root_password=PRIVATE console=ttyS0"),
    ];
    config.insert("BOOT_NETWORK_PARTITION", "p1", fields(partition));
    let desired = Desired::from_config(&config);
    let frr = FrrObserved {
        running_config: "router bgp 65000\n neighbor 2001:db8::2 password PRIVATE\n".to_owned(),
        ..FrrObserved::default()
    };
    let observed = Observed {
        config: Source::Known(config),
        state: Source::Unknown("connection refused".to_owned()),
        appl: Source::Known(ApplDb::default()),
        kernel: Source::Known(Kernel::default()),
        frr: Source::Known(frr),
        ledger: Source::Known(Ledger::default()),
        runtime: Runtime::default(),
        backing_off: BTreeMap::new(),
        cooling: BTreeSet::new(),
        overdue: BTreeSet::new(),
    };
    (desired, observed)
}

fn port_status(name: &str, phase: Phase) -> PortStatus {
    let port: switch_agent_core::name::PortName = name.parse().unwrap();
    let number: u64 = name.trim_start_matches("Ethernet").parse().unwrap();
    let index = number / 4 + 1;
    let waiting = phase == Phase::Waiting;
    PortStatus {
        port,
        alias: format!("Eth1/{index}").into(),
        index,
        partition: Some("p1".parse().unwrap()),
        vrf: Some("VrfBoot-p1".parse().unwrap()),
        phase,
        oper_up: if waiting { None } else { Some(true) },
        prefix: Some(format!("2001:db8:0:{index}::/64").parse().unwrap()),
        waiting_on: waiting.then(|| "STATE_DB VRF_TABLE|VrfBoot-p1".to_owned()),
        error: None,
    }
}

/// What an advertiser on Ethernet0 would have counted.
pub(crate) fn advertised(metrics: &Metrics) {
    use switch_agent_core::ra::TransmitKind;

    use crate::metrics::advertise::{NdMode, RaState, SourceKind};

    let port = metrics.advertise.port(&"Ethernet0".parse().unwrap());
    let at = Duration::from_secs(1_767_323_045);
    port.set_state(RaState::Advertising);
    port.sent(TransmitKind::Unicast);
    port.multicast_at(at);
    port.first_after_carrier(Duration::from_micros(500));
    port.solicited(SourceKind::LinkLocal, at + Duration::from_secs(1));
    port.answered(Duration::from_micros(250));
    port.dropped("checksum");
    port.dropped("checksum");
    port.set_muted(true);
    port.foreign(&["CurHopLimit"]);
    port.send_failed(libc::ENETDOWN);
    let detail = Some("CAP_NET_ADMIN is not held".to_owned());
    metrics.advertise.set_mode(NdMode { socket: "packet", drop_rule: "unavailable", detail });
}

/// One port ready, one waiting; the pass ended at a known time.
pub(crate) fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::starting();
    for port in [port_status("Ethernet0", Phase::Ready), port_status("Ethernet4", Phase::Waiting)] {
        snapshot.status.waiting.extend(port.waiting_on.clone().map(|on| Waiting {
            object: format!("INTERFACE|{}", port.port),
            port: Some(port.port.clone()),
            on,
        }));
        snapshot.status.ports.insert(port.port.clone(), port);
    }
    let partition = PartitionStatus {
        partition: "p1".parse().unwrap(),
        vrf: "VrfBoot-p1".parse().unwrap(),
        prefix: "2001:db8::/56".parse().unwrap(),
        vrf_ready: true,
        leak: LeakStatus::Pending("no router bgp".to_owned()),
        isolation: IsolationStatus::Active,
        ports: 2,
        ports_ready: 1,
        waiting_on: None,
        error: None,
    };
    snapshot.status.partitions.insert(partition.partition.clone(), partition);
    snapshot.plan_json = json!({ "actions": [] }).to_string();
    snapshot.pass = Some(PassInfo {
        reason: "periodic".to_owned(),
        duration: Duration::from_millis(12),
        finished_at: "2026-01-02T03:04:05.5Z".parse().unwrap(),
        actions: 0,
    });
    snapshot
}

/// A machine on Ethernet0, and a neighbour on a fabric port that is none.
pub(crate) fn sightings(hub: &Hub) {
    let (port, mac) = ("Ethernet0".parse().unwrap(), "52:54:00:00:00:01".parse().unwrap());
    let address = "2001:db8:0:1:5054:ff:fe00:1".parse().unwrap();
    let step = ProxyStep::Token { machine_id: Some("7f3c".to_owned()) };
    hub.observe(MachineEvent::Solicit { port: "Ethernet0".parse().unwrap(), mac, address: None });
    hub.observe(MachineEvent::Neighbor { port: "Ethernet0".parse().unwrap(), mac, address });
    hub.observe(MachineEvent::Proxy { port, mac: None, address, step });
    let row = LldpNeighbor { sys_name: "machine".to_owned(), mac: Some(mac), ..LldpNeighbor::default() };
    hub.observe(MachineEvent::Lldp { neighbors: vec![("Ethernet0".parse().unwrap(), row)] });
    hub.observe(MachineEvent::Solicit {
        port: "Ethernet48".parse().unwrap(),
        mac: "52:54:00:00:00:99".parse().unwrap(),
        address: None,
    });
}

/// Replaces the times of the real clock, after checking that they are times.
fn still(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match name.as_str() {
                    "first_seen" | "last_seen" | "started_at" | "at" => {
                        field.as_str().unwrap().parse::<Timestamp>().unwrap();
                        *field = json!("T");
                    }
                    "unix_ms" | "since_start_ms" | "since_previous_ms" => *field = json!(field.is_u64()),
                    _ => *field = still(field.take()),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = still(value.take())),
        _ => {}
    }
    value
}

fn ready_port() -> Value {
    json!({
        "port": "Ethernet0", "alias": "Eth1/1", "index": 1, "partition": "p1", "vrf": "VrfBoot-p1",
        "phase": "ready", "oper_status": "up", "prefix": "2001:db8:0:1::/64",
        "machines": [{
            "mac": "52:54:00:00:00:01", "addresses": ["2001:db8:0:1:5054:ff:fe00:1"], "machine_id": "7f3c",
            "sources": ["rs", "neighbor", "lldp", "proxy"], "first_seen": "T", "last_seen": "T",
        }],
        "lldp": { "chassis_id": "", "port_id": "", "port_desc": "", "sys_name": "machine", "sys_desc": "",
            "mac": "52:54:00:00:00:01" },
        "ra": null, "dhcp6": null, "waiting_on": null, "error": null,
    })
}

#[tokio::test]
async fn a_control_api_that_is_not_reached_is_told() {
    let rig = Rig::new(snapshot()).await;
    let told = async || rig.client().get("/v1/status").await.unwrap()["control_api_error"].take();
    assert_eq!(told().await, Value::Null);
    rig.metrics.proxy.upstream_suspended(true);
    assert!(told().await.as_str().unwrap().starts_with("not reached"));
    // What is wrong with the files comes first.
    rig.snapshots
        .send_modify(|snapshot| Arc::make_mut(snapshot).status.control_api_error = Some("no CA".to_owned()));
    assert_eq!(told().await, "no CA");
}

#[tokio::test]
async fn ports_and_macs_have_the_documented_shape() {
    let rig = Rig::new(snapshot()).await;
    sightings(&rig.hub);
    let get = async |path: &str| still(rig.client().get(path).await.unwrap());
    let waiting = json!({
        "port": "Ethernet4", "alias": "Eth1/2", "index": 2, "partition": "p1", "vrf": "VrfBoot-p1",
        "phase": "waiting", "oper_status": "unknown", "prefix": "2001:db8:0:2::/64", "machines": [],
        "lldp": null, "ra": null, "dhcp6": null, "waiting_on": "STATE_DB VRF_TABLE|VrfBoot-p1", "error": null,
    });
    // As text: the order of the fields is part of what people see.
    assert_eq!(get("/v1/ports").await.to_string(), json!({ "ports": [ready_port(), waiting] }).to_string());
    for port in ["Ethernet0", "Eth1%2F1", "Eth1%2f1"] {
        assert_eq!(get(&format!("/v1/ports/{port}")).await, ready_port());
    }
    let found = json!({ "mac": "52:54:00:00:00:01", "ports": [ready_port()] });
    for mac in [
        "52:54:00:00:00:01",
        "52%3A54%3A00%3A00%3A00%3A01",
        "52-54-00-00-00-01",
        "5254.0000.0001",
        "525400000001",
    ] {
        assert_eq!(get(&format!("/v1/macs/{mac}")).await, found);
    }
    assert_eq!(get("/v1/macs").await, json!({ "macs": [found] }));
    let timeline = get("/v1/ports/Ethernet0/timeline").await;
    let stages: Vec<&str> = timeline["boots"][0]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["first-rs", "neighbor", "token"]);
    assert_eq!(
        timeline["boots"][0]["entries"][2],
        json!({
            "stage": "token", "at": "T", "unix_ms": true, "since_start_ms": true, "since_previous_ms": true,
            "count": 1, "detail": "7f3c",
        })
    );
}

#[tokio::test]
async fn a_port_shows_its_dhcpv6() {
    let rig = Rig::new(snapshot()).await;
    let port = "Ethernet0".parse().unwrap();
    rig.metrics.dhcp6.received(&port, MessageType::Solicit);
    rig.metrics.dhcp6.refused(&port, Refusal::Relay);
    rig.metrics.dhcp6.sent(&port, AnswerType::Advertise, Duration::from_millis(1));
    let mut shown = rig.client().get("/v1/ports/Ethernet0").await.unwrap()["dhcp6"].take();
    assert!(shown["last_sent"].take().as_str().is_some_and(|time| time.ends_with('Z')));
    assert_eq!(
        shown,
        json!({
            "received": { "solicit": 1 }, "sent": { "advertise": 1 }, "refused": { "relay": 1 }, "clients": {},
            "last_sent": null,
        })
    );
    let other = rig.client().get("/v1/ports/Ethernet4").await.unwrap();
    assert_eq!(other["dhcp6"], Value::Null);
}

#[tokio::test]
async fn a_port_shows_its_advertiser_and_the_status_its_socket() {
    let rig = Rig::new(snapshot()).await;
    advertised(&rig.metrics);
    let port = rig.client().get("/v1/ports/Ethernet0").await.unwrap();
    assert_eq!(
        port["ra"],
        json!({
            "state": "advertising",
            "sent": { "initial": 0, "multicast": 0, "solicited": 0, "unicast": 1, "triggered": 0, "final": 0 },
            "last_multicast": "2026-01-02T03:04:05Z",
            "carrier_to_first_ms": 0.5,
            "solicitations": { "unspecified": 0, "link_local": 1, "global": 0 },
            "last_solicitation": "2026-01-02T03:04:06Z",
            "answers": 1,
            "answer_last_ms": 0.25,
            "answer_max_ms": 0.25,
            "suppressed": 0,
            "dropped": { "checksum": 2 },
            "muted": true,
            "mutes": 1,
            "foreign": 1,
            "foreign_inconsistent": { "CurHopLimit": 1 },
            "send_errors": { "ENETDOWN": 1 },
        })
    );
    let status = rig.client().get("/v1/status").await.unwrap();
    assert_eq!(
        status["router_discovery"],
        json!({
            "mode": "packet", "socket": "packet", "drop_rule": "unavailable",
            "drop_rule_detail": "CAP_NET_ADMIN is not held", "ports": { "advertising": 1 },
        })
    );
}

#[tokio::test]
async fn what_is_not_there_is_a_json_error() {
    let rig = Rig::new(snapshot()).await;
    sightings(&rig.hub);
    for (path, status) in [
        ("/v1/macs/52:54:00:00:00:99", 404),
        ("/v1/macs/nonsense", 400),
        ("/v1/ports/Ethernet48", 404),
        ("/v1/ports/Ethernet48/timeline", 404),
        ("/v1/ports/%ff", 400),
        ("/v1/ports/%", 400),
        ("/v1/ports/", 404),
        ("/v2", 404),
        ("//", 404),
    ] {
        let (found, body) = rig.client().fetch(path).await.unwrap();
        assert_eq!(found.as_u16(), status, "{path}");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(body["error"]["code"].is_string() && body["error"]["message"].is_string(), "{path}: {body}");
    }
    let answer = rig
        .raw("POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
        .await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    let answer = rig.raw("HEAD /v1/ports HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn readiness_follows_the_passes() {
    let rig = Rig::new(Snapshot::starting()).await;
    assert_eq!(rig.status_of("/livez").await, StatusCode::OK);
    assert_eq!(rig.status_of("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(rig.text("/readyz").await.contains("the first pass has not finished"));
    let mut waiting = Snapshot::starting();
    waiting.status.unknown = BTreeMap::from([("CONFIG_DB".to_owned(), "no description".to_owned())]);
    rig.snapshots.send(Arc::new(waiting)).unwrap();
    assert!(rig.text("/readyz").await.contains("CONFIG_DB cannot be read: no description"));
    assert_eq!(rig.status_of("/livez").await, StatusCode::OK);
    rig.snapshots.send(Arc::new(snapshot())).unwrap();
    assert_eq!(rig.status_of("/readyz").await, StatusCode::OK);
    let mut degraded = snapshot();
    degraded.status.verdict = Verdict::Degraded;
    degraded.status.unknown = BTreeMap::from([("STATE_DB".to_owned(), "connection refused".to_owned())]);
    rig.snapshots.send(Arc::new(degraded)).unwrap();
    assert_eq!(rig.status_of("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(rig.text("/readyz").await.contains("STATE_DB cannot be read: connection refused"));
    assert_eq!(rig.client().get("/v1/status").await.unwrap()["ready"], false);
}

#[tokio::test]
async fn the_document_and_the_routes_are_the_same() {
    let rig = Rig::new(snapshot()).await;
    let document = rig.client().get("/openapi.json").await.unwrap();
    let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let routed: BTreeSet<String> = routes::ROUTES.iter().map(|route| (*route).to_owned()).collect();
    assert_eq!(described, routed);
    for route in routes::ROUTES.iter().filter(|route| **route != "/v1/events") {
        let path = route.replace("{port}", "Ethernet0").replace("{mac}", "52:54:00:00:00:01");
        sightings(&rig.hub);
        assert_eq!(rig.status_of(&path).await, StatusCode::OK, "{path}");
    }
    // Every field that is required is there, and no field is undocumented.
    let schemas = &document["components"]["schemas"];
    let port = rig.client().get("/v1/ports/Ethernet0").await.unwrap();
    let status = rig.client().get("/v1/status").await.unwrap();
    let partition = rig.client().get("/v1/partitions").await.unwrap()["partitions"][0].clone();
    let timeline = rig.client().get("/v1/ports/Ethernet0/timeline").await.unwrap();
    rig.decisions.record("port", "Ethernet0", "ready", None);
    let decision = rig.client().get("/v1/decisions").await.unwrap()["decisions"][0].clone();
    for (schema, value) in [
        ("Port", &port),
        ("Machine", &port["machines"][0]),
        ("Lldp", &port["lldp"]),
        ("Status", &status),
        ("Partition", &partition),
        ("Timeline", &timeline),
        ("Decision", &decision),
    ] {
        let documented: BTreeSet<&String> =
            schemas[schema]["properties"].as_object().unwrap().keys().collect();
        let present: BTreeSet<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(documented, present, "{schema}");
    }
}

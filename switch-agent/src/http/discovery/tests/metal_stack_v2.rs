//! The dialect metal-stack-v2 against a metal-apiserver in this process.

use std::time::Duration;

use serde_json::{Value, json};
use switch_agent_core::desired::MachineToken;
use switch_agent_core::discovery::Limits;
use switch_agent_core::ra::LinkEvent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::metal_apiserver::{AGENT_TOKEN, MetalApiserver, envelope};
use super::secrets::expect_none_logged;
use super::support::{MAC, Proxy, Reply, ask, bearer, fast};
use crate::http::discovery::answer::TokenBearing;
use crate::http::discovery::routes::token_reply;
use crate::http::tokens::{Minted, Secret};

const A: &str = "3f2b1c4e-0000-4000-8000-00000000000a";
const B: &str = "3f2b1c4e-0000-4000-8000-00000000000b";
const REGISTER: &str = "POST /metalstack.infra.v2.BootService/Register";
const JSON: &str = "Content-Type: application/json\r\nConnect-Protocol-Version: 1\r\n";

struct Rack {
    proxy: Proxy,
    api: MetalApiserver,
    /// TCP ports of Ethernet0 and Ethernet4.
    a: u16,
    b: u16,
}

impl Rack {
    async fn new() -> Rack {
        Rack::with(MachineToken::Handle, fast(), false).await
    }

    async fn with(mode: MachineToken, limits: Limits, http1_only: bool) -> Rack {
        let (proxy, api) = (Proxy::with(limits), MetalApiserver::start(http1_only).await);
        let ca_file = proxy.directory.write("ca.pem", &api.ca.pem);
        let token_file = proxy.directory.write("token", AGENT_TOKEN);
        let a = proxy.open("Ethernet0", |_| {}).await;
        let b = proxy.open("Ethernet4", |service| service.context.alias = "Eth1/2".to_owned()).await;
        proxy.discovery.set_upstream(Some(api.spec(&ca_file, &token_file, mode))).await;
        assert_eq!(proxy.discovery.upstream().unwrap().error, None);
        Rack { proxy, api, a, b }
    }

    async fn config(&self, port: u16, uuid: &str) -> Reply {
        ask(port, &format!("GET /config/{uuid}"), "", "").await
    }

    /// Waits until the API's word on the partition is known.
    async fn learnt(&self) {
        for _ in 0..100 {
            if ask(self.a, "GET /v1/boot", "", "").await.json()["config"]["kernel"].is_string() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the partition is not known");
    }

    /// The token in the config of a machine.
    async fn token(&self, port: u16, uuid: &str) -> String {
        let reply = self.config(port, uuid).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["metal_apiserver_token_for_hammer"].as_str().unwrap().to_owned()
    }

    fn set_away(&self, away: bool) {
        self.api.state.lock().unwrap().away = away;
    }

    fn unplug(&self) {
        self.proxy.discovery.link(&LinkEvent {
            ifindex: 1,
            name: "Ethernet0".to_owned(),
            carrier: false,
            master: None,
            link_local: None,
            gone: false,
        });
    }

    async fn register(&self, port: u16, token: &str, uuid: &str) -> Reply {
        let body = json!({ "uuid": uuid, "partition": "p1" }).to_string();
        ask(port, REGISTER, &format!("{JSON}{}", bearer(token)), &body).await
    }

    /// The Wait call of a machine, sent and not answered yet.
    async fn wait(&self, port: u16, token: &str, uuid: &str) -> TcpStream {
        let body = envelope(0, &json!({ "uuid": uuid }));
        let head = format!(
            "POST /metalstack.infra.v2.BootService/Wait HTTP/1.1\r\nHost: x\r\nContent-Type: \
             application/connect+json\r\nConnect-Protocol-Version: 1\r\n{}Content-Length: {}\r\n\r\n",
            bearer(token),
            body.len()
        );
        let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        stream
    }
}

fn connect_code(reply: &Reply) -> String {
    reply.json()["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_machine_gets_its_config_and_registers() {
    for http1_only in [false, true] {
        let rack = Rack::with(MachineToken::Handle, fast(), http1_only).await;
        let reply = rack.config(rack.a, A).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let config = reply.json();
        let token = config["metal_apiserver_token_for_hammer"].as_str().unwrap().to_owned();
        let proxy = "http://[2001:db8:0:1::1]";
        let url = config["metal_apiserver_url"].as_str().unwrap();
        assert!(url.starts_with(proxy), "{url}");
        let wanted = json!({
            "debug": false, "ntp_servers": ["ntp.example"], "metal_apiserver_url": url,
            "metal_apiserver_token_for_hammer": token, "pixie_api_url": format!("{url}/config/{A}"),
            "partition": "p1"
        });
        assert_eq!(config, wanted);
        assert_eq!(token.len(), 43, "a handle");

        let created = rack.api.calls("TokenService/Create").remove(0);
        assert_eq!(created.bearer(), AGENT_TOKEN);
        assert_eq!(created.headers["connect-protocol-version"], "1");
        assert_eq!(created.headers["content-type"], "application/json");
        let wanted = json!({
            "description": "metal-hammer on leaf1 Ethernet0", "expires": "3600s",
            "machineRoles": { A: "MACHINE_ROLE_EDITOR" }
        });
        assert_eq!(created.json(), wanted);

        let reply = rack.register(rack.a, &token, A).await;
        assert_eq!(reply.json(), json!({ "uuid": A, "size": "v1", "partition": "p1" }), "{reply:?}");
        let call = rack.api.calls("BootService/Register").remove(0);
        assert_eq!(call.bearer(), format!("eyJ-secret-0-{A}"), "the token in place of the handle");
        assert_eq!(call.headers["x-boot-port"], "Ethernet0");
        assert_eq!(call.headers["connect-protocol-version"], "1");

        // A second look does not end what the first one gave.
        assert_eq!(rack.token(rack.a, A).await, token);
        assert_eq!(rack.api.calls("TokenService/Create").len(), 1);
        let document = ask(rack.a, "GET /v1/boot", "", "").await.json();
        assert_eq!(document["api"]["base"], url);
        assert_eq!((&document["machine"]["id"], &document["machine"]["mac"]), (&A.into(), &MAC.into()));
    }
}

#[tokio::test]
async fn bodies_pass_untouched() {
    let rack = Rack::new().await;
    let token = rack.token(rack.a, A).await;
    let body = "\u{1}\u{2}no json, no utf-8 promise\u{7f}";
    let fields = format!(
        "Content-Type: application/proto\r\nContent-Encoding: zstd\r\nConnect-Timeout-Ms: 10000\r\n{}",
        bearer(&token)
    );
    assert_eq!(ask(rack.a, REGISTER, &fields, body).await.status, 200);
    let call = rack.api.calls("BootService/Register").remove(0);
    assert_eq!(call.body, body.as_bytes());
    assert_eq!(call.headers["content-encoding"], "zstd");
    assert_eq!(call.headers["content-type"], "application/proto");
    assert_eq!(call.headers["connect-timeout-ms"], "10000");
}

#[tokio::test]
async fn nobody_acts_for_the_machine_of_another_port() {
    let rack = Rack::new().await;
    let token = rack.token(rack.a, A).await;
    // The uuid of A, seen on A's port.
    let reply = rack.config(rack.b, A).await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-id-other-port"), "{reply:?}");
    let body = format!("{{\"machine_id\": \"{A}\"}}");
    let reply = ask(rack.b, "POST /v1/token", "Boot-Token: request\r\n", &body).await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-id-other-port"));
    // The handle of A.
    let reply = rack.register(rack.b, &token, A).await;
    assert_eq!((reply.status, connect_code(&reply).as_str()), (401, "unauthenticated"), "{reply:?}");
    // Another machine's uuid on A's port.
    let reply = rack.config(rack.a, B).await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-id-mismatch"));
    // With its own handle, B acts for itself only.
    let own = rack.token(rack.b, B).await;
    let reply = rack.register(rack.b, &own, A).await;
    assert_eq!((reply.status, connect_code(&reply).as_str()), (403, "permission_denied"));
    assert_eq!(rack.register(rack.b, &own, B).await.status, 200);
    assert_eq!(rack.api.calls("TokenService/Create").len(), 2);
    let refused = "switch_agent_proxy_tokens_refused_total{reason=\"machine-id-other-port\"} 2";
    assert!(rack.proxy.metric(refused), "{}", rack.proxy.metrics.encode());
    for forwarded in ["Via: 1.1 x\r\n", "X-Forwarded-For: ::2\r\n"] {
        let reply = ask(rack.a, &format!("GET /config/{A}"), forwarded, "").await;
        assert_eq!((reply.status, reply.error().as_str()), (403, "forwarded-request"));
    }
    for bad in ["x", "3f2b1c4e000040008000000000000001", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(rack.config(rack.a, bad).await.error(), "machine-id-invalid", "{bad}");
    }
}

#[tokio::test]
async fn what_the_api_knows_of_a_port_decides() {
    let rack = Rack::new().await;
    rack.api.state.lock().unwrap().switch = json!({
        "nics": [
            { "name": "Ethernet0", "identifier": "Eth1/1" },
            { "name": "Ethernet4", "identifier": "Eth1/2", "vrf": "vrf42" }
        ],
        "machineConnections": [{ "machineId": A, "nic": { "name": "Ethernet0", "identifier": "Eth1/1" } }]
    });
    let reply = rack.config(rack.a, B).await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-id-mismatch"), "{reply:?}");
    let reply = rack.config(rack.b, B).await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-allocated"));
    assert!(!reply.body.contains(A), "nobody is told whose port it is");
    assert!(rack.api.calls("TokenService/Create").is_empty());
    rack.token(rack.a, A).await;
}

#[tokio::test]
async fn a_switch_that_the_api_does_not_know_pins_by_first_sight() {
    let rack = Rack::new().await;
    rack.api.state.lock().unwrap().switch = Value::Null;
    rack.token(rack.a, A).await;
    assert_eq!(rack.config(rack.a, B).await.error(), "machine-id-mismatch");
    rack.unplug();
    rack.token(rack.a, B).await;
}

/// A thousand interleaved requests of two machines: each gets its own token, always, while the cable of one
/// of them is pulled again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_never_swapped() {
    for mode in [MachineToken::Token, MachineToken::Handle] {
        let limits = Limits { mints_per_minute: 100_000, ..fast() };
        let rack = std::sync::Arc::new(Rack::with(mode, limits, false).await);
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..20 {
            let rack = rack.clone();
            tasks.spawn(async move {
                let (port, uuid, other) = if worker % 2 == 0 { (rack.a, A, B) } else { (rack.b, B, A) };
                for n in 0..50 {
                    let reply = rack.config(port, uuid).await;
                    if reply.status != 200 {
                        // The cable was pulled while the token was made: the connection ends with it.
                        assert!(uuid == A && matches!(reply.status, 0 | 503), "{uuid}: {reply:?}");
                        continue;
                    }
                    let Ok(config) = serde_json::from_str::<Value>(&reply.body) else {
                        assert_eq!(uuid, A, "{reply:?}");
                        continue;
                    };
                    let url = config["pixie_api_url"].as_str().unwrap();
                    assert!(url.ends_with(uuid), "{uuid} was told {url}");
                    let token = config["metal_apiserver_token_for_hammer"].as_str().unwrap();
                    match mode {
                        MachineToken::Token => assert!(token.ends_with(uuid), "{uuid} was given {token}"),
                        // What a handle stands for shows at the API, which lets a token act for its machine only.
                        MachineToken::Handle => {
                            let status = rack.register(port, token, uuid).await.status;
                            // A pulled cable ends the token, and what is under way with it.
                            assert!(
                                status == 200 || uuid == A && matches!(status, 0 | 401),
                                "{uuid}: {status}"
                            );
                            assert_ne!(rack.register(port, token, other).await.status, 200);
                        }
                    }
                    if worker == 0 && n % 10 == 0 {
                        rack.unplug();
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let created = rack.api.calls("TokenService/Create").len();
        assert!((2..=200).contains(&created), "{created} tokens");
    }
}

/// One token is made however many ask at once.
#[tokio::test]
async fn requests_of_one_port_share_a_mint() {
    let rack = std::sync::Arc::new(Rack::new().await);
    rack.api.state.lock().unwrap().slow = Duration::from_millis(200);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let rack = rack.clone();
        tasks.spawn(async move { rack.token(rack.a, A).await });
    }
    let mut tokens = std::collections::BTreeSet::new();
    while let Some(token) = tasks.join_next().await {
        tokens.insert(token.unwrap());
    }
    assert_eq!((tokens.len(), rack.api.calls("TokenService/Create").len()), (1, 1));
}

/// What changes while the API makes the token voids it, and the API is told.
#[tokio::test]
async fn a_cable_pulled_meanwhile_voids_the_token() {
    let rack = std::sync::Arc::new(Rack::new().await);
    rack.api.state.lock().unwrap().slow = Duration::from_millis(300);
    let asking = tokio::spawn({
        let rack = rack.clone();
        async move { rack.config(rack.a, A).await }
    });
    rack.api.called("TokenService/Create", 1).await;
    rack.unplug();
    let reply = asking.await.unwrap();
    assert_ne!(reply.status, 200, "{reply:?}");
    let revoked = rack.api.called("TokenService/Revoke", 1).await;
    assert_eq!(revoked[0].json(), json!({ "uuid": "token-0" }));
    assert!(rack.api.calls("BootService/Dhcp").is_empty());
}

#[tokio::test]
async fn while_the_api_is_away_partitions_are_told_and_nothing_is_minted() {
    let rack = Rack::new().await;
    let known = async |rack: &Rack| {
        let document = ask(rack.a, "GET /v1/boot", "", "").await.json();
        assert_eq!(document["config"]["kernel"], "https://images.example/kernel", "{document}");
        assert_eq!(document["dns_servers"], json!(["2001:db8::53"]));
        assert_eq!(document["ntp_servers"], json!(["ntp.example"]));
        document["config_age_s"].as_u64().unwrap()
    };
    rack.learnt().await;
    let file = rack.proxy.directory.0.join("state/metal-stack-v2.json");
    for _ in 0..100 {
        if file.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let live = rack.token(rack.a, A).await;
    rack.set_away(true);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(known(&rack).await >= 1, "the age counts");
    let created = rack.api.calls("TokenService/Create").len();
    for request in [format!("GET /config/{B}"), "POST /v1/token".to_owned()] {
        let body =
            if request.starts_with("POST") { format!("{{\"machine_id\": \"{B}\"}}") } else { String::new() };
        let reply = ask(rack.b, &request, "Boot-Token: request\r\n", &body).await;
        assert_eq!((reply.status, reply.error().as_str()), (503, "upstream-unavailable"), "{reply:?}");
        assert!(reply.header("retry-after").is_some());
    }
    assert_eq!(rack.api.calls("TokenService/Create").len(), created, "nobody was asked for a token");
    // What is live stays so, and the machine is told it again.
    assert_eq!(rack.token(rack.a, A).await, live);
    let script = ask(rack.a, "GET /boot.ipxe", "", "").await.body;
    let told = "kernel https://images.example/kernel initrd=initrd0 console=ttyS0 ";
    assert!(script.contains("https://images.example/initrd"), "{script}");
    let kernel = script.lines().find(|line| line.contains(told)).expect(&script);
    let url = "PIXIE_API_URL=http://[2001:db8:0:1::1]";
    assert!(kernel.contains(url) && kernel.contains("/config/${uuid}"), "{kernel}");
    assert!(!kernel.contains("ip=dhcp"), "{kernel}");

    // Another process finds the file, and no API.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("secret") && !text.contains(AGENT_TOKEN));
    let next = Proxy::new();
    std::fs::write(next.directory.0.join("state/metal-stack-v2.json"), text).unwrap();
    let spec = rack.proxy.discovery.upstream().unwrap().spec;
    let a = next.open("Ethernet0", |_| {}).await;
    next.discovery.set_upstream(Some(spec)).await;
    for _ in 0..100 {
        if ask(a, "GET /v1/boot", "", "").await.json()["config"]["kernel"].is_string() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the file was not used");
}

/// The API sends the header of Wait's reply with the allocation: long after any other reply is given up.
#[tokio::test]
async fn a_machine_waits_and_is_told_its_allocation() {
    for http1_only in [false, true] {
        let limits = Limits {
            upstream_header_timeout: Duration::from_millis(300),
            idle_timeout: Duration::from_millis(300),
            ..fast()
        };
        let rack = Rack::with(MachineToken::Handle, limits, http1_only).await;
        let token = rack.token(rack.a, A).await;
        let mut stream = rack.wait(rack.a, &token, A).await;
        rack.api.called("BootService/Wait", 1).await;
        tokio::time::sleep(Duration::from_millis(1000)).await;
        rack.api.allocated.send_modify(|machines| machines.push(A.to_owned()));
        let mut wanted = envelope(0, &json!({ "allocation": { "uuid": A, "hostname": "m1" } }));
        wanted.extend(envelope(2, &json!({})));
        let mut got = Vec::new();
        let reading = async {
            while !got.windows(wanted.len()).any(|window| window == wanted) {
                assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "{}", String::from_utf8_lossy(&got));
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap();
        let head = String::from_utf8_lossy(&got).into_owned();
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/connect+json"), "{head}");
        assert!(!rack.api.broken_off.is_cancelled());
    }
}

#[tokio::test]
async fn a_dead_machine_waits_no_longer() {
    for pulled in [false, true] {
        let rack = Rack::new().await;
        let token = rack.token(rack.a, A).await;
        let stream = rack.wait(rack.a, &token, A).await;
        rack.api.called("BootService/Wait", 1).await;
        assert!(!rack.api.broken_off.is_cancelled());
        // Unplugged, or its connection reset.
        if pulled {
            rack.unplug();
        } else {
            drop(stream);
        }
        let broken_off = rack.api.broken_off.cancelled();
        tokio::time::timeout(Duration::from_secs(5), broken_off).await.expect("the API must learn of it");
    }
}

#[tokio::test]
async fn refusals_are_errors_of_connect() {
    let rack = Rack::new().await;
    rack.token(rack.a, A).await;
    for (token, message) in [("", "POST /v1/token"), (&*bearer("x"), "live token")] {
        let reply = ask(rack.a, REGISTER, &format!("{JSON}{token}"), "{}").await;
        assert_eq!((reply.status, connect_code(&reply).as_str()), (401, "unauthenticated"), "{reply:?}");
        assert!(reply.json()["message"].as_str().unwrap().contains(message), "{reply:?}");
    }
    let mut stream = rack.wait(rack.a, "x", A).await;
    let mut got = [0; 2048];
    let read = stream.read(&mut got).await.unwrap();
    let text = String::from_utf8_lossy(&got[..read]).into_owned();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("application/connect+json"), "{text}");
    assert!(text.contains("\u{2}\0\0\0") && text.contains("\"code\":\"unauthenticated\""), "{text}");
    let token = bearer(&rack.token(rack.a, A).await);
    for procedure in [
        "metalstack.infra.v2.EventService/Send",
        "metalstack.api.v2.TokenService/Refresh",
        "metalstack.infra.v2.BootService/Dhcp",
    ] {
        let reply = ask(rack.a, &format!("POST /{procedure}"), &format!("{JSON}{token}"), "{}").await;
        assert_eq!((reply.status, connect_code(&reply).as_str()), (403, "permission_denied"), "{procedure}");
    }
    let reply = ask(rack.a, "GET /metalstack.infra.v2.BootService/Register", &token, "").await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    let reply = ask(rack.a, "POST /api/metalstack.infra.v2.BootService/Register", &token, "{}").await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "path-not-allowed"));
    rack.set_away(true);
    let reply = rack.register(rack.a, &rack.token(rack.a, A).await, A).await;
    assert_eq!((reply.status, connect_code(&reply).as_str()), (503, "unavailable"));
}

#[tokio::test]
async fn a_partition_may_withhold_calls_but_never_let_tokens_out() {
    let rack = Rack::new().await;
    let port = rack
        .proxy
        .open("Ethernet0", |service| {
            let rules = ["!POST /metalstack.infra.v2.BootService/SuperUserPassword", "POST /**"];
            service.context.settings.api_allow = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        })
        .await;
    let token = bearer(&rack.token(port, A).await);
    let call = async |procedure: &str| {
        let line = format!("POST /metalstack.{procedure}");
        ask(port, &line, &format!("{JSON}{token}"), &json!({ "uuid": A }).to_string()).await.status
    };
    assert_eq!(call("infra.v2.BootService/SuperUserPassword").await, 403);
    assert_eq!(call("api.v2.TokenService/Create").await, 403);
    assert_eq!(call("api.v2.%54okenService/Create").await, 403);
    assert_eq!(call("infra.v2.BootService/Register").await, 200);
    assert!(rack.api.calls("SuperUserPassword").is_empty());
    assert_eq!(rack.api.calls("TokenService/Create").len(), 1);
    // Without rules of its own, the partition's machines may ask for it.
    let token = bearer(&rack.token(rack.b, B).await);
    let line = "POST /metalstack.infra.v2.BootService/SuperUserPassword";
    let reply = ask(rack.b, line, &format!("{JSON}{token}"), &json!({ "uuid": B }).to_string()).await;
    assert_eq!(reply.json(), json!({ "superUserPassword": "fleet-wide" }));
}

#[tokio::test]
async fn the_api_learns_of_first_contacts_and_events() {
    let rack = Rack::new().await;
    let event = async |stage: &str| {
        let body = json!({ "stage": stage, "message": "disk 1 of 2" }).to_string();
        assert_eq!(ask(rack.a, "POST /v1/events", "", &body).await.status, 202);
    };
    event("Preparing").await;
    rack.token(rack.a, A).await;
    rack.token(rack.a, A).await;
    event("something else").await;
    event("Phoned Home").await;
    event("installing").await;
    let sent = rack.api.called("EventService/Send", 1).await;
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].bearer(), AGENT_TOKEN);
    let event = &sent[0].json()["events"][A];
    assert_eq!(event["event"], "MACHINE_PROVISIONING_EVENT_TYPE_INSTALLING");
    assert_eq!(event["message"], "disk 1 of 2");
    let dhcp = rack.api.called("BootService/Dhcp", 1).await;
    assert_eq!(dhcp.len(), 1, "once");
    assert_eq!(dhcp[0].json(), json!({ "uuid": A, "partition": "p1" }));
    rack.api.called("ComponentService/Ping", 1).await;
    let counted = ["kind=\"dhcp\",outcome=\"sent\"} 1", "kind=\"event\",outcome=\"unknown-machine\"} 1"];
    for labels in counted {
        assert!(
            rack.proxy.metric(&format!("switch_agent_metal_stack_v2_outbox_total{{{labels}")),
            "{labels}"
        );
    }

    // Plugged in again: another boot.
    rack.unplug();
    rack.api.called("TokenService/Revoke", 1).await;
    rack.token(rack.a, A).await;
    assert_eq!(rack.api.called("BootService/Dhcp", 2).await.len(), 2);
}

#[tokio::test]
async fn events_never_hold_a_machine_up() {
    let rack = Rack::new().await;
    rack.token(rack.a, A).await;
    rack.set_away(true);
    let started = std::time::Instant::now();
    for _ in 0..300 {
        assert_eq!(ask(rack.a, "POST /v1/events", "", "{\"stage\": \"alive\"}").await.status, 202);
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let text = rack.proxy.metrics.encode();
    let dropped = text.lines().find(|line| line.contains("kind=\"event\",outcome=\"dropped\"")).expect(&text);
    let count: u64 = dropped.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((40..=45).contains(&count), "{dropped}");
}

#[tokio::test]
async fn the_token_behind_a_handle_is_exchanged_in_time() {
    let rack = Rack::new().await;
    let handle = rack.token(rack.a, A).await;
    assert_eq!(rack.register(rack.a, &handle, A).await.status, 200);
    // The API forgot its tokens: one call fails, the next one has a new token behind the same handle.
    rack.api.state.lock().unwrap().tokens.clear();
    let reply = rack.register(rack.a, &handle, A).await;
    assert_eq!((reply.status, connect_code(&reply).as_str()), (401, "unauthenticated"));
    assert_eq!(rack.register(rack.a, &handle, A).await.status, 200);
    assert_eq!(rack.api.calls("TokenService/Create").len(), 2);
    // Expired, and nobody there to make another.
    rack.api.state.lock().unwrap().tokens.clear();
    assert_eq!(rack.register(rack.a, &handle, A).await.status, 401);
    rack.set_away(true);
    let reply = rack.register(rack.a, &handle, A).await;
    assert_eq!((reply.status, connect_code(&reply).as_str()), (503, "unavailable"), "{reply:?}");
    rack.set_away(false);
    assert_eq!(rack.register(rack.a, &handle, A).await.status, 200);
}

#[tokio::test]
async fn machines_may_hold_the_token_itself() {
    let rack = Rack::with(MachineToken::Token, fast(), false).await;
    let body = format!("{{\"machine_id\": \"{A}\"}}");
    let reply = ask(rack.a, "POST /v1/token", "Boot-Token: request\r\n", &body).await.json();
    let token = format!("eyJ-secret-0-{A}");
    assert_eq!((&reply["token"], &reply["handle"]), (&token.as_str().into(), &false.into()));
    assert_eq!(rack.api.calls("TokenService/Create")[0].json()["expires"], "86400s");
    assert_eq!(rack.register(rack.a, &token, A).await.status, 200);
    // It is bound to its port all the same, and ends at the API too.
    assert_eq!(rack.register(rack.b, &token, A).await.status, 401);
    rack.unplug();
    assert_eq!(rack.register(rack.a, &token, A).await.status, 401);
    rack.api.called("TokenService/Revoke", 1).await;
    assert!(rack.api.state.lock().unwrap().tokens.is_empty());
    // Without a machine id there is nothing to make a token for.
    let reply = ask(rack.a, "POST /v1/token", "Boot-Token: request\r\n", "").await;
    assert_eq!((reply.status, reply.error().as_str()), (400, "machine-id-required"));
}

#[tokio::test]
async fn an_agent_without_a_token_says_so() {
    let rack = Rack::new().await;
    let mut spec = rack.proxy.discovery.upstream().unwrap().spec;
    spec.token_file = None;
    rack.proxy.discovery.set_upstream(Some(spec.clone())).await;
    let reply = rack.config(rack.a, A).await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "agent-token-missing"), "{reply:?}");
    spec.token_file = Some(rack.proxy.directory.write("other", "another-token"));
    rack.proxy.discovery.set_upstream(Some(spec)).await;
    let reply = rack.config(rack.a, A).await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "agent-not-allowed"), "{reply:?}");
    assert!(!reply.body.contains("another-token"));
}

#[tokio::test]
async fn replies_with_secrets_are_marked() {
    let minted = Minted { token: Secret::handle().unwrap(), expires_at: 0, handle: true };
    let reply = token_reply(&minted);
    assert_eq!(reply.extensions().get::<TokenBearing>(), Some(&TokenBearing));
    assert!(!format!("{minted:?}").contains(minted.token.expose()));
    // Nothing secret is counted either.
    let rack = Rack::new().await;
    let token = rack.token(rack.a, A).await;
    rack.register(rack.a, &token, A).await;
    let text = rack.proxy.metrics.encode();
    for secret in [token.as_str(), "secret-", AGENT_TOKEN, A] {
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(!format!("{:?}", rack.proxy.discovery.shared.tokens).contains("secret-"));
    expect_none_logged();
}

//! Dialect `metal-stack-v1`: metal-hammer's way through the proxy, and what does not get through.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use switch_agent_core::desired::Dialect;
use switch_agent_core::discovery::Limits;
use switch_agent_core::discovery::metal_stack_v1::procedure::Procedure;
use switch_agent_core::ra::LinkEvent;
use tokio_util::sync::CancellationToken;

use super::metal_api::{FLEET_KEY, Machine, MetalApi, call, naming, request};
use super::support::{Proxy, ask, fast};

const A: &str = "00112233-4455-6677-8899-aabbccddeeff";
const B: &str = "00112233-4455-6677-8899-aabbccddee00";
/// What must happen at once may take this long on a busy machine.
const SOON: Duration = Duration::from_secs(1);

async fn booted() -> (Proxy, MetalApi, Machine) {
    let proxy = Proxy::new();
    let api = MetalApi::start(&proxy).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let machine = Machine::boot(port).await;
    (proxy, api, machine)
}

fn plain(procedure: Procedure, uuid: &str) -> ::http::Request<http_body_util::Full<Bytes>> {
    request(procedure, naming(procedure, uuid), &[])
}

/// Starts to wait, and reads until the first message.
async fn waiting(machine: &Machine) -> (Incoming, CancellationToken) {
    let (mut sender, life) = machine.sender().await;
    let response = sender.send_request(plain(Procedure::Wait, A)).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), Bytes::from_static(&[0; 5]));
    (body, life)
}

/// How the rest of a stream ends: `grpc-status`, or `None` where it was reset.
async fn end(body: Incoming) -> Option<String> {
    let collected = http_body_util::BodyExt::collect(body).await.ok()?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Some(trailers.get("grpc-status").map_or(String::new(), |value| value.to_str().unwrap().to_owned()))
}

#[tokio::test]
async fn a_machine_is_configured_with_the_ports_own_credentials() {
    let (_proxy, _api, machine) = booted().await;
    let config = machine.config.as_object().unwrap();
    let names: Vec<&str> = config.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["debug", "address", "metal_api_url", "pixie_api_url", "ca_cert", "cert", "key", "hmac", "partition"]
    );
    let port = machine.port;
    assert_eq!(config["address"], format!("[2001:db8:0:1::1]:{port}"));
    assert_eq!(config["metal_api_url"], format!("http://[2001:db8:0:1::1]:{port}/metal"));
    assert_eq!(config["partition"], "p1");
    assert_ne!(config["hmac"], FLEET_KEY);
    // Another machine's share nothing but the authority.
    let other = Machine::boot(_proxy.open("Ethernet4", |_| {}).await).await;
    for field in ["cert", "key", "hmac", "address"] {
        assert_ne!(machine.config[field], other.config[field], "{field}");
    }
    assert_eq!(machine.config["ca_cert"], other.config["ca_cert"]);
    let forwarded = ask(port, "GET /certs", "X-Forwarded-For: ::9\r\n", "").await;
    assert_eq!((forwarded.status, forwarded.error().as_str()), (403, "forwarded-request"));
}

#[tokio::test]
async fn metal_hammer_boots_with_the_fleets_credentials_unseen() {
    let (_proxy, api, machine) = booted().await;
    let (sender, _life) = machine.sender().await;
    use Procedure::{Register, Report, Send, SuperUserPassword, Wait};
    for procedure in [Send, SuperUserPassword, Register] {
        let called = call(&sender, plain(procedure, A)).await.unwrap();
        assert_eq!((called.http, called.status()), (200, Some("0")), "{procedure:?} {called:?}");
        assert_eq!(called.body, Bytes::from_static(b"\0\0\0\0\x03\x0a\x01x"));
        assert_eq!(called.trailers.unwrap()["x-kept"], "yes");
    }
    let reply = machine.rest(&format!("/v1/machine/{A}"), "salt1").await;
    assert_eq!((reply.status, reply.json()["id"].as_str()), (200, Some(A)), "{reply:?}");
    let waits = tokio::spawn({
        let sender = sender.clone();
        async move { call(&sender, plain(Wait, A)).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waits.is_finished());
    api.allocate();
    let waited = waits.await.unwrap();
    assert_eq!(waited.status(), Some("0"));
    assert!(waited.body.len() >= 10, "messages are passed on as they come");
    assert_eq!(call(&sender, plain(Report, A)).await.unwrap().status(), Some("0"));
    // The first contact is told once, before anything else.
    assert_eq!(api.names(), ["Dhcp", "Send", "SuperUserPassword", "Register", A, "Wait", "Report"]);
    let asked = api.asked();
    assert_eq!(asked[0].body, naming(Procedure::Dhcp, A));
    assert_eq!(asked[1].body, naming(Send, A));
    // metal-api sees the real key and the switch's clock.
    let rest = &asked[4];
    assert_eq!(rest.path, format!("/metal/v1/machine/{A}"));
    let field = |name: &str| rest.headers[name].to_str().unwrap().to_owned();
    let date: jiff::Timestamp = field("x-date").parse().unwrap();
    assert!((jiff::Timestamp::now().as_second() - date.as_second()).abs() < 10);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, FLEET_KEY.as_bytes());
    let signed = [field("x-date"), "GET".to_owned(), field("x-data-salt")].concat();
    let tag = ring::hmac::sign(&key, signed.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(field("authorization"), format!("Metal-View {hex}"));
}

#[tokio::test]
async fn credentials_of_another_port_open_nothing() {
    let (proxy, api, a) = booted().await;
    let other = proxy.open("Ethernet4", |_| {}).await;
    let b = Machine::boot(other).await;
    // A's certificate on B's port, and none at all.
    for (port, certificate) in [(other, true), (other, false), (a.port, false)] {
        let answered = match a.connect(port, certificate).await {
            Ok((sender, _life)) => call(&sender, plain(Procedure::Register, A)).await.is_ok(),
            Err(_) => false,
        };
        assert!(!answered, "{port} {certificate}");
    }
    assert!(proxy.metrics.encode().contains("proxy_rejected_total{reason=\"tls-handshake\"} 3"));
    // A's key on B's port, and the fleet's anywhere else than at metal-api.
    let path = format!("/v1/machine/{A}");
    for key in [a.config["hmac"].as_str().unwrap(), FLEET_KEY] {
        let reply = b.rest_with(key, &path, "salt1").await;
        assert_eq!((reply.status, reply.error().as_str()), (401, "signature-invalid"));
    }
    assert_eq!(api.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_port_speaks_for_one_machine() {
    let (proxy, api, machine) = booted().await;
    let (sender, _life) = machine.sender().await;
    assert_eq!(call(&sender, plain(Procedure::Register, A)).await.unwrap().status(), Some("0"));
    for procedure in Procedure::ALL.into_iter().filter(|p| *p != Procedure::SuperUserPassword) {
        let called = call(&sender, plain(procedure, B)).await.unwrap();
        assert_eq!((called.http, called.status()), (200, Some("7")), "{procedure:?}");
    }
    let two = [&naming(Procedure::Send, A)[5..], &naming(Procedure::Send, B)[5..]].concat();
    let mut body = vec![0, 0, 0, 0, u8::try_from(two.len()).unwrap()];
    body.extend(two);
    let called = call(&sender, request(Procedure::Send, body.into(), &[])).await.unwrap();
    assert_eq!(called.status(), Some("7"));
    let reply = machine.rest(&format!("/v1/machine/{B}"), "salt1").await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-id-other"));
    assert_eq!(api.names(), ["Dhcp", "Register"]);
    assert!(proxy.metrics.encode().contains("proxy_rejected_total{reason=\"machine-id-other\"} 8"));
}

#[tokio::test]
async fn a_machine_is_on_one_port_of_the_switch() {
    let (proxy, _api, a) = booted().await;
    let (sender, _life) = a.sender().await;
    assert_eq!(call(&sender, plain(Procedure::Register, A)).await.unwrap().status(), Some("0"));
    let b = Machine::boot(proxy.open("Ethernet4", |_| {}).await).await;
    let (sender, _life) = b.sender().await;
    let called = call(&sender, plain(Procedure::Register, A)).await.unwrap();
    assert_eq!(called.status(), Some("7"));
    let reply = b.rest(&format!("/v1/machine/{A}"), "salt1").await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-id-taken"));
    // Its cable left the first port: it is here now, and nothing of it is left there.
    proxy.discovery.link(&link(false));
    assert_eq!(call(&sender, plain(Procedure::Register, A)).await.unwrap().status(), Some("0"));
    assert_eq!(a.rest(&format!("/v1/machine/{A}"), "salt1").await.status, 401);
}

/// A proxy that was there before, over its state directory.
#[tokio::test]
async fn credentials_outlive_a_restart_of_the_agent() {
    let (proxy, _api, machine) = booted().await;
    let (sender, _life) = machine.sender().await;
    assert_eq!(call(&sender, plain(Procedure::Register, A)).await.unwrap().status(), Some("0"));
    let file = proxy.directory.0.join("state/machine-credentials.json");
    for _ in 0..100 {
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        if kept.contains(A) && kept.contains("\"greetings_left\":0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let fresh = |kept: Option<(&str, &str)>| {
        let (after, file) = (Proxy::new(), file.clone());
        let text = std::fs::read_to_string(&file).unwrap();
        let text = kept.map_or(text.clone(), |(from, to)| text.replace(from, to));
        std::fs::create_dir_all(after.directory.0.join("state")).unwrap();
        std::fs::copy(file.with_file_name("machine-ca.p8"), after.directory.0.join("state/machine-ca.p8"))
            .unwrap();
        std::fs::write(after.directory.0.join("state/machine-credentials.json"), text).unwrap();
        after
    };
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for (kept, good) in [(None, true), (Some((boot_id.trim(), "another")), false), (Some(("{", "[")), false)]
    {
        let after = fresh(kept);
        let api = MetalApi::start(&after).await;
        let port = after.open("Ethernet0", |_| {}).await;
        let status = match machine.connect(port, true).await {
            Ok((sender, _life)) => {
                let called = call(&sender, plain(Procedure::Register, A)).await.ok();
                let other = call(&sender, plain(Procedure::Register, B)).await.ok();
                (
                    called.map(|called| called.status() == Some("0")),
                    other.map(|other| other.status() == Some("7")),
                )
            }
            Err(_) => (None, None),
        };
        assert_eq!(status, if good { (Some(true), Some(true)) } else { (None, None) }, "{kept:?}");
        // The first contact was told before.
        assert_eq!(api.names(), if good { vec!["Register"] } else { Vec::new() });
    }
}

#[tokio::test]
async fn a_request_is_bound_to_the_mac() {
    let (proxy, api, machine) = booted().await;
    let (sender, _life) = machine.sender().await;
    let other = "52:54:00:00:00:99".parse().unwrap();
    for mac in proxy.neighbors.0.lock().unwrap().values_mut() {
        *mac = other;
    }
    let called = call(&sender, plain(Procedure::Register, A)).await.unwrap();
    assert_eq!(called.status(), Some("16"));
    let reply = machine.rest(&format!("/v1/machine/{A}"), "salt1").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "credentials-other-mac"));
    assert_eq!(api.names(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_allowed_is_not_forwarded() {
    let (proxy, api, machine) = booted().await;
    let (sender, _life) = machine.sender().await;
    let boot = request(Procedure::Wait, naming(Procedure::Wait, A), &[]);
    let (mut parts, body) = boot.into_parts();
    parts.uri = "https://proxy/api.v1.BootService/Boot".parse().unwrap();
    let called = call(&sender, ::http::Request::from_parts(parts, body)).await.unwrap();
    assert_eq!(called.status(), Some("7"));
    let gzip = request(Procedure::Register, naming(Procedure::Register, A), &[("grpc-encoding", "gzip")]);
    let called = call(&sender, gzip).await.unwrap();
    assert_eq!(
        (called.status(), &called.headers["grpc-accept-encoding"]),
        (Some("12"), &"identity".parse().unwrap())
    );
    let torn = request(Procedure::Register, Bytes::from_static(b"\0\0\0\0\x09x"), &[]);
    assert_eq!(call(&sender, torn).await.unwrap().status(), Some("13"));
    let nameless = request(Procedure::Register, Bytes::from_static(b"\0\0\0\0\0"), &[]);
    assert_eq!(call(&sender, nameless).await.unwrap().status(), Some("3"));
    // Without TLS there is no gRPC.
    let fields = "Content-Type: application/grpc\r\n";
    let reply = ask(machine.port, "POST /api.v1.BootService/Register", fields, "x").await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "certificate-required"));
    // REST beyond the one path, unsigned, and signed with what was used before.
    let reply = machine.rest("/v1/switch/leaf1", "salt1").await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "path-not-allowed"));
    let reply = ask(machine.port, &format!("GET /metal/v1/machine/{A}"), "", "").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "signature-required"));
    let path = format!("/v1/machine/{A}");
    assert_eq!(machine.rest(&path, "salt1").await.status, 200);
    let reply = machine.rest(&path, "salt1").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "signature-replayed"));
    assert_eq!(machine.rest(&path, "salt2").await.status, 200);
    assert_eq!(api.names(), ["Dhcp", A, A]);
    // A partition may withhold a procedure.
    let port = proxy
        .open("Ethernet8", |service| {
            let rules = ["!POST /api.v1.BootService/SuperUserPassword", "POST|GET /**"];
            service.context_mut().settings_mut().api_allow = rules.map(|rule| rule.parse().unwrap()).to_vec();
        })
        .await;
    let machine = Machine::boot(port).await;
    let (sender, _life) = machine.sender().await;
    // What is allowed beyond the default is still about the one machine, and read only.
    let reply = ask(port, &format!("POST /metal/v1/machine/{B}"), "", "").await;
    assert_eq!((reply.status, reply.error().as_str()), (405, "method-not-allowed"));
    assert_eq!(machine.rest("/v1/switch/leaf1", "salt1").await.status, 404);
    let called = call(&sender, plain(Procedure::SuperUserPassword, B)).await.unwrap();
    assert_eq!(called.status(), Some("7"));
    assert_eq!(call(&sender, plain(Procedure::Register, B)).await.unwrap().status(), Some("0"));
}

#[tokio::test]
async fn messages_may_have_four_mebibytes() {
    let (_proxy, api, machine) = booted().await;
    let (sender, _life) = machine.sender().await;
    let sized = |length: usize| {
        let mut message = naming(Procedure::Register, A)[5..].to_vec();
        // Field 2, padded to the length wanted: a varint of four bytes tells its own.
        let rest = length - message.len() - 5;
        message.push(0x12);
        message.extend((0..4).map(|at| {
            let low = u8::try_from(rest >> (7 * at) & 0x7f).unwrap();
            if at < 3 { low | 0x80 } else { low }
        }));
        message.resize(length, 7);
        let mut body = vec![0];
        body.extend(u32::try_from(length).unwrap().to_be_bytes());
        body.extend(message);
        request(Procedure::Register, body.into(), &[])
    };
    assert_eq!(call(&sender, sized(4 << 20)).await.unwrap().status(), Some("0"));
    assert_eq!(api.asked().last().unwrap().body.len(), (4 << 20) + 5);
    let called = call(&sender, sized((4 << 20) + 1)).await.unwrap();
    assert_eq!(called.status(), Some("8"));
    assert_eq!(api.names(), ["Dhcp", "Register"]);
}

#[tokio::test]
async fn a_handshake_counts_as_a_request() {
    let limits = Limits { request_rate: 1, request_burst: 4, ..Limits::default() };
    let proxy = Proxy::with(limits);
    let _api = MetalApi::start(&proxy).await;
    let machine = Machine::boot(proxy.open("Ethernet0", |_| {}).await).await;
    let mut made = 0;
    for _ in 0..8 {
        made += u32::from(machine.connect(machine.port, true).await.is_ok());
    }
    assert!((1..=5).contains(&made), "{made} handshakes");
    assert!(proxy.metrics.encode().contains("proxy_rejected_total{reason=\"too-many-requests\"}"));
}

#[tokio::test]
async fn a_lost_api_is_never_told_as_an_allocation() {
    let (_proxy, api, machine) = booted().await;
    let (body, _life) = waiting(&machine).await;
    api.kill();
    assert_eq!(tokio::time::timeout(SOON * 5, end(body)).await.unwrap().as_deref(), Some("14"));
    // Down from the start.
    let (sender, _life) = machine.sender().await;
    for procedure in [Procedure::Wait, Procedure::Register] {
        let called = call(&sender, plain(procedure, A)).await.unwrap();
        assert_eq!((called.http, called.status()), (503, None), "{procedure:?}");
    }
    assert_eq!(machine.rest(&format!("/v1/machine/{A}"), "salt1").await.status, 503);
}

#[tokio::test]
async fn only_metal_apis_own_status_is_passed_on() {
    let (_proxy, api, machine) = booted().await;
    let (sender, _life) = machine.sender().await;
    // Some other server's 404 would make the machine reboot.
    let wait = naming(Procedure::Wait, A);
    let called = call(&sender, request(Procedure::Wait, wait.clone(), &[("x-test", "not-found")])).await;
    assert_eq!(called.unwrap().http, 503);
    // A stream that just ends would make it install.
    api.allocate();
    for end in ["no-trailers", "no-status"] {
        let called = call(&sender, request(Procedure::Wait, wait.clone(), &[("x-test", end)])).await.unwrap();
        assert_eq!(called.status(), Some("14"), "{end}");
    }
}

#[tokio::test]
async fn a_machine_may_wait_in_silence() {
    let limits = Limits {
        upstream_header_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(100),
        body_stall_timeout: Duration::from_millis(100),
        ..fast()
    };
    let proxy = Proxy::with(limits);
    let api = MetalApi::start(&proxy).await;
    let machine = Machine::boot(proxy.open("Ethernet0", |_| {}).await).await;
    let (sender, _life) = machine.sender().await;
    let silent = request(Procedure::Wait, naming(Procedure::Wait, A), &[("x-test", "silent")]);
    let waits = tokio::spawn(async move { call(&sender, silent).await.unwrap() });
    tokio::time::sleep(SOON).await;
    assert!(!waits.is_finished());
    api.allocate();
    assert_eq!(waits.await.unwrap().status(), Some("0"));
}

#[tokio::test]
async fn metal_api_learns_at_once_that_a_waiting_machine_died() {
    let (_proxy, api, machine) = booted().await;
    let (body, life) = waiting(&machine).await;
    // The process is gone, its kernel ends the connection.
    life.cancel();
    assert!(api.cancelled_within(SOON).await);
    drop(body);
}

fn link(carrier: bool) -> LinkEvent {
    LinkEvent {
        ifindex: 1,
        name: "Ethernet0".to_owned(),
        link_local: None,
        carrier,
        master: None,
        gone: false,
    }
}

#[tokio::test]
async fn credentials_end_with_the_stay_of_their_machine() {
    type Change = fn(&Proxy, u16) -> futures_util::future::BoxFuture<'_, ()>;
    let changes: [(&str, Change); 3] = [
        ("cable out and in, and another machine asks", |proxy, port| {
            Box::pin(async move {
                proxy.discovery.link(&link(false));
                proxy.discovery.link(&link(true));
                Machine::boot(port).await;
            })
        }),
        ("partition", |proxy, port| {
            Box::pin(async move {
                let mut service = super::support::service("Ethernet0", port);
                service.context_mut().partition = "p2".parse().unwrap();
                proxy.discovery.set(service).await.unwrap();
            })
        }),
        ("another dialect", |proxy, _| {
            Box::pin(async move {
                let mut spec = proxy.discovery.upstream().unwrap().spec;
                spec.dialect = Dialect::Generic;
                spec.metal_stack_v1 = None;
                proxy.discovery.set_upstream(Some(spec)).await;
            })
        }),
    ];
    for (what, change) in changes {
        let (proxy, api, machine) = booted().await;
        let (body, _life) = waiting(&machine).await;
        change(&proxy, machine.port).await;
        assert!(api.cancelled_within(SOON).await, "{what}");
        assert_ne!(end(body).await.as_deref(), Some("0"), "{what}");
        let answered = match machine.connect(machine.port, true).await {
            Ok((sender, _life)) => call(&sender, plain(Procedure::Wait, A)).await.is_ok(),
            Err(_) => false,
        };
        assert!(!answered, "{what}");
        let reply = machine.rest(&format!("/v1/machine/{A}"), "salt1").await;
        assert_ne!(reply.status, 200, "{what}");
    }
}

#[tokio::test]
async fn a_short_loss_of_carrier_leaves_the_machine_its_credentials() {
    let (proxy, _api, machine) = booted().await;
    proxy.discovery.link(&link(false));
    proxy.discovery.link(&link(true));
    let (sender, _life) = machine.sender().await;
    assert_eq!(call(&sender, plain(Procedure::Register, A)).await.unwrap().status(), Some("0"));
}

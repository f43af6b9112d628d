//! A control API that comes and goes, and files that are exchanged.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use switch_agent_core::discovery::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::control_api::{Api, Ca};
use super::raw_api::{Manner, RawApi};
use super::support::{Proxy, ask, bearer, fast, token};
use crate::http::upstream::files;

async fn bearer_of(port: u16) -> String {
    bearer(&token(port).await)
}

#[tokio::test]
async fn what_was_not_sent_is_tried_again() {
    let (proxy, ca) = (Proxy::new(), Ca::new());
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    let port = proxy.open("Ethernet0", |_| {}).await;
    let bearer = bearer(&token(port).await);
    for (line, body) in [("GET /api/v1", ""), ("POST /api/v1", "hello")] {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut spec = Api::start(&ca, &["127.0.0.1"], true).await.spec("127.0.0.1", &ca_file);
        spec.port = free.port();
        proxy.discovery.set_upstream(Some(spec)).await;
        let late = async {
            tokio::time::sleep(Duration::from_millis(40)).await;
            Api::at(ca.server(&["127.0.0.1"]), free).await
        };
        let (reply, api) = tokio::join!(ask(port, line, &bearer, body), late);
        assert_eq!(reply.status, 200, "{line}: {reply:?}");
        assert_eq!(api.last().body, body);
    }
    assert!(proxy.metrics.encode().contains("switch_agent_proxy_upstream_retries_total "));
    assert!(!proxy.metric("switch_agent_proxy_upstream_retries_total 0"));
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    let (proxy, ca) = (Proxy::new(), Ca::new());
    let api = RawApi::start(&ca, Manner::HangUp).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    let mut spec = Api::start(&ca, &["127.0.0.1"], true).await.spec("127.0.0.1", &ca_file);
    spec.port = api.address.port();
    proxy.discovery.set_upstream(Some(spec)).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let bearer = bearer(&token(port).await);
    for (line, body, times) in
        [("POST /api/v1", "", 1), ("POST /api/v1", "a", 1), ("PUT /api/v1", "a", 1), ("GET /api/v1", "", 3)]
    {
        let reply = ask(port, line, &bearer, body).await;
        assert_eq!((reply.status, reply.error().as_str()), (502, "upstream-broken"), "{line}");
        let got = api.take();
        assert_eq!(got.len(), times, "{line}: {got:?}");
    }
}

#[tokio::test]
async fn an_api_that_is_away_is_left_alone_and_found_again() {
    let limits = Limits { upstream_attempts: 1, breaker_failures: 3, ..fast() };
    let (proxy, ca) = (Proxy::with(limits), Ca::new());
    let config = proxy.directory.write("config.json", "{}");
    let port = proxy
        .open("Ethernet0", |service| {
            service.context_mut().settings_mut().machine_config_file = Some(config.clone())
        })
        .await;
    let bearer = bearer(&token(port).await);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    let mut spec = Api::start(&ca, &["127.0.0.1"], true).await.spec("127.0.0.1", &ca_file);
    spec.port = free.port();
    proxy.discovery.set_upstream(Some(spec)).await;
    let get = async || ask(port, "GET /api/v1", &bearer, "").await;
    for _ in 0..3 {
        assert_eq!(get().await.error(), "upstream-unavailable");
    }
    let reply = get().await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "upstream-suspended"), "{reply:?}");
    assert!(reply.body.contains("upstream-unavailable"), "{reply:?}");
    let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&after), "{after}");
    assert!(proxy.metric("switch_agent_proxy_upstream_suspended 1"));
    let boots = proxy.discovery.shared.hub.boots(&"Ethernet0".parse().unwrap());
    let api = boots[0].entries.iter().find(|entry| entry.stage.kind() == "api").unwrap();
    assert_eq!((api.count, api.detail.as_deref()), (4, Some("503")), "the timeline says where it stopped");
    // What needs no control API is served all the same.
    for line in ["GET /v1/boot", "GET /boot.ipxe", "GET /healthz"] {
        assert_eq!(ask(port, line, "", "").await.status, 200, "{line}");
    }
    assert_eq!(ask(port, "GET /v1/boot", "", "").await.json()["config_age_s"], 0);

    // No token either, which nobody could take; asked for just before the control API is back.
    let mint = async || ask(port, "POST /v1/token", "Boot-Token: request\r\n", "").await;
    assert_eq!(mint().await.status, 503);
    let back = Instant::now();
    let _api = Api::at(ca.server(&["127.0.0.1"]), free).await;
    while mint().await.status != 200 {
        assert!(back.elapsed() < Duration::from_secs(5), "no token yet");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let bearer = bearer_of(port).await;
    let get = async || ask(port, "GET /api/v1", &bearer, "").await;
    while get().await.status != 200 {
        assert!(back.elapsed() < Duration::from_secs(5), "not found again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(proxy.metric("switch_agent_proxy_upstream_suspended 0"));
}

/// What is not configured any more raises no alarm.
#[tokio::test]
async fn an_api_that_is_configured_no_more_leaves_no_figures() {
    let (proxy, ca) = (Proxy::with(fast()), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], true).await;
    assert!(proxy.metric("switch_agent_proxy_upstream_usable 1"));
    let expiry = "switch_agent_proxy_certificate_expiry_timestamp_seconds{";
    for file in [proxy.directory.write("ca.pem", &ca.pem), proxy.directory.write("broken.pem", "-----")] {
        proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &file))).await;
        let deadline = Instant::now() + Duration::from_secs(5);
        let told = || match file.contains("broken") {
            true => proxy.metric("switch_agent_proxy_upstream_usable 0"),
            false => proxy.metrics.encode().contains(expiry),
        };
        while !told() {
            assert!(Instant::now() < deadline, "{file}: {}", proxy.metrics.encode());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    proxy.discovery.set_upstream(None).await;
    assert!(proxy.metric("switch_agent_proxy_upstream_usable 1"));
    assert!(!proxy.metrics.encode().contains(expiry));
}

/// A slow or failing path of one machine must not shut out the others.
#[tokio::test]
async fn no_machine_can_have_the_api_left_alone() {
    let limits = Limits { upstream_header_timeout: Duration::from_millis(50), breaker_failures: 1, ..fast() };
    let (proxy, ca) = (Proxy::with(limits), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], false).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let bearer = bearer(&token(port).await);
    for _ in 0..5 {
        assert_eq!(ask(port, "GET /api/silent", &bearer, "").await.error(), "upstream-timeout");
    }
    assert_eq!(ask(port, "GET /api/v1", &bearer, "").await.status, 200);
}

#[tokio::test]
async fn a_stream_survives_every_reload() {
    let (proxy, ca) = (Proxy::new(), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], false).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let bearer = bearer(&token(port).await);
    let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
    let head = format!("GET /api/endless HTTP/1.1\r\nHost: x\r\n{bearer}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = [0; 512];
    let mut flows = async || {
        for _ in 0..3 {
            let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut got)).await;
            assert_ne!(read.expect("the stream stopped").unwrap(), 0, "the stream ended");
        }
    };
    flows().await;
    let upstream = proxy.discovery.shared.current_upstream().unwrap();
    proxy.directory.write("ca.pem", &format!("\n{}", ca.pem));
    upstream.refresh();
    flows().await;
    proxy.directory.write("ca.pem", "broken");
    upstream.refresh();
    assert!(proxy.discovery.upstream().unwrap().error.is_some());
    flows().await;
    assert_eq!(ask(port, "GET /api/v1", &bearer, "").await.status, 200, "the old client stays");
    let mut service = proxy.discovery.observed().0.into_values().next().unwrap();
    service.context_mut().settings_mut().ntp_servers.clear();
    service.context_mut().alias = "new".into();
    proxy.discovery.set(service).await.unwrap();
    proxy.discovery.set_upstream(Some(api.spec("localhost", "/nonexistent"))).await;
    flows().await;
}

#[tokio::test]
async fn secrets_that_others_may_read_are_told_of() {
    let (proxy, ca) = (Proxy::new(), Ca::new());
    let (cert, key) = ca.leaf(&["leaf1"], |_| {});
    let api = Api::start(&ca, &["127.0.0.1"], true).await;
    let mut spec = api.spec("127.0.0.1", &proxy.directory.write("ca.pem", &ca.pem));
    let key_file = proxy.directory.write("client.key", &key);
    spec.client_cert_file = Some(proxy.directory.write("client.pem", &cert));
    spec.client_key_file = Some(key_file.clone());
    for (mode, loose) in [(0o600, false), (0o640, true), (0o604, true), (0o400, false)] {
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(mode)).unwrap();
        let told = files::load(&spec).unwrap().loose;
        assert_eq!(told, if loose { vec![key_file.clone()] } else { Vec::new() }, "{mode:o}");
    }
    proxy.discovery.set_upstream(Some(spec)).await;
    let told = async || {
        while !proxy
            .metric("switch_agent_proxy_certificate_expiry_timestamp_seconds{file=\"client\"} 67090118400")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), told()).await.expect("the expiry is told");
}

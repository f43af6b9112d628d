//! Machines that hold a handle while the token stays on the switch.

use std::time::Duration;

use switch_agent_core::desired::MachineToken;
use switch_agent_core::identity::{JwsKind, MachineClaims};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::control_api::{Api, Ca};
use super::support::{MAC, Proxy, ask, bearer, token, unplugged};

async fn with_api() -> (Proxy, Api, u16) {
    let (proxy, ca) = (Proxy::new(), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], false).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    let mut spec = api.spec("127.0.0.1", &ca_file);
    spec.machine_token = MachineToken::Handle;
    proxy.discovery.set_upstream(Some(spec)).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    (proxy, api, port)
}

#[tokio::test]
async fn the_api_gets_the_token_and_the_machine_a_handle() {
    let (proxy, api, port) = with_api().await;
    let id = "3f2b1c4e-0000-4000-8000-000000000001";
    let body = format!("{{\"machine_id\": \"{id}\"}}");
    let reply = ask(port, "POST /v1/token", "Boot-Token: request\r\n", &body).await.json();
    assert_eq!(reply["handle"], true);
    let handle = reply["token"].as_str().unwrap();
    assert_eq!(handle.len(), 43, "256 bits in base64url");
    assert_eq!(ask(port, "GET /api/v1", &bearer(handle), "").await.status, 200);
    let headers = api.last().headers;
    let sent = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let claims: MachineClaims = proxy.signer.verify(JwsKind::MachineToken, sent).unwrap();
    assert_eq!((claims.sub.as_str(), claims.mac.to_string().as_str()), ("Ethernet0", MAC));
    assert_eq!(claims.machine_id.as_deref(), Some(id));
    assert_eq!(headers.get_all("authorization").iter().count(), 1);
    // The token behind it would open nothing here, even if the machine had it.
    assert_eq!(ask(port, "GET /api/v1", &bearer(sent), "").await.error(), "token-invalid");
}

#[tokio::test]
async fn a_handle_is_good_in_its_place_only() {
    let (proxy, api, port) = with_api().await;
    let other = proxy.open("Ethernet4", |_| {}).await;
    let (own, theirs) = (token(port).await, token(other).await);
    let refused = async |token: &str| ask(port, "GET /api/v1", &bearer(token), "").await.error();
    assert_eq!(refused(&theirs).await, "token-invalid");
    let mut near = own.clone();
    near.replace_range(0..1, if near.starts_with('A') { "B" } else { "A" });
    assert_eq!(refused(&near).await, "token-invalid");
    assert_eq!(refused("").await, "token-invalid");
    let newer = token(port).await;
    assert_eq!(refused(&own).await, "token-replaced");
    let entry = (1, "::1".parse().unwrap());
    proxy.neighbors.0.lock().unwrap().insert(entry, "52:54:00:00:00:02".parse().unwrap());
    assert_eq!(refused(&newer).await, "token-other-mac");
    proxy.neighbors.0.lock().unwrap().insert(entry, MAC.parse().unwrap());
    assert!(api.seen.lock().unwrap().is_empty(), "nothing may go upstream");
    assert_eq!(ask(port, "GET /api/v1", &bearer(&newer), "").await.status, 200);
    proxy.discovery.link(&unplugged());
    assert_eq!(refused(&newer).await, "token-revoked");
    assert_eq!(ask(other, "GET /api/v1", &bearer(&theirs), "").await.status, 200);
}

/// What a machine opened before it was unplugged does not go on behind its back.
#[tokio::test]
async fn streams_end_with_the_carrier_and_outlast_a_newer_token() {
    let (proxy, api, port) = with_api().await;
    let head = format!("GET /api/endless HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer(&token(port).await));
    let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = [0; 512];
    assert_ne!(stream.read(&mut got).await.unwrap(), 0);
    token(port).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!api.cancelled.is_cancelled(), "the machine's own newer token must not end its streams");
    proxy.discovery.link(&unplugged());
    tokio::time::timeout(Duration::from_secs(5), api.cancelled.cancelled()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_minted_while_the_api_is_away() {
    let (proxy, api, port) = with_api().await;
    let mut spec = proxy.discovery.upstream().unwrap().spec;
    spec.port = 1;
    proxy.discovery.set_upstream(Some(spec.clone())).await;
    let reply = ask(port, "POST /v1/token", "Boot-Token: request\r\n", "").await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "upstream-unavailable"), "{reply:?}");
    assert_eq!(reply.header("retry-after"), Some("5"));
    assert!(!proxy.metrics.encode().contains("proxy_tokens_minted_total 1"));
    assert_eq!(ask(port, "GET /v1/boot", "", "").await.status, 200);
    spec.port = api.address.port();
    proxy.discovery.set_upstream(Some(spec)).await;
    token(port).await;
}

#[tokio::test]
async fn another_mode_ends_all_tokens() {
    let (proxy, _api, port) = with_api().await;
    let handle = token(port).await;
    let mut spec = proxy.discovery.upstream().unwrap().spec;
    spec.machine_token = MachineToken::Token;
    proxy.discovery.set_upstream(Some(spec)).await;
    assert_eq!(ask(port, "GET /api/v1", &bearer(&handle), "").await.error(), "token-revoked");
    let reply = ask(port, "POST /v1/token", "Boot-Token: request\r\n", "").await.json();
    assert_eq!(reply["handle"], false);
    let text = reply["token"].as_str().unwrap();
    assert!(proxy.signer.verify::<MachineClaims>(JwsKind::MachineToken, text).is_ok());
}

#[tokio::test]
async fn one_mint_of_a_port_at_a_time() {
    let (proxy, _api, port) = with_api().await;
    let state = proxy.discovery.ports().open.values().next().unwrap().state.clone();
    let making = state.minting.lock().await;
    let reply = ask(port, "POST /v1/token", "Boot-Token: request\r\n", "").await;
    assert_eq!((reply.status, reply.error().as_str()), (429, "mint-in-flight"));
    drop(making);
    token(port).await;
}

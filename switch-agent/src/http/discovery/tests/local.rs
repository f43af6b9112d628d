//! What the proxy answers by itself.

use std::time::Duration;

use super::support::{Proxy, ask, bearer, token};
use crate::http::discovery::ServiceError;
use crate::http::listener::{Ingress, open, through_vrf};
use crate::wake::Reason;
use switch_agent_core::name::PortName;
use switch_agent_core::ra::LinkEvent;
use switch_agent_core::service::ListenerSpec;

#[tokio::test]
async fn boot_document_follows_the_context() {
    let proxy = Proxy::new();
    let config = proxy.directory.write("config.json", r#"{"image": "debian"}"#);
    let port = proxy
        .open("Ethernet0", |service| {
            service.context_mut().settings_mut().machine_config_file = Some(config.clone())
        })
        .await;
    let reply = ask(port, "GET /v1/boot", "", "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let document = reply.json();
    assert_eq!(document["port"]["name"], "Ethernet0");
    assert_eq!(document["machine"]["mac"], super::support::MAC);
    assert_eq!(document["machine"]["addresses"][0], "::1");
    assert_eq!(document["config"]["image"], "debian");

    // The operator breaks the file: machines keep the last good one.
    proxy.directory.write("config.json", "{");
    let document = ask(port, "GET /v1/boot", "", "").await.json();
    assert_eq!(document["config"]["image"], "debian");

    let mut updated = proxy.discovery.observed().0.into_values().next().unwrap();
    updated.context_mut().alias = "new".into();
    proxy.discovery.set(updated).await.unwrap();
    let document = ask(port, "GET /v1/boot", "", "").await.json();
    assert_eq!(document["port"]["alias"], "new");
}

#[tokio::test]
async fn an_unknown_machine_gets_facts_but_no_token() {
    let proxy = Proxy::new();
    proxy.neighbors.0.lock().unwrap().clear();
    let port = proxy.open("Ethernet0", |_| {}).await;
    let document = ask(port, "GET /v1/boot", "", "").await.json();
    assert_eq!(document["machine"]["mac"], serde_json::Value::Null);
    let reply = ask(port, "POST /v1/token", "Boot-Token: request\r\n", "").await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "machine-unknown"));
    assert_eq!(reply.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn ipxe_scripts_of_the_own_partition_only() {
    let proxy = Proxy::new();
    let port = proxy
        .open("Ethernet0", |service| {
            service.context_mut().settings_mut().boot_kernel_url = Some("http://c/k".to_owned())
        })
        .await;
    for path in ["GET /boot.ipxe", "GET /p1/boot.ipxe"] {
        let reply = ask(port, path, "", "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.body.starts_with("#!ipxe\n") && reply.body.contains("http://c/k"));
    }
    let reply = ask(port, "GET /p2/boot.ipxe", "", "").await;
    assert_eq!((reply.status, reply.error().as_str()), (404, "not-found"));
    assert_eq!(reply.json()["error"]["port"], "Ethernet0");
}

#[tokio::test]
async fn tokens_take_a_header_and_no_forwarder() {
    let proxy = Proxy::new();
    let port = proxy.open("Ethernet0", |_| {}).await;
    let cases = [
        ("", "boot-token-header-required", 400),
        ("Boot-Token: yes\r\n", "boot-token-header-required", 400),
        ("Boot-Token: request\r\nBoot-Token: request\r\n", "boot-token-header-required", 400),
        ("Boot-Token: request\r\nX-Forwarded-For: ::2\r\n", "forwarded-request", 403),
        ("Boot-Token: request\r\nVIA: 1.1 x\r\n", "forwarded-request", 403),
        ("Boot-Token: request\r\nx_forwarded_for: ::2\r\n", "forwarded-request", 403),
    ];
    for (fields, code, status) in cases {
        let reply = ask(port, "POST /v1/token", fields, "").await;
        assert_eq!((reply.status, reply.error().as_str()), (status, code), "{fields:?}");
    }
    let reply = ask(port, "GET /v1/token", "Boot-Token: request\r\n", "").await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    let reply = ask(port, "POST /v1/token", "Boot-Token: request\r\n", r#"{"machine_id": "no uuid"}"#).await;
    assert_eq!((reply.status, reply.error().as_str()), (400, "body-invalid"));

    let id = "3f2b1c4e-0000-4000-8000-000000000001";
    let body = format!("{{\"machine_id\": \"{id}\"}}");
    let reply = ask(port, "POST /v1/token", "Boot-Token: request\r\n", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.json()["handle"], true);
    assert!(reply.json()["expires_at"].as_str().unwrap().ends_with('Z'));
    let document = ask(port, "GET /v1/boot", "", "").await.json();
    assert_eq!(document["machine"]["id"], id);
    assert!(proxy.metric("switch_agent_proxy_tokens_minted_total 1"), "{}", proxy.metrics.encode());
}

#[tokio::test]
async fn minting_is_rated_per_port() {
    let proxy =
        Proxy::with(switch_agent_core::discovery::Limits { mints_per_minute: 2, ..super::support::fast() });
    let port = proxy.open("Ethernet0", |_| {}).await;
    token(port).await;
    token(port).await;
    let reply = ask(port, "POST /v1/token", "Boot-Token: request\r\n", "").await;
    assert_eq!((reply.status, reply.error().as_str()), (429, "too-many-tokens"));
    let other = proxy.open("Ethernet4", |_| {}).await;
    token(other).await;
}

#[tokio::test]
async fn events_are_taken_and_bounded() {
    let proxy = Proxy::new();
    let port = proxy.open("Ethernet0", |_| {}).await;
    let reply = ask(port, "POST /v1/events", "", r#"{"stage": "kernel", "message": "up\u001b[31m"}"#).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    for bad in ["", "{}", r#"{"stage": ""}"#, r#"{"stage": "a\n"}"#, r#"{"stage": "a", "port": "b"}"#] {
        assert_eq!(ask(port, "POST /v1/events", "", bad).await.status, 400, "{bad}");
    }
    let large = format!(r#"{{"stage": "a", "message": "{}"}}"#, "x".repeat(20_000));
    let reply = ask(port, "POST /v1/events", "", &large).await;
    assert_eq!((reply.status, reply.error().as_str()), (413, "body-too-large"));
}

#[tokio::test]
async fn a_closed_port_is_closed_at_once_and_its_token_gone() {
    let proxy = Proxy::new();
    let port = proxy.open("Ethernet0", |_| {}).await;
    let token = token(port).await;
    let mut kept = tokio::net::TcpStream::connect(("::1", port)).await.unwrap();
    proxy.discovery.close(&"Ethernet0".parse().unwrap(), "test").await;
    assert!(proxy.discovery.observed().0.is_empty());
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut kept, &mut rest).await.ok();
    assert!(rest.is_empty());
    assert!(tokio::net::TcpStream::connect(("::1", port)).await.is_err());

    let port = proxy.open("Ethernet0", |_| {}).await;
    let reply = ask(port, "GET /api/x", &bearer(&token), "").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "token-revoked"));
}

#[tokio::test]
async fn a_listener_that_cannot_open_is_observed() {
    let proxy = Proxy::new();
    let mut service = super::support::service("Ethernet0", 1);
    service.listener.ifindex = 9999;
    let good = super::support::service("Ethernet4", 2);
    let results = proxy.discovery.set_all(vec![service, good]).await;
    assert!(matches!(&results[..], [Err(ServiceError::Listener { .. }), Ok(())]), "{results:?}");
    let (services, errors) = proxy.discovery.observed();
    assert_eq!(services.keys().map(PortName::as_str).collect::<Vec<_>>(), ["Ethernet4"]);
    let error = errors.values().next().unwrap();
    assert!(error.contains("interface index"), "{error}");
}

/// Needs CAP_NET_ADMIN to see the kernel drop it; without it, that it is noticed.
#[tokio::test]
async fn what_does_not_come_through_the_vrf_device_is_dropped() {
    let mut spec = super::support::service("Ethernet0", 0).listener;
    spec.vrf_ifindex = 9999;
    let (listener, ingress) = open(&spec, "lo", &super::support::fast()).unwrap();
    let port = listener.local_addr().unwrap().port();
    if ingress == Ingress::Filtered {
        let connecting = tokio::net::TcpStream::connect(("::1", port));
        let waited = tokio::time::timeout(Duration::from_millis(500), connecting).await;
        assert!(waited.is_err(), "the filter must drop the SYN");
    }
}

fn link(listener: &ListenerSpec, master: Option<u32>) -> LinkEvent {
    LinkEvent {
        ifindex: listener.ifindex,
        name: listener.port.to_string(),
        carrier: true,
        master,
        link_local: None,
        gone: false,
    }
}

#[tokio::test]
async fn a_port_that_left_its_vrf_is_closed_and_its_token_gone() {
    let proxy = Proxy::new();
    let mut service = super::support::service("Ethernet0", 0);
    service.listener.vrf_ifindex = 9999;
    let listener = service.listener.clone();
    proxy.discovery.set(service).await.unwrap();
    proxy.discovery.link(&link(&listener, Some(9999)));
    assert_eq!(proxy.discovery.observed().0.len(), 1);
    proxy.discovery.link(&link(&listener, Some(7)));
    assert!(proxy.discovery.observed().0.is_empty());
    assert!(proxy.waker.take().contains(&Reason::Service));
}

#[test]
fn another_device_of_the_same_name_is_another_port() {
    let mut spec = super::support::service("Ethernet0", 0).listener;
    spec.vrf_ifindex = 9999;
    let here = link(&spec, Some(9999));
    assert!(through_vrf(&spec, &here));
    assert!(!through_vrf(&spec, &LinkEvent { ifindex: spec.ifindex + 1, ..here.clone() }));
    assert!(!through_vrf(&spec, &LinkEvent { gone: true, ..here }));
    assert!(!through_vrf(&spec, &link(&spec, None)));
}

#[tokio::test]
async fn the_control_api_is_refused_in_the_prefixes_of_open_ports() {
    let proxy = Proxy::new();
    let refused = |address: &str| proxy.discovery.shared.policy.check(address.parse().unwrap()).is_err();
    let other = "2001:db8:7::/56".parse().unwrap();
    proxy.open("Ethernet0", |_| {}).await;
    proxy.open("Ethernet4", |_| {}).await;
    assert!(refused("2001:db8::5") && !refused("2001:db8:7::5"));
    proxy.open("Ethernet8", |service| service.context_mut().settings_mut().prefix = other).await;
    assert!(refused("2001:db8::5") && refused("2001:db8:7::5"));
    // The partition of the last port that had it gets another prefix.
    let (services, _) = proxy.discovery.observed();
    let mut moved = services.into_values().find(|service| service.context.settings.prefix == other).unwrap();
    moved.context_mut().settings_mut().prefix = "2001:db8::/56".parse().unwrap();
    proxy.discovery.set(moved).await.unwrap();
    assert!(refused("2001:db8::5") && !refused("2001:db8:7::5"));
}

//! Connections, requests under way and tokens end with what they belong to: carrier, VRF, partition, MAC.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use switch_agent_core::discovery::Limits;
use switch_agent_core::machines::MachineEvent;
use switch_agent_core::ra::LinkEvent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::control_api::{Api, Ca};
use super::support::{MAC, Proxy, ask, bearer, fast, raw, token};

const OTHER_MAC: &str = "52:54:00:00:00:02";

/// A port with a control API, an idle connection, and a stream under way.
struct Busy {
    proxy: Proxy,
    api: Api,
    port: u16,
    token: String,
    idle: TcpStream,
    stream: TcpStream,
}

impl Busy {
    async fn start() -> Busy {
        let (proxy, ca) = (Proxy::new(), Ca::new());
        let api = Api::start(&ca, &["127.0.0.1"], false).await;
        let ca_file = proxy.directory.write("ca.pem", &ca.pem);
        proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
        let port = proxy.open("Ethernet0", |_| {}).await;
        let token = token(port).await;
        let mut idle = TcpStream::connect(("::1", port)).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
        let head = format!("GET /api/endless HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer(&token));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut got = [0; 512];
        assert_ne!(idle.read(&mut got).await.unwrap(), 0);
        assert_ne!(stream.read(&mut got).await.unwrap(), 0);
        Busy { proxy, api, port, token, idle, stream }
    }

    /// Everything that was open is closed within a second, on both sides, and the token opens nothing.
    async fn expect_ended(mut self, code: &str) {
        let started = Instant::now();
        let limit = Duration::from_secs(1);
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(limit, self.idle.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "the idle connection lives on");
        let closed = tokio::time::timeout(limit, self.stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "the stream lives on");
        tokio::time::timeout(limit, self.api.cancelled.cancelled()).await.expect("the API still sends");
        assert!(started.elapsed() < limit, "{:?}", started.elapsed());
        let reply = ask(self.port, "GET /api/v1", &bearer(&self.token), "").await;
        assert_eq!((reply.status, reply.error().as_str()), (401, code));
    }

    fn link(&self) -> LinkEvent {
        LinkEvent {
            ifindex: 1,
            name: "Ethernet0".to_owned(),
            carrier: true,
            master: None,
            link_local: None,
            gone: false,
        }
    }
}

#[tokio::test]
async fn a_lost_carrier_ends_everything_but_the_listener() {
    let busy = Busy::start().await;
    busy.proxy.discovery.link(&LinkEvent { carrier: false, ..busy.link() });
    busy.expect_ended("token-revoked").await;
}

#[tokio::test]
async fn a_link_event_without_a_loss_ends_nothing() {
    let mut busy = Busy::start().await;
    busy.proxy.discovery.link(&busy.link());
    let mut got = [0; 64];
    for _ in 0..5 {
        assert_ne!(busy.stream.read(&mut got).await.unwrap(), 0);
    }
    assert_eq!(ask(busy.port, "GET /api/v1", &bearer(&busy.token), "").await.status, 200);
}

#[tokio::test]
async fn another_partition_ends_everything_but_the_listener() {
    let busy = Busy::start().await;
    let mut service = busy.proxy.discovery.observed().0.into_values().next().unwrap();
    service.context_mut().partition = "p2".parse().unwrap();
    busy.proxy.discovery.set(service).await.unwrap();
    busy.expect_ended("token-other-partition").await;
}

#[tokio::test]
async fn a_changed_context_alone_ends_nothing() {
    let mut busy = Busy::start().await;
    let mut service = busy.proxy.discovery.observed().0.into_values().next().unwrap();
    service.context_mut().alias = "new".into();
    busy.proxy.discovery.set(service).await.unwrap();
    let mut got = [0; 64];
    for _ in 0..5 {
        assert_ne!(busy.stream.read(&mut got).await.unwrap(), 0);
    }
    assert_eq!(ask(busy.port, "GET /api/v1", &bearer(&busy.token), "").await.status, 200);
}

#[tokio::test]
async fn another_vrf_ends_everything() {
    let mut busy = Busy::start().await;
    let mut service = busy.proxy.discovery.observed().0.into_values().next().unwrap();
    service.listener.vrf = "VrfBoot-p2".parse().unwrap();
    busy.proxy.discovery.set(service).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(1), busy.stream.read_to_end(&mut rest)).await.unwrap().ok();
    busy.expect_ended("token-revoked").await;
}

#[tokio::test]
async fn another_mac_behind_an_address_ends_its_connections() {
    let busy = Busy::start().await;
    let neighbor = |mac: &str, address: Ipv6Addr| MachineEvent::Neighbor {
        port: "Ethernet0".parse().unwrap(),
        mac: mac.parse().unwrap(),
        address,
    };
    // The same machine again, and another machine at another address: nothing happens.
    busy.proxy.discovery.machine(&neighbor(MAC, Ipv6Addr::LOCALHOST));
    busy.proxy.discovery.machine(&neighbor(OTHER_MAC, "::2".parse().unwrap()));
    assert_eq!(ask(busy.port, "GET /api/v1", &bearer(&busy.token), "").await.status, 200);
    busy.proxy.discovery.machine(&neighbor(OTHER_MAC, Ipv6Addr::LOCALHOST));
    assert!(busy.proxy.metric("switch_agent_proxy_rejected_total{reason=\"machine-changed\"} 1"));
    busy.expect_ended("token-revoked").await;
}

/// Events may be late: the neighbour table is asked again at every request.
#[tokio::test]
async fn a_connection_serves_the_machine_that_it_began_with() {
    let mut busy = Busy::start().await;
    let entry = (1, Ipv6Addr::LOCALHOST);
    busy.proxy.neighbors.0.lock().unwrap().insert(entry, OTHER_MAC.parse().unwrap());
    busy.idle.write_all(b"GET /v1/boot HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(1), busy.idle.read_to_end(&mut rest)).await.unwrap().ok();
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"), "{}", String::from_utf8_lossy(&rest));
    assert!(busy.proxy.metric("switch_agent_proxy_rejected_total{reason=\"machine-changed\"} 1"));
}

#[tokio::test]
async fn a_connection_that_is_not_what_it_seems_is_closed_and_counted() {
    const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let proxy = Proxy::new();
    let port = proxy.open("Ethernet0", |_| {}).await;
    let own =
        |index: u32, name: &str| proxy.neighbors.1.lock().unwrap().insert(index, (name.to_owned(), None));
    assert!(raw(port, HEALTHZ).await.contains("200 OK"));

    // The kernel has given the index to another link.
    own(1, "Ethernet4");
    assert_eq!(raw(port, HEALTHZ).await, "");
    proxy.neighbors.1.lock().unwrap().clear();
    assert_eq!(raw(port, HEALTHZ).await, "");
    own(1, "lo");
    assert!(raw(port, HEALTHZ).await.contains("200 OK"));

    // The peer's address is of another port's /64.
    let elsewhere = |service: &mut switch_agent_core::service::PortService| {
        service.context_mut().prefix = "2001:db8:0:9::/64".parse().unwrap();
    };
    let other = proxy.open("Ethernet4", elsewhere).await;
    assert_eq!(raw(other, HEALTHZ).await, "");
    for line in [
        "switch_agent_proxy_rejected_total{reason=\"ingress-link\"} 2",
        "switch_agent_proxy_rejected_total{reason=\"ingress-peer\"} 1",
    ] {
        assert!(proxy.metric(line), "{line} in {}", proxy.metrics.encode());
    }
}

/// Generalized TTL security (RFC 5082): loopback sends with a hop limit of 64.
#[tokio::test]
async fn what_comes_from_afar_is_dropped_where_that_is_asked_for() {
    let proxy = Proxy::with(Limits { min_hop_limit: 255, ..fast() });
    let port = proxy.open("Ethernet0", |_| {}).await;
    let reach = async |hops: u32| {
        let socket = tokio::net::TcpSocket::new_v6().unwrap();
        socket2::SockRef::from(&socket).set_unicast_hops_v6(hops).unwrap();
        let connecting = socket.connect((Ipv6Addr::LOCALHOST, port).into());
        tokio::time::timeout(Duration::from_millis(400), connecting).await.is_ok()
    };
    assert!(reach(255).await);
    assert!(!reach(254).await);
}

/// A port that left its VRF forgets its gauge before its connections have ended.
#[tokio::test]
async fn connections_of_a_closed_port_are_not_counted_twice() {
    let busy = Busy::start().await;
    busy.proxy.discovery.link(&LinkEvent { ifindex: 2, ..busy.link() });
    assert!(busy.proxy.discovery.observed().0.is_empty());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let port = busy.proxy.open("Ethernet0", |_| {}).await;
    assert_eq!(ask(port, "GET /healthz", "", "").await.status, 200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let counted = "switch_agent_proxy_open_connections{port=\"Ethernet0\"} 0";
    assert!(busy.proxy.metric(counted), "{}", busy.proxy.metrics.encode());
}

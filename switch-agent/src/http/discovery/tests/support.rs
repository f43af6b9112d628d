//! Ports on the loopback interface, and machines that ask them.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use switch_agent_core::desired::{Desired, Partition};
use switch_agent_core::discovery::Limits;
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::ra::LinkEvent;
use switch_agent_core::row::{ConfigDb, fields};
use switch_agent_core::service::{ListenerSpec, PortContext, PortService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::backend::keys::Signer;
use crate::backend::state_dir::StateDir;
use crate::http::discovery::{Discovery, LinkFuture, NeighborTable, Parts};
use crate::http::upstream::resolve::AddressPolicy;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::wake::Waker;

const LOOPBACK_IFINDEX: u32 = 1;
pub(super) const MAC: &str = "52:54:00:00:00:01";

static DIRECTORIES: AtomicU32 = AtomicU32::new(0);

/// A directory that goes away with the test.
pub(super) struct Directory(pub PathBuf);

impl Directory {
    pub(super) fn new() -> Directory {
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("switch-agent-proxy-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Neighbours and links by interface; all machines of these tests are on `::1`.
#[derive(Default)]
pub(super) struct Neighbors(pub Mutex<BTreeMap<(u32, Ipv6Addr), MacAddr>>, pub Mutex<Links>);

/// Name and master by index.
type Links = BTreeMap<u32, (String, Option<u32>)>;

impl NeighborTable for Neighbors {
    fn mac(&self, ifindex: u32, address: Ipv6Addr) -> Option<MacAddr> {
        self.0.lock().unwrap().get(&(ifindex, address)).copied()
    }

    fn link(&self, ifindex: u32) -> LinkFuture<'_> {
        let found = self.1.lock().unwrap().get(&ifindex).cloned();
        Box::pin(std::future::ready(found))
    }
}

/// A proxy with no ports yet.
pub(super) struct Proxy {
    pub discovery: Discovery,
    pub neighbors: Arc<Neighbors>,
    pub metrics: Metrics,
    pub signer: Arc<Signer>,
    pub waker: Waker,
    pub cancel: CancellationToken,
    pub directory: Directory,
}

impl Proxy {
    pub(super) fn new() -> Proxy {
        Proxy::with(fast())
    }

    pub(super) fn with(limits: Limits) -> Proxy {
        Proxy::over(Directory::new(), limits)
    }

    /// A process that starts with what another one left behind.
    pub(super) fn after(other: &Proxy) -> Proxy {
        let directory = Directory::new();
        let state = directory.0.join("state");
        fs::create_dir_all(&state).unwrap();
        for entry in fs::read_dir(other.directory.0.join("state")).unwrap().flatten() {
            fs::copy(entry.path(), state.join(entry.file_name())).unwrap();
        }
        Proxy::over(directory, fast())
    }

    fn over(directory: Directory, limits: Limits) -> Proxy {
        super::secrets::watch_logs();
        let signer = Arc::new(Signer::load_or_create(&directory.0.join("state")).unwrap());
        let neighbors = Arc::new(Neighbors::default());
        neighbors.0.lock().unwrap().insert((LOOPBACK_IFINDEX, Ipv6Addr::LOCALHOST), MAC.parse().unwrap());
        neighbors.1.lock().unwrap().insert(LOOPBACK_IFINDEX, ("lo".to_owned(), None));
        let (metrics, waker, cancel) = (Metrics::default(), Waker::default(), CancellationToken::new());
        let parts = Parts {
            signer: signer.clone(),
            neighbors: neighbors.clone(),
            hub: Hub::default(),
            metrics: metrics.clone(),
            waker: waker.clone(),
            limits,
            state_dir: Some(StateDir::open(&directory.0.join("state")).unwrap()),
            runtime: tokio::runtime::Handle::current(),
            cancel: cancel.clone(),
        };
        let mut policy = AddressPolicy::default();
        policy.allow_loopback = true;
        let discovery = Discovery::assemble(parts, policy, Some("lo"));
        Proxy { discovery, neighbors, metrics, signer, waker, cancel, directory }
    }

    /// Opens a port and gives its TCP port.
    pub(super) async fn open(&self, name: &str, change: impl Fn(&mut PortService)) -> u16 {
        let mut service = service(name, free_port().await);
        change(&mut service);
        let port = service.listener.tcp_port;
        self.discovery.set(service).await.unwrap();
        port
    }

    pub(super) fn metric(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|have| have == line)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cancel.cancel();
        if !std::thread::panicking() {
            super::secrets::expect_none_logged();
        }
    }
}

/// Limits that do not slow tests down.
pub(super) fn fast() -> Limits {
    Limits {
        request_rate: 10_000,
        request_burst: 10_000,
        connection_rate: 10_000,
        connection_burst: 10_000,
        mints_per_minute: 60,
        ..Limits::default()
    }
}

async fn free_port() -> u16 {
    TcpListener::bind("[::1]:0").await.unwrap().local_addr().unwrap().port()
}

pub(in crate::http::discovery) fn service(name: &str, tcp_port: u16) -> PortService {
    let port: PortName = name.parse().unwrap();
    let mac: MacAddr = "02:00:00:00:00:01".parse().unwrap();
    let listener = ListenerSpec {
        port: port.clone(),
        ifindex: LOOPBACK_IFINDEX,
        vrf: "VrfBoot-p1".parse().unwrap(),
        vrf_ifindex: LOOPBACK_IFINDEX,
        tcp_port,
    };
    let context = PortContext {
        switch_id: "leaf1".to_owned(),
        chassis_mac: Some(mac),
        partition: "p1".parse().unwrap(),
        port,
        alias: "Eth1/1".into(),
        index: 1,
        mac,
        vrf: "VrfBoot-p1".parse().unwrap(),
        // Holds the machines of these tests, all of which are at `::1`.
        prefix: "::/64".parse().unwrap(),
        router: "2001:db8:0:1::1".parse().unwrap(),
        tcp_port,
        settings: partition(),
    };
    PortService { listener, context: context.into() }
}

/// Ethernet0 without its cable.
pub(super) fn unplugged() -> LinkEvent {
    LinkEvent {
        ifindex: 1,
        name: "Ethernet0".to_owned(),
        carrier: false,
        master: None,
        link_local: None,
        gone: false,
    }
}

/// A partition as its row describes it, defaults and all.
fn partition() -> Arc<Partition> {
    let mut config = ConfigDb::default();
    config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", "2001:db8::/56")]));
    Desired::from_config(&config).partitions.into_values().next().unwrap()
}

/// A reply as it came off the wire, body decoded.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(super) fn error(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (have, value) = line.split_once(": ")?;
            have.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Sends bytes, and reads to the end of the connection (at most some seconds).
pub(super) async fn raw(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
    stream.write_all(bytes).await.ok();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) fn parse(answer: &str) -> Reply {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(body) } else { body.to_owned() };
    Reply { status, head: head.to_owned(), body }
}

fn dechunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            break;
        };
        if size == 0 || rest.len() < size {
            break;
        }
        body.push_str(&rest[..size]);
        text = rest[size..].trim_start_matches("\r\n");
    }
    body
}

/// One request on a connection of its own. `fields` are whole header lines, each with CR LF.
pub(super) async fn ask(port: u16, line: &str, fields: &str, body: &str) -> Reply {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("{line} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n{fields}{length}\r\n{body}");
    parse(&raw(port, text.as_bytes()).await)
}

/// A token of the port.
pub(super) async fn token(port: u16) -> String {
    let reply = ask(port, "POST /v1/token", "Boot-Token: request\r\n", "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["token"].as_str().unwrap().to_owned()
}

pub(super) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

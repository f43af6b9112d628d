//! One port at full load, and what another port notices.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use switch_agent_core::discovery::Limits;
use tokio_util::sync::CancellationToken;

use super::support::Proxy;
use crate::http::worker;

const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(3);
const PULSE: Duration = Duration::from_millis(5);
/// What another port's 99th percentile may rise by.
const RISE_MAX: Duration = Duration::from_millis(5);
/// As many as the switch takes, from as many ports as that needs.
const IDLE_PORTS: usize = 32;
const IDLE_KIB_MAX: u64 = 32;
const GROWTH_MAX_KIB: u64 = 16 << 10;

/// Keeps the calling thread on one CPU: machines bring their own, the switch has only its own.
fn on_cpu(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    // One CPU alone is shared; the figures are worse then.
    sched_setaffinity(Pid::from_raw(0), &set).ok();
}

fn memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

struct Flood {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(port: u16, count: &Arc<AtomicU64>) -> Flood {
        let stop = Arc::new(AtomicBool::new(false));
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let kinds: [fn(SocketAddr, &AtomicBool, &AtomicU64); 5] =
            [churn, requests, never_reads, slow_writers, pings];
        let threads = kinds.into_iter().map(|kind| {
            let (stop, count) = (stop.clone(), count.clone());
            std::thread::spawn(move || {
                on_cpu(1);
                while !stop.load(Ordering::Relaxed) {
                    kind(address, &stop, &count);
                }
            })
        });
        Flood { threads: threads.collect(), stop }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// A connection that gives up on every wait.
fn connect(address: SocketAddr) -> Option<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(20))).ok()?;
    stream.set_write_timeout(Some(Duration::from_millis(20))).ok()?;
    Some(stream)
}

fn churn(address: SocketAddr, _: &AtomicBool, count: &AtomicU64) {
    if let Some(stream) = connect(address) {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok();
        count.fetch_add(1, Ordering::Relaxed);
    }
}

const REQUEST: &[u8] = b"GET /v1/boot HTTP/1.1\r\nHost: x\r\n\r\n";

fn requests(address: SocketAddr, stop: &AtomicBool, count: &AtomicU64) {
    let Some(mut stream) = connect(address) else { return };
    let (batch, mut answer) = (REQUEST.repeat(16), [0; 16384]);
    while !stop.load(Ordering::Relaxed) && stream.write_all(&batch).is_ok() {
        count.fetch_add(16, Ordering::Relaxed);
        if matches!(stream.read(&mut answer), Ok(0)) {
            return;
        }
    }
}

fn never_reads(address: SocketAddr, stop: &AtomicBool, count: &AtomicU64) {
    let Some(mut stream) = connect(address) else { return };
    let batch = REQUEST.repeat(16);
    for _ in 0..50 {
        if stop.load(Ordering::Relaxed) || stream.write_all(&batch).is_err() {
            return;
        }
        count.fetch_add(16, Ordering::Relaxed);
    }
}

fn slow_writers(address: SocketAddr, stop: &AtomicBool, count: &AtomicU64) {
    let mut streams: Vec<_> = (0..32).filter_map(|_| connect(address)).collect();
    for byte in REQUEST {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        for stream in &mut streams {
            stream.write_all(&[*byte]).ok();
            count.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn pings(address: SocketAddr, stop: &AtomicBool, count: &AtomicU64) {
    let Some(mut stream) = connect(address) else { return };
    let frames = b"\0\0\x08\x06\0\0\0\0\0ABCDEFGH".repeat(64);
    let opened = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    while opened.is_ok() && !stop.load(Ordering::Relaxed) && stream.write_all(&frames).is_ok() {
        count.fetch_add(64, Ordering::Relaxed);
    }
}

/// The 99th percentile of a quiet machine's answers.
fn p99(stream: &mut std::net::TcpStream) -> Duration {
    let mut times = Vec::new();
    let begin = Instant::now();
    let mut answer = [0; 4096];
    while begin.elapsed() < SPAN {
        let asked = Instant::now();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let read = stream.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
        times.push(asked.elapsed());
        std::thread::sleep(PULSE.saturating_sub(asked.elapsed()));
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The proxy's thread and the quiet machine share one CPU, the flood has the other one.
#[test]
#[ignore = "takes half a minute of two CPUs"]
fn a_flooded_port_is_no_other_ports_trouble() {
    // Threads stay on the processor of the one that started them.
    on_cpu(0);
    let stop = CancellationToken::new();
    let (runtime, _) = worker::start(stop.clone()).unwrap();
    let limits = Limits { request_rate: 400, request_burst: 400, ..Limits::default() };
    let (proxy, flooded, quiet) = runtime.block_on(async {
        let proxy = Proxy::with(limits);
        let flooded = proxy.open("Ethernet0", |_| {}).await;
        let quiet = proxy.open("Ethernet4", |_| {}).await;
        (proxy, flooded, quiet)
    });
    let mut stream = std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, quiet)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    p99(&mut stream);
    let memory = memory_kib();
    let (mut at_rest, mut at_load, mut most) = (Vec::new(), Vec::new(), 0);
    let count = Arc::new(AtomicU64::new(0));
    for _ in 0..ROUNDS {
        at_rest.push(p99(&mut stream));
        let flood = Flood::start(flooded, &count);
        at_load.push(p99(&mut stream));
        most = most.max(memory_kib());
        flood.end();
    }
    let sent = count.load(Ordering::Relaxed);
    println!(
        "p99 at rest {at_rest:?}, at load {at_load:?}; {sent} pieces of flood; {memory} KiB, then {most} KiB"
    );
    let (at_rest, at_load) = (median(at_rest), median(at_load));
    assert!(sent > 10_000, "{sent} pieces are no flood");
    assert!(at_load < at_rest + RISE_MAX, "p99 rose from {at_rest:?} to {at_load:?}");
    assert!(most < memory + GROWTH_MAX_KIB, "memory grew from {memory} to {most} KiB");
    runtime.block_on(async { drop(proxy) });
    stop.cancel();
}

/// All the connections that the switch takes, each of which has had an answer.
#[tokio::test]
#[ignore = "measures the memory of the whole process"]
async fn idle_connections_cost_little() {
    let limits = Limits { idle_timeout: Duration::from_secs(600), ..Limits::default() };
    let proxy = Proxy::with(limits.clone());
    let mut ports = Vec::new();
    for number in 0..IDLE_PORTS {
        ports.push(proxy.open(&format!("Ethernet{}", number * 4), |_| {}).await);
    }
    let mut streams = Vec::new();
    let open = async |port: u16, streams: &mut Vec<tokio::net::TcpStream>| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 512]).await.unwrap(), 0);
        streams.push(stream);
    };
    let memory = memory_kib();
    for port in &ports {
        for _ in 0..limits.port_connections {
            open(*port, &mut streams).await;
        }
    }
    assert_eq!(streams.len(), limits.connections);
    let (count, grown) = (streams.len() as u64, memory_kib().saturating_sub(memory));
    println!("{count} connections: {memory} KiB, {grown} KiB more, {} bytes each", grown * 1024 / count);
    assert!(grown < IDLE_KIB_MAX * count, "{grown} KiB for {count} connections");
}

//! Sizes, times and counts.

use std::time::{Duration, Instant};

use switch_agent_core::discovery::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::control_api::{Api, Ca};
use super::support::{Proxy, ask, bearer, fast, parse, raw, token};

fn short() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(400),
        idle_timeout: Duration::from_millis(600),
        body_stall_timeout: Duration::from_millis(400),
        write_stall_timeout: Duration::from_millis(500),
        ..fast()
    }
}

/// Time until the peer closes.
async fn closed_after(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("the proxy must close").ok();
    started.elapsed()
}

#[tokio::test]
async fn sizes_are_refused_with_the_right_status() {
    let proxy = Proxy::new();
    let port = proxy.open("Ethernet0", |_| {}).await;
    let long = format!("X-Long: {}\r\n", "a".repeat(20_000));
    assert_eq!(ask(port, "GET /healthz", &long, "").await.status, 431);
    let many: String = (0..70).map(|n| format!("X-{n}: a\r\n")).collect();
    assert_eq!(ask(port, "GET /healthz", &many, "").await.status, 431);
    let line = format!("GET /{}", "a".repeat(3000));
    assert_eq!(ask(port, &line, "", "").await.status, 414);
    let fields = format!("{}Content-Length: 2000000\r\n", bearer("x"));
    let reply = ask(port, "POST /v1/token", &format!("{fields}Boot-Token: request\r\n"), "").await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_cut() {
    let (proxy, ca) = (Proxy::with(Limits { request_body_bytes: 1000, ..fast() }), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], false).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let bearer = bearer(&token(port).await);
    let chunk = format!("200\r\n{}\r\n", "x".repeat(0x200));
    let text = format!(
        "POST /api/v1 HTTP/1.1\r\nHost: x\r\n{bearer}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    let reply = parse(&raw(port, text.as_bytes()).await);
    assert_eq!((reply.status, reply.error().as_str()), (413, "body-too-large"));
    assert_eq!(ask(port, "POST /api/v1", &bearer, &"x".repeat(1001)).await.status, 413);
    assert_eq!(ask(port, "POST /api/v1", &bearer, &"x".repeat(1000)).await.status, 200);
}

#[tokio::test]
async fn slow_headers_and_silence_end_the_connection() {
    let proxy = Proxy::with(short());
    let port = proxy.open("Ethernet0", |_| {}).await;
    let mut silent = TcpStream::connect(("::1", port)).await.unwrap();
    let mut slow = TcpStream::connect(("::1", port)).await.unwrap();
    let drip = tokio::spawn(async move {
        let started = Instant::now();
        for byte in
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".iter().cycle()
        {
            if slow.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        started.elapsed()
    });
    assert!(closed_after(&mut silent).await < Duration::from_secs(2));
    assert!(drip.await.unwrap() < Duration::from_secs(2));

    // Idle after a request.
    let mut idle = TcpStream::connect(("::1", port)).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let closed = closed_after(&mut idle).await;
    assert!(closed > Duration::from_millis(300) && closed < Duration::from_secs(3), "{closed:?}");
}

/// However long a connection may be idle, a header block may not take that long.
#[tokio::test]
async fn a_header_byte_by_byte_is_cut() {
    let proxy = Proxy::with(Limits { idle_timeout: Duration::from_secs(30), ..short() });
    let port = proxy.open("Ethernet0", |_| {}).await;
    // The first request of a connection, and a later one.
    for before in ["", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let (mut read, mut write) = TcpStream::connect(("::1", port)).await.unwrap().into_split();
        write.write_all(before.as_bytes()).await.unwrap();
        let started = Instant::now();
        let drip = tokio::spawn(async move {
            for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ".iter().chain(&[b'a'; 10_000]) {
                if write.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), read.read_to_end(&mut answer)).await.expect("cut").ok();
        drip.abort();
        let took = started.elapsed();
        assert!(took > Duration::from_millis(300) && took < Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test]
async fn a_stalled_body_is_cut() {
    let proxy = Proxy::with(short());
    let port = proxy.open("Ethernet0", |_| {}).await;
    let text = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n{\"stage\"";
    let reply = parse(&raw(port, text.as_bytes()).await);
    assert_eq!((reply.status, reply.error().as_str()), (408, "body-too-slow"));
}

#[tokio::test]
async fn a_machine_that_never_reads_is_cut() {
    let (proxy, ca) = (Proxy::with(Limits { request_body_bytes: u64::MAX, ..short() }), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], true).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    let mut spec = api.spec("127.0.0.1", &ca_file);
    spec.base = "/base".to_owned();
    proxy.discovery.set_upstream(Some(spec)).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let token = token(port).await;
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    socket.connect(&address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from_std(socket.into()).unwrap();
    // The body is echoed for as long as it is sent, and never read.
    let head = format!(
        "POST /api/echo-stream HTTP/1.1\r\nHost: x\r\n{}Transfer-Encoding: chunked\r\n\r\n",
        bearer(&token)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let mut moved = Instant::now();
    let cut = async {
        while stream.write_all(chunk.as_bytes()).await.is_ok() {
            moved = Instant::now();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), cut).await.expect("the proxy must cut it");
    // Not before it was given its time, some of which a busy machine may have spent between two writes.
    assert!(moved.elapsed() > Duration::from_millis(100), "{:?}", moved.elapsed());
}

#[tokio::test]
async fn a_port_holds_so_many_connections_and_others_are_not_held_back() {
    let proxy = Proxy::with(Limits { port_connections: 2, ..fast() });
    let port = proxy.open("Ethernet0", |_| {}).await;
    let other = proxy.open("Ethernet4", |_| {}).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
        stream.write_all(b"GET /hea").await.unwrap();
        held.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let waiting = tokio::spawn(async move { ask(port, "GET /healthz", "", "").await.status });
    assert_eq!(ask(other, "GET /healthz", "", "").await.status, 200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "the third connection waits");
    assert!(proxy.metric("switch_agent_proxy_open_connections{port=\"Ethernet0\"} 2"));
    held.clear();
    assert_eq!(waiting.await.unwrap(), 200, "and is served when there is room");
}

#[tokio::test]
async fn requests_are_rated_per_port() {
    let proxy = Proxy::with(Limits { request_rate: 1, request_burst: 3, ..fast() });
    let port = proxy.open("Ethernet0", |_| {}).await;
    let first = Instant::now();
    for _ in 0..3 {
        assert_eq!(ask(port, "GET /healthz", "", "").await.status, 200);
    }
    let refused = tokio::spawn(async move { ask(port, "GET /healthz", "", "").await });
    let other = proxy.open("Ethernet4", |_| {}).await;
    assert_eq!(ask(other, "GET /healthz", "", "").await.status, 200);
    let reply = refused.await.unwrap();
    assert_eq!((reply.status, reply.error().as_str()), (429, "too-many-requests"));
    // Not before another request would be taken: a machine cannot make the proxy refuse any faster.
    assert!(first.elapsed() >= Duration::from_secs(1), "{:?}", first.elapsed());
}

/// Not stalled, but slower than [`Limits::body_rate`].
#[tokio::test]
async fn a_body_byte_by_byte_is_cut() {
    let proxy = Proxy::with(Limits { body_rate: 1024, ..short() });
    let port = proxy.open("Ethernet0", |_| {}).await;
    let (mut read, mut write) = TcpStream::connect(("::1", port)).await.unwrap().into_split();
    let text = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n";
    write.write_all(text.as_bytes()).await.unwrap();
    let drip = tokio::spawn(async move {
        while write.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let started = Instant::now();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), read.read_to_end(&mut answer)).await.unwrap().ok();
    drip.abort();
    let reply = parse(&String::from_utf8_lossy(&answer));
    assert_eq!((reply.status, reply.error().as_str()), (408, "body-too-slow"));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn resets_leave_nothing_behind() {
    let proxy = Proxy::with(Limits { port_connections: 4, ..fast() });
    let port = proxy.open("Ethernet0", |_| {}).await;
    for number in 0..300 {
        let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
        let part: &[u8] = [&b""[..], b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"][number % 3];
        stream.write_all(part).await.ok();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(ask(port, "GET /healthz", "", "").await.status, 200);
    let gone = async {
        while !proxy.metric("switch_agent_proxy_open_connections{port=\"Ethernet0\"} 0") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), gone)
        .await
        .expect("connections that were reset are counted");
}

#[tokio::test]
async fn connections_have_an_end() {
    let limits = Limits {
        connection_lifetime: Duration::from_millis(500),
        stream_lifetime: Duration::from_millis(1000),
        ..fast()
    };
    let (proxy, ca) = (Proxy::with(limits), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], false).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let token = token(port).await;
    let started = Instant::now();
    let mut busy = TcpStream::connect(("::1", port)).await.unwrap();
    let mut got = [0; 512];
    loop {
        busy.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.ok();
        if busy.read(&mut got).await.unwrap_or(0) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let age = started.elapsed();
    assert!(age > Duration::from_millis(400) && age < Duration::from_millis(900), "in use: {age:?}");

    let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
    let head = format!("GET /api/endless HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer(&token));
    stream.write_all(head.as_bytes()).await.unwrap();
    let age = closed_after(&mut stream).await;
    assert!(age > Duration::from_millis(900) && age < Duration::from_secs(3), "a stream: {age:?}");
}

/// What all ports share is full: whoever comes waits, and is served when there is room.
#[tokio::test]
async fn the_switch_holds_so_many_connections() {
    let proxy = Proxy::with(Limits { port_connections: 2, connections: 4, ..fast() });
    let mut held = Vec::new();
    for name in ["Ethernet0", "Ethernet4"] {
        let port = proxy.open(name, |_| {}).await;
        for _ in 0..2 {
            let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
            stream.write_all(b"GET /hea").await.unwrap();
            held.push(stream);
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let third = proxy.open("Ethernet8", |_| {}).await;
    let waiting = tokio::spawn(async move { ask(third, "GET /healthz", "", "").await.status });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    held.pop();
    assert_eq!(waiting.await.unwrap(), 200);
}

#[tokio::test]
async fn an_oversized_reply_is_cut() {
    let (proxy, ca) = (Proxy::with(Limits { response_body_bytes: 4, ..fast() }), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], false).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let bearer = bearer(&token(port).await);
    // Its length is told.
    assert_eq!(ask(port, "GET /api/v1", &bearer, "").await.error(), "reply-too-large");
    // It is not.
    let text = format!("GET /api/trailers HTTP/1.1\r\nHost: x\r\n{bearer}\r\n");
    let answer = raw(port, text.as_bytes()).await;
    assert!(!answer.contains("hello") && !answer.ends_with("0\r\n\r\n"), "{answer}");
}

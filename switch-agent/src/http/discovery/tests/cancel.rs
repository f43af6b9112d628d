//! Who dies takes the other side along, at once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::control_api::{Api, Ca};
use super::support::{Proxy, bearer, token};

const AT_ONCE: Duration = Duration::from_secs(1);

async fn with_api(http1_only: bool) -> (Proxy, Api, u16) {
    let (proxy, ca) = (Proxy::new(), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], http1_only).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    (proxy, api, port)
}

/// A stream over HTTP/1, with its first bytes taken.
async fn http1(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
    let head = format!("GET /api/endless HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer(&token(port).await));
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_ne!(stream.read(&mut [0; 512]).await.unwrap(), 0);
    stream
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// The same over HTTP/2.
async fn http2(port: u16) -> (Sender, std::net::TcpStream, hyper::body::Incoming) {
    let stream = TcpStream::connect(("::1", port)).await.unwrap().into_std().unwrap();
    let socket = stream.try_clone().unwrap();
    let stream = TcpStream::from_std(stream).unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = ::http::Request::get("http://x/api/endless")
        .header("authorization", format!("Bearer {}", token(port).await))
        .body(Full::default())
        .unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    (sender, socket, body)
}

async fn expect_cancelled(api: &Api, how: &str) {
    let died = Instant::now();
    tokio::time::timeout(Duration::from_secs(10), api.cancelled.cancelled()).await.expect(how);
    assert!(died.elapsed() < AT_ONCE, "{how}: {:?}", died.elapsed());
}

#[tokio::test]
async fn a_machine_that_dies_cancels_its_request() {
    for http1_only in [false, true] {
        let (_proxy, api, port) = with_api(http1_only).await;
        drop(http1(port).await);
        expect_cancelled(&api, "closed").await;

        let (_proxy, api, port) = with_api(http1_only).await;
        let stream = http1(port).await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        expect_cancelled(&api, "reset").await;

        // A machine that will send nothing more is taken for gone.
        let (_proxy, api, port) = with_api(http1_only).await;
        let mut stream = http1(port).await;
        stream.shutdown().await.unwrap();
        expect_cancelled(&api, "half-closed").await;

        let (_proxy, api, port) = with_api(http1_only).await;
        let (_sender, socket, _body) = http2(port).await;
        socket.shutdown(std::net::Shutdown::Both).unwrap();
        expect_cancelled(&api, "HTTP/2 closed").await;

        // One stream ends, its connection lives on.
        let (_proxy, api, port) = with_api(http1_only).await;
        let (mut sender, _socket, body) = http2(port).await;
        drop(body);
        expect_cancelled(&api, "HTTP/2 stream reset").await;
        let request = ::http::Request::get("http://x/healthz").body(Full::default()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_control_api_that_dies_ends_its_answers() {
    for http1_only in [false, true] {
        let (_proxy, api, port) = with_api(http1_only).await;
        let mut stream = http1(port).await;
        let (_sender, _socket, mut body) = http2(port).await;
        let died = Instant::now();
        drop(api);
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        tokio::time::timeout(AT_ONCE, read).await.expect("HTTP/1 lives on").ok();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "a torso must not look whole");
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        tokio::time::timeout(AT_ONCE, rest).await.expect("HTTP/2 lives on");
        assert!(died.elapsed() < AT_ONCE, "{:?}", died.elapsed());
    }
}

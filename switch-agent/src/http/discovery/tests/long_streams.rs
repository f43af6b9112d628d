//! Streams that live for as long as a machine waits, with the limits of the field.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use switch_agent_core::discovery::Limits;
use tokio::net::TcpStream;

use super::control_api::{Api, Ca, FINISH};
use super::support::{Proxy, token};

/// Longest time between two pieces, which are a quarter of a second apart.
const GAP_MAX: Duration = Duration::from_secs(3);
const AT_ONCE: Duration = Duration::from_secs(1);

/// One stream of a machine; the connection ends with its socket.
struct Wait {
    name: &'static str,
    body: Incoming,
    socket: std::net::TcpStream,
}

impl Wait {
    async fn start(name: &'static str, port: u16, token: &str, http2: bool, content_type: &str) -> Wait {
        let stream = TcpStream::connect(("::1", port)).await.unwrap().into_std().unwrap();
        let socket = stream.try_clone().unwrap();
        let io = TokioIo::new(TcpStream::from_std(stream).unwrap());
        let request = ::http::Request::post("http://x/api/wait")
            .header("host", "x")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", content_type)
            .body(Full::<Bytes>::default());
        let mut request = request.unwrap();
        let response = if http2 {
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            let response = sender.send_request(request).await.unwrap();
            // A client closes when its last sender goes.
            tokio::spawn(async move {
                while !sender.is_closed() {
                    tokio::time::sleep(AT_ONCE).await
                }
            });
            response
        } else {
            *request.uri_mut() = "/api/wait".parse().unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        assert_eq!(response.status(), 200, "{name}");
        Wait { name, body: response.into_body(), socket }
    }

    /// Reads until `until`; every piece comes in time.
    async fn flow(&mut self, until: Instant) {
        while Instant::now() < until {
            let frame = tokio::time::timeout(GAP_MAX, self.body.frame()).await;
            let frame = frame.unwrap_or_else(|_| panic!("{}: silence", self.name));
            assert!(frame.is_some_and(|frame| frame.is_ok()), "{}: it ended", self.name);
        }
    }
}

/// For `SWITCH_AGENT_STREAM_SECONDS`, else 600 s: `tests/run` starts it first and joins it last.
#[tokio::test]
#[ignore = "takes ten minutes"]
async fn streams_outlive_every_reload_and_end_with_either_side() {
    let seconds = std::env::var("SWITCH_AGENT_STREAM_SECONDS").map_or(600, |text| text.parse().unwrap());
    let quarter = Duration::from_secs(seconds) / 4;
    let (proxy, ca) = (Proxy::with(Limits::default()), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], false).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let token = token(port).await;
    let start = async |name, http2, kind| Wait::start(name, port, &token, http2, kind).await;
    let mut waits = [
        start("gRPC over h2c", true, "application/grpc+proto").await,
        start("Connect over HTTP/1.1", false, "application/connect+json").await,
        start("gRPC, whose machine dies", true, "application/grpc+proto").await,
        start("Connect, whose machine dies", false, "application/connect+json").await,
    ];
    let started = Instant::now();
    for turn in 1..=4 {
        let until = started + quarter * turn;
        futures_util::future::join_all(waits.iter_mut().map(|wait| wait.flow(until))).await;
        let upstream = proxy.discovery.shared.current_upstream().unwrap();
        match turn {
            1 => {
                let mut service = proxy.discovery.observed().0.into_values().next().unwrap();
                service.context_mut().alias = "another".into();
                proxy.discovery.set(service).await.unwrap();
            }
            2 => {
                proxy.directory.write("ca.pem", &format!("\n{}", ca.pem));
                upstream.refresh();
            }
            3 => {
                let another = proxy.directory.write("other.pem", &ca.pem);
                proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &another))).await;
            }
            _ => println!("{} streams for {} s", waits.len(), started.elapsed().as_secs()),
        }
    }
    let [mut grpc, mut connect, dying @ ..] = waits;
    for wait in dying {
        let open = api.open_waits();
        let died = Instant::now();
        wait.socket.shutdown(std::net::Shutdown::Both).unwrap();
        while api.open_waits() == open {
            assert!(died.elapsed() < AT_ONCE, "{}: the control API still sends", wait.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("{}: ended after {} ms", wait.name, died.elapsed().as_millis());
    }
    grpc.flow(Instant::now() + AT_ONCE).await;
    connect.flow(Instant::now()).await;
    FINISH.store(true, Ordering::Relaxed);
    let finished = tokio::time::timeout(GAP_MAX, grpc.body.collect()).await.unwrap().unwrap();
    assert_eq!(finished.trailers().unwrap()["grpc-status"], "0");
    tokio::time::timeout(GAP_MAX, connect.body.collect()).await.unwrap().expect("a whole body");
}

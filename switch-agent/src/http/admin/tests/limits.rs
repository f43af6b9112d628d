//! Listeners, and what clients cannot make the agent hold.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use http_body_util::BodyExt;
use tokio::net::UnixStream;

use super::*;
use crate::reconciler::DecisionLog;

#[tokio::test]
async fn followers_and_connections_are_bounded() {
    let limits = AdminLimits { followers_max: 1, connections_max: 2, ..AdminLimits::default() };
    let rig = Rig::with_limits(snapshot(), limits).await;
    let first = rig.client().open("/v1/events").await.unwrap();
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(rig.status_of("/v1/events").await, StatusCode::SERVICE_UNAVAILABLE);
    // Two connections that say nothing fill the listener; a third waits until one goes.
    let idle =
        [TcpStream::connect(rig.address).await.unwrap(), TcpStream::connect(rig.address).await.unwrap()];
    let third = rig.raw("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut third = std::pin::pin!(third);
    assert!(tokio::time::timeout(Duration::from_millis(200), third.as_mut()).await.is_err());
    drop(idle);
    let answer = tokio::time::timeout(Duration::from_secs(5), third).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // The follower's place is free once it is gone.
    drop(first);
    for _ in 0..50 {
        if rig.client().open("/v1/events").await.unwrap().status == StatusCode::OK {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the place of a follower that left was not given back");
}

#[tokio::test]
async fn slow_and_large_requests_are_cut_off() {
    let limits = AdminLimits { header_timeout: Duration::from_millis(200), ..AdminLimits::default() };
    let rig = Rig::with_limits(snapshot(), limits).await;
    let slow = tokio::time::timeout(Duration::from_secs(5), rig.raw("GET /livez HTTP/1.1\r\nHo"));
    assert!(!slow.await.unwrap().contains(" 200 "));
    let mut stream = UnixStream::connect(&rig.socket).await.unwrap();
    let large = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(64 * 1024));
    // The server may close before everything is written.
    stream.write_all(large.as_bytes()).await.ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 431 ") || answer.is_empty());
}

#[tokio::test]
async fn connections_end_at_their_age() {
    let limits = AdminLimits {
        connection_age_max: Duration::from_millis(200),
        drain_timeout: Duration::from_millis(100),
        ..AdminLimits::default()
    };
    let rig = Rig::with_limits(snapshot(), limits).await;
    let mut answer = rig.client().open("/v1/events").await.unwrap();
    let ended = async { while let Some(Ok(_)) = answer.body.frame().await {} };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_followers_and_removes_the_socket() {
    let mut rig = Rig::new(snapshot()).await;
    let mode = std::fs::metadata(&rig.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let _follower = rig.client().open("/v1/events").await.unwrap();
    rig.cancel.cancel();
    tokio::time::timeout(Duration::from_secs(8), &mut rig.server).await.unwrap().unwrap();
    assert!(!rig.socket.exists());
}

fn state() -> AdminState {
    let (_, snapshots) = watch::channel(Arc::new(Snapshot::starting()));
    let (inspector, _) = inspection(Waker::default());
    AdminState {
        snapshots,
        hub: Hub::default(),
        metrics: Metrics::default(),
        jwks: Arc::new(json!({})),
        decisions: DecisionLog::default(),
        inspector,
    }
}

async fn bind(socket: Option<&Path>, address: Option<&str>) -> Result<AdminServer, AdminError> {
    let address = address.map(|address| address.parse().unwrap());
    let listen = AdminListen { socket: socket.map(Path::to_owned), address };
    AdminServer::bind(&listen, AdminLimits::default(), state()).await
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let directory = directory();
    let socket = directory.join("run/admin.sock");
    let first = bind(Some(&socket), None).await.unwrap();
    let error = bind(Some(&socket), None).await.unwrap_err();
    assert!(matches!(error, AdminError::InUse { .. }), "{error}");
    drop(first);
    // A killed process leaves its socket behind.
    let stale = directory.join("run/stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let second = bind(Some(&stale), None).await.unwrap();
    drop(second);
    assert!(!stale.exists());
    let file = directory.join("file");
    std::fs::write(&file, "precious").unwrap();
    let error = bind(Some(&file), None).await.unwrap_err();
    assert!(matches!(error, AdminError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn addresses_beyond_loopback_are_refused() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0"] {
        let error = bind(None, Some(address)).await.unwrap_err();
        assert!(matches!(error, AdminError::NotLoopback(_)), "{error}");
        assert!(error.to_string().contains("loopback"), "{error}");
    }
    assert!(bind(None, Some("[::1]:0")).await.is_ok());
}

//! The socket's own guards.

use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use switch_agent_core::discovery::Limits;
use switch_agent_core::service::ListenerSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::wire::{Activity, Protocol, Wire};
use super::{accept_loop, open};

/// Both ends of a connection over loopback.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (ours, theirs) = tokio::join!(listener.accept(), connecting);
    (ours.unwrap().0, theirs.unwrap())
}

#[tokio::test]
async fn a_secret_stays_on_the_link() {
    let (ours, mut theirs) = pair().await;
    // A descriptor of the same socket, to look at it.
    let seen = ours.into_std().unwrap();
    let ours = TcpStream::from_std(seen.try_clone().unwrap()).unwrap();
    let hops = || SockRef::from(&seen).unicast_hops_v6().unwrap();
    SockRef::from(&seen).set_unicast_hops_v6(64).unwrap();
    let activity = Arc::new(Activity::default());
    let mut wire = Wire::new(ours, &Limits::default(), activity.clone(), |_| {});
    wire.write_all(b"a").await.unwrap();
    assert_eq!(hops(), 64);
    activity.bear_token();
    wire.write_all(b"b").await.unwrap();
    assert_eq!(hops(), 1);
    let mut got = [0; 2];
    theirs.read_exact(&mut got).await.unwrap();
}

#[tokio::test]
async fn accepted_sockets_stay_on_the_link_from_the_start() {
    let spec = ListenerSpec {
        port: "Ethernet0".parse().unwrap(),
        ifindex: 1,
        vrf: "VrfBoot-p1".parse().unwrap(),
        vrf_ifindex: 1,
        tcp_port: 0,
    };
    let (listener, _) = open(&spec, "lo", &Limits::default()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (accepted, _connected) = tokio::join!(listener.accept(), TcpStream::connect(("::1", port)));
    assert_eq!(SockRef::from(&accepted.unwrap().0).unicast_hops_v6().unwrap(), 1);
}

#[tokio::test]
async fn a_flood_of_frames_breaks_the_connection() {
    let (ours, mut theirs) = pair().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let limits = Limits { control_frame_rate: 10, control_frame_burst: 20, ..Limits::default() };
    let mut wire = Wire::new(ours, &limits, Arc::default(), move |label| sink.lock().unwrap().push(label));
    theirs.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(wire.detect().await.unwrap(), Protocol::Http2);
    for _ in 0..21 {
        theirs.write_all(b"\0\0\x08\x06\0\0\0\0\0ABCDEFGH").await.unwrap();
    }
    drop(theirs);
    let mut got = Vec::new();
    assert!(wire.read_to_end(&mut got).await.is_err());
    assert_eq!(*told.lock().unwrap(), ["h2-flood"]);
}

#[tokio::test(start_paused = true)]
async fn connections_are_taken_at_a_rate_and_none_is_aborted() {
    let limits = Limits { connection_rate: 1, connection_burst: 2, ..Limits::default() };
    let room = super::Room::new(&limits, Arc::new(tokio::sync::Semaphore::new(10)));
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut machines = Vec::new();
    for _ in 0..5 {
        machines.push(TcpStream::connect(address).await.unwrap());
    }
    let taken = Arc::new(Mutex::new(Vec::new()));
    let (sink, started) = (taken.clone(), tokio::time::Instant::now());
    let cancel = tokio_util::sync::CancellationToken::new();
    let accepting = accept_loop(listener, room, cancel, move |accepted| {
        sink.lock().unwrap().push((started.elapsed(), accepted));
    });
    tokio::time::timeout(Duration::from_secs(10), accepting).await.unwrap_err();
    let seconds: Vec<u64> = taken.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(seconds, [0, 0, 1, 2, 3]);
    for machine in &machines {
        assert!(
            machine.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        );
    }
}

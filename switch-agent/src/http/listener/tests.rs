//! The socket's own guards.

use std::io::{ErrorKind, Read};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use switch_agent_core::discovery::Limits;
use switch_agent_core::service::ListenerSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::acceptor::{Accepted, Acceptor, Listening, Registered, Room};
use super::open;
use super::wire::{Activity, Protocol, Wire};

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
    let listener = TcpListener::from_std(listener).unwrap();
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

/// What was accepted, and when.
type Taken = Arc<Mutex<Vec<(Duration, Accepted)>>>;

/// A listener on loopback in the acceptor, its address, and what it accepts.
fn listening(acceptor: &Acceptor, limits: &Limits) -> (Registered, SocketAddr, Taken) {
    let listener = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Taken::default();
    let (sink, started) = (taken.clone(), tokio::time::Instant::now());
    let registered = acceptor.add(Listening {
        listener,
        room: Room::new(limits, Arc::new(tokio::sync::Semaphore::new(10))),
        cancel: CancellationToken::new(),
        tasks: TaskTracker::new(),
        accepted: Box::new(move |accepted| sink.lock().unwrap().push((started.elapsed(), accepted))),
    });
    (registered.unwrap(), address, taken)
}

async fn until_taken(taken: &Taken, count: usize) {
    let all_there = async {
        while taken.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_there).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn connections_are_taken_at_a_rate_and_none_is_aborted() {
    let acceptor = Acceptor::new(Handle::current(), CancellationToken::new());
    let limits = Limits { connection_rate: 1, connection_burst: 2, ..Limits::default() };
    let (_registered, address, taken) = listening(&acceptor, &limits);
    let machines: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    until_taken(&taken, 5).await;
    let seconds: Vec<u64> = taken.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(seconds, [0, 0, 1, 2, 3]);
    for mut machine in machines {
        machine.set_nonblocking(true).unwrap();
        assert!(machine.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    }
}

#[tokio::test]
async fn a_listener_is_woken_again_after_every_rest() {
    let acceptor = Acceptor::new(Handle::current(), CancellationToken::new());
    let all: Vec<_> = (0..40).map(|_| listening(&acceptor, &Limits::default())).collect();
    for round in 1..4 {
        let _machines: Vec<_> =
            all.iter().map(|(_, address, _)| std::net::TcpStream::connect(address).unwrap()).collect();
        for (_, _, taken) in &all {
            until_taken(taken, round).await;
        }
    }
}

#[tokio::test]
async fn what_is_dropped_is_closed_at_once_and_a_stop_closes_all() {
    let stop = CancellationToken::new();
    let acceptor = Acceptor::new(Handle::current(), stop.clone());
    let (dropped, gone, _) = listening(&acceptor, &Limits::default());
    let (_kept, address, taken) = listening(&acceptor, &Limits::default());
    drop(dropped);
    let refused = |address| {
        std::net::TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    assert!(refused(gone));
    let _machine = std::net::TcpStream::connect(address).unwrap();
    until_taken(&taken, 1).await;
    stop.cancel();
    let closed = async {
        while !refused(address) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
}

/// Its task has it: that ends by the token of the port, and the listener with it.
#[tokio::test]
async fn a_listener_without_room_is_closed_by_its_token() {
    let acceptor = Acceptor::new(Handle::current(), CancellationToken::new());
    let listener = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
    let limits = Limits { port_connections: 0, ..Limits::default() };
    let registered = acceptor.add(Listening {
        listener,
        room: Room::new(&limits, Arc::new(tokio::sync::Semaphore::new(10))),
        cancel: cancel.clone(),
        tasks: tasks.clone(),
        accepted: Box::new(|_| panic!("there was no room")),
    });
    let _machine = std::net::TcpStream::connect(address).unwrap();
    while tasks.is_empty() {
        tokio::task::yield_now().await;
    }
    drop(registered);
    assert!(std::net::TcpStream::connect(address).is_ok(), "its backlog takes connections");
    cancel.cancel();
    tasks.close();
    tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await.unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

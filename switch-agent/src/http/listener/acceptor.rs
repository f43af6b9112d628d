//! Accepts for the listeners of all ports.
//!
//! A leaf has hundreds of ports, and behind a few of them a machine connects at a time. All listeners are in one
//! epoll set, which the runtime watches as one descriptor. One behind which a connection waits leaves the set
//! (EPOLLONESHOT) for a task of its own, which ends when nothing waits any more: a listener at rest costs its
//! descriptor, and what a port allows is waited for by that port alone.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV6, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::SockRef;
use switch_agent_core::discovery::Limits;
use switch_agent_core::discovery::bucket::Bucket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after a failed accept (out of descriptors or memory): nothing here ever ends by itself.
const RETRY: Duration = Duration::from_millis(100);
/// Listeners that are woken before other tasks of the thread have their turn.
const AT_A_TIME: usize = 16;

/// An accepted connection, counted against both limits until it is dropped.
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddrV6,
    pub permits: [OwnedSemaphorePermit; 2],
}

/// How many connections may be open: of one port, and of all; and how fast a port may open them.
pub struct Room {
    port: Arc<Semaphore>,
    all: Arc<Semaphore>,
    rate: Bucket,
    origin: Instant,
}

impl Room {
    /// Room of a port; `all` is what the ports share.
    pub fn new(limits: &Limits, all: Arc<Semaphore>) -> Room {
        let interval = Duration::from_secs(1) / limits.connection_rate.max(1);
        Room {
            port: Arc::new(Semaphore::new(limits.port_connections)),
            all,
            rate: Bucket::new(limits.connection_burst, interval),
            origin: Instant::now(),
        }
    }
}

/// One port's listener, and what becomes of its connections.
pub struct Listening {
    /// Does not block.
    pub listener: TcpListener,
    pub room: Room,
    /// Ends the accepting; a listener that is at rest goes with its [`Registered`].
    pub cancel: CancellationToken,
    /// Where the accepting runs while a connection waits.
    pub tasks: TaskTracker,
    pub accepted: Box<dyn FnMut(Accepted) + Send>,
}

impl Listening {
    /// Accepts what waits. Where there is no room this waits, and the kernel's backlog fills; nothing is aborted.
    async fn accept(&mut self) {
        loop {
            let Ok(port_permit) = self.room.port.clone().acquire_owned().await else { return };
            while let Err(wait) = self.room.rate.take(self.room.origin.elapsed()) {
                tokio::time::sleep(wait).await;
            }
            let (stream, peer) = match self.take() {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            // A listener that waits for a machine holds no share of the common limit.
            let Ok(permit) = self.room.all.clone().acquire_owned().await else { return };
            let SocketAddr::V6(peer) = peer else { continue };
            SockRef::from(&stream).set_keepalive(true).ok();
            (self.accepted)(Accepted { stream, peer, permits: [port_permit, permit] });
        }
    }

    fn take(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok((TcpStream::from_std(stream)?, peer))
    }
}

/// The epoll set, as a descriptor that is readable while a listener in it has a connection waiting.
struct Set(Epoll);

impl AsRawFd for Set {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

#[derive(Default)]
struct Listeners {
    /// There from the first listener on.
    set: Option<Arc<AsyncFd<Set>>>,
    last: u64,
    /// `None` while the listener's task has it.
    at_rest: HashMap<u64, Option<Box<Listening>>>,
}

/// Watches listeners, on the runtime that serves their connections.
#[derive(Clone)]
pub struct Acceptor {
    listeners: Arc<Mutex<Listeners>>,
    runtime: Handle,
    stop: CancellationToken,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Acceptor")
            .field("listeners", &self.lock().at_rest.len())
            .finish_non_exhaustive()
    }
}

/// Keeps a listener in the acceptor; dropped, it closes the listener, unless its task has it.
#[derive(Debug)]
pub struct Registered {
    number: u64,
    acceptor: Acceptor,
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Its descriptor leaves the epoll set when it is closed.
        let closed = self.acceptor.lock().at_rest.remove(&self.number);
        drop(closed);
    }
}

impl Acceptor {
    /// Accepts on `runtime` until `stop`.
    pub fn new(runtime: Handle, stop: CancellationToken) -> Acceptor {
        Acceptor { listeners: Arc::default(), runtime, stop }
    }

    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts from a listener until what this returns is dropped.
    ///
    /// # Errors
    /// The kernel has no memory, or no descriptor, to watch one more.
    pub fn add(&self, listening: Listening) -> io::Result<Registered> {
        let mut listeners = self.lock();
        let set = match &listeners.set {
            Some(set) => set.clone(),
            None => {
                let _in_runtime = self.runtime.enter();
                let set = Arc::new(watched(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?)?);
                self.runtime.spawn(self.clone().watch(set.clone()));
                listeners.set.insert(set).clone()
            }
        };
        let number = listeners.last + 1;
        set.get_ref().0.add(&listening.listener, once(number))?;
        listeners.last = number;
        listeners.at_rest.insert(number, Some(Box::new(listening)));
        Ok(Registered { number, acceptor: self.clone() })
    }

    async fn watch(self, set: Arc<AsyncFd<Set>>) {
        let stop = self.stop.clone();
        let watching = async {
            loop {
                if let Err(error) = self.wake(&set).await {
                    tracing::warn!(%error, "listeners cannot be watched");
                    tokio::time::sleep(RETRY).await;
                }
                tokio::task::yield_now().await;
            }
        };
        stop.run_until_cancelled(watching).await;
        let closed = std::mem::take(&mut self.lock().at_rest);
        drop(closed);
    }

    /// Starts the tasks of listeners behind which a connection waits.
    async fn wake(&self, set: &AsyncFd<Set>) -> io::Result<()> {
        let mut ready = set.readable().await?;
        let mut events = [EpollEvent::empty(); AT_A_TIME];
        let count = match set.get_ref().0.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if count == 0 {
            ready.clear_ready();
        }
        for event in events.iter().take(count) {
            let woken = self.lock().at_rest.get_mut(&event.data()).and_then(Option::take);
            if let Some(listening) = woken {
                let (cancel, tasks) = (listening.cancel.clone(), listening.tasks.clone());
                let accepting = self.clone().accept(event.data(), listening);
                tasks.spawn_on(cancel.run_until_cancelled_owned(accepting), &self.runtime);
            }
        }
        Ok(())
    }

    /// The task of a listener, until nothing waits behind it.
    async fn accept(self, number: u64, mut listening: Box<Listening>) {
        loop {
            listening.accept().await;
            match self.put_back(number, listening) {
                Ok(()) => return,
                Err((back, error)) => {
                    tracing::warn!(%error, "a listener cannot be watched");
                    listening = back;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Takes back a listener behind which nothing waits; if it was closed meanwhile, it goes.
    fn put_back(&self, number: u64, listening: Box<Listening>) -> Result<(), (Box<Listening>, io::Error)> {
        let mut listeners = self.lock();
        let Listeners { set: Some(set), at_rest, .. } = &mut *listeners else { return Ok(()) };
        let Some(place) = at_rest.get_mut(&number) else { return Ok(()) };
        // What came since the last accept is told at once.
        match set.get_ref().0.modify(&listening.listener, &mut once(number)) {
            Ok(()) => {
                *place = Some(listening);
                Ok(())
            }
            Err(error) => Err((listening, error.into())),
        }
    }
}

/// For use in a runtime.
#[expect(unsafe_code, reason = "the runtime keeps the number of a descriptor, which has to stay the same")]
fn watched(set: Epoll) -> io::Result<AsyncFd<Set>> {
    // SAFETY: the set owns its descriptor, nothing replaces it, and the `AsyncFd` owns the set.
    let watched = unsafe { AsyncFd::register_with_interest(Set(set), Interest::READABLE) };
    watched.map_err(|failure| failure.into_parts().1)
}

/// Told once, then not until it is put back.
fn once(number: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, number)
}

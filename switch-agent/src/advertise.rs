//! The advertisers of all ports: one thread, one socket, one timer.
//!
//! ```text
//!  reconciler ── set, cease ──► inbox ─┐                            ┌─► packet socket
//!  netlink ───── link ────────► inbox ─┼─► driver ─► Advertiser ────┼─► metrics, Hub
//!  packet socket ── frames ─► guard ───┘  (one per port)            └─► observed()
//! ```
//! A port is never more than its own state: a send error, a link that disappears or a flood on one port
//! touches no other. The thread does not end by itself; when it is cancelled it sends nothing, so machines
//! keep their router while the process restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use switch_agent_core::name::PortName;
use switch_agent_core::observed::AdvertiserState;
use switch_agent_core::ra::{AdvertiserSpec, Cease, LinkEvent};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::backend::packet::{PacketError, PacketSocket, SocketChoice, SocketMode};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::wake::Waker;

mod driver;
mod drop_rule;
mod guard;
mod inbox;
mod schedule;
mod task;
#[cfg(test)]
mod tests;

use inbox::{Command, Inbox};

/// What runs, as others may see it.
type Snapshot = Arc<Mutex<BTreeMap<PortName, AdvertiserState>>>;

/// Commands to the advertisers, and what they are doing. Cheap to clone; nothing here blocks or waits.
#[derive(Debug, Clone)]
pub struct AdvertiseHandle {
    inbox: Arc<Inbox>,
    snapshot: Snapshot,
}

impl AdvertiseHandle {
    /// Advertises on the ports of these, or changes how; they leave together, in as few system calls as there can
    /// be. The same spec again changes nothing. A port is taken to have carrier until [`AdvertiseHandle::link`] has
    /// told otherwise.
    pub fn set(&self, specs: impl IntoIterator<Item = impl Into<Arc<AdvertiserSpec>>>) {
        let specs = specs.into_iter().map(Into::<Arc<AdvertiserSpec>>::into);
        let commands = specs.map(|spec| (spec.port.clone(), Command::Set(spec)));
        self.inbox.commands(commands);
    }

    /// Stops advertising on a port. Until the final advertisements are out the port is
    /// [`AdvertiserState::Ceasing`]; then it vanishes from [`AdvertiseHandle::observed`] and the reconciler
    /// is woken.
    pub fn cease(&self, port: PortName, cease: Cease) {
        self.inbox.command(port, Command::Cease(cease));
    }

    /// Tells of a link, configured or not: an advertisement leaves at once when carrier comes.
    pub fn link(&self, event: LinkEvent) {
        self.inbox.link(event);
    }

    /// The advertisers as they run.
    pub fn observed(&self) -> BTreeMap<PortName, AdvertiserState> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Opens the socket and starts a thread that drives all advertisers until `cancel`; the future ends with
/// it.
///
/// A thread of its own: a pass over the rows of a whole switch, or a busy proxy, must not come between a
/// solicitation and its answer.
///
/// # Errors
/// Without CAP_NET_RAW there is no socket.
pub fn start(
    choice: SocketChoice,
    hub: Hub,
    metrics: Metrics,
    waker: Waker,
    cancel: CancellationToken,
) -> Result<(AdvertiseHandle, impl Future<Output = ()>), StartError> {
    let socket = PacketSocket::open(choice)?;
    let inbox = Arc::new(Inbox::new()?);
    let snapshot = Snapshot::default();
    let (ports, advertising) = watch::channel(BTreeSet::new());
    let mode = socket.mode();
    let handle = AdvertiseHandle { inbox: inbox.clone(), snapshot: snapshot.clone() };
    let outputs = driver::Outputs { hub, metrics: metrics.clone(), waker, snapshot, ports };
    let driver = driver::Driver::new(socket, outputs, seed());
    // Dropped with the thread, however that ends.
    let (running, ended) = oneshot::channel::<()>();
    let (driving, told, asked) = (cancel.clone(), inbox.clone(), cancel.clone());
    std::thread::Builder::new().name("advertise".to_owned()).spawn(move || {
        let _running = running;
        task::run(driver, &told, &driving);
    })?;
    let rule = async move {
        match mode {
            SocketMode::Packet => drop_rule::run(advertising, metrics, cancel).await,
            SocketMode::Raw => drop_rule::withdraw(&metrics).await,
        }
        std::future::pending().await
    };
    let task = async move {
        tokio::pin!(ended);
        tokio::select! {
            _ = &mut ended => return,
            () = rule => return,
            () = asked.cancelled() => inbox.wake(),
        }
        // An error is the end of the thread, which drops the other half.
        ended.await.ok();
    };
    Ok((handle, task))
}

/// Why there are no advertisers.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Socket(#[from] PacketError),
    #[error("cannot start the thread of the advertisers")]
    Thread(#[from] std::io::Error),
}

/// Chance from the operating system, by way of the standard library's hash keys.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

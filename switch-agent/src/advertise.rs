//! The advertisers of all ports: one task, one packet socket, one timer.
//!
//! ```text
//!  reconciler ── set, cease ──► inbox ─┐                            ┌─► packet socket
//!  netlink ───── link ────────► inbox ─┼─► driver ─► Advertiser ────┼─► metrics, Hub
//!  packet socket ── frames ────────────┘  (one per port)            └─► observed()
//! ```
//! A port is never more than its own state: a send error, a link that disappears or a flood on one port
//! touches no other. The task does not end by itself; when it is cancelled it sends nothing, so machines
//! keep their router while the process restarts.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use switch_agent_core::name::PortName;
use switch_agent_core::observed::AdvertiserState;
use switch_agent_core::ra::{AdvertiserSpec, Cease, LinkEvent};
use tokio_util::sync::CancellationToken;

use crate::backend::packet::{PacketError, PacketSocket};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::wake::Waker;

mod driver;
mod inbox;
mod task;

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
    /// Advertises on a port, or changes how. The same spec again changes nothing. A port is taken to have
    /// carrier until [`AdvertiseHandle::link`] has told otherwise.
    pub fn set(&self, spec: AdvertiserSpec) {
        self.inbox.command(spec.port.clone(), Command::Set(Box::new(spec)));
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

/// Opens the packet socket; the future drives all advertisers until `cancel`. Must be called within a tokio
/// runtime.
///
/// # Errors
/// Without CAP_NET_RAW there is no socket.
pub fn start(
    hub: Hub,
    metrics: Metrics,
    waker: Waker,
    cancel: CancellationToken,
) -> Result<(AdvertiseHandle, impl Future<Output = ()>), PacketError> {
    let socket = PacketSocket::open()?;
    let inbox = Arc::new(Inbox::default());
    let snapshot = Snapshot::default();
    let handle = AdvertiseHandle { inbox: inbox.clone(), snapshot: snapshot.clone() };
    let outputs = driver::Outputs { hub, metrics, waker, snapshot };
    let driver = driver::Driver::new(socket, outputs, seed());
    Ok((handle, task::run(driver, inbox, cancel)))
}

/// Chance from the operating system, by way of the standard library's hash keys.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

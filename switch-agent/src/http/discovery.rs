//! The discovery proxy: what machines in the boot VRFs talk to.
//!
//! [`Discovery`] is the handle of the reconciler: it opens, updates and closes the services of ports,
//! and holds the client of the control API. Requests are served by one task per connection; every
//! one of them ends with its port.

pub mod answer;
pub mod api;
pub mod body;
mod control;
pub mod files;
pub mod incomer;
pub mod metal_stack_v1;
pub mod metal_stack_v2;
mod minting;
pub mod once;
mod opening;
pub mod reach;
pub mod reply;
pub mod routes;
mod session;
mod stamps;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Map, Value};
use switch_agent_core::desired::UpstreamSpec;
use switch_agent_core::discovery::Limits;
use switch_agent_core::discovery::bucket::Bucket;
use switch_agent_core::discovery::metal_stack_v1::credentials::CARRIER_GRACE;
use switch_agent_core::machines::MachineEvent;
use switch_agent_core::map::IntoMap;
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::ra::LinkEvent;
use switch_agent_core::service::{ListenerSpec, PortContext, PortService};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::files::LastGood;
use self::metal_stack_v1::MetalStackV1;
use self::metal_stack_v2::MetalStackV2;
use self::once::OnceProfiles;
use self::reach::Reach;
use self::session::Sessions;
use self::stamps::LastStamps;
use crate::backend::kernel::KernelHandle;
use crate::backend::keys::Signer;
use crate::backend::state_dir::StateDir;
use crate::http::listener::acceptor::{Acceptor, Registered};
use crate::http::listener::{ListenerError, through_vrf};
use crate::http::tokens::Tokens;
use crate::http::upstream::Upstream;
use crate::http::upstream::resolve::AddressPolicy;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::wake::{Reason, Waker};

/// How long closing a port waits for its tasks, which are all cancelled by then.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// The kernel's word on neighbours and links, as far as the proxy asks it.
pub trait NeighborTable: Send + Sync + 'static {
    /// The MAC of a neighbour on an interface.
    fn mac(&self, ifindex: u32, address: Ipv6Addr) -> Option<MacAddr>;

    /// All addresses of a neighbour on an interface, where the table can tell.
    fn addresses(&self, ifindex: u32, mac: MacAddr) -> Vec<Ipv6Addr> {
        let _ = (ifindex, mac);
        Vec::new()
    }

    /// The link with this index at this moment: its name and the index of its master. `None` also where the
    /// kernel gives no answer.
    fn link(&self, ifindex: u32) -> LinkFuture<'_>;
}

/// What [`NeighborTable::link`] comes to.
pub type LinkFuture<'a> = Pin<Box<dyn Future<Output = Option<(String, Option<u32>)>> + Send + 'a>>;

/// Why the service of a port could not be opened or updated.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("cannot open the listener of {port}")]
    Listener {
        port: PortName,
        #[source]
        source: ListenerError,
    },
    #[error("the process is stopping")]
    Stopping,
}

impl NeighborTable for KernelHandle {
    fn mac(&self, ifindex: u32, address: Ipv6Addr) -> Option<MacAddr> {
        self.neighbor_mac(ifindex, address)
    }

    fn link(&self, ifindex: u32) -> LinkFuture<'_> {
        Box::pin(async move {
            let found = KernelHandle::link(self, ifindex).await;
            found.inspect_err(|error| tracing::warn!(%error, "the kernel does not tell of a link")).ok()?
        })
    }
}

/// What a [`Discovery`] is made of.
pub struct Parts {
    pub signer: Arc<Signer>,
    pub neighbors: Arc<dyn NeighborTable>,
    pub hub: Hub,
    pub metrics: Metrics,
    pub waker: Waker,
    pub limits: Limits,
    /// Where the control API's last good answers, and private keys, are kept; `None` keeps the answers in
    /// memory only, and makes no keys.
    pub state_dir: Option<StateDir>,
    /// Where connections are served.
    pub runtime: Handle,
    /// Ends everything.
    pub cancel: CancellationToken,
}

/// What all ports share.
pub(crate) struct Shared {
    pub(crate) neighbors: Arc<dyn NeighborTable>,
    pub(crate) hub: Hub,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Arc<Limits>,
    pub(crate) tokens: Tokens,
    pub(crate) reach: Reach,
    pub(crate) metal_stack_v2: MetalStackV2,
    pub(crate) configs: LastGood<Map<String, Value>>,
    pub(crate) once: OnceProfiles,
    pub(crate) templates: LastGood<String>,
    pub(crate) metal_stack_v1: MetalStackV1,
    upstream: RwLock<Option<(Arc<Upstream>, CancellationToken)>>,
    /// The control API that the live tokens are for. Kept while none is configured, so that a slip in its
    /// row ends no stream.
    tokens_for: Mutex<Option<UpstreamSpec>>,
    policy: Arc<AddressPolicy>,
    waker: Waker,
    runtime: Handle,
    acceptor: Acceptor,
    cancel: CancellationToken,
    room: Arc<Semaphore>,
    origin: Instant,
    /// Tests run on the loopback interface, which no port is named after.
    device: Option<&'static str>,
}

impl Shared {
    pub(crate) fn current_upstream(&self) -> Option<Arc<Upstream>> {
        let upstream = self.upstream.read().unwrap_or_else(PoisonError::into_inner);
        upstream.as_ref().map(|(upstream, _)| upstream.clone())
    }
}

/// The service of one open port.
pub struct PortState {
    pub(crate) listener: ListenerSpec,
    context: RwLock<Arc<PortContext>>,
    pub(crate) shared: Arc<Shared>,
    /// One token of the port is made at a time.
    pub(crate) minting: tokio::sync::Mutex<()>,
    requests: Mutex<Bucket>,
    sessions: Sessions,
    stamps: LastStamps,
}

impl PortState {
    pub(crate) fn context(&self) -> Arc<PortContext> {
        self.context.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a request against the port's rate.
    pub(crate) fn take_request(&self) -> Result<(), Duration> {
        let now = self.shared.origin.elapsed();
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }
}

struct OpenPort {
    state: Arc<PortState>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    /// Goes first: the address is free for the next listener of the port.
    _registered: Registered,
}

#[derive(Default)]
struct Ports {
    open: BTreeMap<PortName, OpenPort>,
    errors: BTreeMap<PortName, String>,
}

/// Handle of the discovery proxy. Cheap to clone.
#[derive(Clone)]
pub struct Discovery {
    shared: Arc<Shared>,
    ports: Arc<Mutex<Ports>>,
}

impl Discovery {
    pub fn new(parts: Parts) -> Discovery {
        Discovery::assemble(parts, AddressPolicy::default(), None)
    }

    fn assemble(parts: Parts, policy: AddressPolicy, device: Option<&'static str>) -> Discovery {
        let shared = Shared {
            neighbors: parts.neighbors,
            hub: parts.hub,
            metrics: parts.metrics,
            tokens: Tokens::new(parts.signer, &parts.limits),
            reach: Reach::default(),
            metal_stack_v2: MetalStackV2::new(parts.state_dir.clone()),
            configs: LastGood::default(),
            once: OnceProfiles::new(parts.state_dir.clone()),
            templates: LastGood::default(),
            metal_stack_v1: MetalStackV1::new(parts.state_dir),
            upstream: RwLock::new(None),
            tokens_for: Mutex::new(None),
            policy: Arc::new(policy),
            waker: parts.waker,
            acceptor: Acceptor::new(parts.runtime.clone(), parts.cancel.clone()),
            runtime: parts.runtime,
            cancel: parts.cancel,
            room: Arc::new(Semaphore::new(parts.limits.connections)),
            limits: Arc::new(parts.limits),
            origin: Instant::now(),
            device,
        };
        Discovery { shared: Arc::new(shared), ports: Arc::default() }
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the service of a port, or updates what it tells. A changed listener is closed and opened
    /// again, which ends its connections and its token; a changed context leaves them alone, unless the
    /// port changed its partition.
    pub async fn set(&self, service: PortService) -> Result<(), ServiceError> {
        let port = service.listener.port.clone();
        if self.shared.cancel.is_cancelled() {
            return Err(ServiceError::Stopping);
        }
        let once = service.context.settings.boot_once.as_deref();
        self.shared.once.wanted(&port, once).await;
        let prefix = service.context.settings.prefix;
        let before = self.ports().open.get(&port).map(|open| open.state.clone());
        let same_listener = before.as_ref().map(|before| before.listener == service.listener);
        let left = before.is_some_and(|before| before.context().settings.prefix != prefix);
        match same_listener {
            Some(true) => self.update(service.context),
            Some(false) => {
                self.close(&port, "its listener changed").await;
                self.open(service)?;
            }
            None => self.open(service)?,
        }
        // Hundreds of ports share the prefixes of a few partitions.
        if left || !self.shared.policy.has_boot_prefix(prefix) {
            self.refresh_boot_prefixes();
        }
        Ok(())
    }

    fn update(&self, context: Arc<PortContext>) {
        let ports = self.ports();
        let Some(open) = ports.open.get(&context.port) else {
            return;
        };
        let moved = open.state.context().partition != context.partition;
        *open.state.context.write().unwrap_or_else(PoisonError::into_inner) = context;
        if moved {
            self.shared.release(&open.state.listener.port);
            self.shared.metal_stack_v1.revoke(&open.state.listener.port);
            open.state.sessions.end_all();
        }
    }

    /// Takes a change of a link as the kernel reports it: a port that lost its carrier loses its token and
    /// its connections (whoever is plugged in next is another machine), one that left its VRF is closed at
    /// once, and left to the reconciler to open again.
    pub fn link(&self, event: &LinkEvent) {
        let Ok(port) = event.name.parse::<PortName>() else { return };
        if !event.carrier {
            self.shared.release(&port);
        }
        if self.shared.metal_stack_v1.credentials.carrier(&port, event.carrier) && !event.carrier {
            let (shared, port) = (self.shared.clone(), port.clone());
            tokio::spawn(async move {
                tokio::time::sleep(CARRIER_GRACE).await;
                shared.metal_stack_v1.credentials.settle(&port);
            });
        }
        let mut ports = self.ports();
        if let (false, Some(open)) = (event.carrier, ports.open.get(&port)) {
            let ended = open.state.sessions.end_all();
            tracing::info!(%port, ended, "no carrier: connections of the port end");
        }
        let left = ports.open.get(&port).is_some_and(|open| !through_vrf(&open.state.listener, event));
        if !left {
            return;
        }
        if let Some(open) = ports.open.remove(&port) {
            open.cancel.cancel();
        }
        drop(ports);
        self.shared.release(&port);
        self.shared.metal_stack_v1.revoke(&port);
        self.shared.metrics.proxy.port_closed(&port);
        tracing::info!(%port, "discovery proxy closed: the port left its VRF");
        self.shared.waker.wake(Reason::Service);
    }

    /// Takes a change of the neighbour table: an address that turns up with another MAC ends the connections
    /// of the machine that had it, and the port's token.
    pub fn machine(&self, event: &MachineEvent) {
        let MachineEvent::Neighbor { port, mac, address } = event else { return };
        let moved = self.ports().open.get(port).is_some_and(|open| open.state.sessions.moved(*address, *mac));
        if moved {
            self.shared.release(port);
            self.shared.metrics.proxy.rejected("machine-changed");
            tracing::warn!(%port, %address, %mac, "another machine took over an address: its connections end");
        }
    }

    /// Closes the service of a port: its listener, its connections, its token.
    pub async fn close(&self, port: &PortName, reason: &str) {
        let open = {
            let mut ports = self.ports();
            ports.errors.remove(port);
            ports.open.remove(port)
        };
        self.shared.release(port);
        self.shared.metal_stack_v1.revoke(port);
        let Some(open) = open else { return };
        open.cancel.cancel();
        open.tasks.close();
        if tokio::time::timeout(CLOSE_WAIT, open.tasks.wait()).await.is_err() {
            tracing::warn!(%port, "connections of a closed port are still ending");
        }
        self.shared.metrics.proxy.port_closed(port);
        self.refresh_boot_prefixes();
        tracing::info!(%port, reason, "discovery proxy closed");
    }

    /// The services that are open, and the ports whose listener could not be opened.
    pub fn observed(&self) -> (BTreeMap<PortName, PortService>, BTreeMap<PortName, String>) {
        let ports = self.ports();
        let services = ports.open.iter().map(|(port, open)| {
            let (listener, context) = (open.state.listener.clone(), open.state.context());
            (port.clone(), PortService { listener, context })
        });
        (services.into_map(), ports.errors.clone())
    }

    fn refresh_boot_prefixes(&self) {
        let ports = self.ports();
        let mut prefixes: Vec<_> =
            ports.open.values().map(|open| open.state.context().settings.prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        self.shared.policy.set_boot_prefixes(prefixes);
    }
}

//! The discovery proxy: what machines in the boot VRFs talk to.
//!
//! [`Discovery`] is the handle of the reconciler: it opens, updates and closes the service of one port at
//! a time, and holds the client of the control API. Requests are served by one task per connection; every
//! one of them ends with its port.

pub mod answer;
pub mod api;
pub mod body;
pub mod files;
pub mod metal_stack_v1;
pub mod routes;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Map, Value};
use switch_agent_core::desired::UpstreamSpec;
use switch_agent_core::discovery::Limits;
use switch_agent_core::discovery::bucket::Bucket;
use switch_agent_core::discovery::metal_stack_v1::credentials::CARRIER_GRACE;
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::ra::LinkEvent;
use switch_agent_core::service::{ListenerSpec, PortContext, PortService, UpstreamState};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::body::{Held, ReplyBody};
use self::files::LastGood;
use self::metal_stack_v1::MetalStackV1;
use self::metal_stack_v1::authority::fingerprint;
use self::metal_stack_v1::credentials::Presented;
use crate::backend::keys::Signer;
use crate::http::listener::connection::serve;
use crate::http::listener::stream::{HandshakeError, Stream};
use crate::http::listener::wire::{Activity, Wire};
use crate::http::listener::{Accepted, Ingress, ListenerError, Room, accept_loop, open, through_vrf};
use crate::http::tokens::Tokens;
use crate::http::upstream::resolve::AddressPolicy;
use crate::http::upstream::{self, Upstream};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::wake::{Reason, Waker};

/// How long closing a port waits for its tasks, which are all cancelled by then.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The kernel's neighbour table, as far as the proxy asks it.
pub trait NeighborTable: Send + Sync + 'static {
    /// The MAC of a neighbour on an interface.
    fn mac(&self, ifindex: u32, address: Ipv6Addr) -> Option<MacAddr>;

    /// All addresses of a neighbour on an interface, where the table can tell.
    fn addresses(&self, ifindex: u32, mac: MacAddr) -> Vec<Ipv6Addr> {
        let _ = (ifindex, mac);
        Vec::new()
    }
}

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

impl NeighborTable for crate::backend::kernel::KernelHandle {
    fn mac(&self, ifindex: u32, address: Ipv6Addr) -> Option<MacAddr> {
        self.neighbor_mac(ifindex, address)
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
    /// Where private keys are kept.
    pub state_dir: PathBuf,
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
    pub(crate) configs: LastGood<Map<String, Value>>,
    pub(crate) templates: LastGood<String>,
    pub(crate) metal_stack_v1: MetalStackV1,
    upstream: RwLock<Option<(Arc<Upstream>, CancellationToken)>>,
    policy: Arc<AddressPolicy>,
    waker: Waker,
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
    requests: Mutex<Bucket>,
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
            configs: LastGood::default(),
            templates: LastGood::default(),
            metal_stack_v1: MetalStackV1::new(parts.state_dir),
            upstream: RwLock::new(None),
            policy: Arc::new(policy),
            waker: parts.waker,
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
        let same_listener = self.ports().open.get(&port).map(|open| open.state.listener == service.listener);
        match same_listener {
            Some(true) => self.update(service.context),
            Some(false) => {
                self.close(&port, "its listener changed").await;
                self.open(service)?;
            }
            None => self.open(service)?,
        }
        self.refresh_boot_prefixes();
        Ok(())
    }

    fn update(&self, context: PortContext) {
        let ports = self.ports();
        let Some(open) = ports.open.get(&context.port) else {
            return;
        };
        let moved = open.state.context().partition != context.partition;
        *open.state.context.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(context);
        if moved {
            self.revoke(&open.state.listener.port);
        }
    }

    /// Ends what the machine on the port was given.
    fn revoke(&self, port: &PortName) {
        self.shared.tokens.revoke(port);
        self.shared.metal_stack_v1.revoke(port);
    }

    fn open(&self, service: PortService) -> Result<(), ServiceError> {
        let port = service.listener.port.clone();
        let limits = self.shared.limits.clone();
        let device = self.shared.device.unwrap_or(port.as_str());
        let (listener, ingress) = match open(&service.listener, device, &limits) {
            Ok(opened) => opened,
            Err(source) => {
                let why = std::error::Error::source(&source).map(|why| format!("{source}: {why}"));
                self.ports().errors.insert(port.clone(), why.unwrap_or_else(|| source.to_string()));
                return Err(ServiceError::Listener { port, source });
            }
        };
        let interval = Duration::from_secs(1) / limits.request_rate.max(1);
        let state = Arc::new(PortState {
            listener: service.listener,
            context: RwLock::new(Arc::new(service.context)),
            shared: self.shared.clone(),
            requests: Mutex::new(Bucket::new(limits.request_burst, interval)),
        });
        let cancel = self.shared.cancel.child_token();
        let tasks = TaskTracker::new();
        let room =
            Room { port: Arc::new(Semaphore::new(limits.port_connections)), all: self.shared.room.clone() };
        let (serving, ending, spawner) = (state.clone(), cancel.clone(), tasks.clone());
        tasks.spawn(accept_loop(listener, room, cancel.clone(), move |accepted| {
            spawner.spawn(connection(serving.clone(), accepted, ending.clone()));
        }));
        if ingress == Ingress::Watched {
            tracing::warn!(%port, "no CAP_NET_ADMIN: a port that leaves its VRF is cut off by events, not by the kernel");
        }
        tracing::info!(%port, ?ingress, "discovery proxy opened");
        let mut ports = self.ports();
        ports.errors.remove(&port);
        ports.open.insert(port, OpenPort { state, cancel, tasks });
        Ok(())
    }

    /// Takes a change of a link as the kernel reports it: a port that lost its carrier loses its token
    /// (whoever is plugged in next is another machine), one that left its VRF is closed at once, and left
    /// to the reconciler to open again.
    pub fn link(&self, event: &LinkEvent) {
        let Ok(port) = event.name.parse::<PortName>() else { return };
        if !event.carrier {
            self.shared.tokens.revoke(&port);
        }
        if self.shared.metal_stack_v1.credentials.carrier(&port, event.carrier) && !event.carrier {
            let (shared, port) = (self.shared.clone(), port.clone());
            tokio::spawn(async move {
                tokio::time::sleep(CARRIER_GRACE).await;
                shared.metal_stack_v1.credentials.settle(&port);
            });
        }
        let mut ports = self.ports();
        let left = ports.open.get(&port).is_some_and(|open| !through_vrf(&open.state.listener, event));
        if !left {
            return;
        }
        if let Some(open) = ports.open.remove(&port) {
            open.cancel.cancel();
        }
        drop(ports);
        self.revoke(&port);
        self.shared.metrics.proxy.port_closed(&port);
        tracing::info!(%port, "discovery proxy closed: the port left its VRF");
        self.shared.waker.wake(Reason::Service);
    }

    /// Closes the service of a port: its listener, its connections, its token.
    pub async fn close(&self, port: &PortName, reason: &str) {
        let open = {
            let mut ports = self.ports();
            ports.errors.remove(port);
            ports.open.remove(port)
        };
        self.revoke(port);
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
            let context = (*open.state.context()).clone();
            (port.clone(), PortService { listener: open.state.listener.clone(), context })
        });
        (services.collect(), ports.errors.clone())
    }

    fn refresh_boot_prefixes(&self) {
        let ports = self.ports();
        let mut prefixes: Vec<_> =
            ports.open.values().map(|open| open.state.context().settings.prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        self.shared.policy.set_boot_prefixes(prefixes);
    }

    /// Configures the client of the control API, or with `None` drops it. Requests under way go on with
    /// the client they started with.
    pub async fn set_upstream(&self, spec: Option<UpstreamSpec>) {
        if self.shared.current_upstream().map(|upstream| upstream.spec().clone()) == spec {
            return;
        }
        let shared = self.shared.clone();
        let grpc = spec.as_ref().and_then(UpstreamSpec::grpc);
        if grpc.is_some() {
            let loading = shared.clone();
            match tokio::task::spawn_blocking(move || loading.metal_stack_v1.load()).await {
                Ok(Ok(Some(state_dir))) => {
                    let (credentials, cancel) =
                        (shared.metal_stack_v1.credentials.clone(), shared.cancel.clone());
                    tokio::spawn(async move {
                        cancel.run_until_cancelled(credentials.keep(state_dir)).await;
                    });
                }
                Ok(Err(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "machines get no credentials");
                }
                Ok(Ok(None)) | Err(_) => {}
            }
        }
        let grpc = self.start_upstream(grpc, Upstream::grpc).await;
        if let Some((_, cancel)) = shared.metal_stack_v1.set_grpc(grpc) {
            cancel.cancel();
        }
        let made = self.start_upstream(spec, Upstream::new).await;
        let mut current = shared.upstream.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cancel)) = std::mem::replace(&mut *current, made) {
            cancel.cancel();
        }
    }

    async fn start_upstream(
        &self,
        spec: Option<UpstreamSpec>,
        make: fn(UpstreamSpec, Arc<AddressPolicy>, Arc<Limits>) -> Upstream,
    ) -> Option<(Arc<Upstream>, CancellationToken)> {
        let shared = &self.shared;
        let (spec, policy, limits) = (spec?, shared.policy.clone(), shared.limits.clone());
        let upstream =
            tokio::task::spawn_blocking(move || Arc::new(make(spec, policy, limits))).await.ok()?;
        let cancel = shared.cancel.child_token();
        let (metrics, waker) = (shared.metrics.clone(), shared.waker.clone());
        tokio::spawn(upstream::watch(upstream.clone(), metrics, waker, cancel.clone()));
        Some((upstream, cancel))
    }

    /// The client of the control API as it runs.
    pub fn upstream(&self) -> Option<UpstreamState> {
        let state = self.shared.current_upstream()?.state();
        let grpc = self.shared.metal_stack_v1.grpc().and_then(|grpc| grpc.state().error);
        let error = state.error.or_else(|| grpc.map(|error| format!("gRPC: {error}")));
        Some(UpstreamState { error, ..state })
    }
}

/// Serves one accepted connection to its end.
async fn connection(port: Arc<PortState>, accepted: Accepted, cancel: CancellationToken) {
    let shared = port.shared.clone();
    let name = port.listener.port.clone();
    shared.metrics.proxy.connection_opened(&name);
    if let Some(Some((stream, presented))) = cancel.run_until_cancelled(secure(&port, accepted.stream)).await
    {
        let metrics = shared.metrics.clone();
        let wire = Wire::new(stream, &shared.limits, move |refusal| {
            metrics.proxy.rejected(refusal.as_str());
        });
        let activity = Arc::new(Activity::default());
        let ended =
            presented.as_ref().map_or_else(CancellationToken::new, |presented| presented.ended.clone());
        let service = MachineService { port, peer: accepted.peer, activity: activity.clone(), presented };
        // Credentials that end take every connection along that was made with them, and all its streams.
        ended.run_until_cancelled(serve(wire, service, activity, &shared.limits, cancel)).await;
    }
    shared.metrics.proxy.connection_closed(&name);
    drop(accepted.permits);
}

/// Makes the TLS handshake where the port may speak TLS and the peer does. `None` ends the connection.
async fn secure(port: &PortState, stream: TcpStream) -> Option<(Stream, Option<Presented>)> {
    let shared = &port.shared;
    let name = &port.listener.port;
    let Some(config) = shared.metal_stack_v1.server_config(name, &port.context()) else {
        return Some((stream.into(), None));
    };
    // A handshake counts as a request.
    let admit = || port.take_request().is_ok();
    let stream = Stream::detect(stream, config, shared.limits.header_timeout, admit).await;
    let stream = stream.inspect_err(|error| {
        match error {
            HandshakeError::Ended(_) => {}
            HandshakeError::TooMany => shared.metrics.proxy.rejected("too-many-requests"),
            HandshakeError::TimedOut | HandshakeError::Refused(_) => {
                shared.metrics.proxy.rejected("tls-handshake");
            }
        }
        tracing::debug!(port = %name, error = error as &dyn std::error::Error, "connection not served");
    });
    let stream = stream.ok()?;
    if matches!(stream, Stream::Plain(_)) {
        return Some((stream, None));
    }
    let certificate = fingerprint(stream.peer_certificate()?);
    let presented = shared.metal_stack_v1.credentials.check_certificate(name, &certificate).ok()?;
    Some((stream, Some(presented)))
}

/// The requests of one connection.
struct MachineService {
    port: Arc<PortState>,
    peer: SocketAddrV6,
    activity: Arc<Activity>,
    presented: Option<Presented>,
}

impl hyper::service::Service<Request<Incoming>> for MachineService {
    type Response = Response<ReplyBody>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(presented) = &self.presented {
            request.extensions_mut().insert(presented.clone());
        }
        let (port, peer, active) = (self.port.clone(), self.peer, self.activity.begin());
        Box::pin(async move {
            let response = routes::serve(port, peer, request).await;
            Ok(response.map(|body| Held::boxed(body, active)))
        })
    }
}

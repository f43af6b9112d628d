//! Dialect `metal-stack-v1`: an unmodified metal-hammer boots through the proxy, and the fleet's client
//! certificate and HMAC key stay on the switch.
//!
//! `GET /certs` hands a machine credentials of this switch's own making, good on its port alone. With them
//! it speaks gRPC over TLS ([`grpc`]) and signed REST ([`rest`]) to the proxy, which checks port, MAC and
//! machine id of every request and speaks to metal-api with the real ones.

pub mod authority;
pub mod certs;
pub mod credentials;
pub mod grpc;
pub mod reading;
pub mod reply;
pub mod rest;
pub mod tls;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use ::http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use rustls::ServerConfig;
use switch_agent_core::desired::Dialect;
use switch_agent_core::discovery::Target;
use switch_agent_core::discovery::metal_stack_v1::credentials::CredentialRefusal;
use switch_agent_core::discovery::metal_stack_v1::procedure::Procedure;
use switch_agent_core::discovery::metal_stack_v1::{MachineId, REST_PREFIX};
use switch_agent_core::identity::Binding;
use switch_agent_core::machines::ProxyStep;
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::service::PortContext;
use tokio_util::sync::CancellationToken;

use self::authority::Authority;
use self::credentials::Credentials;
use self::reading::Room;
use super::answer::Refusal;
use super::incomer::{Incomer, Outcome};
use crate::backend::keys::KeyError;
use crate::backend::state_dir::{StateDir, StateDirError};
use crate::http::upstream::Upstream;

/// TLS of one port, and the addresses that its certificate names.
struct Server {
    addresses: Vec<IpAddr>,
    config: Arc<ServerConfig>,
}

/// Why machines get no credentials.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the machines' authority cannot be used")]
    Authority(#[from] KeyError),
    #[error("there is no state directory")]
    NoStateDir,
    #[error("the credentials that were kept cannot be read")]
    Kept(#[from] StateDirError),
}

/// What the dialect keeps, of all ports.
pub(crate) struct MetalStackV1 {
    state_dir: Option<StateDir>,
    authority: OnceLock<Authority>,
    pub(crate) credentials: Arc<Credentials>,
    grpc: RwLock<Option<(Arc<Upstream>, CancellationToken)>>,
    servers: Mutex<BTreeMap<PortName, Server>>,
    room: Room,
}

impl MetalStackV1 {
    /// The authority's key is in `state_dir`, or will be once the dialect is configured.
    pub(crate) fn new(state_dir: Option<StateDir>) -> MetalStackV1 {
        MetalStackV1 {
            state_dir,
            authority: OnceLock::new(),
            credentials: Arc::default(),
            grpc: RwLock::new(None),
            servers: Mutex::default(),
            room: Room::default(),
        }
    }

    /// Loads the authority, made at the first time, and the credentials that were kept. The directory in
    /// which [`Credentials::keep`] is to keep them is given once. Blocks on file I/O.
    pub(crate) fn load(&self) -> Result<Option<StateDir>, LoadError> {
        if self.authority.get().is_some() {
            return Ok(None);
        }
        let state_dir = self.state_dir.clone().ok_or(LoadError::NoStateDir)?;
        let authority = Authority::load_or_create(state_dir.path())?;
        self.credentials.restore(&state_dir)?;
        Ok(self.authority.set(authority).is_ok().then_some(state_dir))
    }

    /// Replaces the client of metal-api's gRPC side, and gives the one before.
    pub(crate) fn set_grpc(
        &self,
        grpc: Option<(Arc<Upstream>, CancellationToken)>,
    ) -> Option<(Arc<Upstream>, CancellationToken)> {
        std::mem::replace(&mut *self.grpc.write().unwrap_or_else(PoisonError::into_inner), grpc)
    }

    pub(crate) fn grpc(&self) -> Option<Arc<Upstream>> {
        let grpc = self.grpc.read().unwrap_or_else(PoisonError::into_inner);
        grpc.as_ref().map(|(upstream, _)| upstream.clone())
    }

    /// Ends the port's credentials, and every connection made with them.
    pub(crate) fn revoke(&self, port: &PortName) {
        if self.credentials.revoke(port) {
            tracing::info!(%port, "credentials of the port ended");
        }
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).remove(port);
    }
}

/// Which part of the dialect serves a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Certs,
    Grpc,
    Rest,
}

impl Route {
    /// `None` where the request is none of the dialect's, or the dialect is another one.
    pub fn of(incomer: &Incomer<'_>, request: &Request<Incoming>, target: &Target) -> Option<Route> {
        let upstream = incomer.port.shared.current_upstream()?;
        if upstream.spec().dialect != Dialect::MetalStackV1 {
            return None;
        }
        let path = target.path();
        if path == "/certs" && request.method() == Method::GET {
            Some(Route::Certs)
        } else if Procedure::is_service_path(path) {
            Some(Route::Grpc)
        } else {
            target.below(REST_PREFIX).map(|_| Route::Rest)
        }
    }

    /// Serves the request. The label is for metrics.
    pub async fn serve(
        self,
        incomer: &Incomer<'_>,
        request: Request<Incoming>,
        target: &Target,
    ) -> (&'static str, Outcome) {
        match self {
            Route::Certs => ("certs", certs::serve(incomer, request.headers()).await),
            Route::Grpc => ("grpc", grpc::serve(incomer, request, target).await),
            Route::Rest => ("metal", rest::serve(incomer, request, target).await),
        }
    }
}

/// Pins the port to the machine that a request names, or holds the request against the pin.
fn pin(incomer: &Incomer<'_>, mac: MacAddr, machine: &MachineId) -> Result<(), CredentialRefusal> {
    let port = &incomer.port.listener.port;
    let credentials = &incomer.port.shared.metal_stack_v1.credentials;
    match credentials.pin(port, machine) {
        Ok(true) => {
            let machine_id = Some(machine.to_string());
            incomer.report(Some(mac), ProxyStep::Token { machine_id });
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(refusal) => {
            if credentials.may_tell(port) {
                tracing::warn!(%port, asked = %machine, %refusal, "request for another machine refused");
            }
            Err(refusal)
        }
    }
}

/// Where a request comes from, as credentials are bound to it.
fn binding(incomer: &Incomer<'_>, context: &PortContext, mac: MacAddr) -> Binding {
    crate::http::tokens::binding(&incomer.port.listener, context, mac)
}

/// The one value of a header field.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// What a machine is told where the control API is not configured to the end.
fn unusable() -> Refusal {
    let message = "the switch's control API client is not usable; see its log";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "upstream-unusable", message).retry_after(super::api::RETRY)
}

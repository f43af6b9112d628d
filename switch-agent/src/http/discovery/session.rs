//! The connections of one port: who is at the other end, and when it stops being them.
//!
//! A connection belongs to one machine on one port. It ends when the port loses its carrier, leaves its VRF
//! or changes its partition, and when its peer's address turns up with another MAC.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use socket2::SockRef;
use switch_agent_core::discovery::ingress::{self, IngressMismatch, Witnesses};
use switch_agent_core::name::MacAddr;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::answer::{Refusal, TokenBearing};
use super::metal_stack_v1::authority::fingerprint;
use super::metal_stack_v1::credentials::Presented;
use super::reply::ReplyBody;
use super::{PortState, routes};
use crate::http::listener::acceptor::Accepted;
use crate::http::listener::connection::serve;
use crate::http::listener::stream::{HandshakeError, Stream};
use crate::http::listener::wire::{Activity, Wire};

struct Open {
    peer: Ipv6Addr,
    /// The machine, from the first time the neighbour table knew it.
    mac: Option<MacAddr>,
    cancel: CancellationToken,
}

/// The open connections of a port; the acceptor bounds their number.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<(u64, BTreeMap<u64, Open>)>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Open>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, peer: Ipv6Addr, cancel: CancellationToken) -> u64 {
        let mut sessions = self.lock();
        sessions.0 += 1;
        let number = sessions.0;
        sessions.1.insert(number, Open { peer, mac: None, cancel });
        number
    }

    fn leave(&self, number: u64) {
        self.lock().1.remove(&number);
    }

    /// Ends all. Returns how many there were.
    pub(super) fn end_all(&self) -> usize {
        let sessions = self.lock();
        sessions.1.values().for_each(|open| open.cancel.cancel());
        sessions.1.len()
    }

    /// Ends those whose peer's address now belongs to another machine. Returns whether there were any.
    pub(super) fn moved(&self, address: Ipv6Addr, mac: MacAddr) -> bool {
        let sessions = self.lock();
        let mut ended = false;
        for open in sessions.1.values() {
            if open.peer == address && open.mac.is_some_and(|known| known != mac) {
                open.cancel.cancel();
                ended = true;
            }
        }
        ended
    }

    /// Whether the connection is still the machine's that it began with, as far as that is known.
    fn is_still(&self, number: u64, mac: Option<MacAddr>) -> bool {
        let Some(mac) = mac else { return true };
        let mut sessions = self.lock();
        let Some(open) = sessions.1.get_mut(&number) else { return true };
        *open.mac.get_or_insert(mac) == mac
    }
}

/// What rtnetlink and the socket say of an accepted connection.
async fn verify(port: &PortState, stream: &TcpStream, peer: SocketAddrV6) -> Result<(), IngressMismatch> {
    let spec = &port.listener;
    let device = port.shared.device.unwrap_or(spec.port.as_str());
    let bound = SockRef::from(stream).device().ok().flatten();
    let witnesses = Witnesses {
        device: bound.and_then(|name| String::from_utf8(name).ok()),
        link: port.shared.neighbors.link(spec.ifindex).await,
        peer: *peer.ip(),
        zone: peer.scope_id(),
    };
    let context = port.context();
    ingress::check(spec, device, context.prefix, context.router, &witnesses)
}

/// Serves one accepted connection to its end.
pub(super) async fn connection(port: Arc<PortState>, accepted: Accepted, cancel: CancellationToken) {
    let shared = port.shared.clone();
    let name = port.listener.port.clone();
    let Accepted { stream, peer, permits } = accepted;
    let cancel = cancel.child_token();
    // Entered first: what changes while the witnesses are heard ends it too.
    let number = port.sessions.enter(*peer.ip(), cancel.clone());
    match cancel.run_until_cancelled(verify(&port, &stream, peer)).await {
        Some(Ok(())) => {
            let _open = shared.metrics.proxy.connection_opened(&name);
            if let Some(Some((stream, presented))) = cancel.run_until_cancelled(secure(&port, stream)).await {
                let metrics = shared.metrics.clone();
                let activity = Arc::new(Activity::default());
                let wire = Wire::new(stream, &shared.limits, activity.clone(), move |refusal| {
                    metrics.proxy.rejected(refusal);
                });
                let ended = presented.as_ref().map(|presented| presented.ended.clone()).unwrap_or_default();
                let service = MachineService {
                    port: port.clone(),
                    number,
                    peer,
                    activity: activity.clone(),
                    cancel,
                    presented,
                };
                let ends = service.cancel.clone();
                let serving = serve(wire, service, activity, &shared.limits, ends);
                // Credentials that end take every connection along that was made with them.
                ended.run_until_cancelled(serving).await;
            }
        }
        Some(Err(mismatch)) => {
            shared.metrics.proxy.rejected(mismatch.as_str());
            tracing::warn!(port = %name, reason = %mismatch, "connection closed: it is not what it seems");
        }
        None => {}
    }
    port.sessions.leave(number);
    drop(permits);
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
    number: u64,
    peer: SocketAddrV6,
    activity: Arc<Activity>,
    cancel: CancellationToken,
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
        let (port, peer, activity) = (self.port.clone(), self.peer, self.activity.clone());
        let active = activity.begin();
        let mac = port.shared.neighbors.mac(port.listener.ifindex, *peer.ip());
        let refusal = if port.sessions.is_still(self.number, mac) {
            ambiguous(&request)
        } else {
            self.cancel.cancel();
            let message = "another machine took over the address of this connection";
            Some(Refusal::new(StatusCode::UNAUTHORIZED, "machine-changed", message))
        };
        if refusal.is_none()
            && let Err(after) = port.take_request()
        {
            let refused = routes::limited(port, request, after);
            return Box::pin(async move { Ok(refused.await.map(|body| body.of(active))) });
        }
        Box::pin(async move {
            let response = match refusal {
                None => routes::serve(port, peer, request).await,
                Some(refusal) => {
                    port.shared.metrics.proxy.rejected(refusal.code);
                    refusal.into_response(&port.listener.port)
                }
            };
            if response.extensions().get::<TokenBearing>().is_some() {
                activity.bear_token();
            }
            Ok(response.map(|body| body.of(active)))
        })
    }
}

/// An HTTP/2 request that two parsers could take for different ones (RFC 9113 section 8.3.1). HTTP/1
/// requests were looked at before they were parsed.
fn ambiguous(request: &Request<Incoming>) -> Option<Refusal> {
    if request.version() != Version::HTTP_2 {
        return None;
    }
    let mut hosts = request.headers().get_all(::http::header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let one = another.is_none()
        && match (authority, host) {
            (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host.as_bytes()),
            (None, None) => false,
            _ => true,
        };
    let refused = (!one).then_some("a request names exactly one host");
    refused.map(|message| Refusal::new(StatusCode::BAD_REQUEST, "host-refused", message))
}

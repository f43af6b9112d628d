//! Who asks.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use ::http::{Response, StatusCode};
use switch_agent_core::machines::{MachineEvent, ProxyStep};
use switch_agent_core::name::MacAddr;

use super::PortState;
use super::answer::Refusal;
use super::reply::ReplyBody;

/// What becomes of a request.
pub type Outcome = Result<Response<ReplyBody>, Refusal>;

/// A request with what is known of where it came from.
pub struct Incomer<'a> {
    pub port: &'a Arc<PortState>,
    pub peer: SocketAddrV6,
}

impl Incomer<'_> {
    pub fn address(&self) -> Ipv6Addr {
        *self.peer.ip()
    }

    /// The machine's MAC from the neighbour table of the port. The kernel made the entry when it answered
    /// the connection; the cache of it may be a moment behind.
    pub async fn mac(&self) -> Option<MacAddr> {
        const WAITS_MS: [u64; 5] = [0, 10, 40, 100, 200];
        for wait in WAITS_MS {
            if wait > 0 {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            if let Some(mac) = self.port.shared.neighbors.mac(self.port.listener.ifindex, self.address()) {
                return Some(mac);
            }
        }
        None
    }

    pub async fn known_mac(&self) -> Result<MacAddr, Refusal> {
        self.mac().await.ok_or_else(|| {
            let message = "the switch has no neighbour entry for this machine yet";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "machine-unknown", message)
                .retry_after(Duration::from_secs(1))
        })
    }

    pub fn report(&self, mac: Option<MacAddr>, step: ProxyStep) {
        let port = self.port.listener.port.clone();
        self.port.shared.hub.observe(MachineEvent::Proxy { port, mac, address: self.address(), step });
    }
}

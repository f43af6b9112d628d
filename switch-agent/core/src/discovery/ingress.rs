//! Whether an accepted connection came in where its listener says.
//!
//! The socket is bound to the port and filtered by the VRF; this asks witnesses that know nothing of that.
//! Any of them that disagrees means that the port was renamed, moved or made anew between the kernel's
//! handshake and now, or that a machine uses an address that no reply to it could have reached.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::service::ListenerSpec;

/// What is known of a connection from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witnesses {
    /// The device that the accepted socket is bound to, by the name that it has now.
    pub device: Option<String>,
    /// The link with the port's index now, by rtnetlink: its name and the index of its master.
    pub link: Option<(String, Option<u32>)>,
    /// The peer's address and its zone (0 for a global address).
    pub peer: Ipv6Addr,
    pub zone: u32,
}

/// Which witness disagrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IngressMismatch {
    #[error("the connection is bound to another device")]
    Device,
    #[error("the port is gone or has another name")]
    Link,
    #[error("the port is not in its VRF")]
    Vrf,
    #[error("the peer has an address that cannot be on the port")]
    Peer,
}

impl IngressMismatch {
    /// Label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            IngressMismatch::Device => "ingress-device",
            IngressMismatch::Link => "ingress-link",
            IngressMismatch::Vrf => "ingress-vrf",
            IngressMismatch::Peer => "ingress-peer",
        }
    }
}

/// Checks that all witnesses speak of the port of `spec`, whose device is `device` and whose /64 is
/// `prefix`. A device that is its own "VRF" needs no master.
pub fn check(
    spec: &ListenerSpec,
    device: &str,
    prefix: Ipv6Net,
    witnesses: &Witnesses,
) -> Result<(), IngressMismatch> {
    let Witnesses { device: bound, link, peer, zone } = witnesses;
    if bound.as_deref() != Some(device) {
        return Err(IngressMismatch::Device);
    }
    let master = match link {
        Some((name, master)) if name == device => *master,
        _ => return Err(IngressMismatch::Link),
    };
    if spec.vrf_ifindex != spec.ifindex && master != Some(spec.vrf_ifindex) {
        return Err(IngressMismatch::Vrf);
    }
    let at_home = if peer.is_unicast_link_local() { *zone == spec.ifindex } else { prefix.contains(peer) };
    if at_home { Ok(()) } else { Err(IngressMismatch::Peer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_witness_counts() {
        let spec = ListenerSpec {
            port: "Ethernet0".parse().unwrap(),
            ifindex: 7,
            vrf: "VrfBoot-p1".parse().unwrap(),
            vrf_ifindex: 9,
            tcp_port: 18090,
        };
        let good = Witnesses {
            device: Some("Ethernet0".to_owned()),
            link: Some(("Ethernet0".to_owned(), Some(9))),
            peer: "fe80::2".parse().unwrap(),
            zone: 7,
        };
        let prefix = "2001:db8:0:1::/64".parse().unwrap();
        let verdict = |change: &dyn Fn(&mut Witnesses)| {
            let mut witnesses = good.clone();
            change(&mut witnesses);
            check(&spec, "Ethernet0", prefix, &witnesses)
        };
        assert_eq!(verdict(&|_| {}), Ok(()));
        assert_eq!(verdict(&|w| (w.peer, w.zone) = ("2001:db8:0:1::5".parse().unwrap(), 0)), Ok(()));
        assert_eq!(verdict(&|w| w.device = None), Err(IngressMismatch::Device));
        assert_eq!(verdict(&|w| w.device = Some("Ethernet4".to_owned())), Err(IngressMismatch::Device));
        assert_eq!(verdict(&|w| w.link = None), Err(IngressMismatch::Link));
        assert_eq!(
            verdict(&|w| w.link = Some(("Ethernet4".to_owned(), Some(9)))),
            Err(IngressMismatch::Link)
        );
        assert_eq!(verdict(&|w| w.link = Some(("Ethernet0".to_owned(), None))), Err(IngressMismatch::Vrf));
        assert_eq!(verdict(&|w| w.link = Some(("Ethernet0".to_owned(), Some(8)))), Err(IngressMismatch::Vrf));
        assert_eq!(verdict(&|w| w.zone = 8), Err(IngressMismatch::Peer));
        // The /64 of another port.
        assert_eq!(
            verdict(&|w| (w.peer, w.zone) = ("2001:db8:0:2::5".parse().unwrap(), 0)),
            Err(IngressMismatch::Peer)
        );
    }
}

//! Router Advertisements: configuration, and the sans-I/O advertiser of one port.

use std::net::Ipv6Addr;

use serde::Serialize;

use crate::dhcp6::Dhcp6Config;
use crate::name::{MacAddr, PortName};

mod advertiser;
mod answers;
mod bucket;
mod compare;
mod config;
mod content;
mod multicast;
mod rng;
mod transmit;
mod withdrawn;

pub use advertiser::Advertiser;
pub use answers::{Heard, Trigger};
pub use bucket::TokenBucket;
pub use compare::{Inconsistency, compare};
pub use config::{
    AdvPrefix, EncryptedDns, Preference, PrefixVariables, RaConfig, RaProfile, RouteInfo, SvcParams,
};
pub use transmit::{Destination, Transmit, TransmitKind};

/// Everything an advertiser needs to run on one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdvertiserSpec {
    pub port: PortName,
    pub ifindex: u32,
    /// MAC of the port's netdev: Source Link-Layer Address option, and source of the frames.
    pub mac: MacAddr,
    /// Link-local address of the port: source of the advertisements.
    pub link_local: Ipv6Addr,
    /// The kernel forwards what arrives on the port. Where it does not, the router has lifetime 0
    /// (RFC 4861 section 6.2.5).
    pub forwarding: bool,
    pub config: RaConfig,
    /// DHCPv6 beside the advertisements: one process owns both, as a client's first message is answered by
    /// both at once.
    pub dhcp6: Option<Dhcp6Config>,
}

/// How a port stops advertising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cease {
    /// The port really leaves: final advertisements with Router Lifetime 0 (RFC 4861 section 6.2.5).
    Final,
    /// The process stops or restarts: nothing is sent, machines keep their router.
    Silent,
}

/// A change of a link as the kernel reported it, on the fast path past the reconciler: an advertisement
/// leaves within milliseconds of carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEvent {
    pub ifindex: u32,
    pub name: String,
    /// IFF_UP and IFF_LOWER_UP.
    pub carrier: bool,
    /// Interface index of the device that the link is enslaved to: its VRF, or a bridge.
    pub master: Option<u32>,
    /// The port's usable link-local address, where it has one.
    pub link_local: Option<Ipv6Addr>,
    /// The link was deleted.
    pub gone: bool,
}

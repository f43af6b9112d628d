//! One advertisement on its way out.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use super::AdvertiserSpec;
use crate::name::MacAddr;
use crate::ndp::{ALL_NODES, ALL_NODES_MAC, FrameAddresses};

/// Where an advertisement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    AllNodes,
    /// `ff02::1` in a unicast frame (RFC 6085).
    AllNodesIn(MacAddr),
    Unicast {
        address: Ipv6Addr,
        mac: MacAddr,
    },
}

/// Why an advertisement is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransmitKind {
    /// One of the first after the port began to advertise or its content changed.
    Initial,
    /// The interval timer expired.
    Periodic,
    /// Answer to all nodes.
    Solicited,
    /// Answer to one address.
    Unicast,
    /// Greeting of a machine that showed itself, see [`super::Trigger`].
    Triggered,
    /// Router Lifetime 0: the port ceases to advertise, or its link-local address was another one.
    Final,
}

/// One advertisement to send now.
#[derive(Debug, Clone)]
pub struct Transmit {
    pub kind: TransmitKind,
    pub destination: Destination,
    pub addresses: FrameAddresses,
    /// ICMPv6 messages with checksum 0, see [`crate::ndp::write_frame`]; more than one where the options do
    /// not fit into one.
    pub messages: Arc<[Vec<u8>]>,
    /// Arrival of the first solicitation that this answers.
    pub solicited_at: Option<Duration>,
}

pub(super) fn frame_addresses(spec: &AdvertiserSpec, destination: Destination) -> FrameAddresses {
    let (destination_mac, destination) = match destination {
        Destination::AllNodes => (ALL_NODES_MAC, ALL_NODES),
        Destination::AllNodesIn(mac) => (mac, ALL_NODES),
        Destination::Unicast { address, mac } => (mac, address),
    };
    FrameAddresses { source_mac: spec.mac, destination_mac, source: spec.link_local, destination }
}

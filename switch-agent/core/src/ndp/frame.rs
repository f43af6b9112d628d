//! Whole Ethernet frames around an ICMPv6 message.

use std::net::Ipv6Addr;

use super::{ETHERTYPE_IPV6, HOP_LIMIT, NEXT_HEADER_ICMPV6, icmpv6_checksum};
use crate::name::MacAddr;

/// Traffic class CS6 (RFC 4594 section 3.2, network control), flow label 0.
const VERSION_CLASS_FLOW: u32 = 6 << 28 | 0xc0 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameAddresses {
    pub source_mac: MacAddr,
    /// May be a unicast address although `destination` is multicast (RFC 6085).
    pub destination_mac: MacAddr,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
}

/// Writes Ethernet header, IPv6 header and `icmp` with its checksum into `frame`, replacing its content.
pub fn write_frame(frame: &mut Vec<u8>, addresses: &FrameAddresses, icmp: &[u8]) {
    frame.clear();
    frame.extend_from_slice(&addresses.destination_mac.0);
    frame.extend_from_slice(&addresses.source_mac.0);
    frame.extend_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
    frame.extend_from_slice(&VERSION_CLASS_FLOW.to_be_bytes());
    frame.extend_from_slice(&u16::try_from(icmp.len()).unwrap_or(u16::MAX).to_be_bytes());
    frame.extend_from_slice(&[NEXT_HEADER_ICMPV6, HOP_LIMIT]);
    frame.extend_from_slice(&addresses.source.octets());
    frame.extend_from_slice(&addresses.destination.octets());
    let start = frame.len();
    frame.extend_from_slice(icmp);
    if let Some(message) = frame.get_mut(start..).filter(|message| message.len() >= 4) {
        message[2..4].fill(0);
        let checksum = icmpv6_checksum(addresses.source, addresses.destination, message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
}

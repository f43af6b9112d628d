//! Neighbor Discovery on the wire: Router Solicitations in, Router Advertisements out (RFC 4861 section 4).
//!
//! A codec of our own, because packet sockets need whole Ethernet frames in both directions and the
//! options of RFC 4191, 8106, 8781 and 8910. Nothing a peer sends can make it panic or read out of bounds.

use std::net::Ipv6Addr;

use crate::name::MacAddr;

mod advertisement;
mod frame;
mod mld;
mod option;
mod parse;
mod received;
#[cfg(test)]
mod tests;

pub use advertisement::{Header, MESSAGE_LEN_MAX, messages};
pub use frame::{FrameAddresses, write_frame};
pub use mld::MldReport;
pub(crate) use option::encode_domain;
pub use option::{CAPTIVE_PORTAL_LEN_MAX, NdpOption, is_encodable_domain};
pub use parse::{Advert, ChecksumOffload, Invalid, Message, Probe, Solicit, parse_frame};
pub use received::{AdvertOption, AdvertOptions, Names, Servers};

/// `ff02::1` (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// `33:33:00:00:00:01`, the Ethernet address of [`ALL_NODES`] (RFC 2464 section 7).
pub const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// Smallest MTU of any IPv6 link (RFC 8200 section 5). No advertisement is longer: ND messages must not be
/// fragmented (RFC 6980).
pub const IPV6_MTU_MIN: usize = 1280;

/// Hop limit of every ND message; a router decrements it, so 255 proves an on-link sender.
const HOP_LIMIT: u8 = 255;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const NEXT_HEADER_HOP_BY_HOP: u8 = 0;
const NEXT_HEADER_ICMPV6: u8 = 58;
const ETHERNET_HEADER_LEN: usize = 14;
const IPV6_HEADER_LEN: usize = 40;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;

fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> u16 {
    upper_layer_checksum(source, destination, NEXT_HEADER_ICMPV6, icmp)
}

/// Ones' complement sum of an upper-layer packet and its pseudo-header (RFC 8200 section 8.1). Zero after
/// complement where `packet` carries its correct checksum.
pub(crate) fn upper_layer_checksum(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    packet: &[u8],
) -> u16 {
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    let mut sum = u64::from(length) + u64::from(next_header);
    for part in [&source.octets()[..], &destination.octets()[..], packet] {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

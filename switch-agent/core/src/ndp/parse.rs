//! Frames of other machines, checked as RFC 4861 sections 6.1.1, 6.1.2 and 7.1.1 demand.

use std::net::Ipv6Addr;

use thiserror::Error;

use super::mld::{self, MldReport};
use super::received::AdvertOptions;
use super::{
    ETHERNET_HEADER_LEN, ETHERTYPE_IPV6, HOP_LIMIT, IPV6_HEADER_LEN, NEIGHBOR_SOLICITATION,
    NEXT_HEADER_HOP_BY_HOP, NEXT_HEADER_ICMPV6, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION, icmpv6_checksum,
};
use crate::name::MacAddr;

/// A valid Router Solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicit {
    /// `None` when it was sent from `::`, as firmware does.
    pub source: Option<Ipv6Addr>,
    /// Source of the Ethernet frame: where an answer reaches the machine without neighbour resolution.
    pub mac: MacAddr,
    /// Source Link-Layer Address option.
    pub sllao: Option<MacAddr>,
}

/// A valid Router Advertisement of somebody else: compared and counted, never acted on
/// (RFC 4861 section 6.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advert<'a> {
    pub source: Ipv6Addr,
    pub mac: MacAddr,
    pub cur_hop_limit: u8,
    pub managed: bool,
    pub other_config: bool,
    pub router_lifetime_s: u16,
    /// Milliseconds.
    pub reachable_time_ms: u32,
    /// Milliseconds.
    pub retrans_timer_ms: u32,
    pub options: AdvertOptions<'a>,
}

/// A valid probe for a duplicate of an address (RFC 4862 section 5.4.2): the first that is heard of many
/// hosts. The address is tentative, it says only who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Source of the Ethernet frame.
    pub mac: MacAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    Solicit(Solicit),
    Advert(Advert<'a>),
    Probe(Probe),
    MldReport(MldReport),
}

/// What the kernel said about the checksum of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumOffload {
    /// The bytes carry the final checksum: verify it.
    Complete,
    /// The frame comes from this host and its checksum is not filled in yet.
    NotReady,
}

/// Why a frame is no Neighbor Discovery message that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Invalid {
    #[error("the frame is shorter than its headers say")]
    Truncated,
    #[error("not an ICMPv6 router discovery message directly after the IPv6 header")]
    NotRouterDiscovery,
    #[error("the Ethernet source is no unicast address")]
    EthernetSource,
    #[error("the IP Hop Limit is not 255")]
    HopLimit,
    #[error("the ICMPv6 checksum does not match")]
    Checksum,
    #[error("the ICMPv6 code is not 0")]
    Code,
    #[error("the ICMPv6 length is below the minimum of the message")]
    Length,
    #[error("an option has length 0")]
    OptionLengthZero,
    #[error("an option reaches past the end of the message")]
    OptionOverrun,
    #[error("the Source Link-Layer Address option is no unicast Ethernet address")]
    LinkLayerAddress,
    #[error("sent from the unspecified address with a Source Link-Layer Address option")]
    UnspecifiedWithSllao,
    #[error("the source address is not allowed for the message")]
    Source,
    #[error("a probe that was not sent to the solicited-node address of a unicast target")]
    Destination,
    #[error(
        "an MLD report with another hop limit than 1, without Router Alert, or with addresses that do not fit"
    )]
    Mld,
}

impl Invalid {
    /// Short constant name, for a metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Invalid::Truncated => "truncated",
            Invalid::NotRouterDiscovery => "not_router_discovery",
            Invalid::EthernetSource => "ethernet_source",
            Invalid::HopLimit => "hop_limit",
            Invalid::Checksum => "checksum",
            Invalid::Code => "code",
            Invalid::Length => "length",
            Invalid::OptionLengthZero => "option_length_zero",
            Invalid::OptionOverrun => "option_overrun",
            Invalid::LinkLayerAddress => "link_layer_address",
            Invalid::UnspecifiedWithSllao => "unspecified_with_sllao",
            Invalid::Source => "source",
            Invalid::Destination => "destination",
            Invalid::Mld => "mld",
        }
    }
}

/// Length of a Router Solicitation without options (RFC 4861 section 6.1.1).
const SOLICITATION_LEN_MIN: usize = 8;
/// Length of a Router Advertisement without options (RFC 4861 section 6.1.2).
const ADVERTISEMENT_LEN_MIN: usize = 16;
/// Length of a Neighbor Solicitation without options (RFC 4861 section 7.1.1).
const NEIGHBOR_SOLICITATION_LEN_MIN: usize = 24;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

/// Reads one untagged Ethernet frame. Padding behind the IPv6 payload is ignored.
///
/// Extension headers are not followed, but for the Hop-by-Hop Options that every MLD report has: a
/// solicitation needs none, and a fragmented one must be dropped (RFC 6980 section 5).
pub fn parse_frame(frame: &[u8], offload: ChecksumOffload) -> Result<Message<'_>, Invalid> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_HEADER_LEN).ok_or(Invalid::Truncated)?;
    let mac = MacAddr(array(ethernet, 6)?);
    if u16::from_be_bytes(array(ethernet, 12)?) != ETHERTYPE_IPV6 {
        return Err(Invalid::NotRouterDiscovery);
    }
    if !mac.is_unicast() {
        return Err(Invalid::EthernetSource);
    }
    let (header, payload) = packet.split_at_checked(IPV6_HEADER_LEN).ok_or(Invalid::Truncated)?;
    let (next_header, hop_limit) = (header[6], header[7]);
    if header[0] >> 4 != 6 || !matches!(next_header, NEXT_HEADER_ICMPV6 | NEXT_HEADER_HOP_BY_HOP) {
        return Err(Invalid::NotRouterDiscovery);
    }
    if next_header == NEXT_HEADER_ICMPV6 && hop_limit != HOP_LIMIT {
        return Err(Invalid::HopLimit);
    }
    let length = usize::from(u16::from_be_bytes(array(header, 4)?));
    let payload = payload.get(..length).ok_or(Invalid::Truncated)?;
    let source = Ipv6Addr::from(array::<16>(header, 8)?);
    let destination = Ipv6Addr::from(array::<16>(header, 24)?);
    if next_header == NEXT_HEADER_HOP_BY_HOP {
        let addresses = mld::Addresses { mac, hop_limit, source, destination };
        return mld::parse(addresses, payload, offload).map(Message::MldReport);
    }
    parse_icmpv6(mac, source, destination, payload, offload)
}

fn parse_icmpv6(
    mac: MacAddr,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    icmp: &[u8],
    offload: ChecksumOffload,
) -> Result<Message<'_>, Invalid> {
    let length_min = match icmp.first() {
        Some(&ROUTER_SOLICITATION) => SOLICITATION_LEN_MIN,
        Some(&ROUTER_ADVERTISEMENT) => ADVERTISEMENT_LEN_MIN,
        // Other neighbour solicitations are the kernel's business.
        Some(&NEIGHBOR_SOLICITATION) if source.is_unspecified() => NEIGHBOR_SOLICITATION_LEN_MIN,
        Some(_) => return Err(Invalid::NotRouterDiscovery),
        None => return Err(Invalid::Length),
    };
    if offload == ChecksumOffload::Complete && icmpv6_checksum(source, destination, icmp) != 0 {
        return Err(Invalid::Checksum);
    }
    if icmp.get(1) != Some(&0) {
        return Err(Invalid::Code);
    }
    let (fixed, options) = icmp.split_at_checked(length_min).ok_or(Invalid::Length)?;
    let sllao = walk_options(options)?;
    match length_min {
        SOLICITATION_LEN_MIN => solicit(mac, source, sllao).map(Message::Solicit),
        ADVERTISEMENT_LEN_MIN => advert(mac, source, fixed, options).map(Message::Advert),
        _ => probe(mac, destination, fixed, sllao).map(Message::Probe),
    }
}

/// Checks the lengths of all options and returns the first Source Link-Layer Address. Unknown options are
/// skipped, as RFC 4861 section 6.1.1 demands.
fn walk_options(mut options: &[u8]) -> Result<Option<MacAddr>, Invalid> {
    let mut sllao = None;
    while !options.is_empty() {
        let units = *options.get(1).ok_or(Invalid::OptionOverrun)?;
        if units == 0 {
            return Err(Invalid::OptionLengthZero);
        }
        let (option, rest) =
            options.split_at_checked(usize::from(units) * 8).ok_or(Invalid::OptionOverrun)?;
        if option[0] == SOURCE_LINK_LAYER_ADDRESS && sllao.is_none() {
            let address = MacAddr(array(option, 2)?);
            if units != 1 || !address.is_unicast() {
                return Err(Invalid::LinkLayerAddress);
            }
            sllao = Some(address);
        }
        options = rest;
    }
    Ok(sllao)
}

fn solicit(mac: MacAddr, source: Ipv6Addr, sllao: Option<MacAddr>) -> Result<Solicit, Invalid> {
    if source.is_multicast() || source.is_loopback() {
        return Err(Invalid::Source);
    }
    if source.is_unspecified() && sllao.is_some() {
        return Err(Invalid::UnspecifiedWithSllao);
    }
    Ok(Solicit { source: (!source.is_unspecified()).then_some(source), mac, sllao })
}

fn advert<'a>(
    mac: MacAddr,
    source: Ipv6Addr,
    fixed: &[u8],
    options: &'a [u8],
) -> Result<Advert<'a>, Invalid> {
    if !source.is_unicast_link_local() {
        return Err(Invalid::Source);
    }
    let [cur_hop_limit, flags] = array(fixed, 4)?;
    Ok(Advert {
        source,
        mac,
        cur_hop_limit,
        managed: flags & 0x80 != 0,
        other_config: flags & 0x40 != 0,
        router_lifetime_s: u16::from_be_bytes(array(fixed, 6)?),
        reachable_time_ms: u32::from_be_bytes(array(fixed, 8)?),
        retrans_timer_ms: u32::from_be_bytes(array(fixed, 12)?),
        options: AdvertOptions(options),
    })
}

/// RFC 4861 section 7.1.1, for a solicitation from the unspecified address.
fn probe(
    mac: MacAddr,
    destination: Ipv6Addr,
    fixed: &[u8],
    sllao: Option<MacAddr>,
) -> Result<Probe, Invalid> {
    if sllao.is_some() {
        return Err(Invalid::UnspecifiedWithSllao);
    }
    let target = Ipv6Addr::from(array::<16>(fixed, 8)?);
    if target.is_multicast() || destination != solicited_node(target) {
        return Err(Invalid::Destination);
    }
    Ok(Probe { mac })
}

/// The solicited-node multicast address (RFC 4291 section 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

/// `N` bytes at `offset`.
pub(super) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], Invalid> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(Invalid::Truncated)
}

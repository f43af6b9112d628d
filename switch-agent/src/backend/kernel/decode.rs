//! The few attributes of rtnetlink messages that the agent looks at.
//!
//! Decoded here rather than by the message types of `netlink-packet-route`: those decode every attribute
//! of a message and fail as a whole, and the kernels of switches carry drivers whose attributes nobody
//! else has seen. Requests, which are ours, are built from those types.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use nix::libc;
use switch_agent_core::name::MacAddr;
use switch_agent_core::observed::Link;

use super::socket::Message;
use crate::backend::netlink::attributes;

/// `IFLA_VRF_TABLE`, inside `IFLA_INFO_DATA` of a VRF device (linux/if_link.h).
const IFLA_VRF_TABLE: u16 = 1;
/// `IFLA_INET6_CONF`, inside `AF_INET6` of `IFLA_AF_SPEC`: an array of i32.
const IFLA_INET6_CONF: u16 = 2;
/// A setting of an interface changed (linux/rtnetlink.h, linux/netconf.h).
const RTM_NEWNETCONF: u16 = 80;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
/// Index of `forwarding` in that array (`DEVCONF_FORWARDING`, linux/ipv6.h).
const DEVCONF_FORWARDING: usize = 0;

/// A link as one message shows it: no addresses, and its master by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawLink {
    pub(super) name: String,
    pub(super) master: Option<u32>,
    pub(super) link: Link,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawAddress {
    pub(super) ifindex: u32,
    pub(super) net: Ipv6Net,
    /// DAD runs or failed: not to be used.
    pub(super) tentative: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawNeighbor {
    pub(super) ifindex: u32,
    pub(super) address: Ipv6Addr,
    pub(super) state: NeighborState,
}

/// What a neighbour entry's NUD state means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NeighborState {
    /// The neighbour was heard of just now (REACHABLE, PERMANENT).
    Confirmed(MacAddr),
    /// It was there once and may still be (STALE, DELAY, PROBE).
    Known(MacAddr),
    /// Resolution failed or has not succeeded yet.
    Unresolved,
    /// Multicast and the like, which are never resolved.
    Irrelevant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawRoute {
    pub(super) table: u32,
    pub(super) destination: Ipv6Net,
    pub(super) unreachable: bool,
    /// Made by the kernel itself: connected and local routes.
    pub(super) of_kernel: bool,
}

/// A message about the network's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Link(RawLink),
    LinkGone {
        ifindex: u32,
    },
    Address(RawAddress),
    AddressGone(RawAddress),
    Neighbor(RawNeighbor),
    NeighborGone(RawNeighbor),
    Route(RawRoute),
    /// `net.ipv6.conf.<link>.forwarding` changed.
    Forwarding {
        ifindex: u32,
        on: bool,
    },
}

/// The event a message stands for; `None` where it is about something else (IPv4, bridge ports).
pub(super) fn event(message: Message<'_>) -> Option<Event> {
    let payload = message.payload;
    match message.kind {
        libc::RTM_NEWLINK => link(payload).map(Event::Link),
        libc::RTM_DELLINK => link(payload).map(|raw| Event::LinkGone { ifindex: raw.link.ifindex }),
        libc::RTM_NEWADDR => address(payload).map(Event::Address),
        libc::RTM_DELADDR => address(payload).map(Event::AddressGone),
        libc::RTM_NEWNEIGH => neighbor(payload).map(Event::Neighbor),
        libc::RTM_DELNEIGH => neighbor(payload).map(Event::NeighborGone),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => route(payload).map(Event::Route),
        RTM_NEWNETCONF => netconf(payload),
        _ => None,
    }
}

fn u32_value(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

fn u32_at(payload: &[u8], at: usize) -> Option<u32> {
    u32_value(payload.get(at..)?)
}

fn string_value(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn mac_value(value: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(value).ok().map(MacAddr)
}

fn ipv6_value(value: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(value).ok().map(Ipv6Addr::from)
}

fn is_family(payload: &[u8], family: i32) -> bool {
    payload.first().is_some_and(|found| i32::from(*found) == family)
}

/// `struct ifinfomsg` and attributes.
fn link(payload: &[u8]) -> Option<RawLink> {
    // A bridge reports its ports leaving as RTM_DELLINK of family AF_BRIDGE: no link went away.
    if !is_family(payload, libc::AF_UNSPEC) {
        return None;
    }
    let flags = u32_at(payload, 8)?;
    let has = |flag: i32| flags & flag.unsigned_abs() != 0;
    let mut raw = RawLink {
        name: String::new(),
        master: None,
        link: Link {
            ifindex: u32_at(payload, 4)?,
            master: None,
            is_vrf: false,
            vrf_table: None,
            admin_up: has(libc::IFF_UP),
            carrier: has(libc::IFF_LOWER_UP),
            mac: None,
            addresses: Default::default(),
            tentative: Default::default(),
            forwarding: None,
        },
    };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => raw.name = string_value(value),
            libc::IFLA_MASTER => raw.master = u32_value(value).filter(|ifindex| *ifindex != 0),
            libc::IFLA_ADDRESS => raw.link.mac = mac_value(value),
            libc::IFLA_LINKINFO => link_info(value, &mut raw.link),
            libc::IFLA_AF_SPEC => raw.link.forwarding = forwarding(value),
            _ => {}
        }
    }
    (!raw.name.is_empty()).then_some(raw)
}

fn link_info(value: &[u8], link: &mut Link) {
    let find = |wanted| attributes(value).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    link.is_vrf = find(libc::IFLA_INFO_KIND).is_some_and(|kind| string_value(kind) == "vrf");
    if link.is_vrf
        && let Some(data) = find(libc::IFLA_INFO_DATA)
    {
        link.vrf_table = attributes(data)
            .find(|(kind, _)| *kind == IFLA_VRF_TABLE)
            .and_then(|(_, value)| u32_value(value));
    }
}

fn forwarding(af_spec: &[u8]) -> Option<bool> {
    let (_, inet6) = attributes(af_spec).find(|(kind, _)| i32::from(*kind) == libc::AF_INET6)?;
    let (_, conf) = attributes(inet6).find(|(kind, _)| *kind == IFLA_INET6_CONF)?;
    u32_at(conf, DEVCONF_FORWARDING * 4).map(|value| value != 0)
}

/// `struct ifaddrmsg` and attributes; IPv6 only.
fn address(payload: &[u8]) -> Option<RawAddress> {
    if !is_family(payload, libc::AF_INET6) {
        return None;
    }
    let prefix_len = *payload.get(1)?;
    let mut flags = u32::from(*payload.get(2)?);
    let (mut address, mut local) = (None, None);
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            libc::IFA_ADDRESS => address = ipv6_value(value),
            libc::IFA_LOCAL => local = ipv6_value(value),
            libc::IFA_FLAGS => flags = u32_value(value)?,
            _ => {}
        }
    }
    let running = flags & libc::IFA_F_TENTATIVE != 0 && flags & libc::IFA_F_OPTIMISTIC == 0;
    Some(RawAddress {
        ifindex: u32_at(payload, 4)?,
        // With a peer, IFA_ADDRESS is the peer's.
        net: Ipv6Net::new(local.or(address)?, prefix_len).ok()?,
        tentative: running || flags & libc::IFA_F_DADFAILED != 0,
    })
}

/// `struct ndmsg` and attributes; IPv6 only.
fn neighbor(payload: &[u8]) -> Option<RawNeighbor> {
    if !is_family(payload, libc::AF_INET6) {
        return None;
    }
    let state = u16::from_ne_bytes(payload.get(8..10)?.try_into().ok()?);
    let (mut address, mut mac) = (None, None);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            libc::NDA_DST => address = ipv6_value(value),
            libc::NDA_LLADDR => mac = mac_value(value).filter(|mac| mac.is_unicast()),
            _ => {}
        }
    }
    let state = match (state, mac) {
        (libc::NUD_REACHABLE | libc::NUD_PERMANENT, Some(mac)) => NeighborState::Confirmed(mac),
        (libc::NUD_STALE | libc::NUD_DELAY | libc::NUD_PROBE, Some(mac)) => NeighborState::Known(mac),
        (libc::NUD_FAILED | libc::NUD_INCOMPLETE, _) => NeighborState::Unresolved,
        _ => NeighborState::Irrelevant,
    };
    Some(RawNeighbor { ifindex: u32_at(payload, 4)?, address: address?, state })
}

/// `struct rtmsg` and attributes; IPv6 only.
fn route(payload: &[u8]) -> Option<RawRoute> {
    if !is_family(payload, libc::AF_INET6) {
        return None;
    }
    let (mut table, mut destination) = (u32::from(*payload.get(4)?), Ipv6Addr::UNSPECIFIED);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            // The header's byte is too short for the tables of VRFs.
            libc::RTA_TABLE => table = u32_value(value)?,
            libc::RTA_DST => destination = Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?),
            _ => {}
        }
    }
    Some(RawRoute {
        table,
        destination: Ipv6Net::new(destination, *payload.get(1)?).ok()?,
        of_kernel: *payload.get(5)? == libc::RTPROT_KERNEL,
        unreachable: *payload.get(7)? == libc::RTN_UNREACHABLE,
    })
}

/// `struct netconfmsg` and attributes; IPv6 forwarding of one link only. What is set for `all` or as the
/// default is told with negative indexes, and then of each link.
fn netconf(payload: &[u8]) -> Option<Event> {
    if !is_family(payload, libc::AF_INET6) {
        return None;
    }
    let find = |wanted| {
        let found = attributes(payload.get(4..)?).find(|(kind, _)| *kind == wanted);
        found.and_then(|(_, value)| u32_value(value))
    };
    let ifindex = find(NETCONFA_IFINDEX).filter(|index| i32::try_from(*index).is_ok())?;
    Some(Event::Forwarding { ifindex, on: find(NETCONFA_FORWARDING)? != 0 })
}

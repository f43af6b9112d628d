//! Dumps, and the [`Kernel`] that is made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use switch_agent_core::map::IntoMap;
use switch_agent_core::name::MacAddr;
use switch_agent_core::observed::Kernel;

use super::KernelError;
use super::decode::{self, Event, NeighborState, RawAddress, RawLink};
use super::socket::{Message, NetlinkSocket};

/// `CAP_NET_ADMIN` (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// A resolved neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbor {
    pub(super) ifindex: u32,
    pub(super) address: Ipv6Addr,
    pub(super) mac: MacAddr,
}

pub(super) async fn snapshot() -> Result<Kernel, KernelError> {
    let socket = NetlinkSocket::open()?;
    let links = links(&socket).await?;
    let tables: BTreeSet<u32> = links.values().filter_map(|raw| raw.link.vrf_table).collect();
    let denied = unreachable_defaults(&socket, &tables).await?;
    Ok(Kernel {
        unreachable_defaults: links
            .values()
            .filter(|raw| raw.link.vrf_table.is_some_and(|table| denied.contains(&table)))
            .map(|raw| raw.name.clone())
            .collect(),
        links: links.into_values().map(|raw| (raw.name, raw.link)).into_map(),
        net_admin: has_net_admin().map_err(KernelError::Capabilities)?,
    })
}

/// All links by index, with their addresses and the names of their masters.
pub(super) async fn links(socket: &NetlinkSocket) -> Result<BTreeMap<u32, RawLink>, KernelError> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut links: BTreeMap<u32, RawLink> = socket
        .dump("list links", RouteNetlinkMessage::GetLink(request), |links: &mut BTreeMap<_, _>, message| {
            if let Some(Event::Link(raw)) = decode::event(message) {
                links.insert(raw.link.ifindex, raw);
            }
        })
        .await?;
    for address in addresses(socket).await? {
        if let Some(raw) = links.get_mut(&address.ifindex) {
            raw.link.addresses.insert(address.net);
            if address.tentative {
                raw.link.tentative.insert(address.net);
            }
        }
    }
    let names: BTreeMap<u32, String> =
        links.iter().map(|(ifindex, raw)| (*ifindex, raw.name.clone())).into_map();
    for raw in links.values_mut() {
        raw.link.master = raw.master.and_then(|master| names.get(&master).cloned());
    }
    Ok(links)
}

/// One link as it is now: its name, and the index of its master.
pub(super) async fn link(
    socket: &NetlinkSocket,
    ifindex: u32,
) -> Result<Option<(String, Option<u32>)>, KernelError> {
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let request = RouteNetlinkMessage::GetLink(request);
    let found = |message: Message<'_>| match decode::event(message) {
        Some(Event::Link(raw)) if raw.link.ifindex == ifindex => Some((raw.name, raw.master)),
        _ => None,
    };
    socket.one("look at a link", request, found).await
}

async fn addresses(socket: &NetlinkSocket) -> Result<Vec<RawAddress>, KernelError> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet6;
    let request = RouteNetlinkMessage::GetAddress(request);
    socket
        .dump("list addresses", request, |addresses: &mut Vec<_>, message| {
            if let Some(Event::Address(address)) = decode::event(message) {
                addresses.push(address);
            }
        })
        .await
}

/// Resolved IPv6 neighbours, of one link or all.
pub(super) async fn neighbors(
    socket: &NetlinkSocket,
    ifindex: Option<u32>,
) -> Result<Vec<Neighbor>, KernelError> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Inet6;
    if let Some(ifindex) = ifindex {
        request.attributes.push(NeighbourAttribute::IfIndex(ifindex));
    }
    let request = RouteNetlinkMessage::GetNeighbour(request);
    let fold = |neighbors: &mut Vec<_>, message: Message<'_>| {
        let Some(Event::Neighbor(raw)) = decode::event(message) else {
            return;
        };
        if let NeighborState::Confirmed(mac) | NeighborState::Known(mac) = raw.state
            && ifindex.is_none_or(|wanted| wanted == raw.ifindex)
        {
            neighbors.push(Neighbor { ifindex: raw.ifindex, address: raw.address, mac });
        }
    };
    socket.dump("list neighbours", request, fold).await
}

/// Those of `tables` that have an unreachable default route.
///
/// Each table is asked for by itself: the main table of a leaf holds the whole fabric's routes.
async fn unreachable_defaults(
    socket: &NetlinkSocket,
    tables: &BTreeSet<u32>,
) -> Result<BTreeSet<u32>, KernelError> {
    let mut found = BTreeSet::new();
    if tables.is_empty() {
        return Ok(found);
    }
    if !socket.strict {
        // An old kernel ignores the filter and dumps everything: once is enough.
        found = unreachable_defaults_of(socket, None).await?;
        found.retain(|table| tables.contains(table));
        return Ok(found);
    }
    for table in tables {
        match unreachable_defaults_of(socket, Some(*table)).await {
            Ok(tables) => found.extend(tables.into_iter().filter(|dumped| dumped == table)),
            // IPv6 tables come into being with their first route.
            Err(error) if error.is(Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

async fn unreachable_defaults_of(
    socket: &NetlinkSocket,
    table: Option<u32>,
) -> Result<BTreeSet<u32>, KernelError> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet6;
    request.header.kind = RouteType::Unreachable;
    request.attributes.extend(table.map(RouteAttribute::Table));
    let request = RouteNetlinkMessage::GetRoute(request);
    socket
        .dump("list routes", request, |tables: &mut BTreeSet<_>, message| {
            if let Some(Event::Route(route)) = decode::event(message)
                && route.destination.prefix_len() == 0
                && route.unreachable
            {
                tables.insert(route.table);
            }
        })
        .await
}

/// Whether CAP_NET_ADMIN is in the effective set, from `/proc/self/status`.
fn has_net_admin() -> std::io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.map(|bits| bits >> CAP_NET_ADMIN & 1 == 1).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

//! The kernel's links and addresses, kept from its messages.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVrf, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use switch_agent_core::name::MacAddr;
use switch_agent_core::sim::{LinkKind, SimLink};

use crate::swss::neighbors::Change;

#[derive(Debug)]
struct Known {
    name: String,
    master: Option<u32>,
    link: SimLink,
}

/// Links by index.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    links: BTreeMap<u32, Known>,
}

impl Mirror {
    pub(super) fn index(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|(_, known)| known.name == name).map(|(index, _)| *index)
    }

    /// The link as the model wants it, its master by name.
    pub(super) fn link(&self, name: &str) -> Option<SimLink> {
        let known = self.links.values().find(|known| known.name == name)?;
        let master = known.master.and_then(|index| self.links.get(&index));
        Some(SimLink { master: master.map(|master| master.name.clone()), ..known.link.clone() })
    }

    /// Takes a link over; returns the names whose state may have changed.
    pub(super) fn new_link(&mut self, message: &LinkMessage) -> BTreeSet<String> {
        let Some(mut known) = decode(message) else {
            return BTreeSet::new();
        };
        let mut changed = BTreeSet::from([known.name.clone()]);
        if let Some(before) = self.links.get(&message.header.index) {
            known.link.addresses.clone_from(&before.link.addresses);
            changed.insert(before.name.clone());
        }
        self.links.insert(message.header.index, known);
        changed
    }

    pub(super) fn del_link(&mut self, index: u32) -> BTreeSet<String> {
        self.links.remove(&index).map(|known| known.name).into_iter().collect()
    }

    pub(super) fn address(&mut self, message: &AddressMessage, present: bool) -> BTreeSet<String> {
        let changed = net(message).and_then(|net| self.set_address(message.header.index, net, present));
        changed.into_iter().collect()
    }

    pub(super) fn set_address(&mut self, index: u32, address: IpNet, present: bool) -> Option<String> {
        let known = self.links.get_mut(&index)?;
        if present {
            known.link.addresses.insert(address);
        } else {
            known.link.addresses.remove(&address);
        }
        Some(known.name.clone())
    }

    /// `controller` 0 is none.
    pub(super) fn set_master(&mut self, index: u32, controller: u32) {
        if let Some(known) = self.links.get_mut(&index) {
            known.master = Some(controller).filter(|index| *index != 0);
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.links.values().map(|known| known.name.clone())
    }

    /// Replaces everything by a dump.
    pub(super) fn replace(&mut self, links: &[LinkMessage], addresses: &[AddressMessage]) {
        *self = Mirror::default();
        for message in links {
            self.new_link(message);
        }
        for message in addresses {
            self.address(message, true);
        }
    }

    /// A neighbour entry as neighsyncd sees it, or `None` for one without meaning for it.
    pub(super) fn neighbor(&self, message: &NeighbourMessage, present: bool) -> Option<Change> {
        let port = self.links.get(&message.header.ifindex)?.name.clone();
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    address = Some(IpAddr::V4(*v4));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    address = Some(IpAddr::V6(*v6));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
                }
                _ => {}
            }
        }
        let mac = match message.header.state {
            NeighbourState::Noarp | NeighbourState::None => return None,
            NeighbourState::Incomplete | NeighbourState::Failed => None,
            _ if present => mac,
            _ => None,
        };
        Some(Change { port, address: address?, mac })
    }
}

fn decode(message: &LinkMessage) -> Option<Known> {
    let mut name = None;
    let mut master = None;
    let mut mac = None;
    let mut mtu = 0;
    let mut kind = LinkKind::Port;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Controller(index) => master = Some(*index).filter(|index| *index != 0),
            LinkAttribute::Address(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
            }
            LinkAttribute::Mtu(value) => mtu = *value,
            LinkAttribute::LinkInfo(infos) => kind = decode_kind(infos),
            _ => {}
        }
    }
    let flags = message.header.flags;
    let link = SimLink {
        ifindex: message.header.index,
        kind,
        master: None,
        admin_up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        mac,
        mtu,
        addresses: BTreeSet::new(),
    };
    Some(Known { name: name?, master, link })
}

fn decode_kind(infos: &[LinkInfo]) -> LinkKind {
    let mut kind = LinkKind::Port;
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Dummy) => kind = LinkKind::Dummy,
            LinkInfo::Kind(InfoKind::Bridge) => kind = LinkKind::Bridge,
            LinkInfo::Data(InfoData::Vrf(data)) => {
                let table = data.iter().find_map(|info| match info {
                    InfoVrf::TableId(table) => Some(*table),
                    _ => None,
                });
                kind = LinkKind::Vrf { table: table.unwrap_or(0) };
            }
            _ => {}
        }
    }
    kind
}

fn net(message: &AddressMessage) -> Option<IpNet> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // The own address, where the other one is the peer's.
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) if found.is_none() => found = Some(*address),
            _ => {}
        }
    }
    IpNet::new(found?, message.header.prefix_len).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(index: u32, name: &str, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = attributes;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message
    }

    fn vrf(table: u32) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vrf),
            LinkInfo::Data(InfoData::Vrf(vec![InfoVrf::TableId(table)])),
        ])
    }

    fn address(index: u32, text: &str) -> AddressMessage {
        let net: IpNet = text.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = net.prefix_len();
        message.attributes.push(AddressAttribute::Address(net.addr()));
        message
    }

    #[test]
    fn masters_are_known_by_name_and_addresses_outlive_link_events() {
        let mut mirror = Mirror::default();
        mirror.new_link(&message(7, "Vrf1", vec![vrf(1001)]));
        mirror.new_link(&message(2, "Ethernet0", vec![]));
        mirror.address(&address(2, "2001:db8::1/64"), true);
        mirror.new_link(&message(2, "Ethernet0", vec![LinkAttribute::Controller(7)]));
        let link = mirror.link("Ethernet0").unwrap();
        assert_eq!(link.master.as_deref(), Some("Vrf1"));
        assert!(link.addresses.contains(&"2001:db8::1/64".parse().unwrap()));
        assert!(link.admin_up && link.carrier);
        assert_eq!(mirror.link("Vrf1").unwrap().kind, LinkKind::Vrf { table: 1001 });
        mirror.del_link(7);
        assert_eq!(mirror.link("Ethernet0").unwrap().master, None);
    }

    #[test]
    fn a_renamed_link_changes_both_names() {
        let mut mirror = Mirror::default();
        mirror.new_link(&message(2, "eth7", vec![]));
        let changed = mirror.new_link(&message(2, "Ethernet0", vec![]));
        assert_eq!(changed, BTreeSet::from(["Ethernet0".to_owned(), "eth7".to_owned()]));
        assert!(mirror.link("eth7").is_none() && mirror.link("Ethernet0").is_some());
    }

    #[test]
    fn an_unresolved_neighbor_has_no_mac() {
        let mut mirror = Mirror::default();
        mirror.new_link(&message(2, "Ethernet0", vec![]));
        let mut entry = NeighbourMessage::default();
        entry.header.ifindex = 2;
        entry.header.state = NeighbourState::Stale;
        entry.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet6("2001:db8::2".parse().unwrap())),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
        ];
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        assert_eq!(mirror.neighbor(&entry, true).unwrap().mac, Some(mac));
        assert_eq!(mirror.neighbor(&entry, false).unwrap().mac, None);
        entry.header.state = NeighbourState::Failed;
        assert_eq!(mirror.neighbor(&entry, true).unwrap().mac, None);
        entry.header.state = NeighbourState::Noarp;
        assert_eq!(mirror.neighbor(&entry, true), None);
    }
}

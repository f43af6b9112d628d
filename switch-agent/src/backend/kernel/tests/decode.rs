//! Messages built by the typed encoders of `netlink-packet-route`, and nonsense.

use std::net::Ipv6Addr;

use netlink_packet_core::{DefaultNla, Emitable, NLMSG_ERROR, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVrf, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use proptest::prelude::*;
use switch_agent_core::name::MacAddr;

use crate::backend::kernel::decode::{Event, NeighborState, event};
use crate::backend::kernel::socket::messages;

fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn decoded(message: RouteNetlinkMessage) -> Option<Event> {
    messages(&bytes(message)).find_map(event)
}

fn vrf_link() -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = 7;
    link.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
    link.attributes = vec![
        // What some driver adds, and no decoder knows.
        LinkAttribute::Other(DefaultNla::new(0x2ff, vec![1, 2, 3, 4, 5])),
        LinkAttribute::IfName("VrfBoot-p1".to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vrf),
            LinkInfo::Data(InfoData::Vrf(vec![InfoVrf::TableId(1001)])),
        ]),
        LinkAttribute::Controller(0),
    ];
    link
}

#[test]
fn a_vrf_device_is_recognised_among_unknown_attributes() {
    let Some(Event::Link(raw)) = decoded(RouteNetlinkMessage::NewLink(vrf_link())) else { panic!("no link") };
    assert_eq!((raw.name.as_str(), raw.link.ifindex), ("VrfBoot-p1", 7));
    assert!(raw.link.is_vrf && raw.link.admin_up && raw.link.carrier);
    assert_eq!(raw.link.vrf_table, Some(1001));
    assert_eq!((raw.master, raw.link.mac, raw.link.forwarding), (None, None, None));
}

#[test]
fn a_port_that_leaves_a_bridge_is_not_gone() {
    let mut link = vrf_link();
    assert_eq!(decoded(RouteNetlinkMessage::DelLink(link.clone())), Some(Event::LinkGone { ifindex: 7 }));
    link.header.interface_family = AddressFamily::Bridge;
    assert_eq!(decoded(RouteNetlinkMessage::DelLink(link)), None);
}

#[test]
fn addresses_are_usable_once_detection_is_over() {
    let tentative = |flags: AddressFlags| {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.prefix_len = 64;
        message.header.index = 2;
        message.attributes =
            vec![AddressAttribute::Address("2001:db8::1".parse().unwrap()), AddressAttribute::Flags(flags)];
        match decoded(RouteNetlinkMessage::NewAddress(message)) {
            Some(Event::Address(address)) => {
                assert_eq!(address.net.to_string(), "2001:db8::1/64");
                address.tentative
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(!tentative(AddressFlags::Permanent));
    assert!(tentative(AddressFlags::Permanent | AddressFlags::Tentative));
    assert!(tentative(AddressFlags::Dadfailed));
    assert!(!tentative(AddressFlags::Tentative | AddressFlags::Optimistic));
}

#[test]
fn neighbour_states_mean_what_they_say() {
    let mac = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
    let state = |state: NeighbourState, mac: &[u8]| {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.ifindex = 2;
        message.header.state = state;
        let address: Ipv6Addr = "fe80::2".parse().unwrap();
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        match decoded(RouteNetlinkMessage::NewNeighbour(message)) {
            Some(Event::Neighbor(raw)) => raw.state,
            other => panic!("{other:?}"),
        }
    };
    for confirmed in [NeighbourState::Reachable, NeighbourState::Permanent] {
        assert_eq!(state(confirmed, &mac.0), NeighborState::Confirmed(mac));
    }
    for known in [NeighbourState::Stale, NeighbourState::Delay, NeighbourState::Probe] {
        assert_eq!(state(known, &mac.0), NeighborState::Known(mac));
    }
    for unresolved in [NeighbourState::Failed, NeighbourState::Incomplete] {
        assert_eq!(state(unresolved, &mac.0), NeighborState::Unresolved);
    }
    assert_eq!(state(NeighbourState::Noarp, &mac.0), NeighborState::Irrelevant);
    assert_eq!(state(NeighbourState::Reachable, &[0; 6]), NeighborState::Irrelevant, "no MAC");
}

#[test]
fn a_datagram_of_several_messages_is_split() {
    let mut datagram = bytes(RouteNetlinkMessage::NewLink(vrf_link()));
    let one = datagram.len();
    datagram.resize(one.next_multiple_of(4), 0);
    datagram.extend(bytes(RouteNetlinkMessage::DelLink(vrf_link())));
    assert_eq!(messages(&datagram).filter_map(event).count(), 2);
    assert_eq!(messages(&datagram[..datagram.len() - 1]).count(), 1, "a cut message is dropped");
    assert_eq!(messages(&[0; 64]).count(), 0, "a length of 0 ends the datagram");
    assert!(messages(&datagram).all(|message| message.kind != NLMSG_ERROR));
}

proptest! {
    /// Whatever arrives: no panic, and an end.
    #[test]
    fn nonsense_is_survived(datagram in proptest::collection::vec(any::<u8>(), 0..512), kind in 16u16..32) {
        let _ = messages(&datagram).filter_map(event).count();
        let mut framed = u32::try_from(datagram.len() + 16).unwrap().to_ne_bytes().to_vec();
        framed.extend(kind.to_ne_bytes());
        framed.extend([0; 10]);
        framed.extend(&datagram);
        prop_assert_eq!(messages(&framed).count(), 1);
        let _ = messages(&framed).filter_map(event).count();
    }

    /// A real message cut or changed anywhere.
    #[test]
    fn damage_is_survived(at in 16usize..80, value in any::<u8>(), cut in 16usize..80) {
        let mut message = vec![0; vrf_link().buffer_len()];
        vrf_link().emit(&mut message);
        if let Some(byte) = message.get_mut(at - 16) { *byte = value; }
        message.truncate(cut);
        let mut framed = u32::try_from(message.len() + 16).unwrap().to_ne_bytes().to_vec();
        framed.extend(16u16.to_ne_bytes());
        framed.extend([0; 10]);
        framed.extend(&message);
        let _ = messages(&framed).filter_map(event).count();
    }
}

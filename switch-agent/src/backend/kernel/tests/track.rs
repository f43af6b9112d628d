//! The mirror by itself: what events amount to.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use switch_agent_core::machines::MachineEvent;
use switch_agent_core::name::MacAddr;
use switch_agent_core::observed::Link;

use crate::backend::kernel::decode::{Event, NeighborState, RawAddress, RawLink, RawNeighbor};
use crate::backend::kernel::neighbors::{Inserted, NEIGHBORS_PER_LINK_MAX, NeighborCache};
use crate::backend::kernel::snapshot::Neighbor;
use crate::backend::kernel::track::{Report, Tracker};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

fn link(ifindex: u32, name: &str, carrier: bool) -> RawLink {
    let link = Link {
        ifindex,
        master: None,
        is_vrf: false,
        vrf_table: None,
        admin_up: true,
        carrier,
        mac: Some(MAC),
        addresses: Default::default(),
        tentative: Default::default(),
        forwarding: None,
    };
    RawLink { name: name.to_owned(), master: None, link }
}

fn neighbor(address: &str, state: NeighborState) -> Event {
    Event::Neighbor(RawNeighbor { ifindex: 2, address: address.parse().unwrap(), state })
}

/// Reports in short, and whether the reconciler would be woken.
fn taken(tracker: &mut Tracker) -> (Vec<String>, bool) {
    let (reports, changed) = tracker.take();
    let short = |report: Report| match report {
        Report::Link(event) => {
            let state = match (event.gone, event.carrier) {
                (true, _) => "gone",
                (false, true) => "up",
                (false, false) => "down",
            };
            let address = event.link_local.map(|address| format!(" {address}")).unwrap_or_default();
            format!("link {} {state}{address}", event.name)
        }
        Report::Machine(MachineEvent::Carrier { port, up }) => format!("carrier {port} {up}"),
        Report::Machine(MachineEvent::Neighbor { port, address, .. }) => format!("neighbor {port} {address}"),
        Report::Machine(MachineEvent::NeighborGone { port, address }) => format!("lost {port} {address}"),
        Report::Machine(other) => format!("{other:?}"),
    };
    (reports.into_iter().map(short).collect(), changed)
}

fn tracker_with_port() -> Tracker {
    let mut tracker = Tracker::new(Default::default());
    tracker.replace(BTreeMap::from([(2, link(2, "Ethernet0", true))]), Vec::new());
    let expected = ["carrier Ethernet0 true", "link Ethernet0 up"].map(str::to_owned).to_vec();
    assert_eq!(taken(&mut tracker), (expected, true));
    tracker
}

#[test]
fn only_changes_are_reported() {
    let mut tracker = tracker_with_port();
    tracker.apply(Event::Link(link(2, "Ethernet0", true)));
    assert_eq!(taken(&mut tracker), (vec![], false), "the same link again");
    let mut mastered = link(2, "Ethernet0", true);
    mastered.master = Some(9);
    tracker.apply(Event::Link(mastered.clone()));
    let up = vec!["link Ethernet0 up".to_owned()];
    assert_eq!(taken(&mut tracker), (up.clone(), true), "whose VRF it is in matters to the listeners");
    tracker.apply(Event::Link(mastered));
    assert_eq!(taken(&mut tracker), (vec![], false));
    tracker.apply(Event::Link(link(2, "Ethernet0", true)));
    assert_eq!(taken(&mut tracker), (up, true));

    let net = "fe80::5054:ff:fe00:1/64".parse().unwrap();
    tracker.apply(Event::Address(RawAddress { ifindex: 2, net, tentative: true }));
    assert_eq!(taken(&mut tracker), (vec![], true), "a tentative address is not usable");
    tracker.apply(Event::Address(RawAddress { ifindex: 2, net, tentative: false }));
    assert_eq!(taken(&mut tracker), (vec!["link Ethernet0 up fe80::5054:ff:fe00:1".to_owned()], true));
    tracker.apply(Event::Link(link(2, "Ethernet0", false)));
    let down = ["carrier Ethernet0 false", "link Ethernet0 down fe80::5054:ff:fe00:1"].map(str::to_owned);
    assert_eq!(taken(&mut tracker), (down.to_vec(), true), "addresses outlive a link message");
    tracker.apply(Event::AddressGone(RawAddress { ifindex: 2, net, tentative: false }));
    assert_eq!(taken(&mut tracker), (vec!["link Ethernet0 down".to_owned()], true));
}

#[test]
fn neighbours_are_reported_when_new_changed_or_confirmed() {
    let mut tracker = tracker_with_port();
    let seen = |address: &str| vec![format!("neighbor Ethernet0 {address}")];
    tracker.apply(neighbor("fe80::2", NeighborState::Unresolved));
    assert_eq!(taken(&mut tracker).0, Vec::<String>::new());
    tracker.apply(neighbor("fe80::2", NeighborState::Known(MAC)));
    assert_eq!(taken(&mut tracker), (seen("fe80::2"), false), "a neighbour is no reason for a pass");
    tracker.apply(neighbor("fe80::2", NeighborState::Known(MAC)));
    assert_eq!(taken(&mut tracker).0, Vec::<String>::new(), "stale again tells nothing");
    tracker.apply(neighbor("fe80::2", NeighborState::Confirmed(MAC)));
    assert_eq!(taken(&mut tracker).0, seen("fe80::2"));
    tracker.apply(neighbor("fe80::2", NeighborState::Known(MacAddr([2, 0, 0, 0, 0, 9]))));
    assert_eq!(taken(&mut tracker).0, seen("fe80::2"), "another card answers");
    tracker.apply(neighbor("ff02::1", NeighborState::Irrelevant));
    assert_eq!(taken(&mut tracker).0, Vec::<String>::new());
    tracker.apply(neighbor("fe80::2", NeighborState::Unresolved));
    assert_eq!(taken(&mut tracker).0, ["lost Ethernet0 fe80::2"]);
    tracker.apply(neighbor("fe80::2", NeighborState::Unresolved));
    assert_eq!(taken(&mut tracker).0, Vec::<String>::new());
}

#[test]
fn links_that_are_no_ports_have_no_machines() {
    let mut tracker = Tracker::new(Default::default());
    for (ifindex, name) in [(2, "eth0"), (3, "Loopback0"), (4, "VrfBoot-p1")] {
        tracker.apply(Event::Link(link(ifindex, name, true)));
        let address: Ipv6Addr = "fe80::2".parse().unwrap();
        tracker.apply(Event::Neighbor(RawNeighbor {
            ifindex,
            address,
            state: NeighborState::Confirmed(MAC),
        }));
        assert_eq!(taken(&mut tracker), (vec![format!("link {name} up")], true));
    }
    tracker.apply(Event::Link(link(5, "PortChannel1", true)));
    assert_eq!(taken(&mut tracker).0, ["carrier PortChannel1 true", "link PortChannel1 up"]);
}

#[test]
fn a_new_dump_makes_up_for_lost_events() {
    let mut tracker = tracker_with_port();
    tracker.apply(neighbor("fe80::2", NeighborState::Known(MAC)));
    tracker.apply(neighbor("fe80::3", NeighborState::Known(MAC)));
    taken(&mut tracker);
    // Port 2 lost its carrier and one neighbour, port 3 is new; then port 2 comes back under another index.
    let kept = Neighbor { ifindex: 2, address: "fe80::3".parse().unwrap(), mac: MAC };
    let links = [(2, link(2, "Ethernet0", false)), (3, link(3, "Ethernet4", true))];
    tracker.replace(BTreeMap::from(links), vec![kept]);
    let expected = [
        "carrier Ethernet0 false",
        "link Ethernet0 down",
        "carrier Ethernet4 true",
        "link Ethernet4 up",
        "lost Ethernet0 fe80::2",
    ];
    assert_eq!(taken(&mut tracker).0, expected);
    tracker.replace(BTreeMap::from([(7, link(7, "Ethernet0", true))]), vec![]);
    let expected = [
        "carrier Ethernet0 false",
        "link Ethernet0 gone",
        "lost Ethernet0 fe80::3",
        "carrier Ethernet4 false",
        "link Ethernet4 gone",
        "carrier Ethernet0 true",
        "link Ethernet0 up",
    ];
    assert_eq!(taken(&mut tracker).0, expected);
}

#[test]
fn a_renamed_link_is_another_link() {
    let mut tracker = tracker_with_port();
    tracker.apply(neighbor("fe80::2", NeighborState::Known(MAC)));
    taken(&mut tracker);
    tracker.apply(Event::Link(link(2, "Ethernet4", true)));
    let expected = [
        "carrier Ethernet0 false",
        "link Ethernet0 gone",
        "lost Ethernet0 fe80::2",
        "carrier Ethernet4 true",
        "link Ethernet4 up",
    ];
    assert_eq!(taken(&mut tracker).0, expected);
}

#[test]
fn a_machine_with_endless_addresses_fills_its_own_share_only() {
    let mut cache = NeighborCache::default();
    let address = |n: usize| Ipv6Addr::from(0xfe80 << 112 | n as u128);
    assert_eq!(cache.insert(3, address(0), MAC), Inserted::Changed { evicted: None });
    for n in 0..NEIGHBORS_PER_LINK_MAX {
        assert_eq!(cache.insert(2, address(n), MAC), Inserted::Changed { evicted: None });
    }
    // The first one is used again; so the second is the oldest.
    assert_eq!(cache.insert(2, address(0), MAC), Inserted::Same);
    assert_eq!(cache.insert(2, address(1000), MAC), Inserted::Changed { evicted: Some(address(1)) });
    assert_eq!(cache.entries().filter(|(ifindex, _)| *ifindex == 2).count(), NEIGHBORS_PER_LINK_MAX);
    assert_eq!(cache.mac(2, address(0)), Some(MAC));
    assert_eq!(cache.mac(3, address(0)), Some(MAC), "another link lost its entry");

    let mut tracker = tracker_with_port();
    for n in 0..NEIGHBORS_PER_LINK_MAX {
        tracker.apply(neighbor(&address(n).to_string(), NeighborState::Known(MAC)));
    }
    taken(&mut tracker);
    tracker.apply(neighbor("fe80::ffff", NeighborState::Known(MAC)));
    let expected = [format!("lost Ethernet0 {}", address(0)), "neighbor Ethernet0 fe80::ffff".to_owned()];
    assert_eq!(taken(&mut tracker).0, expected);
}

#[test]
fn forwarding_switched_off_wakes_the_reconciler_and_nobody_else() {
    let mut tracker = tracker_with_port();
    tracker.take();
    tracker.apply(Event::Forwarding { ifindex: 2, on: false });
    assert_eq!(taken(&mut tracker), (vec![], true));
    tracker.apply(Event::Forwarding { ifindex: 2, on: false });
    tracker.apply(Event::Forwarding { ifindex: 9, on: false });
    assert_eq!(taken(&mut tracker), (vec![], false));
}

#[test]
fn a_machine_that_invents_addresses_is_told_of_within_bounds() {
    let mut tracker = tracker_with_port();
    tracker.take();
    for number in 0..4095 {
        tracker.apply(neighbor(&format!("fe80::{number:x}"), NeighborState::Known(MAC)));
    }
    let (reports, _) = taken(&mut tracker);
    let told = reports.iter().filter(|report| report.starts_with("neighbor ")).count();
    assert!((128..300).contains(&told), "{told} of 4095");
    // What is known goes on to be told of.
    tracker.apply(neighbor("fe80::7f", NeighborState::Confirmed(MAC)));
    assert_eq!(taken(&mut tracker).0, ["neighbor Ethernet0 fe80::7f"]);
}

//! Who is where: tables of events, and properties over arbitrary ones.

use proptest::prelude::*;

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const UNIX: i64 = 1_700_000_000_000;

fn port(n: u32) -> PortName {
    format!("Ethernet{n}").parse().unwrap()
}
fn mac(n: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, n])
}
fn addr(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}
fn solicit(p: u32, m: u8) -> MachineEvent {
    MachineEvent::Solicit { port: port(p), mac: mac(m), address: None }
}
fn neighbor(p: u32, m: u8, a: u16) -> MachineEvent {
    MachineEvent::Neighbor { port: port(p), mac: mac(m), address: addr(a) }
}
fn gone(p: u32, a: u16) -> MachineEvent {
    MachineEvent::NeighborGone { port: port(p), address: addr(a) }
}
fn carrier(p: u32, up: bool) -> MachineEvent {
    MachineEvent::Carrier { port: port(p), up }
}
fn lldp(rows: &[(u32, u8, &str)]) -> MachineEvent {
    let row = |(p, m, name): &(u32, u8, &str)| {
        let row =
            LldpNeighbor { sys_name: (*name).to_owned(), mac: Some(mac(*m)), ..LldpNeighbor::default() };
        (port(*p), row)
    };
    MachineEvent::Lldp { neighbors: rows.iter().map(row).collect() }
}
fn proxy(p: u32, m: Option<u8>, a: u16, step: ProxyStep) -> MachineEvent {
    MachineEvent::Proxy { port: port(p), mac: m.map(mac), address: addr(a), step }
}

/// A table and its clock in milliseconds.
#[derive(Default)]
struct Rig {
    table: MachineTable,
    now: u64,
}

impl Rig {
    fn at(&mut self, now_ms: u64, event: &MachineEvent) -> Vec<MachineChange> {
        assert!(now_ms >= self.now);
        self.now = now_ms;
        self.table.fold(event, Duration::from_millis(now_ms), UNIX + i64::try_from(now_ms).unwrap())
    }
    fn age(&mut self, now_ms: u64) -> Vec<MachineChange> {
        self.now = now_ms;
        self.table.age(Duration::from_millis(now_ms))
    }
    fn home(&self, m: u8) -> Option<String> {
        self.table.lookup(mac(m)).map(ToString::to_string)
    }
    fn on(&self, p: u32) -> Vec<u8> {
        self.table.machines(&port(p)).map(|(mac, _)| mac.0[5]).collect()
    }
    fn machine(&self, p: u32, m: u8) -> Machine {
        self.table.machines(&port(p)).find(|(known, _)| *known == mac(m)).map(|(_, m)| m.clone()).unwrap()
    }
}

#[test]
fn sightings_gather_into_one_machine() {
    let mut rig = Rig::default();
    assert_eq!(
        rig.at(0, &solicit(0, 1)),
        [MachineChange::Appeared { port: port(0), mac: mac(1), source: SightingSource::Rs }]
    );
    assert_eq!(rig.at(10, &neighbor(0, 1, 7)).len(), 1);
    assert_eq!(rig.at(20, &neighbor(0, 1, 7)), []);
    rig.at(30, &proxy(0, None, 7, ProxyStep::Token { machine_id: Some("id-1".into()) }));
    rig.at(40, &lldp(&[(0, 1, "hammer")]));
    // Written again unchanged, as every 10 s.
    rig.at(50, &lldp(&[(0, 1, "hammer")]));
    let machine = rig.machine(0, 1);
    assert_eq!(machine.addresses().collect::<Vec<_>>(), [addr(7)]);
    assert_eq!(machine.machine_id.as_deref(), Some("id-1"));
    assert_eq!(machine.sources.len(), 4);
    assert_eq!((machine.first_seen_ms, machine.last_seen_ms), (UNIX, UNIX + 40));
    assert_eq!(rig.table.lldp(&port(0)).unwrap().sys_name, "hammer");
    assert_eq!(rig.table.counters().sightings[SightingSource::Neighbor], 2);
}

#[test]
fn group_zero_and_own_macs_are_no_machines() {
    let mut rig = Rig::default();
    rig.at(0, &solicit(0, 9));
    let removed = rig.table.set_own_macs(BTreeSet::from([mac(9)]));
    assert_eq!(removed, [MachineChange::Removed { port: port(0), mac: mac(9), reason: Removal::OwnMac }]);
    for bad in [MacAddr([0; 6]), MacAddr([0xff; 6]), MacAddr([0x33, 0x33, 0, 0, 0, 1]), mac(9)] {
        assert_eq!(rig.at(1, &MachineEvent::Solicit { port: port(0), mac: bad, address: None }), []);
    }
    assert!(rig.table.homes().is_empty());
}

#[test]
fn a_bind_flap_is_no_unplug_and_an_unplug_is() {
    let mut rig = Rig::default();
    rig.at(0, &carrier(0, true));
    rig.at(0, &solicit(0, 1));
    rig.at(1000, &carrier(0, false));
    rig.at(1001, &carrier(0, true));
    assert_eq!(rig.age(60_000), []);
    rig.at(70_000, &carrier(0, false));
    assert_eq!(rig.age(79_999), []);
    assert_eq!(rig.table.next_deadline(), Some(Duration::from_secs(80)));
    assert_eq!(
        rig.age(80_000),
        [MachineChange::Removed { port: port(0), mac: mac(1), reason: Removal::Unplugged }]
    );
}

#[test]
fn a_long_loss_counts_even_when_nobody_called_age() {
    let mut rig = Rig::default();
    rig.at(0, &solicit(0, 1));
    rig.at(1000, &carrier(0, false));
    assert_eq!(rig.at(100_000, &carrier(0, true)).len(), 1);
    assert_eq!(rig.home(1), None);
}

#[test]
fn the_newest_sighting_wins_and_leftovers_do_not_win_it_back() {
    let mut rig = Rig::default();
    rig.at(0, &solicit(0, 1));
    rig.at(0, &neighbor(0, 1, 7));
    rig.at(0, &lldp(&[(0, 1, "hammer")]));
    let moved = rig.at(5000, &solicit(4, 1));
    assert_eq!(
        moved,
        [MachineChange::Moved { mac: mac(1), from: port(0), port: port(4), source: SightingSource::Rs }]
    );
    assert!(rig.on(0).is_empty());
    // The kernel confirms what it remembers, lldp_syncd rewrites its row.
    rig.at(5100, &neighbor(0, 1, 7));
    rig.at(5200, &lldp(&[(0, 1, "hammer")]));
    rig.at(5300, &lldp(&[(0, 1, "hammer"), (4, 1, "hammer")]));
    assert_eq!(rig.home(1).as_deref(), Some("Ethernet4"));
    assert_eq!(rig.table.counters().moves, 1);
    // Once the old entry was dropped, a new one is news.
    rig.at(6000, &gone(0, 7));
    rig.at(6100, &neighbor(0, 1, 7));
    assert_eq!(rig.home(1).as_deref(), Some("Ethernet0"));
}

#[test]
fn a_packet_brings_a_machine_back_to_a_port_it_left() {
    let mut rig = Rig::default();
    for (now, p) in [(0, 0), (10, 4), (20, 0)] {
        rig.at(now, &neighbor(p, 1, 7));
        rig.at(now, &solicit(p, 1));
        assert_eq!(rig.home(1), Some(port(p).to_string()));
    }
    rig.at(30, &neighbor(0, 1, 7));
    assert_eq!(rig.on(0), [1]);
    // What it left behind here is its own again.
    assert_eq!(rig.machine(0, 1).addresses().collect::<Vec<_>>(), [addr(7)]);
}

#[test]
fn a_standing_lldp_row_takes_nothing_back() {
    let row = lldp(&[(0, 1, "hammer")]);
    let mut rig = Rig::default();
    rig.at(0, &row);
    rig.at(1000, &solicit(4, 1));
    // A bind of the new port flaps its carrier just when the row is read again.
    rig.at(2000, &carrier(4, false));
    rig.at(2001, &row);
    rig.at(2002, &carrier(4, true));
    assert_eq!(rig.home(1).as_deref(), Some("Ethernet4"));
    // The new port leaves the boot network; the machine is not back on the old one for that.
    rig.at(3000, &MachineEvent::Released { port: port(4) });
    rig.at(3001, &row);
    assert_eq!(rig.home(1), None);
    // It is when its row is written anew.
    rig.at(4000, &lldp(&[]));
    rig.at(5000, &row);
    assert_eq!(rig.home(1).as_deref(), Some("Ethernet0"));
}

#[test]
fn a_port_without_carrier_wins_nothing_by_leftovers() {
    let mut rig = Rig::default();
    rig.at(0, &carrier(0, false));
    rig.at(1, &neighbor(0, 1, 7));
    rig.at(2, &lldp(&[(0, 2, "old")]));
    assert!(rig.table.homes().is_empty());
    // A packet did come in: the carrier event is merely late.
    rig.at(3, &solicit(0, 3));
    assert_eq!(rig.on(0), [3]);
}

#[test]
fn lldp_moves_a_machine_only_where_nothing_better_is_known() {
    // What was known on port 0, whether port 0 is down, and who wins when a row for port 4 appears.
    let cases: [(&[MachineEvent], bool, &str); 4] = [
        (&[lldp(&[(0, 1, "a")])], false, "Ethernet4"),
        (&[solicit(0, 1)], false, "Ethernet0"),
        (&[neighbor(0, 1, 7)], false, "Ethernet0"),
        (&[solicit(0, 1)], true, "Ethernet4"),
    ];
    for (known, down, winner) in cases {
        let mut rig = Rig::default();
        for event in known {
            rig.at(0, event);
        }
        if down {
            rig.at(10, &carrier(0, false));
        }
        rig.at(20, &lldp(&[(4, 1, "a")]));
        assert_eq!(rig.home(1).as_deref(), Some(winner), "{known:?} down={down}");
    }
}

#[test]
fn ageing_spares_what_lldp_still_shows() {
    const AGE: u64 = 30 * 60 * 1000;
    let mut rig = Rig::default();
    rig.at(0, &solicit(0, 1));
    rig.at(0, &lldp(&[(4, 2, "quiet")]));
    rig.at(1000, &neighbor(8, 3, 7));
    rig.at(2000, &solicit(8, 3));
    assert_eq!(rig.table.next_deadline(), Some(Duration::from_millis(AGE)));
    assert_eq!(rig.age(AGE).len(), 1);
    assert_eq!((rig.home(1), rig.home(2).as_deref()), (None, Some("Ethernet4")));
    // The address was not seen again, the machine was.
    assert_eq!(rig.age(AGE + 1000), [MachineChange::Updated { port: port(8), mac: mac(3) }]);
    assert_eq!(rig.age(AGE + 2000).len(), 1);
    rig.at(AGE + 3000, &lldp(&[]));
    assert!(rig.table.lldp(&port(4)).is_none());
    assert_eq!(rig.age(2 * AGE + 3000).len(), 1);
    assert!(rig.table.homes().is_empty());
}

#[test]
fn an_address_has_one_owner_per_port_and_goes_with_its_entry() {
    let mut rig = Rig::default();
    rig.at(0, &neighbor(0, 1, 7));
    rig.at(1, &neighbor(0, 2, 7));
    assert_eq!(rig.machine(0, 1).addresses().count(), 0);
    assert_eq!(rig.at(2, &gone(0, 7)), [MachineChange::Updated { port: port(0), mac: mac(2) }]);
    assert_eq!(rig.at(3, &gone(0, 7)), []);
    assert_eq!(rig.on(0), [1, 2]);
}

#[test]
fn a_flood_of_spoofed_macs_stays_bounded_and_counted() {
    let mut rig = Rig::default();
    for n in 0..10_000u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let mac = MacAddr([2, 0, 0, 0, high, low]);
        rig.at(u64::from(n), &MachineEvent::Solicit { port: port(0), mac, address: None });
    }
    assert_eq!(rig.table.machines(&port(0)).count(), 16);
    assert_eq!(rig.table.homes().len(), 16);
    assert_eq!(rig.table.counters().evicted_machines, 10_000 - 16);
    for n in 0..100u16 {
        rig.at(20_000, &neighbor(4, 1, n + 1));
    }
    assert_eq!(rig.machine(4, 1).addresses().count(), 8);
    assert_eq!(rig.table.counters().evicted_addresses, 92);
}

#[test]
fn a_released_port_is_forgotten() {
    let mut rig = Rig::default();
    rig.at(0, &solicit(0, 1));
    rig.at(0, &solicit(4, 2));
    rig.at(1, &MachineEvent::Released { port: port(0) });
    assert_eq!((rig.home(1), rig.home(2).as_deref()), (None, Some("Ethernet4")));
}

fn any_event() -> impl Strategy<Value = MachineEvent> {
    let (p, m, a) = (0..4u32, 0..24u8, 1..40u16);
    prop_oneof![
        (p.clone(), any::<bool>()).prop_map(|(p, up)| carrier(p, up)),
        (p.clone(), m.clone()).prop_map(|(p, m)| solicit(p, m)),
        (p.clone(), m.clone(), a.clone()).prop_map(|(p, m, a)| neighbor(p, m, a)),
        (p.clone(), a.clone()).prop_map(|(p, a)| gone(p, a)),
        (p.clone(), m.clone()).prop_map(|(p, m)| lldp(&[(p, m, "x")])),
        (p.clone(), proptest::option::of(m), a).prop_map(|(p, m, a)| proxy(p, m, a, ProxyStep::Config)),
        p.prop_map(|p| MachineEvent::Released { port: port(p) }),
    ]
}

proptest! {
    #[test]
    fn bounds_and_index_hold_after_any_events(events in prop::collection::vec((any_event(), 0..200_000u64), 1..300)) {
        let limits = Limits { machines_per_port_max: 4, addresses_per_machine_max: 3, ..Limits::default() };
        let mut rig = Rig { table: MachineTable::new(limits), now: 0 };
        let mut present = BTreeMap::new();
        for (event, step_ms) in events {
            for change in rig.at(rig.now + step_ms, &event) {
                match change {
                    MachineChange::Appeared { port, mac, .. } => prop_assert_eq!(present.insert(mac, port), None),
                    MachineChange::Moved { mac, from, port, .. } => {
                        prop_assert_eq!(present.insert(mac, port), Some(from));
                    }
                    MachineChange::Removed { port, mac, .. } => prop_assert_eq!(present.remove(&mac), Some(port)),
                    MachineChange::Updated { .. } => {}
                }
            }
            // Changes told to followers, the index and the ports agree.
            prop_assert_eq!(&present, rig.table.homes());
            let mut on_ports = 0;
            for n in 0..4 {
                let machines: Vec<_> = rig.table.machines(&port(n)).collect();
                prop_assert!(machines.len() <= 4);
                on_ports += machines.len();
                for (mac, machine) in machines {
                    prop_assert!(machine.addresses().count() <= 3);
                    prop_assert_eq!(rig.table.lookup(mac), Some(&port(n)));
                }
            }
            prop_assert_eq!(on_ports, present.len());
        }
        // Everything ages out once nothing is heard.
        rig.at(rig.now, &lldp(&[]));
        rig.age(rig.now + 40 * 60 * 1000);
        prop_assert!(rig.table.homes().is_empty());
        prop_assert_eq!(rig.table.next_deadline(), None);
    }

    /// Calling `age` at exactly the deadlines it reports gives what calling it every second gives.
    #[test]
    fn deadlines_are_never_late(events in prop::collection::vec((any_event(), 0..20_000u64), 1..40)) {
        let (mut by_deadline, mut by_second) = (Rig::default(), Rig::default());
        let mut now = 0;
        for (event, step_ms) in events {
            now += step_ms / 1000 * 1000;
            while let Some(due) = by_deadline.table.next_deadline().filter(|due| due.as_millis() <= u128::from(now)) {
                by_deadline.table.age(due);
                prop_assert!(by_deadline.table.next_deadline().is_none_or(|next| next > due));
            }
            for second in (by_second.now / 1000)..=(now / 1000) {
                by_second.age(second * 1000);
            }
            by_deadline.at(now, &event);
            by_second.at(now, &event);
            prop_assert_eq!(by_deadline.table.homes(), by_second.table.homes());
        }
    }
}

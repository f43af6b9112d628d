//! Properties over many lives: whatever operators, other writers, daemons and crashes do, the switch ends
//! where CONFIG_DB wants it, foreign rows are as their owners left them, and no action ran too early.

use proptest::prelude::*;

use super::rig::{Rig, port};
use crate::observed::Reboot;
use crate::row::fields;
use crate::sim::Daemon;
use crate::status::{Phase, Verdict};

const PORTS: [&str; 4] = ["Ethernet0", "Ethernet4", "Ethernet8", "PortChannel101"];
const METHODS: [&str; 4] = ["auto", "static-route", "frr-mgmt", "render-only"];
/// Rows of others: at keys that the leak needs, and beside them.
const FOREIGN_ROUTES: [(&str, &str, &str); 4] = [
    ("STATIC_ROUTE", "VrfBoot-p1|::/0", "2001:db8:bad::1"),
    ("STATIC_ROUTE", "default|2001:db8:0:1::/64", "2001:db8:bad::2"),
    ("STATIC_ROUTE", "VrfTenant|2001:db8:f::/48", "2001:db8:bad::3"),
    ("BGP_GLOBALS_AF", "VrfBoot-p1|ipv6_unicast", "2001:db8:bad::4"),
];
const PARTITIONS: [&str; 3] = ["p1", "p2", "a-rather-long-partition"];

/// Something that happens to the switch, or to the agent.
#[derive(Debug, Clone)]
enum Event {
    BootPort {
        port: usize,
        partition: usize,
    },
    NoBootPort {
        port: usize,
    },
    Partition {
        partition: usize,
        variant: u8,
    },
    NoPartition {
        partition: usize,
    },
    AdminStatus {
        up: bool,
    },
    ForeignBind {
        port: usize,
    },
    ForeignUnbind {
        port: usize,
    },
    ForeignAddress {
        port: usize,
        present: bool,
    },
    VlanMember {
        port: usize,
        present: bool,
    },
    Carrier {
        port: usize,
        up: bool,
    },
    /// Who rules FRR changes, or what the operator wants of it.
    LeakMethod {
        method: usize,
        frrcfgd: bool,
    },
    /// Somebody else's row where one of the leak's may have to go.
    ForeignRoute {
        route: usize,
        present: bool,
    },
    SwssRestart,
    /// Critical daemons restart swss as a whole; vrfmgrd alone is the exception that was observed to matter.
    VrfmgrdRestart,
    /// The flag alone; what a reboot does besides are restarts of swss and of the agent.
    Reboot {
        under_way: bool,
    },
    Pass {
        crash_after: Option<usize>,
    },
    Steps {
        count: usize,
        seed: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let ports = 0..PORTS.len();
    let partitions = 0..PARTITIONS.len();
    prop_oneof![
        6 => (ports.clone(), partitions.clone()).prop_map(|(port, partition)| Event::BootPort { port, partition }),
        2 => ports.clone().prop_map(|port| Event::NoBootPort { port }),
        4 => (partitions.clone(), 0..8u8).prop_map(|(partition, variant)| Event::Partition { partition, variant }),
        1 => partitions.prop_map(|partition| Event::NoPartition { partition }),
        1 => any::<bool>().prop_map(|up| Event::AdminStatus { up }),
        2 => ports.clone().prop_map(|port| Event::ForeignBind { port }),
        2 => ports.clone().prop_map(|port| Event::ForeignUnbind { port }),
        1 => (ports.clone(), any::<bool>()).prop_map(|(port, present)| Event::ForeignAddress { port, present }),
        1 => (0..3usize, any::<bool>()).prop_map(|(port, present)| Event::VlanMember { port, present }),
        1 => (ports, any::<bool>()).prop_map(|(port, up)| Event::Carrier { port, up }),
        1 => (0..METHODS.len(), any::<bool>()).prop_map(|(method, frrcfgd)| Event::LeakMethod { method, frrcfgd }),
        1 => (0..FOREIGN_ROUTES.len(), any::<bool>()).prop_map(|(route, present)| Event::ForeignRoute { route, present }),
        1 => Just(Event::SwssRestart),
        1 => Just(Event::VrfmgrdRestart),
        1 => any::<bool>().prop_map(|under_way| Event::Reboot { under_way }),
        10 => proptest::option::weighted(0.3, 0..6usize).prop_map(|crash_after| Event::Pass { crash_after }),
        10 => (1..40usize, any::<u64>()).prop_map(|(count, seed)| Event::Steps { count, seed }),
    ]
}

fn apply(rig: &mut Rig, event: &Event) {
    let table = |name: &str| port(name).kind().interface_table();
    match *event {
        Event::BootPort { port, partition } => rig.boot_port(PORTS[port], PARTITIONS[partition]),
        Event::NoBootPort { port } => rig.switch.config_del("BOOT_NETWORK_PORT", PORTS[port]),
        Event::Partition { partition, variant } => {
            let prefix = format!("2001:db8:{:x}::/56", partition * 16 + usize::from(variant % 2));
            rig.switch.config_del("BOOT_NETWORK_PARTITION", PARTITIONS[partition]);
            let extra: &[(&str, &str)] = match variant {
                2 => &[("proxy", "disabled")],
                3 => &[("service_address@", "2001:db8:ffff::53")],
                4 => &[("advertise", "perhaps")],
                5 => &[("leak_prefix@", "2001:db8:a91::/64")],
                6 => {
                    &[("leak_prefix@", "2001:db8:a92::/64,2001:db8:a93::/64,::/0"), ("leak_vrf", "VrfTenant")]
                }
                7 => &[("isolate", "disabled")],
                _ => &[],
            };
            rig.partition(PARTITIONS[partition], &prefix, extra);
        }
        Event::NoPartition { partition } => {
            rig.switch.config_del("BOOT_NETWORK_PARTITION", PARTITIONS[partition]);
        }
        Event::AdminStatus { up } => {
            let status = if up { "up" } else { "down" };
            rig.switch.config_set("BOOT_NETWORK", "global", fields([("admin_status", status)]));
        }
        Event::ForeignBind { port } => {
            rig.foreign_set(table(PORTS[port]), PORTS[port], fields([("vrf_name", "VrfTenant")]));
        }
        Event::ForeignUnbind { port } => rig.foreign_del(table(PORTS[port]), PORTS[port]),
        Event::ForeignAddress { port, present } => {
            let key = format!("{}|2001:db8:f00:{port:x}::2/64", PORTS[port]);
            if present {
                rig.foreign_set(table(PORTS[port]), &key, fields([]));
            } else {
                rig.foreign_del(table(PORTS[port]), &key);
            }
        }
        Event::VlanMember { port, present } => {
            let key = format!("Vlan100|{}", PORTS[port]);
            if present {
                rig.foreign_set("VLAN_MEMBER", &key, fields([("tagging_mode", "untagged")]));
            } else {
                rig.foreign_del("VLAN_MEMBER", &key);
            }
        }
        Event::LeakMethod { method, frrcfgd } => {
            rig.switch.config_set("BOOT_NETWORK", "global", fields([("leak_method", METHODS[method])]));
            let framework = if frrcfgd { "true" } else { "false" };
            let row = fields([("frr_mgmt_framework_config", framework)]);
            rig.switch.config_set("DEVICE_METADATA", "localhost", row);
        }
        Event::ForeignRoute { route, present } => {
            let (table, key, next_hop) = FOREIGN_ROUTES[route];
            if present {
                rig.foreign_set(table, key, fields([("nexthop", next_hop)]));
            } else {
                rig.foreign_del(table, key);
            }
        }
        Event::Carrier { port, up } => rig.switch.set_carrier(PORTS[port], up),
        Event::SwssRestart => {
            rig.switch.swss_restart();
        }
        Event::VrfmgrdRestart => rig.switch.restart(Daemon::Vrfmgrd),
        Event::Reboot { under_way } => rig.switch.set_reboot(under_way.then_some(Reboot::Warm)),
        Event::Pass { crash_after } => {
            rig.pass(crash_after);
        }
        Event::Steps { count, seed } => {
            let mut state = seed;
            rig.switch.run(count, |choices| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(state >> 33).unwrap_or(0) % choices
            });
        }
    }
}

fn rig() -> Rig {
    let mut rig = Rig::new(&PORTS);
    rig.foreign_set("VRF", "VrfTenant", fields([]));
    for (vrf, asn) in [("default", "65000"), ("VrfTenant", "65001")] {
        rig.foreign_set("BGP_GLOBALS", vrf, fields([("local_asn", asn), ("router_id", "10.0.0.1")]));
    }
    rig.switch.config_set("VLAN", "Vlan100", fields([]));
    rig.switch.settle(10_000);
    rig
}

/// What has to hold of a switch at rest.
fn assert_settled(rig: &Rig) {
    rig.assert_foreign_untouched();
    let plan = rig.plan();
    assert!(plan.actions.is_empty(), "not idle: {:?}", plan.actions);
    rig.assert_fences_fit();
    for status in plan.status.ports.values() {
        let name = status.port.as_str();
        match status.phase {
            Phase::Ready if !plan.status.rejected.iter().any(|row| row.row.contains("PARTITION")) => {
                let vrf = status.vrf.as_ref().map(|vrf| vrf.as_str().to_owned());
                assert_eq!(rig.switch.rif_vrf(name).map(str::to_owned), vrf, "{name}");
                assert_eq!(rig.switch.link(name).and_then(|link| link.master.clone()), vrf, "{name}");
            }
            Phase::Binding | Phase::Failed => panic!("{name} is stuck: {status:?}"),
            Phase::Releasing => {
                assert!(status.error.is_some(), "{name} hangs in release without a reason: {status:?}");
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Without other writers in the way at the end, everything wanted is ready and nothing else is left.
    #[test]
    fn converges_from_any_history(events in proptest::collection::vec(event(), 1..60)) {
        let mut rig = rig();
        for event in &events {
            apply(&mut rig, event);
        }
        for (number, name) in PORTS.iter().enumerate() {
            apply(&mut rig, &Event::ForeignAddress { port: number, present: false });
            apply(&mut rig, &Event::Carrier { port: number, up: true });
            if number < 3 {
                apply(&mut rig, &Event::VlanMember { port: number, present: false });
            }
            let row = rig.config().row(port(name).kind().interface_table(), name).cloned();
            if row.is_some_and(|row| row.get("vrf_name").is_some_and(|vrf| vrf == "VrfTenant")) {
                apply(&mut rig, &Event::ForeignUnbind { port: number });
            }
        }
        for route in 0..FOREIGN_ROUTES.len() {
            apply(&mut rig, &Event::ForeignRoute { route, present: false });
        }
        let method = rig.config().row("BOOT_NETWORK", "global").and_then(|row| row.get("leak_method").cloned());
        if method.as_deref() == Some("frr-mgmt") {
            apply(&mut rig, &Event::LeakMethod { method: 2, frrcfgd: true });
        }
        for (number, id) in PARTITIONS.iter().enumerate() {
            if rig.config().row("BOOT_NETWORK_PARTITION", id).is_some() {
                apply(&mut rig, &Event::Partition { partition: number, variant: 0 });
            }
        }
        apply(&mut rig, &Event::AdminStatus { up: true });
        apply(&mut rig, &Event::Reboot { under_way: false });
        rig.converge();
        assert_settled(&rig);
        let status = rig.plan().status;
        prop_assert_eq!(status.verdict, Verdict::Converged, "{:#?}", status);
        for name in rig.config().table("BOOT_NETWORK_PORT").map(|(name, _)| name) {
            let phase = status.ports[&port(name)].phase;
            prop_assert!(matches!(phase, Phase::Ready | Phase::Rejected), "{}: {:#?}", name, status.ports);
        }
    }

    /// A lost ledger costs nothing where nobody else wrote: names tell what is ours.
    #[test]
    fn a_lost_ledger_is_relearned_from_names(
        events in proptest::collection::vec((event(), proptest::bool::weighted(0.2)), 1..60),
    ) {
        let mut rig = rig();
        let foreign = |event: &Event| {
            matches!(
                event,
                Event::ForeignBind { .. }
                    | Event::ForeignUnbind { .. }
                    | Event::ForeignAddress { .. }
                    | Event::ForeignRoute { .. }
            )
        };
        for (event, lost) in events.iter().filter(|(event, _)| !foreign(event)) {
            apply(&mut rig, event);
            if *lost {
                rig.ledger = crate::ownership::Ledger::default();
            }
        }
        for id in PARTITIONS {
            rig.switch.config_del("BOOT_NETWORK_PARTITION", id);
        }
        apply(&mut rig, &Event::Reboot { under_way: false });
        rig.converge();
        prop_assert!(rig.written.is_empty(), "left behind: {:?}", rig.written);
    }

    /// With other writers still there, the agent comes to rest, yields, and says why.
    #[test]
    fn comes_to_rest_beside_other_writers(events in proptest::collection::vec(event(), 1..60)) {
        let mut rig = rig();
        for event in &events {
            apply(&mut rig, event);
        }
        apply(&mut rig, &Event::Reboot { under_way: false });
        rig.converge();
        assert_settled(&rig);
    }
}

//! bgpcfgd's one route-map for the announcements of all VRFs, and what the plan does so that it comes back.

use std::collections::{BTreeMap, BTreeSet};

use super::rig::Rig;
use crate::action::Action;
use crate::desired::Desired;
use crate::frr::FrrObserved;
use crate::frr::rows::REDISTRIBUTION;
use crate::observed::{Observed, Source};
use crate::row::fields;

const LEAK: (&str, &str) = ("leak_prefix@", "2001:db8:a91::/64");

/// Which rows bgpcfgd knows in which VRF, and whether its route-map is in FRR.
#[derive(Debug, Default)]
struct Filter {
    vrfs: BTreeMap<String, BTreeSet<String>>,
    there: bool,
}

impl Filter {
    fn row(&mut self, key: &str, there: bool) {
        let vrf = key.split_once('|').map_or("default", |(vrf, _)| vrf);
        let rows = self.vrfs.entry(vrf.to_owned()).or_default();
        let first = rows.is_empty();
        match there {
            true => _ = rows.insert(key.to_owned()),
            false => _ = rows.remove(key),
        }
        if there && first {
            self.there = true;
        } else if !there && !first && rows.is_empty() {
            self.there = false;
        }
    }

    /// What a pass did.
    fn follow(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::SetLeakRow { table: "STATIC_ROUTE", key, .. }
                | Action::RewriteLeakRow { table: "STATIC_ROUTE", key, .. } => self.row(key, true),
                Action::DeleteLeakRow(row) | Action::RenewLeakRow { row, .. } => self.row(row.key(), false),
                _ => {}
            }
        }
    }

    /// What is read of FRR while it announces by a route-map that it has not, else nothing.
    fn frr(&self) -> FrrObserved {
        if self.there || self.vrfs.values().all(BTreeSet::is_empty) {
            return FrrObserved::default();
        }
        FrrObserved { managed: true, running_config: BGP.to_owned(), ..FrrObserved::default() }
    }
}

const BGP: &str = "router bgp 65000\n address-family ipv6 unicast\n  \
    redistribute static route-map STATIC_ROUTE_FILTER\n exit-address-family\nexit\n";

/// Two partitions with a port each, by static routes.
fn two_partitions(filter: &mut Filter) -> Rig {
    let mut rig = Rig::new(&["Ethernet0", "Ethernet4"]);
    rig.switch.config_set("BOOT_NETWORK", "global", fields([("leak_method", "static-route")]));
    for (id, prefix, port) in
        [("p1", "2001:db8::/56", "Ethernet0"), ("p2", "2001:db8:0:100::/56", "Ethernet4")]
    {
        rig.partition(id, prefix, &[LEAK]);
        rig.boot_port(port, id);
    }
    converge(&mut rig, filter);
    rig
}

/// As [`Rig::converge`]; bgpcfgd sees what each pass does. Returns rows written again, by VRF.
fn converge(rig: &mut Rig, filter: &mut Filter) -> BTreeSet<String> {
    let mut again = BTreeSet::new();
    // bgpd of FRR up to 10.3 crashes where the route-map comes back too soon.
    let mut rest = 0_u32;
    for _ in 0..80 {
        rig.switch.settle(10_000);
        rig.frr = filter.frr();
        let was_there = filter.there;
        rig.pass(None);
        filter.follow(&rig.last);
        let rewritten: BTreeSet<String> = rig.last.iter().filter_map(rewritten_in).collect();
        assert!(rewritten.is_empty() || rest == 0, "{rest} passes too early: {rewritten:?}");
        again.extend(rewritten);
        rest = rest.saturating_sub(1);
        if was_there && !filter.there {
            rig.cool(REDISTRIBUTION);
            rest = 3;
        }
    }
    rig.frr = filter.frr();
    assert!(rig.plan().actions.is_empty(), "{:?}", rig.plan().actions);
    let keys: BTreeSet<String> = rig.config().table("STATIC_ROUTE").map(|(key, _)| key.to_owned()).collect();
    let known: BTreeSet<String> = filter.vrfs.values().flatten().cloned().collect();
    assert_eq!(known, keys, "bgpcfgd was told of all rows");
    again
}

fn rewritten_in(action: &Action) -> Option<String> {
    match action {
        Action::RewriteLeakRow { key, .. } => Some(key.split('|').next().unwrap().to_owned()),
        _ => None,
    }
}

fn remove_p2(rig: &mut Rig) {
    rig.switch.config_del("BOOT_NETWORK_PORT", "Ethernet4");
    rig.switch.config_del("BOOT_NETWORK_PARTITION", "p2");
}

#[test]
fn announcements_outlive_a_partition_that_goes() {
    let mut filter = Filter::default();
    let mut rig = two_partitions(&mut filter);
    assert!(filter.there);
    let before: BTreeMap<String, _> = rows_of(&rig, "VrfBoot-p1");
    remove_p2(&mut rig);
    let again = converge(&mut rig, &mut filter);
    assert!(!filter.vrfs["default"].is_empty() && filter.vrfs["VrfBoot-p2"].is_empty());
    assert!(filter.there, "the route-map went with the partition");
    assert_eq!(again.into_iter().collect::<Vec<_>>(), ["default"], "nobody's deny is touched");
    assert_eq!(rows_of(&rig, "VrfBoot-p1"), before);
    assert!(rig.written.iter().all(|row| !row.contains("p2")), "{:?}", rig.written);
}

fn rows_of(rig: &Rig, vrf: &str) -> BTreeMap<String, crate::row::Fields> {
    let config = rig.config();
    let rows = config.table("STATIC_ROUTE").filter(|(key, _)| key.starts_with(vrf));
    rows.map(|(key, row)| (key.to_owned(), row.clone())).collect()
}

/// Of a VRF that has foreign rows, none is touched; the deny of the kernel covers that of FRR meanwhile.
#[test]
fn beside_foreign_routes_the_rows_of_another_vrf_do() {
    // A route of their own, and one of ours that they made theirs.
    let foreign = [
        ("default|2001:db8:ffff::/48", fields([("nexthop", "2001:db8:f::1")])),
        ("default|2001:db8:0:1::/64", fields([("bfd", "false")])),
    ];
    for (key, row) in foreign {
        let mut filter = Filter::default();
        let mut rig = two_partitions(&mut filter);
        rig.foreign_set("STATIC_ROUTE", key, row);
        filter.row(key, true);
        remove_p2(&mut rig);
        let again = converge(&mut rig, &mut filter);
        assert!(filter.there);
        assert_eq!(again.into_iter().collect::<Vec<_>>(), ["VrfBoot-p1"]);
        rig.assert_foreign_untouched();
    }
}

#[test]
fn no_deny_goes_where_nothing_covers_it() {
    let mut filter = Filter::default();
    let mut rig = two_partitions(&mut filter);
    rig.switch.set_net_admin(false);
    rig.foreign_set("STATIC_ROUTE", "2001:db8:ffff::/48", fields([("nexthop", "2001:db8:f::1")]));
    filter.row("2001:db8:ffff::/48", true);
    remove_p2(&mut rig);
    for _ in 0..40 {
        rig.switch.settle(10_000);
        rig.frr = filter.frr();
        let mut observed = rig.observe();
        if let Source::Known(kernel) = &mut observed.kernel {
            kernel.unreachable_defaults.clear();
        }
        let plan = crate::plan::plan(&Desired::from_config(&rig.config()), &observed);
        assert_eq!(plan.actions.iter().find_map(rewritten_in), None);
        rig.pass(None);
        filter.follow(&rig.last);
    }
}

/// A port that comes back makes the route-map as it is; and the last of all leaves nothing to announce.
#[test]
fn nothing_is_written_again_without_need() {
    let mut filter = Filter::default();
    let mut rig = two_partitions(&mut filter);
    for port in ["Ethernet0", "Ethernet4"] {
        rig.switch.config_del("BOOT_NETWORK_PORT", port);
    }
    assert!(converge(&mut rig, &mut filter).is_empty(), "no row is announced any more");
    assert!(!filter.there);
    rig.boot_port("Ethernet0", "p1");
    assert!(converge(&mut rig, &mut filter).is_empty());
    assert!(filter.there);
    remove_p2(&mut rig);
    rig.switch.config_del("BOOT_NETWORK_PARTITION", "p1");
    converge(&mut rig, &mut filter);
    assert!(filter.vrfs.values().all(BTreeSet::is_empty));
}

/// Somebody else's VRF lost its last static route.
#[test]
fn a_route_map_that_frr_lost_is_made_again() {
    let rig = two_partitions(&mut Filter::default());
    let rewritten = |running_config: &str, cooling: &[String]| -> Vec<String> {
        let running_config = running_config.to_owned();
        let frr = FrrObserved { managed: true, running_config, ..FrrObserved::default() };
        let mut observed = Observed { frr: Source::Known(frr), ..rig.observe() };
        observed.cooling.extend(cooling.iter().cloned());
        let actions = crate::plan::plan(&Desired::from_config(&rig.config()), &observed).actions;
        let rewritten = actions.iter().filter(|action| action.kind() == "rewrite-leak-row");
        rewritten.map(Action::object).collect()
    };
    let bgp = BGP;
    let map = "route-map STATIC_ROUTE_FILTER permit 10\n match tag 1\nexit\n";
    assert!(rewritten(&format!("{bgp}{map}"), &[]).is_empty());
    assert!(rewritten(map, &[]).is_empty());
    let objects = rewritten(bgp, &[]);
    assert_eq!(objects.len(), 4, "two ports, each with its router's address: {objects:?}");
    // Then bgpcfgd and FRR have their time.
    assert_eq!(rewritten(bgp, &objects[..1]), [""; 0]);
    // Nor does it come back beside rows that go.
    let mut rig = rig;
    remove_p2(&mut rig);
    rig.frr = FrrObserved { managed: true, running_config: bgp.to_owned(), ..FrrObserved::default() };
    let (mut went, mut waited) = (false, false);
    for _ in 0..40 {
        rig.switch.settle(10_000);
        let waiting = rig.plan().status.waiting;
        waited |= waiting.iter().any(|waiting| waiting.on.starts_with(REDISTRIBUTION));
        let kinds = rig.pass(None);
        let goes = kinds.contains(&"delete-leak-row");
        assert!(!(goes && kinds.contains(&"rewrite-leak-row")), "{kinds:?}");
        went |= goes;
    }
    assert!(went && waited);
}

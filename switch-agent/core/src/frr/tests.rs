//! The delta against a model of FRR's configuration.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::desired::LeakMethod;

mod model;

use model::{FOREIGN, Model};

pub(super) fn boot(leak_vrf: &str, prefixes: &[&str], ports: &[(&str, &str)]) -> BootVrfSpec {
    BootVrfSpec {
        leak_vrf: leak_vrf.to_owned(),
        leak_prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
        ports: ports.iter().map(|(port, net)| (port.parse().unwrap(), net.parse().unwrap())).collect(),
    }
}

/// Two partitions with different leaks, and one without.
pub(super) fn spec() -> FrrSpec {
    let ports = [("Ethernet0", "2001:db8:b000::/64"), ("Ethernet4", "2001:db8:b000:1::/64")];
    let vrfs = [
        ("VrfBoot-p1", boot("default", &["2001:db8:a91::/64", "2001:db8:cace::/64"], &ports)),
        ("VrfBoot-p2", boot("VrfApi", &["2001:db8:a92::/64"], &[("PortChannel1", "2001:db8:b001::/64")])),
        ("VrfBoot-p3", boot("default", &[], &[("Ethernet8", "2001:db8:b002::/64")])),
    ];
    FrrSpec { vrfs: vrfs.into_iter().map(|(name, spec)| (name.parse().unwrap(), spec)).collect() }
}

fn owned(vrf: &VrfName) -> bool {
    vrf.as_str().starts_with("VrfBoot")
}

fn assert_converged(model: &Model, spec: &FrrSpec) {
    let again = plan(spec, &model.observed(), LeakMethod::Vtysh, &owned);
    assert!(again.withdraw.is_empty() && again.apply.is_empty(), "{again:#?}");
    assert!(again.lingering.is_empty(), "{again:#?}");
}

#[test]
fn the_first_delta_in_full() {
    let mut spec = spec();
    spec.vrfs.retain(|vrf, _| vrf.as_str() == "VrfBoot-p1");
    spec.vrfs.values_mut().for_each(|boot| boot.ports.retain(|port, _| port.as_str() == "Ethernet0"));
    let plan = plan(&spec, &Model::new(FOREIGN).observed(), LeakMethod::Vtysh, &owned);
    assert!(plan.withdraw.is_empty());
    let expected = "\
ipv6 prefix-list BOOTNET-VrfBoot-p1-API seq 10 permit 2001:db8:a91::/64
ipv6 prefix-list BOOTNET-VrfBoot-p1-API seq 20 permit 2001:db8:cace::/64
route-map BOOTNET-VrfBoot-p1-IN permit 10
 match ipv6 address prefix-list BOOTNET-VrfBoot-p1-API
exit
vrf VrfBoot-p1
 ipv6 route ::/0 blackhole 254
exit-vrf
!
ipv6 route 2001:db8:b000::/64 Ethernet0 nexthop-vrf VrfBoot-p1
ipv6 route 2001:db8:b000::1/128 VrfBoot-p1 nexthop-vrf VrfBoot-p1
router bgp 65000 vrf VrfBoot-p1
 bgp router-id 10.0.0.1
 no bgp default ipv4-unicast
 address-family ipv6 unicast
  import vrf route-map BOOTNET-VrfBoot-p1-IN
  import vrf default
 exit-address-family
exit
router bgp 65000
 address-family ipv6 unicast
  network 2001:db8:b000::/64
 exit-address-family
exit";
    assert_eq!(plan.apply.commands.join("\n"), expected);
    assert_eq!(plan.apply.stages().count(), 2);
    assert_eq!(plan.waiting, None);
}

#[test]
fn the_last_withdrawal_in_full() {
    let text = include_str!("testdata/frr-8.4.4.conf");
    let observed = FrrObserved { managed: true, running_config: text.to_owned(), ..FrrObserved::default() };
    let plan = plan(&FrrSpec::default(), &observed, LeakMethod::Vtysh, &owned);
    let expected = "\
router bgp 4200000010
 address-family ipv6 unicast
  no network 2001:db8:b000::/64
 exit-address-family
exit
no ipv6 route 2001:db8:b000::/64 Ethernet0 nexthop-vrf VrfBoot-p1
no ipv6 route 2001:db8:b000::1/128 VrfBoot-p1 nexthop-vrf VrfBoot-p1
router bgp 4200000010 vrf VrfBoot-p1
 address-family ipv6 unicast
  no import vrf default
  no import vrf route-map BOOTNET-VrfBoot-p1-IN
 exit-address-family
exit
no router bgp 4200000010 vrf VrfBoot-p1
vrf VrfBoot-p1
 no ipv6 route ::/0 blackhole 254
exit-vrf
no route-map BOOTNET-VrfBoot-p1-IN
no ipv6 prefix-list BOOTNET-VrfBoot-p1-API";
    assert_eq!(plan.withdraw.commands.join("\n"), expected);
    assert!(plan.apply.is_empty());
    assert_eq!(plan.lingering, ["VrfBoot-p1".parse().unwrap()]);
}

#[test]
fn everything_comes_and_goes_and_foreign_lines_stay() {
    let mut model = Model::new(FOREIGN);
    model.converge(&spec());
    assert_converged(&model, &spec());
    let (before, after) = (Model::new(FOREIGN).facts(), model.facts());
    assert!(before.iter().all(|(path, lines)| after[path].is_superset(lines)));
    model.converge(&FrrSpec::default());
    assert_converged(&model, &FrrSpec::default());
    assert_eq!(model.facts(), before);
}

#[test]
fn samples_of_every_release_are_converged() {
    let ports = [("Ethernet0", "2001:db8:b000::/64")];
    let vrfs = [("VrfBoot-p1".parse().unwrap(), boot("default", &["2001:db8:a91::/64"], &ports))];
    let spec = FrrSpec { vrfs: BTreeMap::from(vrfs) };
    for text in [
        include_str!("testdata/frr-8.4.4.conf"),
        include_str!("testdata/frr-10.3.conf"),
        include_str!("testdata/frr-10.7.1.conf"),
    ] {
        let observed =
            FrrObserved { managed: true, running_config: text.to_owned(), ..FrrObserved::default() };
        let plan = plan(&spec, &observed, LeakMethod::Vtysh, &owned);
        assert!(plan.withdraw.is_empty() && plan.apply.is_empty(), "{plan:#?}");
    }
}

#[test]
fn a_prefix_list_grows_before_it_shrinks() {
    let mut model = Model::new(FOREIGN);
    model.converge(&spec());
    let mut changed = spec();
    let vrf: VrfName = "VrfBoot-p1".parse().unwrap();
    changed.vrfs.get_mut(&vrf).unwrap().leak_prefixes = vec!["2001:db8:cafe::/64".parse().unwrap()];
    let plan = model.converge(&changed);
    assert!(plan.withdraw.is_empty());
    assert_eq!(
        plan.apply.commands,
        [
            "ipv6 prefix-list BOOTNET-VrfBoot-p1-API seq 30 permit 2001:db8:cafe::/64",
            "no ipv6 prefix-list BOOTNET-VrfBoot-p1-API seq 10 permit 2001:db8:a91::/64",
            "no ipv6 prefix-list BOOTNET-VrfBoot-p1-API seq 20 permit 2001:db8:cace::/64",
        ]
    );
    assert_converged(&model, &changed);
}

#[test]
fn tampering_that_opens_is_closed_import_first() {
    let tampered = |change: &dyn Fn(&mut Model)| {
        let mut model = Model::new(FOREIGN);
        model.converge(&spec());
        change(&mut model);
        let plan = model.converge(&spec());
        assert_converged(&model, &spec());
        plan
    };
    let family = ["router bgp 65000 vrf VrfBoot-p1".to_owned(), "address-family ipv6 unicast".to_owned()];
    let plan = tampered(&|model| {
        model.contexts.get_mut(family.as_slice()).unwrap().retain(|line| line == "import vrf default");
    });
    assert_eq!(plan.withdraw.commands[2].trim(), "no import vrf default");
    assert!(matches!(&plan.leak[&"VrfBoot-p1".parse().unwrap()], LeakStatus::Pending(_)));
    // The route-map is gone: so is what refers to it, before it comes back.
    let plan = tampered(&|model| model.command("no route-map BOOTNET-VrfBoot-p1-IN"));
    assert_eq!(plan.withdraw.commands[3].trim(), "no import vrf route-map BOOTNET-VrfBoot-p1-IN");
    // An entry that permits everything, and one whose match is gone.
    tampered(&|model| {
        model.command("route-map BOOTNET-VrfBoot-p1-IN permit 20");
        model.command("exit");
    });
    tampered(&|model| {
        model.contexts.insert(vec!["route-map BOOTNET-VrfBoot-p1-IN permit 10".to_owned()], Vec::new());
    });
    // A wider prefix-list, a second import.
    tampered(&|model| model.command("ipv6 prefix-list BOOTNET-VrfBoot-p1-API seq 1 permit any"));
    tampered(&|model| model.contexts.get_mut(family.as_slice()).unwrap().push("import vrf Vrf64".to_owned()));
}

#[test]
fn an_adopted_vrf_keeps_what_is_not_ours() {
    let base = format!(
        "{FOREIGN}router bgp 65000 vrf VrfRack\n neighbor Ethernet20 interface remote-as external\n \
         address-family ipv6 unicast\n  redistribute connected\n exit-address-family\nexit\n"
    );
    let ports = [("Ethernet0", "2001:db8:b000::/64")];
    let vrfs = [("VrfRack".parse().unwrap(), boot("default", &["2001:db8:a91::/64"], &ports))];
    let spec = FrrSpec { vrfs: BTreeMap::from(vrfs) };
    let mut model = Model::new(&base);
    model.converge(&spec);
    assert!(model.text().contains("import vrf route-map BOOTNET-VrfRack-IN"));
    model.converge(&FrrSpec::default());
    assert_eq!(model.facts(), Model::new(&base).facts());

    // Imports of somebody else are neither filtered nor removed: the leak waits.
    let taken = base.replace("  redistribute connected", "  import vrf route-map RACK\n  import vrf Vrf64");
    let mut model = Model::new(&taken);
    let observed = plan(&spec, &model.observed(), LeakMethod::Vtysh, &owned);
    assert_eq!(
        observed.waiting.as_deref(),
        Some("`router bgp 65000 vrf VrfRack` has imports of somebody else")
    );
    model.converge(&spec);
    assert!(model.text().contains("import vrf route-map RACK"));
    assert!(!model.text().contains("BOOTNET"));
}

#[test]
fn without_bgp_only_the_deny_route_is_applied() {
    let spec = spec();
    let mut model = Model::new("frr version 10.3\n");
    let plan = model.converge(&spec);
    assert_eq!(plan.waiting.as_deref(), Some("FRR has no `router bgp` for VRF default"));
    assert_eq!(model.text().matches("blackhole").count(), 3);
    assert!(!model.text().contains("BOOTNET") && !model.text().contains("nexthop-vrf"));

    let mgmt = FrrSpec {
        vrfs: BTreeMap::from([("VrfBoot-p1".parse().unwrap(), boot("mgmt", &["2001:db8:a91::/64"], &[]))]),
    };
    let plan = Model::new(FOREIGN).converge(&mgmt);
    assert!(plan.waiting.unwrap().starts_with("leak_vrf mgmt is not supported"));
}

#[test]
fn methods_that_do_not_apply_apply_nothing() {
    let vrf: VrfName = "VrfBoot-p1".parse().unwrap();
    let unmanaged = FrrObserved::default();
    let managed = Model::new(FOREIGN).observed();
    for (method, observed, status) in [
        (LeakMethod::Vtysh, &unmanaged, "Unknown"),
        (LeakMethod::RenderOnly, &unmanaged, "Rendered"),
        (LeakMethod::RenderOnly, &managed, "Rendered"),
        (LeakMethod::FrrMgmt, &managed, "Pending"),
        (LeakMethod::StaticRoute, &managed, "Pending"),
        (LeakMethod::StaticRoute, &unmanaged, "Unknown"),
    ] {
        let plan = plan(&spec(), observed, method, &owned);
        assert!(plan.apply.is_empty() && plan.withdraw.is_empty());
        assert!(format!("{:?}", plan.leak[&vrf]).starts_with(status), "{method:?}: {:?}", plan.leak[&vrf]);
    }
}

fn any_spec() -> impl Strategy<Value = FrrSpec> {
    let prefixes = prop::sample::subsequence(vec!["2001:db8:a91::/64", "2001:db8:a92::/64", "::/0"], 0..=3);
    let ports = prop::sample::subsequence(vec!["Ethernet0", "Ethernet4", "PortChannel1"], 0..=3);
    let leak_vrf = prop::sample::select(vec!["default", "VrfApi", "VrfMissing", "mgmt"]);
    let entry = (prefixes, ports, leak_vrf);
    prop::collection::btree_map(0..3usize, entry, 0..=3).prop_map(|entries| {
        let vrfs = entries.into_iter().map(|(index, (prefixes, ports, leak_vrf))| {
            let nets: Vec<(&str, String)> = (ports.into_iter().enumerate())
                .map(|(at, port)| (port, format!("2001:db8:b{index}:{at}::/64")))
                .collect();
            let nets: Vec<(&str, &str)> = nets.iter().map(|(port, net)| (*port, net.as_str())).collect();
            let name = format!("VrfBoot-p{index}").parse().unwrap();
            (name, boot(leak_vrf, &prefixes, &nets))
        });
        FrrSpec { vrfs: vrfs.collect() }
    })
}

proptest! {
    /// From any wanted state to any other, through losses: converged in one plan, never open on the way,
    /// and nothing left or missing at the end.
    #[test]
    fn any_sequence_of_wanted_states_converges(
        specs in prop::collection::vec((any_spec(), any::<u64>()), 1..5),
    ) {
        let base = Model::new(FOREIGN).facts();
        let mut model = Model::new(FOREIGN);
        for (spec, losses) in specs {
            model.converge(&spec);
            assert_converged(&model, &spec);
            let wanted = wanted::Wanted::of(&spec);
            let running = Running::parse(&model.text());
            for (vrf, leak_vrf) in &wanted.imports {
                if running.bgp.contains_key(leak_vrf) {
                    prop_assert!(running.bgp[vrf.as_str()].imports().eq([leak_vrf.as_str()]));
                }
            }
            // Losing the deny route or a match opens by itself; closing it again is the next plan's.
            let mut damaged = model.clone();
            damaged.lose(|index| losses >> (index % 64) & 1 == 1);
            damaged.converge(&spec);
            assert_converged(&damaged, &spec);
            damaged.converge(&FrrSpec::default());
            prop_assert_eq!(damaged.facts(), base.clone());
        }
    }

    #[test]
    fn any_text_is_a_running_configuration(text in "(?s).{0,400}") {
        let observed = FrrObserved { managed: true, running_config: text, ..FrrObserved::default() };
        plan(&spec(), &observed, LeakMethod::Vtysh, &owned);
    }
}

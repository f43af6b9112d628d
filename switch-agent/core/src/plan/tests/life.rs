//! One life of a port, step by step.

use super::rig::{Rig, port};
use crate::action::Action;
use crate::row::fields;
use crate::status::{Phase, Verdict};

fn kinds(rig: &Rig) -> Vec<&'static str> {
    rig.plan().actions.iter().map(Action::kind).collect()
}

/// Carries one pass out and names its kinds of actions, each once.
fn step(rig: &mut Rig) -> String {
    let mut kinds = rig.pass(None);
    kinds.dedup();
    kinds.join(" ")
}

fn one_port() -> Rig {
    let mut rig = Rig::new(&["Ethernet0", "Ethernet4"]);
    rig.partition("p1", "2001:db8::/56", &[]);
    rig.boot_port("Ethernet0", "p1");
    rig
}

#[test]
fn bring_up_takes_one_step_at_a_time() {
    let mut rig = one_port();
    let mut steps = Vec::new();
    for _ in 0..12 {
        steps.push(step(&mut rig));
        rig.switch.settle(10_000);
    }
    steps.retain(|step| !step.is_empty());
    assert_eq!(
        steps,
        [
            "record-ledger create-vrf",
            "record-ledger set-acl bind-interface add-unreachable-default set-leak-row",
            "add-address",
            "add-link-local set-service set-advertiser",
        ]
    );
    let status = rig.plan().status;
    assert_eq!(status.ports[&port("Ethernet0")].phase, Phase::Ready);
    assert_eq!(status.verdict, Verdict::Converged);
}

#[test]
fn release_is_the_reverse_and_leaves_nothing() {
    let mut rig = one_port();
    rig.converge();
    rig.switch.config_del("BOOT_NETWORK_PORT", "Ethernet0");
    rig.switch.config_del("BOOT_NETWORK_PARTITION", "p1");
    let mut steps = Vec::new();
    for _ in 0..12 {
        steps.push(step(&mut rig));
        rig.switch.settle(10_000);
    }
    steps.retain(|step| !step.is_empty());
    assert_eq!(
        steps,
        [
            "cease-advertiser close-service remove-link-local",
            "delete-address",
            "delete-interface",
            "record-ledger delete-leak-row delete-acl",
            "record-ledger remove-unreachable-default delete-vrf",
            "record-ledger",
        ]
    );
    assert_eq!(rig.finals, [port("Ethernet0")]);
    assert!(rig.written.is_empty(), "{:?}", rig.written);
    assert_eq!(rig.ledger, crate::ownership::Ledger::default());
    assert!(rig.switch.link("VrfBoot-p1").is_none());
}

#[test]
fn a_restarted_agent_adopts_everything_and_writes_nothing() {
    let mut rig = one_port();
    rig.converge();
    let before = rig.config();
    rig.runtime = crate::observed::Runtime::default();
    assert_eq!(kinds(&rig), ["set-service", "set-advertiser"]);
    rig.pass(None);
    assert!(kinds(&rig).is_empty());
    assert_eq!(rig.config(), before);
    assert!(rig.finals.is_empty());
}

#[test]
fn a_port_in_foreign_use_is_yielded_to_and_taken_when_free() {
    let mut rig = one_port();
    rig.foreign_set("VRF", "VrfTenant", fields([]));
    rig.foreign_set("INTERFACE", "Ethernet0", fields([("vrf_name", "VrfTenant")]));
    rig.converge();
    let status = rig.plan().status;
    assert_eq!(status.ports[&port("Ethernet0")].phase, Phase::Foreign);
    let error = status.ports[&port("Ethernet0")].error.clone().unwrap();
    assert!(error.contains("INTERFACE|Ethernet0") && error.contains("VrfTenant"), "{error}");
    rig.foreign_del("INTERFACE", "Ethernet0");
    rig.converge();
    assert_eq!(rig.plan().status.ports[&port("Ethernet0")].phase, Phase::Ready);
    rig.assert_foreign_untouched();
}

#[test]
fn a_vlan_member_is_foreign_until_vlanmgrd_let_go() {
    let mut rig = one_port();
    rig.switch.config_set("VLAN", "Vlan100", fields([]));
    rig.foreign_set("VLAN_MEMBER", "Vlan100|Ethernet0", fields([("tagging_mode", "untagged")]));
    rig.converge();
    let status = rig.plan().status;
    assert_eq!(status.ports[&port("Ethernet0")].phase, Phase::Foreign);
    assert!(
        status.ports[&port("Ethernet0")].error.as_ref().unwrap().contains("VLAN_MEMBER|Vlan100|Ethernet0")
    );
    rig.foreign_del("VLAN_MEMBER", "Vlan100|Ethernet0");
    // The row is gone, the daemon has not looked yet: binding now would be undone.
    assert!(!kinds(&rig).contains(&"bind-interface"));
    rig.converge();
    assert_eq!(rig.plan().status.ports[&port("Ethernet0")].phase, Phase::Ready);
}

#[test]
fn adopt_mode_only_adds_the_address_and_the_services() {
    let mut rig = Rig::new(&["Ethernet0"]);
    rig.partition("p1", "2001:db8::/56", &[("manage_vrf", "disabled"), ("isolate", "disabled")]);
    rig.boot_port("Ethernet0", "p1");
    rig.converge();
    assert!(rig.written.is_empty());
    let waiting = rig.plan().status.ports[&port("Ethernet0")].waiting_on.clone().unwrap();
    assert!(waiting.contains("INTERFACE|Ethernet0"), "{waiting}");
    rig.foreign_set("VRF", "VrfBoot-p1", fields([]));
    rig.switch.settle(10_000);
    rig.foreign_set("INTERFACE", "Ethernet0", fields([("vrf_name", "VrfBoot-p1")]));
    rig.converge();
    assert_eq!(rig.plan().status.ports[&port("Ethernet0")].phase, Phase::Ready);
    assert_eq!(
        rig.written.iter().collect::<Vec<_>>(),
        ["INTERFACE|Ethernet0|2001:db8:0:1::1/64", "STATIC_ROUTE|VrfBoot-p1|::/0"]
    );
    rig.switch.config_del("BOOT_NETWORK_PARTITION", "p1");
    rig.converge();
    assert!(rig.written.is_empty());
    rig.assert_foreign_untouched();
}

#[test]
fn a_port_moves_between_partitions_through_the_whole_tear_down() {
    let mut rig = one_port();
    rig.partition("p2", "2001:db8:1::/56", &[]);
    rig.converge();
    rig.boot_port("Ethernet0", "p2");
    rig.converge();
    assert_eq!(rig.switch.rif_vrf("Ethernet0"), Some("VrfBoot-p2"));
    assert_eq!(rig.finals, [port("Ethernet0")]);
    assert_eq!(rig.plan().status.ports[&port("Ethernet0")].phase, Phase::Ready);
}

#[test]
fn a_broken_row_holds_what_it_described() {
    let mut rig = one_port();
    rig.converge();
    let before = rig.config();
    rig.switch.config_set("BOOT_NETWORK_PARTITION", "p1", fields([("advertise", "maybe")]));
    rig.converge();
    assert!(!rig.plan().status.rejected.is_empty());
    assert_eq!(rig.runtime.advertisers.len(), 1);
    assert_eq!(rig.runtime.services.len(), 1);
    assert!(rig.finals.is_empty());
    let rows = |config: &crate::row::ConfigDb| config.tables.get("INTERFACE").cloned();
    assert_eq!(rows(&rig.config()), rows(&before));
}

#[test]
fn swss_restart_rebuilds_silently() {
    let mut rig = one_port();
    rig.converge();
    rig.switch.swss_restart();
    rig.converge();
    assert_eq!(rig.plan().status.verdict, Verdict::Converged);
    assert!(rig.finals.is_empty(), "machines must keep their router over a swss restart");
}

#[test]
fn nothing_is_planned_while_a_source_is_unknown() {
    use crate::observed::Source;
    let mut rig = one_port();
    rig.converge();
    rig.switch.config_del("BOOT_NETWORK_PORT", "Ethernet0");
    let desired = crate::desired::Desired::from_config(&rig.config());
    let unknown = "down".to_owned();
    for source in 0..5 {
        let mut observed = rig.observe();
        match source {
            0 => observed.config = Source::Unknown(unknown.clone()),
            1 => observed.state = Source::Unknown(unknown.clone()),
            2 => observed.appl = Source::Unknown(unknown.clone()),
            3 => observed.kernel = Source::Unknown(unknown.clone()),
            _ => observed.ledger = Source::Unknown(unknown.clone()),
        }
        let plan = crate::plan::plan(&desired, &observed);
        assert!(plan.actions.is_empty(), "source {source}");
        assert_eq!(plan.status.verdict, Verdict::Degraded);
    }
}

/// Whoever counts sources goes by the list.
#[test]
fn unknown_sources_are_those_of_the_list() {
    use crate::observed::Source;
    use crate::status::SOURCES;
    let mut rig = one_port();
    rig.converge();
    let desired = crate::desired::Desired::from_config(&rig.config());
    let mut observed = rig.observe();
    let unknown = || "down".to_owned();
    observed.config = Source::Unknown(unknown());
    observed.state = Source::Unknown(unknown());
    observed.appl = Source::Unknown(unknown());
    observed.kernel = Source::Unknown(unknown());
    observed.frr = Source::Unknown(unknown());
    observed.ledger = Source::Unknown(unknown());
    let status = crate::plan::plan(&desired, &observed).status;
    let told: std::collections::BTreeSet<&str> = status.unknown.keys().map(String::as_str).collect();
    assert_eq!(told, SOURCES.into());
}

#[test]
fn service_addresses_live_on_a_loopback_of_ours() {
    let mut rig = one_port();
    rig.partition("p1", "2001:db8::/56", &[("service_address@", "2001:db8:ffff::53")]);
    rig.converge();
    assert!(rig.written.contains("LOOPBACK_INTERFACE|Loopback900"));
    assert!(rig.written.contains("LOOPBACK_INTERFACE|Loopback900|2001:db8:ffff::53/128"));
    rig.switch.config_hdel("BOOT_NETWORK_PARTITION", "p1", "service_address@");
    rig.converge();
    assert!(!rig.written.iter().any(|row| row.starts_with("LOOPBACK_INTERFACE")));
    assert_eq!(rig.plan().status.verdict, Verdict::Converged);
}

#[test]
fn isolation_is_there_before_a_port_and_goes_after_it() {
    let mut rig = one_port();
    rig.converge();
    assert!(rig.written.contains("ACL_TABLE|BOOTNET_VrfBoot-p1"));
    assert!(rig.written.contains("ACL_RULE|BOOTNET_VrfBoot-p1|DEFAULT_RULE"));
    rig.boot_port("Ethernet4", "p1");
    rig.converge();
    let ports = rig.config().row("ACL_TABLE", "BOOTNET_VrfBoot-p1").unwrap()["ports@"].clone();
    assert_eq!(ports, "Ethernet0,Ethernet4");
    // The list changes again at once, though the row was written a moment ago.
    rig.switch.config_del("BOOT_NETWORK_PORT", "Ethernet0");
    for _ in 0..4 {
        rig.pass(None);
        rig.switch.settle(10_000);
    }
    let ports = rig.config().row("ACL_TABLE", "BOOTNET_VrfBoot-p1").unwrap()["ports@"].clone();
    assert_eq!(ports, "Ethernet4");
    rig.switch.config_set("BOOT_NETWORK_PARTITION", "p1", fields([("isolate", "disabled")]));
    rig.converge();
    assert!(!rig.written.iter().any(|row| row.starts_with("ACL_")), "{:?}", rig.written);
    assert_eq!(rig.plan().status.verdict, Verdict::Converged);
}

#[test]
fn dhcpv6_goes_with_the_advertiser() {
    use crate::observed::AdvertiserState;

    let served = |rig: &Rig| match &rig.runtime.advertisers[&port("Ethernet0")] {
        AdvertiserState::Running(spec) => spec.dhcp6.clone(),
        other => panic!("{other:?}"),
    };
    let mut rig = one_port();
    rig.converge();
    assert_eq!(served(&rig), None);
    rig.switch.config_set("BOOT_NETWORK_PARTITION", "p1", fields([("dhcp6", "enabled")]));
    rig.converge();
    let first = served(&rig).unwrap();
    assert_eq!((first.router.to_string().as_str(), first.proxy_port), ("2001:db8:0:1::1", Some(18090)));
    let changes = [
        ("BOOT_NETWORK_PARTITION", "p1", "dhcp6_boot_url@", "default|http://h/x"),
        ("BOOT_NETWORK_PARTITION", "p1", "rdnss@", "2001:db8:f::53"),
        ("BOOT_NETWORK", "global", "proxy_port", "8080"),
        ("DEVICE_METADATA", "localhost", "mac", "52:54:00:ff:00:99"),
    ];
    for (table, key, field, value) in changes {
        let before = served(&rig);
        rig.switch.config_set(table, key, fields([(field, value)]));
        rig.converge();
        assert_ne!(served(&rig), before, "{table}|{key}");
    }
    assert_eq!(served(&rig).unwrap().server_mac.to_string(), "52:54:00:ff:00:99");
    assert_eq!(kinds(&rig), Vec::<&str>::new());
}

#[test]
fn whatever_a_machine_is_told_reaches_the_listener() {
    let changes = [
        ("BOOT_NETWORK_PARTITION", "p1", "boot_cmdline", "console=ttyS0"),
        ("BOOT_NETWORK", "global", "switch_id", "leaf-7"),
        ("BOOT_NETWORK", "global", "proxy_port", "8080"),
        ("PORT", "Ethernet0", "alias", "etp1"),
        ("DEVICE_METADATA", "localhost", "mac", "52:54:00:ff:00:99"),
    ];
    for (table, key, field, value) in changes {
        let mut rig = one_port();
        rig.converge();
        let before = rig.runtime.services.clone();
        rig.switch.config_set(table, key, fields([(field, value)]));
        rig.converge();
        assert_ne!(rig.runtime.services, before, "{table}|{key}");
    }
}

/// A machine that gets an address asks for its configuration at once.
#[test]
fn a_port_whose_listener_does_not_open_is_not_advertised_on() {
    let mut rig = one_port();
    rig.converge();
    rig.runtime = crate::observed::Runtime::default();
    let mut observed = rig.observe();
    observed.backing_off.insert("listener Ethernet0".to_owned(), "the address is in use".to_owned());
    let plan = crate::plan::plan(&crate::desired::Desired::from_config(&rig.config()), &observed);
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    let waiting = plan.status.ports[&port("Ethernet0")].waiting_on.clone().unwrap();
    assert!(waiting.contains("listener Ethernet0"), "{waiting}");
}

#[test]
fn a_row_that_frr_lost_is_written_anew() {
    use crate::frr::{FrrObserved, VrfRoutes};
    use crate::observed::Source;
    let mut rig = one_port();
    rig.partition("p1", "2001:db8::/56", &[("leak_prefix@", "2001:db8:a91::/64")]);
    rig.switch.config_set("BOOT_NETWORK", "global", fields([("leak_method", "static-route")]));
    rig.converge();
    let vrf: crate::name::VrfName = "VrfBoot-p1".parse().unwrap();
    let lines = [
        "frr version 10.3",
        "ipv6 route 2001:db8:0:1::/64 Ethernet0 tag 1 nexthop-vrf VrfBoot-p1",
        "ipv6 route 2001:db8:0:1::1/128 VrfBoot-p1 tag 2 nexthop-vrf VrfBoot-p1",
        "vrf VrfBoot-p1",
        " ipv6 route ::/0 blackhole tag 2 254",
        " ipv6 route 2001:db8:a91::/65 2001:db8:a91:: tag 2 nexthop-vrf default",
        " ipv6 route 2001:db8:a91:0:8000::/65 2001:db8:a91:0:8000:: tag 2 nexthop-vrf default",
        "exit-vrf",
    ];
    let routes = VrfRoutes { deny_installed: true, ..VrfRoutes::default() };
    let plan_with = |missing: Option<usize>| {
        let text: Vec<&str> =
            lines.iter().enumerate().filter(|(at, _)| Some(*at) != missing).map(|(_, line)| *line).collect();
        let frr = FrrObserved {
            managed: true,
            running_config: text.join("\n"),
            routes: std::collections::BTreeMap::from([(vrf.clone(), routes.clone())]),
            ..FrrObserved::default()
        };
        let observed = crate::observed::Observed { frr: Source::Known(frr), ..rig.observe() };
        let plan = crate::plan::plan(&crate::desired::Desired::from_config(&rig.config()), &observed);
        plan.actions.iter().map(|action| format!("{} {}", action.kind(), action.object())).collect::<Vec<_>>()
    };
    assert!(plan_with(None).is_empty(), "{:?}", plan_with(None));
    for (line, row) in [
        (1, "STATIC_ROUTE|default|2001:db8:0:1::/64 "),
        (4, "STATIC_ROUTE|VrfBoot-p1|::/0 "),
        (5, "STATIC_ROUTE|VrfBoot-p1|2001:db8:a91::/65 "),
    ] {
        let renewed: Vec<String> =
            plan_with(Some(line)).into_iter().filter(|action| action.starts_with("renew-leak-row")).collect();
        assert_eq!(renewed.len(), 1, "{line}: {renewed:?}");
        assert!(renewed[0].starts_with(&format!("renew-leak-row {row}")), "{renewed:?}");
    }
}

/// What the plan does with these lines in FRR: kinds and objects, without digests.
fn leak_actions(rig: &Rig, running_config: &str, deny_installed: bool) -> Vec<String> {
    use crate::frr::{FrrObserved, VrfRoutes};
    let routes = VrfRoutes { deny_installed, ..VrfRoutes::default() };
    let frr = FrrObserved {
        managed: true,
        running_config: running_config.to_owned(),
        routes: std::collections::BTreeMap::from([("VrfBoot-p1".parse().unwrap(), routes)]),
        ..FrrObserved::default()
    };
    let frr = crate::observed::Source::Known(frr);
    let observed = crate::observed::Observed { frr, ..rig.observe() };
    let plan = crate::plan::plan(&crate::desired::Desired::from_config(&rig.config()), &observed);
    let actions = plan.actions.iter().filter(|action| action.kind() == "set-leak-row");
    actions.map(|action| action.object().split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn ways_in_and_out_wait_for_the_deny_in_frr() {
    let mut rig = one_port();
    rig.switch.config_set("BOOT_NETWORK", "global", fields([("leak_method", "static-route")]));
    rig.converge();
    rig.partition("p1", "2001:db8::/56", &[("leak_prefix@", "2001:db8:a91::/64")]);
    let deny = "vrf VrfBoot-p1\n ipv6 route ::/0 blackhole tag 2 254\nexit-vrf\n";
    assert!(leak_actions(&rig, deny, false).is_empty());
    assert_eq!(
        leak_actions(&rig, deny, true),
        [
            "STATIC_ROUTE|VrfBoot-p1|2001:db8:a91::/65",
            "STATIC_ROUTE|VrfBoot-p1|2001:db8:a91:0:8000::/65",
            "STATIC_ROUTE|default|2001:db8:0:1::/64",
            "STATIC_ROUTE|default|2001:db8:0:1::1/128",
        ]
    );
}

/// frrcfgd would carry an import out before the route-map of the same row.
#[test]
fn an_import_waits_for_its_route_map_in_frr() {
    let mut rig = one_port();
    rig.foreign_set("BGP_GLOBALS", "default", fields([("local_asn", "65000"), ("router_id", "10.0.0.1")]));
    rig.switch.config_set("DEVICE_METADATA", "localhost", fields([("frr_mgmt_framework_config", "true")]));
    rig.partition("p1", "2001:db8::/56", &[("leak_prefix@", "2001:db8:a91::/64")]);
    rig.converge();
    let family = "VrfBoot-p1|ipv6_unicast";
    let whole = rig.config().row("BGP_GLOBALS_AF", family).cloned().unwrap();
    assert_eq!(whole.get("import_vrf").map(String::as_str), Some("default"));
    rig.switch.config_hdel("BGP_GLOBALS_AF", family, "import_vrf");
    let policy = "route-map BOOTNET-VrfBoot-p1-IN permit 10\n \
        match ipv6 address prefix-list BOOTNET-VrfBoot-p1-API\nexit\n";
    let instance = "router bgp 65000 vrf VrfBoot-p1\n address-family ipv6 unicast\n";
    let import = format!("BGP_GLOBALS_AF|{family}");
    let with = |lines: &str| leak_actions(&rig, lines, true).contains(&import);
    assert!(!with(policy) && !with(&format!("{policy}{instance}")));
    let filtered = "  import vrf route-map BOOTNET-VrfBoot-p1-IN\n exit-address-family\nexit\n";
    assert!(with(&format!("{policy}{instance}{filtered}")));
    assert!(!with(&format!("{instance}{filtered}")), "the route-map itself is missing");
}

//! Rows wait while swss is not there and while a reboot is under way; what runs goes on.

use std::collections::BTreeSet;

use super::rig::{Rig, port};
use crate::action::Action;
use crate::desired::Desired;
use crate::frr::FrrObserved;
use crate::observed::{Observed, Reboot, Runtime, Source};
use crate::row::fields;
use crate::status::{Phase, Verdict};

fn rig() -> Rig {
    let mut rig = Rig::new(&["Ethernet0", "Ethernet4"]);
    rig.partition("p1", "2001:db8::/56", &[("service_address@", "2001:db8:ffff::53")]);
    rig.boot_port("Ethernet0", "p1");
    rig
}

fn kinds(rig: &Rig) -> BTreeSet<&'static str> {
    rig.plan().actions.iter().map(Action::kind).collect()
}

/// What operators may want meanwhile: one more port, one less, another prefix, everything away.
fn change_everything(rig: &mut Rig) {
    rig.boot_port("Ethernet4", "p1");
    rig.switch.config_del("BOOT_NETWORK_PORT", "Ethernet0");
    rig.partition("p2", "2001:db8:1::/56", &[]);
    rig.switch.config_del("BOOT_NETWORK_PARTITION", "p1");
}

#[test]
fn a_cold_boot_writes_nothing_before_swss_has_its_ports() {
    let mut rig = rig();
    rig.switch.swss_restart();
    assert_eq!(kinds(&rig), BTreeSet::new());
    let status = rig.plan().status;
    assert_eq!(status.verdict, Verdict::Converging);
    assert!(status.waiting.iter().any(|waiting| waiting.on.contains("PortInitDone")), "{status:?}");
    rig.converge();
    assert_eq!(rig.plan().status.verdict, Verdict::Converged);
}

#[test]
fn a_restart_of_swss_ends_what_ran_on_its_ports_but_touches_no_row() {
    let mut rig = rig();
    rig.converge();
    rig.switch.swss_restart();
    assert_eq!(kinds(&rig), BTreeSet::from(["cease-advertiser", "close-service"]));
    change_everything(&mut rig);
    let rows = rig.config();
    for _ in 0..20 {
        rig.pass(None);
    }
    assert_eq!(rig.config(), rows);
    assert!(rig.finals.is_empty(), "{:?}", rig.finals);
    rig.converge();
    assert_eq!(rig.plan().status.ports[&port("Ethernet4")].phase, Phase::Rejected, "p1 is gone");
}

/// swss takes the rows by itself; writing them again would be more work for it.
#[test]
fn rows_that_swss_is_about_to_take_are_not_written_again() {
    let mut rig = rig();
    rig.converge();
    rig.switch.swss_restart();
    // Its ports are there, the rest is not.
    while !rig.switch.observe().1.port_init_done {
        rig.switch.run(1, |_| 0);
    }
    assert!(rig.switch.observe().0.vrf_table.is_empty(), "too late to see");
    let repairs = |rig: &Rig| kinds(rig).into_iter().filter(|kind| kind.starts_with("repair")).count();
    assert_eq!(repairs(&rig), 0);
    rig.pass(None);
    rig.pass(None);
    assert_eq!(repairs(&rig), 0);
}

#[test]
fn a_row_that_was_not_taken_is_repaired_when_its_time_has_come() {
    let mut rig = rig();
    rig.converge();
    let ethernet0 = port("Ethernet0");
    let address = *rig.observe().kernel.known().unwrap().links["Ethernet0"]
        .addresses
        .iter()
        .find(|net| !net.addr().is_unicast_link_local())
        .unwrap();
    let lost = |what: &str, observed: &mut Observed| {
        let (Source::Known(state), Source::Known(kernel)) = (&mut observed.state, &mut observed.kernel)
        else {
            panic!("not known");
        };
        match what {
            "repair-vrf" => {
                state.vrf_table.remove("VrfBoot-p1");
                state.vrf_object_table.remove("VrfBoot-p1");
                kernel.links.remove("VrfBoot-p1");
            }
            "repair-binding" => {
                state.interface_table.remove(&ethernet0);
            }
            _ => {
                state.interface_prefixes.remove(&(ethernet0.clone(), address));
            }
        }
    };
    for (repair, object) in [
        ("repair-vrf", "VRF|VrfBoot-p1"),
        ("repair-binding", "INTERFACE|Ethernet0"),
        ("repair-address", "INTERFACE|Ethernet0"),
    ] {
        let mut observed = rig.observe();
        lost(repair, &mut observed);
        let desired = Desired::from_config(&rig.config());
        let kinds = |observed: &Observed| {
            let actions = crate::plan::plan(&desired, observed).actions;
            actions.iter().map(Action::kind).filter(|kind| kind.starts_with("repair")).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&observed), Vec::<&str>::new(), "at once");
        observed.overdue.insert(object.to_owned());
        assert_eq!(kinds(&observed), [repair]);
    }
    // swss does not know of what the kernel alone has lost.
    let mut observed = rig.observe();
    let Source::Known(kernel) = &mut observed.kernel else { panic!("not known") };
    kernel.links.get_mut("Ethernet0").unwrap().master = None;
    let repairs = |observed: &Observed| {
        let actions = crate::plan::plan(&Desired::from_config(&rig.config()), observed).actions;
        actions.iter().filter(|action| action.kind() == "repair-binding").count()
    };
    assert_eq!(repairs(&observed), 1);
    // Without a netdev there is nothing to bind, whatever STATE_DB still says.
    let Source::Known(kernel) = &mut observed.kernel else { panic!("not known") };
    kernel.links.remove("Ethernet0");
    assert_eq!(repairs(&observed), 0);
}

#[test]
fn a_lost_ledger_is_no_reason_to_touch_a_row() {
    let mut rig = rig();
    rig.partition("p2", "2001:db8:1::/56", &[("service_address@", "2001:db8:ffff::54")]);
    rig.converge();
    let (rows, ledger) = (rig.config(), rig.ledger.clone());
    rig.ledger = crate::ownership::Ledger::default();
    for _ in 0..4 {
        let kinds = rig.pass(None);
        assert!(kinds.iter().all(|kind| *kind == "record-ledger"), "{kinds:?}");
        rig.switch.settle(10_000);
    }
    assert_eq!(rig.config(), rows);
    assert_eq!(rig.ledger, ledger);
}

#[test]
fn a_reboot_ends_nothing_and_writes_nothing() {
    for reboot in [Reboot::Warm, Reboot::Fast] {
        let mut rig = rig();
        rig.converge();
        let running = rig.runtime.clone();
        rig.switch.set_reboot(Some(reboot));
        // STATE_DB is emptied, the ports' netdevs go, and come back with other indexes.
        rig.switch.swss_restart();
        let status = rig.plan().status;
        assert_eq!(status.ports[&port("Ethernet0")].phase, Phase::Ready);
        change_everything(&mut rig);
        let rows = rig.config();
        assert_eq!(kinds(&rig), BTreeSet::new());
        let flag =
            if reboot == Reboot::Warm { "WARM_RESTART_ENABLE_TABLE" } else { "FAST_RESTART_ENABLE_TABLE" };
        assert!(status.waiting.iter().any(|waiting| waiting.on.contains(flag)), "{:?}", status.waiting);
        assert_eq!(status.verdict, Verdict::Converging);
        for _ in 0..20 {
            rig.pass(None);
            rig.switch.settle(10_000);
        }
        assert_eq!(rig.config(), rows);
        assert_eq!(rig.runtime, running);
        assert!(rig.finals.is_empty());
        rig.switch.set_reboot(None);
        rig.converge();
        assert!(!rig.runtime.advertisers.contains_key(&port("Ethernet0")));
    }
}

/// The new system's agent: the flag holds for minutes yet, and machines boot meanwhile.
#[test]
fn after_a_reboot_what_is_complete_is_served_before_the_flag_is_taken_back() {
    let mut rig = rig();
    rig.converge();
    rig.switch.set_reboot(Some(Reboot::Warm));
    rig.switch.swss_restart();
    rig.runtime = Runtime::default();
    assert_eq!(kinds(&rig), BTreeSet::new(), "nothing is there to serve on");
    rig.switch.settle(10_000);
    rig.pass(None);
    rig.pass(None);
    assert!(rig.runtime.advertisers.contains_key(&port("Ethernet0")));
    assert!(rig.runtime.services.contains_key(&port("Ethernet0")));
    assert_eq!(rig.plan().status.verdict, Verdict::Converging);
    rig.switch.set_reboot(None);
    rig.converge();
    assert_eq!(rig.plan().status.verdict, Verdict::Converged);
}

/// STATE_DB is pruned and written anew around an agent that runs on.
#[test]
fn a_pruned_state_db_is_no_reason_to_end_anything() {
    let mut rig = rig();
    rig.converge();
    let running = rig.runtime.clone();
    rig.switch.set_reboot(Some(Reboot::Warm));
    rig.switch.swss_warm_restart();
    for _ in 0..20 {
        rig.pass(None);
        rig.switch.run(3, |_| 0);
    }
    assert_eq!(rig.runtime, running);
    rig.switch.set_reboot(None);
    rig.converge();
    assert_eq!(rig.runtime, running);
    assert_eq!(rig.plan().status.verdict, Verdict::Converged);
}

/// FRR's lines are gone with its container: without them the routes of the leak leave the hardware.
#[test]
fn in_a_reboot_the_leak_comes_back_and_is_not_withdrawn() {
    let mut rig = rig();
    rig.partition("p1", "2001:db8::/56", &[("leak_prefix@", "2001:db8:a::/64")]);
    rig.switch.config_set("DEVICE_METADATA", "localhost", fields([("bgp_asn", "65000")]));
    rig.switch.config_set("BOOT_NETWORK", "global", fields([("leak_method", "vtysh")]));
    rig.converge();
    rig.switch.set_reboot(Some(Reboot::Warm));
    let plan = |rig: &Rig, running_config: &str| {
        let mut observed = rig.observe();
        let frr = FrrObserved {
            managed: true,
            running_config: running_config.to_owned(),
            ..FrrObserved::default()
        };
        observed.frr = Source::Known(frr);
        crate::plan::plan(&Desired::from_config(&rig.config()), &observed)
    };
    let kinds = |actions: &[Action]| actions.iter().map(Action::kind).collect::<Vec<_>>();
    assert_eq!(kinds(&plan(&rig, "router bgp 65000\n").actions), ["apply-leak"]);
    rig.switch.config_del("BOOT_NETWORK_PORT", "Ethernet0");
    let leaving = "router bgp 65000\n!\nipv6 route 2001:db8:0:1::/64 Ethernet0 nexthop-vrf VrfBoot-p1\n";
    assert_eq!(kinds(&plan(&rig, leaving).actions), Vec::<&str>::new());
    rig.switch.set_reboot(None);
    assert!(kinds(&plan(&rig, leaving).actions).contains(&"withdraw-leak"));
}

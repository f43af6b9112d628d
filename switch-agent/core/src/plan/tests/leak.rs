//! From one leak method to another.

use super::rig::Rig;
use crate::action::Action;
use crate::desired::{Desired, LeakMethod};
use crate::frr::FrrObserved;
use crate::frr::rows::REDISTRIBUTION;
use crate::observed::{Observed, Source};
use crate::plan::{Plan, plan};
use crate::row::fields;

/// bgpcfgd's, of a row that is gone already.
const TAGGED: &str = "ipv6 route 2001:db8:0:101::1/128 VrfBoot-p1 tag 2 nexthop-vrf VrfBoot-p1\n";

/// One partition with a leak, converged.
fn leaking() -> Rig {
    let mut rig = Rig::new(&["Ethernet0"]);
    rig.partition("p1", "2001:db8:0:100::/56", &[("leak_prefix@", "2001:db8:a91::/64")]);
    rig.boot_port("Ethernet0", "p1");
    rig.converge();
    rig
}

/// vtysh is to have the leak, and the rows of the method before it are gone.
fn rows_taken_back() -> (Desired, Observed) {
    let mut rig = leaking();
    rig.switch.config_set("BOOT_NETWORK", "global", fields([("leak_method", "vtysh")]));
    let mut observed = rig.observe();
    let Source::Known(config) = &mut observed.config else { unreachable!() };
    config.tables.remove("STATIC_ROUTE");
    (Desired::from_config(&rig.config()), observed)
}

fn with_running(observed: &mut Observed, routes: &str) {
    let running_config = format!("frr version 10.3\n!\n{routes}!\nrouter bgp 65000\nexit\n!\nend\n");
    let frr = FrrObserved { managed: true, running_config, ..FrrObserved::default() };
    observed.frr = Source::Known(frr);
}

fn recorded(plan: &Plan) -> Option<LeakMethod> {
    let mut ledgers = plan.actions.iter().filter_map(|action| match action {
        Action::RecordLedger(ledger) => Some(ledger.leak_method),
        _ => None,
    });
    ledgers.next_back().unwrap_or(Some(LeakMethod::StaticRoute))
}

#[test]
fn lines_come_when_bgpcfgd_has_taken_its_routes_back() {
    let (desired, mut observed) = rows_taken_back();
    let Source::Known(ledger) = &mut observed.ledger else { unreachable!() };
    ledger.leak_method = Some(LeakMethod::StaticRoute);
    let applies = |plan: &Plan| plan.actions.iter().any(|action| matches!(action, Action::ApplyLeak(_)));

    with_running(&mut observed, TAGGED);
    let waits = plan(&desired, &observed);
    assert!(!applies(&waits), "{:#?}", waits.actions);
    let on = waits.status.waiting.iter().find(|waiting| waiting.object == "leak of VrfBoot-p1").unwrap();
    assert_eq!(on.on, "bgpcfgd: 1 routes withdrawn");
    // Until they are gone this is no switch of vtysh's yet: the next pass waits as well.
    assert_eq!(recorded(&waits), Some(LeakMethod::StaticRoute));

    // Whoever made them may be gone.
    observed.overdue.insert("leak of VrfBoot-p1".to_owned());
    let given_up = plan(&desired, &observed);
    assert!(applies(&given_up) && recorded(&given_up) == Some(LeakMethod::Vtysh), "{:#?}", given_up.actions);
    observed.overdue.clear();
    with_running(&mut observed, "");
    let begins = plan(&desired, &observed);
    assert!(applies(&begins) && recorded(&begins) == Some(LeakMethod::Vtysh), "{:#?}", begins.actions);
}

/// frrcfgd's routes have no tag.
#[test]
fn lines_come_when_frrcfgd_has_taken_its_routes_back() {
    let (desired, mut observed) = rows_taken_back();
    with_running(&mut observed, &TAGGED.replace("tag 2 ", ""));
    for (before, applies) in [(LeakMethod::FrrMgmt, false), (LeakMethod::StaticRoute, true)] {
        let Source::Known(ledger) = &mut observed.ledger else { unreachable!() };
        ledger.leak_method = Some(before);
        let plan = plan(&desired, &observed);
        let lines = plan.actions.iter().any(|action| matches!(action, Action::ApplyLeak(_)));
        assert_eq!(lines, applies, "{before:?}: {:#?}", plan.actions);
        let waits = plan.status.waiting.iter().any(|waiting| waiting.on == "frrcfgd: 1 routes withdrawn");
        assert_eq!(waits, !applies, "{before:?}");
    }
}

#[test]
fn the_first_route_of_a_vrf_waits_after_the_last_one_of_another() {
    let rig = leaking();
    let desired = Desired::from_config(&rig.config());
    let mut observed = rig.observe();
    let Source::Known(config) = &mut observed.config else { unreachable!() };
    let rows = config.tables.get_mut("STATIC_ROUTE").unwrap();
    let gone: Vec<String> = rows.keys().filter(|key| key.starts_with("default|")).cloned().collect();
    assert_eq!(gone.len(), 2);
    rows.retain(|key, _| !gone.contains(key));
    let written = |plan: &Plan| {
        let set = plan.actions.iter().filter_map(|action| match action {
            Action::SetLeakRow { key, .. } => Some(key.clone()),
            _ => None,
        });
        set.collect::<Vec<_>>()
    };
    assert_eq!(written(&plan(&desired, &observed)).len(), 2, "nothing went");
    observed.cooling.insert(REDISTRIBUTION.to_owned());
    let waits = plan(&desired, &observed);
    assert!(written(&waits).is_empty());
    let on = waits.status.waiting.iter().find(|waiting| waiting.object == "leak of VrfBoot-p1").unwrap();
    assert!(
        on.on.starts_with("redistribution by bgpcfgd to come to rest, before STATIC_ROUTE|default|"),
        "{on:?}"
    );
    // One that is not the VRF's first does not wait.
    let Source::Known(config) = &mut observed.config else { unreachable!() };
    config.insert("STATIC_ROUTE", "2001:db8:7::/64", fields([("blackhole", "true")]));
    assert_eq!(written(&plan(&desired, &observed)).len(), 2);
}

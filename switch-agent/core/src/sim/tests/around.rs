//! Restarts, loopbacks, VLAN members, carriers.

use super::*;

#[test]
fn restarting_vrfmgrd_alone_loses_every_binding_unnoticed() {
    let mut switch = bound();
    assert!(switch.kernel_add_vrf("ByHand", 77));
    switch.restart(Daemon::Vrfmgrd);
    settle(&mut switch);
    let (state, _, kernel) = switch.observe();
    assert!(kernel.links.contains_key("Vrf1") && !kernel.links.contains_key("ByHand"));
    assert_eq!(kernel.links["Ethernet0"].master, None);
    assert!(has_address(&switch, "Ethernet0"));
    assert_eq!(state.interface_table[&port("Ethernet0")], "Vrf1");

    let mut by_row = switch.clone();
    by_row.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
    settle(&mut by_row);
    assert_eq!(master(&by_row, "Ethernet0").as_deref(), Some("Vrf1"));
    switch.restart(Daemon::Intfmgrd);
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
}

#[test]
fn a_row_deleted_while_vrfmgrd_was_down_leaves_stale_state() {
    let mut switch = bound();
    switch.restart(Daemon::Vrfmgrd);
    switch.config_del("VRF", "Vrf1");
    settle(&mut switch);
    let (state, _, kernel) = switch.observe();
    assert!(!kernel.links.contains_key("Vrf1"));
    assert!(state.vrf_table.contains("Vrf1") && state.vrf_object_table.contains("Vrf1"));
    assert!(switch.appl().row("VRF_TABLE", "Vrf1").is_some());
}

#[test]
fn restarting_swss_brings_everything_back_with_new_indexes() {
    let mut switch = bound();
    let before = switch.observe();
    let effects = switch.swss_restart();
    assert!(effects.contains(&Effect::StateDel { table: "VRF_TABLE", key: "Vrf1".into() }));
    assert!(effects.contains(&Effect::PortDel { port: "Ethernet0".into() }));
    let (state, appl, kernel) = switch.observe();
    assert_eq!((state, appl), (StateDb::default(), ApplDb::default()));
    assert!(!kernel.links.contains_key("Ethernet0"));

    settle(&mut switch);
    let after = switch.observe();
    assert_eq!((after.0, after.1), (before.0, before.1));
    assert_eq!(after.2.links["Ethernet0"].master.as_deref(), Some("Vrf1"));
    assert_ne!(after.2.links["Ethernet0"].ifindex, before.2.links["Ethernet0"].ifindex);
}

#[test]
fn a_warm_restart_of_swss_keeps_the_kernel_and_writes_state_anew() {
    let mut switch = bound();
    let before = switch.observe();
    switch.swss_warm_restart();
    assert_eq!(switch.observe().0, StateDb::default());
    let effects = settle(&mut switch);
    let kernel = |effect: &&Effect| {
        matches!(
            effect,
            Effect::VrfAdd { .. } | Effect::VrfDel { .. } | Effect::SetMaster { .. } | Effect::AddrAdd { .. }
        )
    };
    assert_eq!(effects.iter().find(kernel), None);
    assert_eq!(switch.observe(), before);
    // A VRF that was there is still vrfmgrd's to take away.
    switch.config_del("INTERFACE", &address_key("Ethernet0"));
    switch.config_del("INTERFACE", "Ethernet0");
    settle(&mut switch);
    switch.config_del("VRF", "Vrf1");
    settle(&mut switch);
    assert!(switch.link("Vrf1").is_none());
}

#[test]
fn reloading_the_configuration_replaces_it_without_notifications() {
    let mut switch = bound();
    let mut config = switch.config().clone();
    config.remove("INTERFACE", "Ethernet0");
    config.remove("INTERFACE", &address_key("Ethernet0"));
    config.remove("VRF", "Vrf1");
    switch.config_reload(config);
    settle(&mut switch);
    let (state, _, kernel) = switch.observe();
    assert!(state.vrf_table.is_empty() && state.interface_table.is_empty());
    assert!(!kernel.links.contains_key("Vrf1"));
}

#[test]
fn a_loopback_is_a_dummy_that_comes_and_goes_with_its_row() {
    let mut switch = switch();
    let key = "Loopback10|2001:db8:ff::1/128";
    switch.config_set("LOOPBACK_INTERFACE", "Loopback10", fields([("vrf_name", "Vrf1")]));
    switch.config_set("LOOPBACK_INTERFACE", key, fields([]));
    settle(&mut switch);
    assert!(switch.link("Loopback10").is_none(), "waits for the VRF");
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    let link = switch.link("Loopback10").unwrap();
    assert_eq!((link.kind, link.master.as_deref()), (LinkKind::Dummy, Some("Vrf1")));
    assert_eq!(switch.rif_vrf("Loopback10"), Some("Vrf1"), "it holds the VRF");
    switch.config_transaction([
        del("LOOPBACK_INTERFACE", key),
        del("LOOPBACK_INTERFACE", "Loopback10"),
        del("VRF", "Vrf1"),
    ]);
    settle(&mut switch);
    assert!(switch.link("Loopback10").is_none() && switch.link("Vrf1").is_none());
}

#[test]
fn vlanmgrd_undoes_a_binding_that_did_not_wait_for_it() {
    let mut switch = switch();
    switch.config_set("VLAN_MEMBER", "Vlan10|Ethernet0", fields([("tagging_mode", "untagged")]));
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Bridge"));
    assert!(switch.observe().0.vlan_members.contains(&port("Ethernet0")));

    switch.config_del("VLAN_MEMBER", "Vlan10|Ethernet0");
    let mut hasty = switch.clone();
    hasty.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
    one(&mut hasty, |step| matches!(step, Step::Deliver { daemon: Daemon::Intfmgrd, .. }));
    assert_eq!(master(&hasty, "Ethernet0").as_deref(), Some("Vrf1"));
    settle(&mut hasty);
    assert_eq!(master(&hasty, "Ethernet0"), None);

    settle(&mut switch);
    assert!(switch.observe().0.vlan_members.is_empty());
    switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
}

#[test]
fn binding_shows_as_a_flap_in_state_db_and_is_none() {
    let mut switch = switch();
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
    one(&mut switch, |step| matches!(step, Step::Deliver { daemon: Daemon::Intfmgrd, .. }));
    one(&mut switch, |step| matches!(step, Step::SyncPort(_)));
    let (state, _, kernel) = switch.observe();
    assert!(!state.port_table[&port("Ethernet0")].oper_up);
    assert!(state.port_table[&port("Ethernet0")].state_ok && kernel.links["Ethernet0"].carrier);
    settle(&mut switch);
    assert!(switch.observe().0.port_table[&port("Ethernet0")].oper_up);
}

#[test]
fn carrier_and_admin_status_reach_state_db_and_change_no_binding() {
    let mut switch = bound();
    switch.set_carrier("Ethernet0", false);
    settle(&mut switch);
    assert!(!switch.observe().0.port_table[&port("Ethernet0")].oper_up);
    assert!(switch.link("Ethernet0").unwrap().link_local().is_some());
    switch.set_carrier("Ethernet0", true);
    switch.set_admin("Ethernet0", false);
    settle(&mut switch);
    assert!(switch.link("Ethernet0").unwrap().link_local().is_none());
    assert!(has_address(&switch, "Ethernet0"));
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
}

#[test]
fn a_port_that_is_no_longer_configured_goes() {
    let mut switch = switch();
    switch.config_del("PORT", "Ethernet4");
    settle(&mut switch);
    assert!(switch.link("Ethernet4").is_none());
    assert!(!switch.observe().0.port_table.contains_key(&port("Ethernet4")));
}

#[test]
fn an_address_that_does_not_parse_ends_intfmgrd() {
    let mut switch = switch();
    switch.config_set("INTERFACE", "Ethernet0", fields([]));
    switch.config_set("INTERFACE", "Ethernet0|2001:db8::/129", fields([]));
    settle(&mut switch);
    assert!(switch.has_exited(Daemon::Intfmgrd));
}

#[test]
fn every_interleaving_of_a_bound_port_s_rows_ends_the_same() {
    let end = bound().observe();
    for seed in 1..300_u64 {
        let mut switch = switch();
        switch.config_set("INTERFACE", &address_key("Ethernet0"), fields([]));
        switch.config_set("VRF", "Vrf1", fields([]));
        switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
        let mut state = seed;
        switch.run(1000, |count| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            usize::try_from(state >> 33).unwrap() % count
        });
        assert!(switch.is_idle());
        assert_eq!(switch.observe(), end, "seed {seed}");
    }
}

#[test]
fn effects_replayed_on_empty_databases_give_the_model_s_own() {
    let mut switch = bound();
    let mut effects = switch.swss_restart();
    effects.extend(settle(&mut switch));
    let (mut state, mut waiting) = (ConfigDb::default(), BTreeSet::new());
    for effect in effects {
        match effect {
            Effect::StateSet { table, key, fields } => {
                let mut row = state.row(table, &key).cloned().unwrap_or_default();
                row.extend(fields);
                state.insert(table, &key, row);
            }
            Effect::StateDel { table, key } => drop(state.remove(table, &key)),
            Effect::KeySetAdd { table, key } => assert!(waiting.insert((table, key))),
            Effect::KeySetDel { table, key } => assert!(waiting.remove(&(table, key))),
            _ => {}
        }
    }
    assert_eq!(state, *switch.state());
    assert!(waiting.is_empty());
}

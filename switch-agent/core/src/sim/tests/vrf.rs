//! Deleting VRFs, and names.

use super::*;

#[test]
fn a_vrf_row_deleted_under_a_bound_port_hangs_half_deleted() {
    let mut switch = bound();
    switch.config_del("VRF", "Vrf1");
    assert_eq!(refusals(&settle(&mut switch)), Vec::<&str>::new());
    let (state, _, kernel) = switch.observe();
    assert!(state.vrf_table.is_empty());
    assert!(state.vrf_object_table.contains("Vrf1"));
    assert!(kernel.links.contains_key("Vrf1"));
    assert_eq!(state.interface_table[&port("Ethernet0")], "Vrf1");

    switch.config_set("INTERFACE", "Ethernet4", fields([("vrf_name", "Vrf1")]));
    let key = address_key("Ethernet0");
    switch.config_transaction([del("INTERFACE", &key), del("INTERFACE", "Ethernet0")]);
    settle(&mut switch);
    let (state, _, kernel) = switch.observe();
    assert!(state.vrf_object_table.is_empty() && !kernel.links.contains_key("Vrf1"));
    assert!(switch.is_pending(Daemon::Intfmgrd, "Ethernet4"), "the bind waits for a VRF that is gone");
}

#[test]
fn routes_hold_a_vrf_as_ports_do() {
    let mut switch = switch();
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    switch.hold_vrf("Vrf1", true);
    switch.config_del("VRF", "Vrf1");
    settle(&mut switch);
    assert!(switch.link("Vrf1").is_some());
    switch.hold_vrf("Vrf1", false);
    settle(&mut switch);
    assert!(switch.link("Vrf1").is_none());
}

#[test]
fn a_row_written_over_a_pending_deletion_is_lost() {
    let mut switch = switch();
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    switch.config_del("VRF", "Vrf1");
    one(&mut switch, |step| matches!(step, Step::Deliver { daemon: Daemon::Vrfmgrd, .. }));
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    let (state, _, kernel) = switch.observe();
    assert!(switch.config().row("VRF", "Vrf1").is_some());
    assert!(state.vrf_table.is_empty() && state.vrf_object_table.is_empty());
    assert!(!kernel.links.contains_key("Vrf1"));

    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    assert!(switch.observe().0.vrf_object_table.contains("Vrf1"), "written again once the device is gone");
}

#[test]
fn delete_and_set_of_a_vrf_at_once_lose_it() {
    let mut switch = switch();
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    switch.config_transaction([del("VRF", "Vrf1"), set("VRF", "Vrf1", [])]);
    settle(&mut switch);
    assert!(switch.link("Vrf1").is_none());
}

#[test]
fn with_a_port_bound_the_written_over_vrf_vanishes_when_the_port_leaves() {
    let mut switch = bound();
    switch.config_transaction([del("VRF", "Vrf1"), set("VRF", "Vrf1", [])]);
    settle(&mut switch);
    assert!(switch.link("Vrf1").is_some() && switch.observe().0.vrf_table.is_empty());
    let key = address_key("Ethernet0");
    switch.config_transaction([del("INTERFACE", &key), del("INTERFACE", "Ethernet0")]);
    settle(&mut switch);
    assert!(switch.link("Vrf1").is_none());
}

#[test]
fn an_unknown_field_keeps_the_vrf_from_orchagent_and_from_deletion() {
    let mut switch = switch();
    switch.config_set("VRF", "Vrf1", fields([("managed_by", "somebody")]));
    assert_eq!(refusals(&settle(&mut switch)), ["Unknown attribute name: managed_by"]);
    let (state, _, kernel) = switch.observe();
    assert!(state.vrf_table.contains("Vrf1") && kernel.links.contains_key("Vrf1"));
    assert!(state.vrf_object_table.is_empty());

    switch.config_del("VRF", "Vrf1");
    settle(&mut switch);
    assert!(switch.is_pending(Daemon::Vrfmgrd, "Vrf1"));
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    assert!(switch.link("Vrf1").is_none(), "a clean row lets the queued deletion run");
}

#[test]
fn a_name_the_kernel_refuses_ends_vrfmgrd() {
    for name in ["VrfBoot-partition", "Vrf 1", "Ethernet0"] {
        let mut switch = switch();
        switch.config_set("VRF", name, fields([]));
        let effects = settle(&mut switch);
        assert!(matches!(effects.last(), Some(Effect::Exit { daemon: Daemon::Vrfmgrd, .. })), "{name}");
        assert!(switch.has_exited(Daemon::Vrfmgrd));
        switch.swss_restart();
        settle(&mut switch);
        assert!(switch.has_exited(Daemon::Vrfmgrd), "the row is still there");
        switch.config_del("VRF", name);
        switch.swss_restart();
        settle(&mut switch);
        assert!(!switch.has_exited(Daemon::Vrfmgrd));
    }
}

#[test]
fn a_bad_row_blocks_the_rows_behind_it_where_vrfmgrd_survives() {
    let mut switch = switch().with_surviving_vrfmgrd();
    for name in ["VrfA", "VrfMuchTooLongName", "VrfZ"] {
        switch.config_set("VRF", name, fields([]));
    }
    settle(&mut switch);
    assert!(switch.link("VrfA").is_some() && switch.link("VrfZ").is_none());
    switch.config_del("VRF", "VrfMuchTooLongName");
    settle(&mut switch);
    let table = match switch.link("VrfZ").unwrap().kind {
        LinkKind::Vrf { table } => table,
        other => panic!("{other:?}"),
    };
    assert!(table > 1002, "each attempt burned a table id, got {table}");
}

#[test]
fn a_device_deleted_by_hand_is_not_noticed_until_its_row_goes() {
    let mut switch = switch();
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    switch.kernel_del_link("Vrf1");
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    assert!(switch.link("Vrf1").is_none());
    switch.config_del("VRF", "Vrf1");
    settle(&mut switch);
    assert!(switch.has_exited(Daemon::Vrfmgrd));
}

#[test]
fn odd_names() {
    let mut switch = switch();
    for name in ["FooBar", "Vnet9", "mgmt"] {
        switch.config_set("VRF", name, fields([]));
    }
    for (port, vrf) in [("Ethernet0", "FooBar"), ("Ethernet4", "mgmt"), ("PortChannel1", "Vnet9")] {
        let table = port.parse::<PortName>().unwrap().kind().interface_table();
        switch.config_set(table, port, fields([("vrf_name", vrf)]));
    }
    settle(&mut switch);
    let (state, _, kernel) = switch.observe();
    assert!(kernel.links.contains_key("FooBar") && switch.is_pending(Daemon::Intfmgrd, "Ethernet0"));
    assert!(!kernel.links.contains_key("mgmt"));
    assert_eq!(state.interface_table[&port("Ethernet4")], "mgmt", "STATE_DB is no proof of the binding");
    assert_eq!(master(&switch, "Ethernet4"), None);
    assert_eq!(master(&switch, "PortChannel1").as_deref(), Some("Vnet9"));
}

#[test]
fn overlapping_prefixes_in_a_vrf_are_never_programmed() {
    let mut switch = bound();
    switch.config_set("INTERFACE", "Ethernet4", fields([("vrf_name", "Vrf1")]));
    let same = "2001:db8:0:1::2/64";
    switch.config_set("INTERFACE", &format!("Ethernet4|{same}"), fields([]));
    settle(&mut switch);
    assert!(!switch.rif_has_prefix("Ethernet4", same.parse().unwrap()));
    switch.config_set("INTERFACE", &format!("Ethernet4|{OTHER}"), fields([]));
    settle(&mut switch);
    assert!(switch.rif_has_prefix("Ethernet4", OTHER.parse().unwrap()));
}

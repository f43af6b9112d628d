//! Rebinding a port, and the races that lose its row.

use super::*;

/// [`bound`] with a second VRF to go to.
fn two_vrfs() -> SimSwitch {
    let mut switch = bound();
    switch.config_set("VRF", "Vrf2", fields([]));
    settle(&mut switch);
    switch
}

fn without_address() -> SimSwitch {
    let mut switch = two_vrfs();
    switch.config_del("INTERFACE", &address_key("Ethernet0"));
    settle(&mut switch);
    switch
}

fn rebind() -> [ConfigWrite; 2] {
    [del("INTERFACE", "Ethernet0"), set("INTERFACE", "Ethernet0", [("vrf_name", "Vrf2")])]
}

#[test]
fn changing_the_vrf_of_a_row_is_refused_and_never_retried() {
    let mut switch = two_vrfs();
    switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf2")]));
    assert_eq!(refusals(&settle(&mut switch)), ["Ethernet0 can not change to Vrf2 directly, skipping"]);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
    assert_eq!(switch.config().row("INTERFACE", "Ethernet0").unwrap()["vrf_name"], "Vrf2");
    assert!(!switch.is_pending(Daemon::Intfmgrd, "Ethernet0"));
}

#[test]
fn removing_the_field_is_refused_and_removing_the_row_by_it_is_not() {
    let mut switch = without_address();
    switch.config_set("INTERFACE", "Ethernet0", fields([("mpls", "disable")]));
    switch.config_hdel("INTERFACE", "Ethernet0", "vrf_name");
    assert_eq!(refusals(&settle(&mut switch)), ["Ethernet0 can not change to  directly, skipping"]);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
    switch.config_hdel("INTERFACE", "Ethernet0", "mpls");
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0"), None);
}

#[test]
fn a_base_row_is_not_released_while_anybody_s_address_is_on_the_port() {
    let mut switch = without_address();
    let foreign = "192.0.2.1/24".parse().unwrap();
    assert!(switch.kernel_add_address("Ethernet0", foreign));
    switch.config_del("INTERFACE", "Ethernet0");
    assert_eq!(refusals(&settle(&mut switch)), Vec::<&str>::new());
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
    assert!(switch.is_pending(Daemon::Intfmgrd, "Ethernet0"));
    switch.kernel_del_address("Ethernet0", foreign);
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0"), None);
}

#[test]
fn delete_and_set_at_once_with_an_address_lose_the_new_row() {
    let mut switch = two_vrfs();
    switch.config_transaction(rebind());
    assert_eq!(refusals(&settle(&mut switch)).len(), 1);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
    switch.config_del("INTERFACE", &address_key("Ethernet0"));
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0"), None);
    assert!(switch.observe().0.interface_table.is_empty());
    assert_eq!(switch.config().row("INTERFACE", "Ethernet0").unwrap()["vrf_name"], "Vrf2");
}

#[test]
fn all_four_writes_of_a_rebind_at_once_arm_a_late_release() {
    let mut switch = two_vrfs();
    let [delete, write] = rebind();
    let key = address_key("Ethernet0");
    switch.config_transaction([del("INTERFACE", &key), delete, write, set("INTERFACE", &key, [])]);
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
    assert!(has_address(&switch, "Ethernet0") && switch.is_pending(Daemon::Intfmgrd, "Ethernet0"));
    switch.config_del("INTERFACE", &key);
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0"), None);
}

#[test]
fn the_same_vrf_over_an_armed_release_does_not_disarm_it() {
    let mut switch = bound();
    switch.config_del("INTERFACE", "Ethernet0");
    settle(&mut switch);
    switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
    switch.config_del("INTERFACE", &address_key("Ethernet0"));
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0"), None);
    assert!(switch.config().row("INTERFACE", "Ethernet0").is_some());
}

#[test]
fn delete_and_set_at_once_without_an_address_work() {
    let mut switch = without_address();
    switch.config_transaction(rebind());
    assert_eq!(refusals(&settle(&mut switch)), Vec::<&str>::new());
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf2"));
}

#[test]
fn unbinding_in_one_transaction_works() {
    let mut switch = bound();
    let key = address_key("Ethernet0");
    switch.config_transaction([del("INTERFACE", &key), del("INTERFACE", "Ethernet0")]);
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0"), None);
    assert!(!has_address(&switch, "Ethernet0"));
    assert_eq!(switch.rif_vrf("Ethernet0"), None);
}

#[test]
fn the_order_with_barriers_works() {
    let mut switch = without_address();
    switch.config_del("INTERFACE", "Ethernet0");
    settle(&mut switch);
    let (state, appl, _) = switch.observe();
    assert!(state.interface_table.is_empty() && appl.intf_table.is_empty() && appl.intf_key_set.is_empty());
    switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf2")]));
    switch.config_set("INTERFACE", &address_key("Ethernet0"), fields([]));
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf2"));
    assert_eq!(switch.rif_vrf("Ethernet0"), Some("Vrf2"));
    assert!(has_address(&switch, "Ethernet0"));
}

#[test]
fn a_slow_orchagent_keeps_the_router_interface_in_the_old_vrf() {
    let mut switch = without_address();
    switch.config_del("INTERFACE", "Ethernet0");
    settle_without_orchagent(&mut switch);
    let (state, appl, _) = switch.observe();
    assert!(state.interface_table.is_empty(), "intfmgrd is done");
    assert!(appl.intf_key_set.contains(&port("Ethernet0")), "orchagent is not");
    assert!(appl.intf_table.contains(&port("Ethernet0")));
    switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf2")]));
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf2"));
    assert_eq!(switch.observe().0.interface_table[&port("Ethernet0")], "Vrf2");
    assert_eq!(switch.rif_vrf("Ethernet0"), Some("Vrf1"), "the deletion was never seen");
}

#[test]
fn writing_the_same_row_again_repairs_a_lost_binding() {
    let mut switch = bound();
    switch.kernel_set_master("Ethernet0", None);
    settle(&mut switch);
    switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
    settle(&mut switch);
    assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
    assert!(has_address(&switch, "Ethernet0"), "global addresses survive");
    switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
    let effects = settle(&mut switch);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::SetMaster { .. })), "no flap");
}

#[test]
fn a_binding_that_a_slow_orchagent_never_saw_leaves_nothing() {
    let mut switch = without_address();
    switch.config_set("INTERFACE", "Ethernet4", fields([("vrf_name", "Vrf2")]));
    settle_without_orchagent(&mut switch);
    switch.config_del("INTERFACE", "Ethernet4");
    settle_without_orchagent(&mut switch);
    assert!(switch.observe().1.intf_key_set.contains(&port("Ethernet4")));
    settle(&mut switch);
    assert_eq!(switch.rif_vrf("Ethernet4"), None);
    assert!(!switch.observe().1.intf_table.contains(&port("Ethernet4")));
}

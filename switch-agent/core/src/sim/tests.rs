//! One test for each behaviour that was observed on the real daemons.

use std::collections::BTreeSet;

use super::*;

const ADDRESS: &str = "2001:db8:0:1::1/64";
const OTHER: &str = "2001:db8:0:2::1/64";

fn switch() -> SimSwitch {
    let ports: Vec<PortName> =
        ["Ethernet0", "Ethernet4", "PortChannel1"].iter().map(|p| p.parse().unwrap()).collect();
    SimSwitch::new(&ports)
}

fn settle(switch: &mut SimSwitch) -> Vec<Effect> {
    let effects = switch.settle(1000);
    assert!(switch.is_idle(), "still runnable: {:?}", switch.runnable());
    effects
}

fn set<const N: usize>(table: &str, key: &str, row: [(&str, &str); N]) -> ConfigWrite {
    ConfigWrite::Set { table: table.into(), key: key.into(), fields: fields(row) }
}

fn del(table: &str, key: &str) -> ConfigWrite {
    ConfigWrite::Del { table: table.into(), key: key.into() }
}

fn address_key(port: &str) -> String {
    format!("{port}|{ADDRESS}")
}

fn port(name: &str) -> PortName {
    name.parse().unwrap()
}

fn master(switch: &SimSwitch, port: &str) -> Option<String> {
    switch.link(port).unwrap().master.clone()
}

fn has_address(switch: &SimSwitch, port: &str) -> bool {
    switch.link(port).unwrap().addresses.contains(&ADDRESS.parse::<IpNet>().unwrap())
}

fn refusals(effects: &[Effect]) -> Vec<&str> {
    let log = |effect| match effect {
        &Effect::Refused { ref log, .. } | &Effect::Exit { ref log, .. } => Some(log.as_str()),
        _ => None,
    };
    effects.iter().filter_map(log).collect()
}

/// A VRF `Vrf1` with Ethernet0 and its address, at rest.
fn bound() -> SimSwitch {
    let mut switch = switch();
    switch.config_set("VRF", "Vrf1", fields([]));
    settle(&mut switch);
    switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
    switch.config_set("INTERFACE", &address_key("Ethernet0"), fields([]));
    assert_eq!(refusals(&settle(&mut switch)), Vec::<&str>::new());
    switch
}

/// Takes the one runnable step that `wanted` selects.
fn one(switch: &mut SimSwitch, wanted: impl Fn(&Step) -> bool) -> Vec<Effect> {
    let step = switch.runnable().into_iter().find(wanted).expect("runnable");
    switch.step(&step)
}

fn is_orchagent(step: &Step) -> bool {
    matches!(step, Step::Pop(_) | Step::Retry(Daemon::Orchagent))
}

/// Lets every daemon but orchagent work until none can.
fn settle_without_orchagent(switch: &mut SimSwitch) -> Vec<Effect> {
    let mut effects = Vec::new();
    while let Some(step) = switch.runnable().into_iter().find(|step| !is_orchagent(step)) {
        effects.extend(switch.step(&step));
    }
    effects
}

mod any_order;
mod around;
mod rebind;
mod vrf;

mod normal_path {
    use super::*;

    #[test]
    fn a_booted_switch_is_at_rest_with_usable_ports() {
        let switch = switch();
        let (state, appl, kernel) = switch.observe();
        assert!(switch.is_idle());
        assert!(appl.port_init_done);
        assert_eq!(state.port_table.len(), 3);
        assert!(state.port_table.values().all(|port| port.state_ok && port.oper_up));
        assert!(kernel.links["Ethernet0"].link_local().is_some());
        assert_eq!(kernel.links["Ethernet0"].mac, kernel.links["Ethernet4"].mac);
    }

    #[test]
    fn vrf_port_and_address_leave_their_rows_and_effects() {
        let mut switch = switch();
        switch.config_set("VRF", "Vrf1", fields([]));
        let effects = settle(&mut switch);
        assert!(effects.contains(&Effect::VrfAdd { name: "Vrf1".into(), table: 1001 }));
        let unset = fields([("NULL", "NULL")]);
        assert!(effects.contains(&Effect::ApplSet { table: "VRF_TABLE", key: "Vrf1".into(), fields: unset }));

        let switch = bound();
        let (state, appl, kernel) = switch.observe();
        assert_eq!(state.interface_table[&port("Ethernet0")], "Vrf1");
        assert!(state.interface_prefixes.contains(&(port("Ethernet0"), ADDRESS.parse().unwrap())));
        assert!(appl.intf_table.contains(&port("Ethernet0")) && appl.intf_key_set.is_empty());
        assert_eq!(kernel.links["Ethernet0"].master.as_deref(), Some("Vrf1"));
        assert_eq!(kernel.links["Vrf1"].vrf_table, Some(1001));
        assert_eq!(switch.rif_vrf("Ethernet0"), Some("Vrf1"));
        assert!(switch.rif_has_prefix("Ethernet0", ADDRESS.parse().unwrap()));
        let row = switch.appl().row("INTF_TABLE", "Ethernet0").unwrap();
        assert_eq!(row["vrf_name"], "Vrf1");
        assert_eq!(row["mac_addr"], "00:00:00:00:00:00");
        let row = switch.appl().row("INTF_TABLE", &format!("Ethernet0:{ADDRESS}")).unwrap();
        assert_eq!((row["scope"].as_str(), row["family"].as_str()), ("global", "IPv6"));
    }

    #[test]
    fn deleting_in_order_leaves_nothing() {
        let mut switch = bound();
        switch.config_del("INTERFACE", &address_key("Ethernet0"));
        settle(&mut switch);
        switch.config_del("INTERFACE", "Ethernet0");
        settle(&mut switch);
        switch.config_del("VRF", "Vrf1");
        settle(&mut switch);
        let (state, appl, kernel) = switch.observe();
        let clean = SimSwitch::new(&[port("Ethernet0"), port("Ethernet4"), port("PortChannel1")]).observe();
        assert_eq!((state, appl), (clean.0, clean.1));
        assert_eq!(kernel.links["Ethernet0"], clean.2.links["Ethernet0"]);
        assert!(!kernel.links.contains_key("Vrf1"));
        assert_eq!(switch.rif_vrf("Ethernet0"), None);
    }

    #[test]
    fn table_ids_are_the_lowest_free() {
        let mut switch = switch();
        for name in ["VrfA", "VrfB"] {
            switch.config_set("VRF", name, fields([]));
        }
        settle(&mut switch);
        switch.config_del("VRF", "VrfA");
        settle(&mut switch);
        switch.config_set("VRF", "VrfC", fields([]));
        settle(&mut switch);
        let (_, _, kernel) = switch.observe();
        assert_eq!(kernel.links["VrfB"].vrf_table, Some(1002));
        assert_eq!(kernel.links["VrfC"].vrf_table, Some(1001));
    }

    #[test]
    fn the_vrf_is_usable_for_binding_before_orchagent_made_its_object() {
        let mut switch = switch();
        switch.config_set("VRF", "Vrf1", fields([]));
        settle_without_orchagent(&mut switch);
        let (state, ..) = switch.observe();
        assert!(state.vrf_table.contains("Vrf1") && state.vrf_object_table.is_empty());
        switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
        settle_without_orchagent(&mut switch);
        assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
        assert_eq!(switch.rif_vrf("Ethernet0"), None);
    }
}

mod order_of_rows {
    use super::*;

    #[test]
    fn everything_in_one_transaction_in_the_worst_order_ends_well() {
        let mut switch = switch();
        switch.config_transaction([
            set("INTERFACE", &address_key("Ethernet0"), []),
            set("INTERFACE", "Ethernet0", [("vrf_name", "Vrf1")]),
            set("VRF", "Vrf1", []),
        ]);
        settle(&mut switch);
        assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
        assert!(has_address(&switch, "Ethernet0"));
    }

    #[test]
    fn a_bind_waits_for_port_and_vrf_in_silence() {
        let mut switch = switch();
        switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
        switch.config_set("INTERFACE", "Ethernet99", fields([]));
        assert_eq!(refusals(&settle(&mut switch)), Vec::<&str>::new());
        assert!(switch.is_pending(Daemon::Intfmgrd, "Ethernet0"));
        assert!(switch.is_pending(Daemon::Intfmgrd, "Ethernet99"));
        switch.config_set("VRF", "Vrf1", fields([]));
        settle(&mut switch);
        assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));
        assert!(switch.is_pending(Daemon::Intfmgrd, "Ethernet99"));
    }

    #[test]
    fn a_pending_bind_survives_the_removal_of_its_field() {
        let mut switch = switch();
        let row = fields([("vrf_name", "Vrf1"), ("mpls", "disable")]);
        switch.config_set("INTERFACE", "Ethernet0", row);
        settle(&mut switch);
        switch.config_hdel("INTERFACE", "Ethernet0", "vrf_name");
        switch.config_set("VRF", "Vrf1", fields([]));
        settle(&mut switch);
        assert_eq!(master(&switch, "Ethernet0").as_deref(), Some("Vrf1"));

        let mut switch = self::switch();
        switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
        settle(&mut switch);
        switch.config_del("INTERFACE", "Ethernet0");
        switch.config_set("VRF", "Vrf1", fields([]));
        settle(&mut switch);
        assert_eq!(master(&switch, "Ethernet0"), None);
    }

    #[test]
    fn a_row_without_vrf_must_go_before_the_port_is_bound() {
        let mut switch = switch();
        switch.config_set("VRF", "Vrf1", fields([]));
        switch.config_set("INTERFACE", "Ethernet0", fields([]));
        settle(&mut switch);
        switch.config_set("INTERFACE", "Ethernet0", fields([("vrf_name", "Vrf1")]));
        let effects = settle(&mut switch);
        assert_eq!(refusals(&effects), ["Ethernet0 can not change to Vrf1 directly, skipping"]);
        assert_eq!(master(&switch, "Ethernet0"), None);
        assert!(!switch.is_pending(Daemon::Intfmgrd, "Ethernet0"));
    }

    #[test]
    fn an_address_waits_for_its_base_row() {
        let mut switch = switch();
        switch.config_set("INTERFACE", &address_key("Ethernet0"), fields([]));
        settle(&mut switch);
        assert!(!has_address(&switch, "Ethernet0"));
        switch.config_set("INTERFACE", "Ethernet0", fields([]));
        settle(&mut switch);
        assert!(has_address(&switch, "Ethernet0"));
    }
}

//! Whatever is written and however the daemons are scheduled, the switch comes to rest.

use proptest::prelude::*;

use super::*;

/// Something done to the switch, or a number of steps taken.
#[derive(Debug, Clone)]
enum Act {
    Set(&'static str, String, Option<&'static str>),
    Del(&'static str, String),
    Steps(Vec<usize>),
    Carrier(&'static str, bool),
    Foreign(&'static str, bool),
    RestartSwss,
    Restart(Daemon),
}

fn row() -> impl Strategy<Value = (&'static str, String)> {
    let vrfs = prop::sample::select(vec!["VrfA", "VrfB", "VrfFarTooLongName"]);
    let ports = prop::sample::select(vec!["Ethernet0", "Ethernet4"]);
    prop_oneof![
        vrfs.prop_map(|vrf| ("VRF", vrf.to_owned())),
        ports.clone().prop_map(|port| ("INTERFACE", port.to_owned())),
        ports.clone().prop_map(|port| ("INTERFACE", address_key(port))),
        ports.prop_map(|port| ("VLAN_MEMBER", format!("Vlan7|{port}"))),
        Just(("LOOPBACK_INTERFACE", "Loopback1".to_owned())),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let vrf = prop::sample::select(vec![None, Some("VrfA"), Some("VrfB")]);
    let port = prop::sample::select(vec!["Ethernet0", "Ethernet4"]);
    let daemon = prop::sample::select(vec![Daemon::Vrfmgrd, Daemon::Intfmgrd, Daemon::Vlanmgrd]);
    prop_oneof![
        8 => (row(), vrf).prop_map(|((table, key), vrf)| Act::Set(table, key, vrf)),
        6 => row().prop_map(|(table, key)| Act::Del(table, key)),
        8 => prop::collection::vec(any::<usize>(), 1..8).prop_map(Act::Steps),
        1 => (port.clone(), any::<bool>()).prop_map(|(port, up)| Act::Carrier(port, up)),
        1 => (port, any::<bool>()).prop_map(|(port, there)| Act::Foreign(port, there)),
        1 => Just(Act::RestartSwss),
        1 => daemon.prop_map(Act::Restart),
    ]
}

fn perform(switch: &mut SimSwitch, act: Act) {
    match act {
        Act::Set(table, key, vrf) => {
            let bindable = matches!(table, "INTERFACE" | "LOOPBACK_INTERFACE") && !key.contains('|');
            let vrf = vrf.filter(|_| bindable);
            let row = vrf.map(|vrf| ("vrf_name".to_owned(), vrf.to_owned())).into_iter().collect();
            switch.config_set(table, &key, row);
        }
        Act::Del(table, key) => switch.config_del(table, &key),
        Act::Steps(choices) => {
            let mut choices = choices.into_iter();
            let count = choices.len();
            switch.run(count, |_| choices.next().unwrap_or(0));
        }
        Act::Carrier(port, up) => switch.set_carrier(port, up),
        Act::Foreign(port, true) => {
            switch.kernel_add_address(port, "192.0.2.1/24".parse().unwrap());
        }
        Act::Foreign(port, false) => {
            switch.kernel_del_address(port, "192.0.2.1/24".parse().unwrap());
        }
        Act::RestartSwss => drop(switch.swss_restart()),
        Act::Restart(daemon) => switch.restart(daemon),
    }
}

proptest! {
    #[test]
    fn the_switch_comes_to_rest(acts in prop::collection::vec(act(), 1..40), survives in any::<bool>()) {
        let mut switch = if survives { switch().with_surviving_vrfmgrd() } else { switch() };
        for act in acts {
            perform(&mut switch, act);
        }
        switch.settle(2000);
        prop_assert!(switch.is_idle(), "still runnable: {:?}", switch.runnable());

        // Clean rows and a restart of swss cure everything.
        let mut config = switch.config().clone();
        config.remove("VRF", "VrfFarTooLongName");
        for table in ["VLAN_MEMBER", "INTERFACE", "LOOPBACK_INTERFACE"] {
            config.tables.remove(table);
        }
        config.insert("VRF", "VrfA", fields([]));
        config.insert("INTERFACE", "Ethernet0", fields([("vrf_name", "VrfA")]));
        config.insert("INTERFACE", &address_key("Ethernet0"), fields([]));
        switch.config_reload(config);
        switch.settle(2000);
        prop_assert!(switch.is_idle());
        prop_assert_eq!(master(&switch, "Ethernet0"), Some("VrfA".to_owned()));
        prop_assert!(has_address(&switch, "Ethernet0"));
        prop_assert_eq!(switch.rif_vrf("Ethernet0"), Some("VrfA"));
    }
}

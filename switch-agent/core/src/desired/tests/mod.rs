mod accepted;
mod bad_fields;
mod bad_rows;
mod profiles;
mod properties;
mod yang;

use std::time::Duration;

use super::*;
use crate::ra::{EncryptedDns, Preference, PrefixVariables, RaProfile, SvcParams};
use crate::row::{Fields, fields};

fn row(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A partition and two ports that hold.
fn base() -> ConfigDb {
    let mut config = ConfigDb::default();
    config.insert(
        "DEVICE_METADATA",
        "localhost",
        fields([("hostname", "leaf1"), ("mac", "52:54:00:AA:00:01")]),
    );
    config.insert("PORT", "Ethernet0", fields([("alias", "Eth1/1"), ("index", "1")]));
    config.insert("PORT", "Ethernet4", fields([("alias", "Eth1/2"), ("index", "2"), ("role", "Ext")]));
    config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", "2001:db8::/56")]));
    config.insert("BOOT_NETWORK_PORT", "Ethernet0", fields([("partition", "p1")]));
    config.insert("BOOT_NETWORK_PORT", "Ethernet4", fields([("partition", "p1")]));
    config
}

/// All messages about `base()` after `edit`.
fn messages(edit: impl FnOnce(&mut ConfigDb)) -> Vec<String> {
    let mut config = base();
    edit(&mut config);
    Desired::from_config(&config).rejected.iter().map(Rejected::to_string).collect()
}

#[test]
fn nothing_configured_means_nothing_to_do() {
    let desired = Desired::from_config(&ConfigDb::default());
    assert_eq!(
        desired,
        Desired {
            global: Global {
                admin_up: true,
                switch_id: "sonic".to_owned(),
                chassis_mac: None,
                upstream: None,
                proxy_port: 18090,
                leak_method: LeakMethod::Auto,
            },
            partitions: BTreeMap::new(),
            ports: BTreeMap::new(),
            logger: Logger::default(),
            rejected: Vec::new(),
            warnings: Vec::new(),
        }
    );
}

#[test]
fn defaults_are_those_of_the_tables() {
    let desired = Desired::from_config(&base());
    assert!(desired.rejected.is_empty() && desired.warnings.is_empty(), "{desired:?}");
    assert_eq!(desired.global.switch_id, "leaf1");
    assert_eq!(desired.global.chassis_mac, "52:54:00:aa:00:01".parse().ok());
    let id: PartitionId = "p1".parse().unwrap();
    assert_eq!(
        *desired.partitions[&id],
        Partition {
            id: id.clone(),
            prefix: "2001:db8::/56".parse().unwrap(),
            vrf: "VrfBoot-p1".parse().unwrap(),
            manage_vrf: true,
            advertise: true,
            proxy: true,
            leak: true,
            isolate: true,
            dhcp6: None,
            service_addresses: vec![],
            ra: RaConfig::default(),
            adv_prefix: PrefixVariables::default(),
            ntp_servers: vec![],
            leak_vrf: "default".to_owned(),
            leak_prefixes: vec![],
            api_allow: vec![],
            boot_kernel_url: None,
            boot_initrd_urls: vec![],
            boot_cmdline: None,
            boot_template_file: None,
            boot_root_paths: vec![],
            boot_once: None,
            boot_profile: None,
            machine_config_file: None,
        }
    );
    let port = &desired.ports[&"Ethernet4".parse().unwrap()];
    assert_eq!(
        *port,
        DesiredPort {
            name: "Ethernet4".parse().unwrap(),
            partition: id,
            prefix: "2001:db8:0:2::/64".parse().unwrap(),
            alias: "Eth1/2".into(),
            index: 2,
            admin_up: true,
            own: None,
        }
    );
    assert!(desired.partition_of(port).is_some());
}

#[test]
fn the_strict_profile_leaves_the_retrans_timer_unspecified() {
    let mut config = base();
    config.insert(
        "BOOT_NETWORK_PARTITION",
        "p1",
        fields([("prefix", "2001:db8::/56"), ("ra_profile", "strict")]),
    );
    let desired = Desired::from_config(&config);
    assert_eq!(desired.partitions[&"p1".parse().unwrap()].ra.adv_retrans_timer_ms, 0);
}

#[test]
fn a_bad_global_row_is_conservative() {
    let good = [("control_api_url", "https://api"), ("leak_method", "vtysh"), ("proxy_port", "99")];
    let global = |bad: (&str, &str)| {
        let mut fields = row(&good);
        fields.insert(bad.0.to_owned(), bad.1.to_owned());
        let mut config = base();
        config.insert("BOOT_NETWORK", "global", fields);
        let desired = Desired::from_config(&config);
        assert_eq!(desired.rejected.len(), 1, "{bad:?}");
        assert_eq!(desired.ports.len(), 2, "{bad:?}");
        let global = desired.global;
        (global.admin_up, global.upstream.is_some(), global.leak_method, global.proxy_port)
    };
    assert_eq!(global(("admin_status", "dwon")), (true, true, LeakMethod::Vtysh, 99));
    assert_eq!(global(("leak_method", "none")), (true, true, LeakMethod::RenderOnly, 99));
    assert_eq!(global(("leak_methd", "none")), (true, true, LeakMethod::RenderOnly, 99));
    assert_eq!(global(("control_api_ca_file", "ca.pem")), (true, false, LeakMethod::Vtysh, 99));
    assert_eq!(global(("control_api_cafile", "/ca.pem")), (true, false, LeakMethod::Vtysh, 99));
    assert_eq!(global(("control_api_ca", "/ca.pem")), (true, false, LeakMethod::Vtysh, 99));
    assert_eq!(global(("proxy_port", "0")), (true, true, LeakMethod::Vtysh, 18090));
    assert_eq!(global(("color", "red")), (true, true, LeakMethod::Vtysh, 99));
}

#[test]
fn metal_stack_needs_a_token() {
    let warnings = |more: &[(&str, &str)]| {
        let mut fields =
            row(&[("control_api_url", "https://api"), ("control_api_dialect", "metal-stack-v2")]);
        fields.extend(row(more));
        let mut config = base();
        config.insert("BOOT_NETWORK", "global", fields);
        let desired = Desired::from_config(&config);
        assert_eq!((desired.rejected.len(), desired.global.upstream.is_some()), (0, true));
        desired.warnings.iter().map(Rejected::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        warnings(&[]),
        [
            "BOOT_NETWORK|global: control_api_token_file: is not set: without a token of its own the agent gets none for \
             machines"
        ]
    );
    assert!(warnings(&[("control_api_token_file", "/etc/token")]).is_empty());
}

#[test]
fn port_channels_take_their_number_and_ports_their_index() {
    let mut config = base();
    config.insert("PORTCHANNEL", "PortChannel0007", fields([]));
    config.insert(
        "BOOT_NETWORK_PORT",
        "PortChannel0007",
        fields([("partition", "p1"), ("admin_status", "down")]),
    );
    config.insert("BOOT_NETWORK_PORT", "Ethernet4", fields([("partition", "p1"), ("prefix_offset", "0")]));
    let desired = Desired::from_config(&config);
    assert_eq!(desired.rejected, []);
    let port = |name: &str| desired.ports[&name.parse().unwrap()].clone();
    let channel = port("PortChannel0007");
    assert_eq!(channel.prefix.to_string(), "2001:db8:0:7::/64");
    assert_eq!((channel.index, &*channel.alias, channel.admin_up), (7, "PortChannel0007", false));
    assert_eq!(port("Ethernet4").prefix.to_string(), "2001:db8::/64");
    assert_eq!(port("Ethernet4").index, 2);
}

#[test]
fn a_single_64_serves_one_port() {
    let mut config = base();
    config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", "2001:db8::/64")]));
    config.insert("BOOT_NETWORK_PORT", "Ethernet0", fields([("partition", "p1"), ("prefix_offset", "0")]));
    let desired = Desired::from_config(&config);
    assert_eq!(desired.ports.keys().map(PortName::as_str).collect::<Vec<_>>(), ["Ethernet0"]);
    assert_eq!(desired.rejected.len(), 1);
}

#[test]
fn risky_settings_are_warned_about() {
    let warnings = |fields: &[(&str, &str)]| {
        let mut config = base();
        config.insert("BOOT_NETWORK_PARTITION", "p2", row(fields));
        let desired = Desired::from_config(&config);
        assert_eq!(desired.rejected, []);
        desired.warnings.iter().map(Rejected::to_string).collect::<Vec<_>>()
    };
    let prefix = ("prefix", "2001:db8:1::/56");
    assert_eq!(
        warnings(&[prefix, ("leak_prefix@", "::/0")]),
        [
            "BOOT_NETWORK_PARTITION|p2: leak_prefix@ = \"::/0\": lets machines reach everything that VRF default reaches"
        ]
    );
    assert_eq!(
        warnings(&[prefix, ("leak_prefix@", "2001:db8::/48")]),
        [
            "BOOT_NETWORK_PARTITION|p2: leak_prefix@ = \"2001:db8::/48\": lets machines reach 2001:db8::/56, the prefix \
         of partition p1"
        ]
    );
    assert_eq!(
        warnings(&[prefix, ("adv_autonomous_flag", "disabled"), ("adv_pd_preferred_flag", "enabled")]),
        [
            "BOOT_NETWORK_PARTITION|p2: adv_autonomous_flag = \"disabled\": leaves machines without an address: \
         neither autoconfiguration nor DHCPv6 gives them one",
            "BOOT_NETWORK_PARTITION|p2: adv_pd_preferred_flag = \"enabled\": makes machines that know RFC 9762 ask \
         for a prefix by DHCPv6; the agent delegates none",
        ]
    );
    let url = ("dhcp6_boot_url@", "default|http://h/x");
    assert_eq!(
        warnings(&[prefix, url]),
        [
            "BOOT_NETWORK_PARTITION|p2: dhcp6_boot_url@ = \"default|http://h/x\": has no effect while dhcp6 is disabled"
        ]
    );
    assert_eq!(
        warnings(&[prefix, url, ("dhcp6", "enabled"), ("advertise", "disabled")]),
        ["BOOT_NETWORK_PARTITION|p2: dhcp6 = \"enabled\": has no effect while advertise is disabled"]
    );
    let mut config = base();
    let own =
        row(&[("partition", "p1"), ("max_rtr_adv_interval", "1800"), ("adv_autonomous_flag", "disabled")]);
    config.insert("BOOT_NETWORK_PORT", "Ethernet4", own);
    let messages: Vec<_> = Desired::from_config(&config).warnings.iter().map(Rejected::to_string).collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].starts_with("BOOT_NETWORK_PORT|Ethernet4: adv_autonomous_flag"), "{messages:?}");
    assert_eq!(
        warnings(&[prefix, ("adv_valid_lifetime", "5"), ("adv_preferred_lifetime", "5")]),
        [
            "BOOT_NETWORK_PARTITION|p2: adv_valid_lifetime = \"5\": lets addresses expire between advertisements \
          (max_rtr_adv_interval 10)"
        ]
    );
}

#[test]
fn sonics_own_bad_rows_only_warn() {
    let mut config = base();
    config.insert("DEVICE_METADATA", "localhost", fields([("hostname", "leaf 1"), ("mac", "none")]));
    let desired = Desired::from_config(&config);
    assert_eq!(desired.rejected, []);
    assert_eq!(desired.global.switch_id, "sonic");
    assert_eq!(
        desired.warnings.iter().map(Rejected::to_string).collect::<Vec<_>>(),
        [
            "DEVICE_METADATA|localhost: hostname = \"leaf 1\": cannot be the switch id, which must be 1 to 64 letters, \
         digits, - . _ or :; sonic is used",
            "DEVICE_METADATA|localhost: mac = \"none\": is not a MAC address; machines are told no chassis MAC",
        ]
    );
}

#[test]
fn membership_names_the_exact_row() {
    let mut config = base();
    let ethernet4: PortName = "Ethernet4".parse().unwrap();
    assert_eq!(membership(&config, &ethernet4), None);
    config.insert("VLAN_MEMBER", "Vlan100|Ethernet40", fields([]));
    config.insert("PORTCHANNEL_MEMBER", "PortChannel1|Ethernet4", fields([]));
    assert_eq!(
        membership(&config, &ethernet4).as_deref(),
        Some("PORTCHANNEL_MEMBER|PortChannel1|Ethernet4: the port is a port-channel member")
    );
    config.insert("VLAN_MEMBER", "Vlan100|Ethernet4", fields([]));
    assert_eq!(
        membership(&config, &ethernet4).as_deref(),
        Some("VLAN_MEMBER|Vlan100|Ethernet4: the port is a VLAN member")
    );
    assert_eq!(Desired::from_config(&config).ports.len(), 2, "a member is foreign, not rejected");
}

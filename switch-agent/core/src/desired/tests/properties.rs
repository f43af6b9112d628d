//! Properties over generated rows.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::*;

/// Field names of all three tables, values of some of them, and what SONiC's own rows hold.
const WORDS: [&str; 48] = [
    "prefix",
    "vrf_name",
    "partition",
    "prefix_offset",
    "admin_status",
    "index",
    "role",
    "alias",
    "leak_vrf",
    "rdnss@",
    "dnssl@",
    "leak_prefix@",
    "service_address@",
    "api_allow@",
    "route_info@",
    "control_api_url",
    "proxy_port",
    "leak_method",
    "min_rtr_adv_interval",
    "max_rtr_adv_interval",
    "hostname",
    "mac",
    "global",
    "localhost",
    "p1",
    "p2",
    "Ethernet0",
    "Ethernet4",
    "PortChannel1",
    "Loopback0",
    "up",
    "down",
    "0",
    "1",
    "255",
    "4294967296",
    "2001:db8::/56",
    "2001:db8::/64",
    "::/0",
    "::",
    "fe80::1",
    "https://[",
    "https://[::1]:1/",
    "GET /",
    "!|,/ ",
    "VrfBoot-p1",
    ";;;",
    "",
];
const TABLES: [&str; 7] = [
    "BOOT_NETWORK",
    "BOOT_NETWORK_PARTITION",
    "BOOT_NETWORK_PORT",
    "PORT",
    "PORTCHANNEL",
    "DEVICE_METADATA",
    "VLAN_MEMBER",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![4 => select(&WORDS[..]).prop_map(str::to_owned), 1 => any::<String>()]
}

fn any_config() -> impl Strategy<Value = ConfigDb> {
    let rows = btree_map(word(), btree_map(word(), word(), 0..6), 0..5);
    btree_map(select(&TABLES[..]).prop_map(str::to_owned), rows, 0..7).prop_map(|tables| ConfigDb { tables })
}

/// Partition fields with values that hold in any combination.
const GOOD_FIELDS: [(&str, &[&str]); 33] = [
    ("manage_vrf", &["enabled", "disabled"]),
    ("advertise", &["enabled", "disabled"]),
    ("dhcp6", &["enabled", "disabled"]),
    ("dhcp6_boot_url@", &["default|http://h/x", "x64-uefi-http|http://[{router}]/x,ipxe|https://h/${uuid}"]),
    ("dhcp6_boot_param@", &["", "a b,c"]),
    ("service_address@", &["", "2001:db8:ffff::1", "fd00::1,fd00::2"]),
    ("ra_profile", &["boot", "strict"]),
    ("max_rtr_adv_interval", &["4", "10", "1800"]),
    ("min_rtr_adv_interval", &["3"]),
    ("adv_default_lifetime", &["0", "1800", "9000"]),
    ("adv_valid_lifetime", &["1800", "4294967295"]),
    ("adv_preferred_lifetime", &["0", "1", "1800"]),
    ("adv_on_link_flag", &["enabled", "disabled"]),
    ("adv_autonomous_flag", &["enabled", "disabled"]),
    ("adv_pd_preferred_flag", &["enabled", "disabled"]),
    ("dnr@", &["", "1;dns.example", "9;dns.example;fd00::1;alpn=doq;port=853,1;b.example"]),
    ("adv_link_mtu", &["1280", "1500", "9216"]),
    ("adv_cur_hop_limit", &["0", "255"]),
    ("adv_reachable_time", &["0", "3600000"]),
    ("adv_retrans_timer", &["0", "4294967295"]),
    ("prf", &["low", "medium", "high"]),
    ("rdnss@", &["2001:db8:ffff::1", "fe80::1,2001:db8:ffff::2"]),
    ("dnssl@", &["example.com", "a.example,b.example."]),
    ("route_info@", &["::/0", "2001:db8:fffe::/48;low;0,fd00::/8"]),
    ("pref64", &["64:ff9b::/96", "2001:db8:fffd::/48"]),
    ("captive_portal", &["https://portal.example/api"]),
    ("ntp_servers@", &["ntp.example,10.0.0.1,2001:db8:ffff::3"]),
    ("leak_vrf", &["default", "VrfFabric"]),
    ("leak_prefix@", &["::/0", "2001:db8:ffff::/64", "2001:db8:ffff::1/128,fd00::/8"]),
    ("api_allow@", &["GET /", "GET|HEAD /v1/*,!* /v1/x/**,* /**"]),
    ("boot_kernel_url", &["http://h", "https://[2001:db8:ffff::1]:1/k?a=${uuid}"]),
    ("boot_cmdline", &["quiet", "a=b c"]),
    ("machine_config_file", &["/a", "/a/b.json"]),
];

fn good_partition() -> impl Strategy<Value = Fields> {
    (subsequence(&GOOD_FIELDS[..], 0..=GOOD_FIELDS.len()), vec(any::<Index>(), GOOD_FIELDS.len())).prop_map(
        |(chosen, picks)| {
            chosen
                .iter()
                .zip(picks)
                .map(|((name, values), pick)| ((*name).to_owned(), (*pick.get(values)).to_owned()))
                .collect()
        },
    )
}

/// Up to four partitions of their own /56, and up to 24 ports, each with its own index.
fn good_config() -> impl Strategy<Value = ConfigDb> {
    (vec(good_partition(), 1..=4), vec((any::<Index>(), any::<bool>(), good_partition()), 0..=24)).prop_map(
        |(partitions, ports)| {
            let mut config = ConfigDb::default();
            for (number, fields) in partitions.iter().enumerate() {
                let mut fields = fields.clone();
                fields.insert("prefix".to_owned(), format!("2001:db8:{number}:100::/56"));
                config.insert("BOOT_NETWORK_PARTITION", &format!("p{number}"), fields);
            }
            for (index, (partition, explicit, variables)) in ports.iter().enumerate() {
                let name = format!("Ethernet{}", index * 4);
                config.insert("PORT", &name, row(&[("index", &index.to_string())]));
                let partition = format!("p{}", partition.index(partitions.len()));
                let mut fields = variables.clone();
                fields.retain(|name, _| router::FIELDS.contains(&name.as_str()));
                fields.insert("partition".to_owned(), partition);
                if *explicit {
                    fields.insert("prefix_offset".to_owned(), (255 - index).to_string());
                }
                config.insert("BOOT_NETWORK_PORT", &name, fields);
            }
            config
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_yield_a_value_and_every_row_is_accounted_for(config in any_config()) {
        let desired = Desired::from_config(&config);
        prop_assert_eq!(&desired, &Desired::from_config(&config));
        for (key, _) in config.table("BOOT_NETWORK_PORT") {
            let held = key.parse().is_ok_and(|name: PortName| desired.ports.contains_key(&name));
            let row = fields::row_name("BOOT_NETWORK_PORT", key);
            prop_assert_ne!(held, desired.rejected.iter().any(|rejected| rejected.row == row), "{}", key);
        }
        for (key, _) in config.table("BOOT_NETWORK_PARTITION") {
            let held = key.parse().is_ok_and(|id: PartitionId| desired.partitions.contains_key(&id));
            let row = fields::row_name("BOOT_NETWORK_PARTITION", key);
            prop_assert_ne!(held, desired.rejected.iter().any(|rejected| rejected.row == row), "{}", key);
        }
        for port in desired.ports.values() {
            let partition = desired.partition_of(port);
            prop_assert!(partition.is_some_and(|partition| partition.prefix.contains(&port.prefix)));
        }
        check(&config);
    }

    #[test]
    fn good_rows_are_accepted(config in good_config()) {
        let desired = Desired::from_config(&config);
        prop_assert_eq!(&desired.rejected, &[]);
        prop_assert_eq!(desired.ports.len(), config.table("BOOT_NETWORK_PORT").count());
        prop_assert_eq!(desired.partitions.len(), config.table("BOOT_NETWORK_PARTITION").count());
    }

    #[test]
    fn one_bad_port_changes_no_other(
        config in good_config(),
        victim in any::<Index>(),
        (field, value) in (word(), word()),
    ) {
        let names: Vec<String> = config.table("BOOT_NETWORK_PORT").map(|(key, _)| key.to_owned()).collect();
        prop_assume!(!names.is_empty());
        let victim: PortName = victim.get(&names).parse().unwrap();
        let mut bad = config.clone();
        let mut row = config.row("BOOT_NETWORK_PORT", victim.as_str()).cloned().unwrap_or_default();
        row.insert(field, value);
        bad.insert("BOOT_NETWORK_PORT", victim.as_str(), row);
        let (mut before, mut after) = (Desired::from_config(&config), Desired::from_config(&bad));
        prop_assume!(!after.ports.contains_key(&victim));
        before.ports.remove(&victim);
        let elsewhere = |told: &Rejected| told.row != format!("BOOT_NETWORK_PORT|{victim}");
        before.warnings.retain(elsewhere);
        after.rejected.retain(elsewhere);
        prop_assert_eq!(before, after);
    }

    #[test]
    fn a_bad_partition_takes_only_its_own_ports(config in good_config()) {
        let mut bad = config.clone();
        bad.insert("BOOT_NETWORK_PARTITION", "p0", row(&[("prefix", "none")]));
        let (mut before, after) = (Desired::from_config(&config), Desired::from_config(&bad));
        before.ports.retain(|_, port| port.partition.as_str() != "p0");
        before.partitions.retain(|id, _| id.as_str() != "p0");
        prop_assert_eq!(before.ports, after.ports);
        prop_assert_eq!(before.partitions, after.partitions);
        prop_assert_eq!(before.global, after.global);
    }
}

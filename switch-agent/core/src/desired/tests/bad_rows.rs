//! Rows that do not hold beside others, with the exact message each one gets.

use super::*;

#[test]
fn rows_as_a_whole() {
    const PREFIX: (&str, &str) = ("prefix", "2001:db8:1::/56");
    const KEY: &str = "the key must be a port name (Ethernet<n> or PortChannel<n>, at most 15 bytes)";
    let of_port = |key: &str, rule: &str| vec![format!("BOOT_NETWORK_PORT|{key}: {rule}")];
    let port: &[(&str, &str)] = &[("partition", "p1")];
    assert_eq!(
        messages(|c| c.insert("BOOT_NETWORK", "default", fields([]))),
        ["BOOT_NETWORK|default: is not a key of this table; the only one is global"]
    );
    for (key, fields, expected) in [
        ("eth0", port, of_port("eth0", KEY)),
        ("Loopback0", port, of_port("Loopback0", KEY)),
        ("Ethernet99", port, of_port("Ethernet99", "port does not exist: there is no PORT|Ethernet99")),
        (
            "PortChannel9",
            &[],
            [
                of_port("PortChannel9", "port does not exist: there is no PORTCHANNEL|PortChannel9"),
                of_port("PortChannel9", "partition: is required"),
            ]
            .concat(),
        ),
    ] {
        assert_eq!(messages(|config| config.insert("BOOT_NETWORK_PORT", key, row(fields))), expected);
    }
    let partition_rules: [(&[(&str, &str)], &str); 8] = [
        (&[], "prefix: is required"),
        (
            &[("prefix", "2001:db8:0:80::/57")],
            "prefix = \"2001:db8:0:80::/57\": overlaps 2001:db8::/56 of partition p1",
        ),
        (
            &[("prefix", "2001:db8::/48")],
            "prefix = \"2001:db8::/48\": overlaps 2001:db8::/56 of partition p1",
        ),
        (
            &[PREFIX, ("vrf_name", "VrfBoot-p1")],
            "vrf_name = \"VrfBoot-p1\": VrfBoot-p1 is already the VRF of partition p1",
        ),
        (
            &[PREFIX, ("leak_vrf", "VrfBoot-p1")],
            "leak_vrf = \"VrfBoot-p1\": must not be a boot VRF, and is that of partition p1",
        ),
        (&[PREFIX, ("rdnss@", "2001:db8:f::1,2001:db8:f::1")], "rdnss@ = \"2001:db8:f::1\": is listed twice"),
        (
            &[PREFIX, ("route_info@", "2001:db8:2::/48;low,2001:db8:2::/48")],
            "route_info@ = \"2001:db8:2::/48\": names this prefix twice",
        ),
        (
            &[PREFIX, ("rdnss@", "a,b,c,d,e,f,g,h,i")],
            "rdnss@ = \"a,b,c,d,e,f,g,h,i\": has 9 items; at most 8 are allowed",
        ),
    ];
    for (fields, rule) in partition_rules {
        let messages = messages(|config| config.insert("BOOT_NETWORK_PARTITION", "p2", row(fields)));
        assert_eq!(messages, [format!("BOOT_NETWORK_PARTITION|p2: {rule}")]);
    }
}

#[test]
fn partitions_that_do_not_hold_take_their_ports_along() {
    assert_eq!(
        messages(|config| config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", "x")]))),
        [
            "BOOT_NETWORK_PARTITION|p1: prefix = \"x\": must be an IPv6 prefix (address/length)",
            "BOOT_NETWORK_PORT|Ethernet0: partition = \"p1\": the row BOOT_NETWORK_PARTITION|p1 is rejected",
            "BOOT_NETWORK_PORT|Ethernet4: partition = \"p1\": the row BOOT_NETWORK_PARTITION|p1 is rejected",
        ]
    );
    assert_eq!(
        messages(|config| config.insert("BOOT_NETWORK_PARTITION", "p 2", fields([]))),
        [
            "BOOT_NETWORK_PARTITION|p 2: the key must be a partition id ([A-Za-z0-9][A-Za-z0-9._-]*, at most 64 bytes)"
        ]
    );
}

#[test]
fn a_partition_without_a_vrf_name_clashes_by_its_derived_one() {
    let messages = messages(|config| {
        let vrf = ("vrf_name", "VrfBoot-p2");
        config.insert("BOOT_NETWORK_PARTITION", "a", fields([("prefix", "2001:db8:2::/56"), vrf]));
        config.insert("BOOT_NETWORK_PARTITION", "p2", fields([("prefix", "2001:db8:1::/56")]));
    });
    assert_eq!(
        messages,
        ["BOOT_NETWORK_PARTITION|p2: vrf_name: VrfBoot-p2 is already the VRF of partition a"]
    );
}

#[test]
fn what_is_in_use_stays_whatever_the_order_of_keys() {
    let overlap = ("prefix", "2001:db8:0:80::/57");
    let in_use = |config: &mut ConfigDb| {
        config.insert("INTERFACE", "Ethernet4", fields([("vrf_name", "VrfBoot-p1")]));
        config.insert("INTERFACE", "Ethernet4|2001:db8:0:2::1/64", fields([]));
    };
    let partition = |used: bool| {
        messages(|config| {
            config.insert("BOOT_NETWORK_PARTITION", "a", fields([overlap]));
            if used {
                in_use(config);
            }
        })
    };
    assert_eq!(
        partition(true),
        ["BOOT_NETWORK_PARTITION|a: prefix = \"2001:db8:0:80::/57\": overlaps 2001:db8::/56 of partition p1"]
    );
    assert!(partition(false)[0].starts_with("BOOT_NETWORK_PARTITION|p1: prefix"), "{:?}", partition(false));
    let port = |used: bool| {
        messages(|config| {
            let offset = ("prefix_offset", "2");
            config.insert("BOOT_NETWORK_PORT", "Ethernet0", fields([("partition", "p1"), offset]));
            if used {
                in_use(config);
            }
        })
    };
    assert_eq!(
        port(true),
        [
            "BOOT_NETWORK_PORT|Ethernet0: prefix_offset = \"2\": 2001:db8:0:2::/64 is already the prefix of Ethernet4"
        ]
    );
    assert!(port(false)[0].starts_with("BOOT_NETWORK_PORT|Ethernet4: prefix_offset"), "{:?}", port(false));
}

#[test]
fn service_addresses_stay_out_of_every_boot_prefix() {
    let mut config = base();
    let fields = fields([("prefix", "2001:db8:1::/56"), ("service_address@", "2001:db8::1")]);
    config.insert("BOOT_NETWORK_PARTITION", "p2", fields);
    let desired = Desired::from_config(&config);
    assert_eq!(
        desired.rejected.iter().map(Rejected::to_string).collect::<Vec<_>>(),
        [
            "BOOT_NETWORK_PARTITION|p2: service_address@ = \"2001:db8::1\": must not be inside 2001:db8::/56, the prefix \
         of partition p1"
        ]
    );
    assert_eq!(desired.partitions.keys().map(PartitionId::as_str).collect::<Vec<_>>(), ["p1"]);
}

#[test]
fn an_advertisement_is_split_into_four_messages_at_most() {
    let name = |letter: &str| [letter; 4].map(|l| l.repeat(60)).join(".");
    let dnssl = ["a", "b", "c", "d", "e", "f", "g", "h"].map(name).join(",");
    let address = |at: usize| format!("fd00::{at}");
    let addresses = (1..=8).map(address).collect::<Vec<_>>().join("|");
    let dohpath = "x".repeat(248);
    let resolver = |letter: &str| {
        format!("1;{};{addresses};alpn=dot|doq|h2|h3;port=853;dohpath=/{{?dns}}{dohpath}", name(letter))
    };
    let dnr = |letters: &[&str]| letters.iter().map(|l| resolver(l)).collect::<Vec<_>>().join(",");
    let with = |table: &str, key: &str, others: &[(&str, &str)], dnr: &str| {
        messages(|config| {
            let mut fields = row(others);
            fields.insert("dnssl@".to_owned(), dnssl.clone());
            fields.insert("dnr@".to_owned(), dnr.to_owned());
            config.insert(table, key, fields);
        })
    };
    let rule = "its Router Advertisement would need 5 messages of 1280 bytes; at most 4 are allowed: shorten \
                rdnss@, dnssl@, dnr@, route_info@ or captive_portal";
    let partition = ("BOOT_NETWORK_PARTITION", "p2", [("prefix", "2001:db8:1::/56")]);
    let port = ("BOOT_NETWORK_PORT", "Ethernet4", [("partition", "p1")]);
    for (table, key, others) in [partition, port] {
        assert_eq!(with(table, key, &others, &dnr(&["a", "b"])), [""; 0]);
        assert_eq!(with(table, key, &others, &dnr(&["a", "b", "c"])), [format!("{table}|{key}: {rule}")]);
    }
}

#[test]
fn ports_against_sonics_rows() {
    let port = |port_row: &[(&str, &str)], partition: &str| {
        messages(|config| {
            config.insert("PORT", "Ethernet4", row(port_row));
            config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", partition)]));
        })
    };
    assert_eq!(
        port(&[("index", "2"), ("role", "Int")], "2001:db8::/56"),
        ["BOOT_NETWORK_PORT|Ethernet4: PORT|Ethernet4 has role Int; only Ext ports can be boot ports"]
    );
    assert_eq!(
        port(&[], "2001:db8::/56"),
        ["BOOT_NETWORK_PORT|Ethernet4: prefix_offset: is required where PORT|Ethernet4 has no index"]
    );
    assert_eq!(
        port(&[("index", "16")], "2001:db8::/60"),
        [
            "BOOT_NETWORK_PORT|Ethernet4: prefix_offset: defaults to 16, the index of PORT|Ethernet4, but /60 has 16 \
         /64s: 0..15"
        ]
    );
    assert_eq!(
        port(&[("index", "1")], "2001:db8::/60"),
        ["BOOT_NETWORK_PORT|Ethernet4: prefix_offset: 2001:db8:0:1::/64 is already the prefix of Ethernet0"]
    );
    let channel = messages(|config| {
        config.insert("PORTCHANNEL", "PortChannel256", fields([]));
        config.insert("BOOT_NETWORK_PORT", "PortChannel256", fields([("partition", "p1")]));
    });
    assert_eq!(
        channel,
        ["BOOT_NETWORK_PORT|PortChannel256: prefix_offset: defaults to 256, the number of \
                          PortChannel256, but /56 has 256 /64s: 0..255"]
    );
}

#[test]
fn unknown_fields() {
    let allowed = format!(
        "allowed are partition, prefix_offset, admin_status, boot_profile, boot_profile_once, {}",
        router::FIELDS.join(", ")
    );
    let port = |name: &str| {
        messages(|config| {
            config.insert("BOOT_NETWORK_PORT", "Ethernet4", row(&[("partition", "p1"), (name, "1")]));
        })
    };
    assert_eq!(
        port("color"),
        [format!("BOOT_NETWORK_PORT|Ethernet4: color = \"1\": unknown field; {allowed}")]
    );
    assert_eq!(
        port("prefix_ofset"),
        [format!(
            "BOOT_NETWORK_PORT|Ethernet4: prefix_ofset = \"1\": unknown field; did you mean prefix_offset? {allowed}"
        )]
    );
    let list = messages(|config| {
        let fields = row(&[("prefix", "2001:db8:1::/56"), ("rdnss", "2001:db8::1")]);
        config.insert("BOOT_NETWORK_PARTITION", "p2", fields);
    });
    assert_eq!(list.len(), 1);
    assert!(
        list[0].starts_with(
            "BOOT_NETWORK_PARTITION|p2: rdnss = \"2001:db8::1\": unknown field; did you mean rdnss@? allowed are prefix, "
        ),
        "{list:?}"
    );
}

#[test]
fn boot_files_that_do_not_hold_together() {
    let rejections = |extra: &[(&str, &str)]| {
        let mut fields = row(&[("prefix", "2001:db8:9::/56"), ("dhcp6", "enabled")]);
        fields.extend(row(extra));
        messages(|config| config.insert("BOOT_NETWORK_PARTITION", "p2", fields))
    };
    const ROW: &str = "BOOT_NETWORK_PARTITION|p2";
    assert_eq!(
        rejections(&[("dhcp6_boot_url@", "16|http://h/a,x64-uefi-http|http://h/b")]),
        [format!("{ROW}: dhcp6_boot_url@ = \"x64-uefi-http\": has two URLs")]
    );
    let proxy = ("dhcp6_boot_url@", "ipxe|http://[{router}]:{proxy_port}/boot.ipxe");
    assert_eq!(rejections(&[proxy]), [""; 0]);
    assert_eq!(
        rejections(&[proxy, ("proxy", "disabled")]),
        [format!("{ROW}: dhcp6_boot_url@ = {:?}: names the discovery proxy, but proxy is disabled", proxy.1)]
    );
    let (url, param) = (format!("default|http://h/{}", "x".repeat(490)), "y".repeat(256));
    let params = format!("{param}1,{param}2").replace("yy1", "1").replace("yy2", "2");
    let long = rejections(&[("dhcp6_boot_url@", &url), ("dhcp6_boot_param@", &params)]);
    assert_eq!(long.len(), 1, "{long:?}");
    assert!(long[0].starts_with(&format!("{ROW}: its DHCPv6 answers could have ")), "{long:?}");
    assert_eq!(rejections(&[("dhcp6_boot_url@", &url)]), [""; 0]);
}

#[test]
fn all_faults_of_a_row_are_reported_at_once() {
    let messages = messages(|config| {
        let fields =
            fields([("prefix", "x"), ("prf", "top"), ("mtu", "9"), ("leak_prefix@", "2001:db8:f::/48,y,z")]);
        config.insert("BOOT_NETWORK_PARTITION", "p2", fields);
    });
    let about: Vec<_> = messages.iter().filter_map(|m| m.split(": ").nth(1)).collect();
    assert_eq!(
        about,
        ["mtu = \"9\"", "prefix = \"x\"", "prf = \"top\"", "leak_prefix@ = \"y\"", "leak_prefix@ = \"z\""]
    );
}

#[test]
fn long_and_unprintable_text_is_tamed() {
    let long = "x".repeat(100_000);
    let message = messages(|config| config.insert("BOOT_NETWORK_PORT", &long, fields([(&long, &long)])));
    assert_eq!(message.len(), 1);
    assert!(message[0].len() < 300, "{}", message[0].len());
    let message = messages(|config| {
        config.insert("BOOT_NETWORK_PARTITION", "p\u{1b}[2J", fields([]));
    });
    assert!(message[0].starts_with("BOOT_NETWORK_PARTITION|p\u{fffd}[2J: the key must be"), "{message:?}");
}

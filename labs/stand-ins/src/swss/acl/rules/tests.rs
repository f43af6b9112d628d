use super::*;

fn config(table: &[(&str, &str)], rules: &[(&str, &[(&str, &str)])]) -> ConfigDb {
    let row = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let mut config = ConfigDb::default();
    config.insert("ACL_TABLE", "BOOT", row(table));
    for (name, fields) in rules {
        config.insert("ACL_RULE", &format!("BOOT|{name}"), row(fields));
    }
    config
}

const L3V6: &[(&str, &str)] = &[("type", "L3V6"), ("stage", "ingress"), ("ports@", "Ethernet0")];
const DEFAULT: (&str, &[(&str, &str)]) =
    ("DEFAULT_RULE", &[("PRIORITY", "1"), ("PACKET_ACTION", "DROP"), ("IP_TYPE", "IPV6ANY")]);

/// Filters of Ethernet0's only table, in order.
fn filters(translation: &Translation) -> &[Filter] {
    let [table] = translation.ports["Ethernet0"].as_slice() else { panic!("{translation:?}") };
    &table.filters
}

fn filter(rule: &str, drop: bool) -> Filter {
    Filter { rule: format!("BOOT|{rule}"), drop, ..Filter::default() }
}

fn net(text: &str) -> Option<IpNet> {
    Some(text.parse().unwrap())
}

fn rule_status<'a>(translation: &'a Translation, rule: &str) -> Option<&'a str> {
    let row = translation.state.get(&(RULE_STATUS, format!("BOOT|{rule}")))?;
    row.get("status").map(String::as_str)
}

#[test]
fn the_highest_priority_comes_first_whatever_the_names() {
    let config = config(
        L3V6,
        &[
            DEFAULT,
            (
                "A",
                &[("PRIORITY", "90"), ("PACKET_ACTION", "DROP"), ("IP_PROTOCOL", "6"), ("L4_DST_PORT", "22")],
            ),
            ("B", &[("PRIORITY", "1000"), ("PACKET_ACTION", "FORWARD"), ("ICMPV6_TYPE", "135")]),
            (
                "C",
                &[
                    ("PRIORITY", "200"),
                    ("PACKET_ACTION", "FORWARD"),
                    ("DST_IPV6", "2001:db8::1"),
                    ("SRC_IPV6", "2001:db8::5/64"),
                ],
            ),
        ],
    );
    let translation = translate(&config);
    assert_eq!(translation.complaints, Vec::<String>::new());
    assert_eq!(
        filters(&translation),
        [
            Filter { protocol: Some(58), icmp_type: Some(135), ..filter("B", false) },
            Filter {
                source: net("2001:db8::/64"),
                destination: net("2001:db8::1/128"),
                ..filter("C", false)
            },
            Filter { protocol: Some(6), dst_port: Ports::new(22, 22), ..filter("A", true) },
            filter("DEFAULT_RULE", true),
        ]
    );
    for rule in ["A", "B", "C", "DEFAULT_RULE"] {
        assert_eq!(rule_status(&translation, rule), Some("Active"), "{rule}");
    }
}

#[test]
fn a_port_without_a_protocol_is_tcp_s_and_udp_s() {
    for (field, value, ports) in
        [("L4_SRC_PORT", "53", Ports::new(53, 53)), ("L4_SRC_PORT_RANGE", "53-0x40", Ports::new(53, 64))]
    {
        let rules: &[(&str, &[(&str, &str)])] = &[("A", &[("PACKET_ACTION", "DROP"), (field, value)])];
        let translation = translate(&config(L3V6, rules));
        let of = |protocol| Filter { protocol: Some(protocol), src_port: ports, ..filter("A", true) };
        assert_eq!(filters(&translation), [of(6), of(17)], "{field}");
    }
}

#[test]
fn what_cannot_be_enforced_is_inactive_and_said() {
    let bad: &[(&str, &[(&str, &str)])] = &[
        ("action", &[("PACKET_ACTION", "ACCEPT"), ("IP_PROTOCOL", "6")]),
        ("address", &[("PACKET_ACTION", "DROP"), ("SRC_IPV6", "192.0.2.0/24")]),
        ("field", &[("PACKET_ACTION", "DROP"), ("DSCP", "8"), ("IP_PROTOCOL", "6")]),
        ("family", &[("PACKET_ACTION", "DROP"), ("SRC_IP", "192.0.2.0/24")]),
        ("mixed", &[("PACKET_ACTION", "DROP"), ("IP_PROTOCOL", "58"), ("L4_DST_PORT", "22")]),
        ("no-action", &[("PRIORITY", "5"), ("IP_PROTOCOL", "6")]),
        ("no-match", &[("PRIORITY", "5"), ("PACKET_ACTION", "DROP")]),
        ("range", &[("PACKET_ACTION", "DROP"), ("IP_PROTOCOL", "6"), ("L4_DST_PORT", "65536")]),
        ("range-backwards", &[("PACKET_ACTION", "DROP"), ("L4_DST_PORT_RANGE", "23-22")]),
        ("range-of-one", &[("PACKET_ACTION", "DROP"), ("L4_DST_PORT_RANGE", "22")]),
        ("range-twice", &[("PACKET_ACTION", "DROP"), ("L4_DST_PORT", "22"), ("L4_DST_PORT_RANGE", "22-23")]),
        ("type", &[("PACKET_ACTION", "DROP"), ("IP_TYPE", "NON_IPV6")]),
    ];
    for rule in bad {
        let translation = translate(&config(L3V6, &[*rule, DEFAULT]));
        assert_eq!(rule_status(&translation, rule.0), Some("Inactive"), "{}", rule.0);
        assert_eq!(filters(&translation), [filter("DEFAULT_RULE", true)], "{}", rule.0);
        let [complaint] = translation.complaints.as_slice() else { panic!("{translation:?}") };
        assert!(complaint.starts_with(&format!("ACL_RULE|BOOT|{}: ", rule.0)), "{complaint}");
    }
}

#[test]
fn a_table_without_ports_is_active_and_filters_nothing() {
    let translation = translate(&config(&[("type", "L3V6"), ("stage", "ingress")], &[DEFAULT]));
    assert!(translation.ports.is_empty());
    assert_eq!(translation.state[&(TABLE_STATUS, "BOOT".to_owned())], status(true));
    assert_eq!(rule_status(&translation, "DEFAULT_RULE"), Some("Active"));
}

#[test]
fn other_kinds_of_tables_bind_nothing() {
    let control = translate(&config(&[("type", "CTRLPLANE"), ("services@", "SSH")], &[DEFAULT]));
    assert_eq!(control, Translation::default(), "caclmgrd's business");
    for table in
        [&[("type", "MIRROR"), ("ports@", "Ethernet0")][..], &[("type", "L3V6"), ("stage", "egress")]]
    {
        let translation = translate(&config(table, &[DEFAULT]));
        assert!(translation.ports.is_empty() && rule_status(&translation, "DEFAULT_RULE").is_none());
        assert_eq!(translation.state[&(TABLE_STATUS, "BOOT".to_owned())], status(false));
        assert_eq!(translation.complaints.len(), 1);
    }
}

#[test]
fn a_rule_waits_for_its_table_and_ipv4_tables_are_read_too() {
    let mut config = config(&[("TYPE", "l3"), ("ports", "Ethernet0")], &[]);
    config.insert("ACL_RULE", "LATER|A", fields([("PACKET_ACTION", "DROP"), ("IP_PROTOCOL", "6")]));
    let rule =
        [("priority", "7"), ("packet_action", "drop"), ("src_ip", "192.0.2.7"), ("ether_type", "2048")];
    config.insert("ACL_RULE", "BOOT|A", fields(rule));
    let translation = translate(&config);
    assert_eq!(filters(&translation), [Filter { source: net("192.0.2.7/32"), ..filter("A", true) }]);
    assert_eq!(translation.ports["Ethernet0"][0].family, Family::V4);
    assert_eq!(translation.state.len(), 2, "{translation:?}");
}

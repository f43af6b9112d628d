use switch_agent_core::row::fields;

use super::super::rules::{Ports, translate};
use super::*;

fn filter() -> Filter {
    Filter { rule: "A|R".to_owned(), drop: true, ..Filter::default() }
}

#[test]
fn every_field_is_a_match_and_every_rule_counts() {
    let net = |text: &str| Some(text.parse().unwrap());
    let icmp = Filter { protocol: Some(58), icmp_type: Some(135), icmp_code: Some(0), ..filter() };
    assert_eq!(
        rule(Family::V6, &icmp),
        "meta protocol ip6 meta l4proto 58 icmpv6 type 135 icmpv6 code 0 counter drop comment \"A|R\""
    );
    let tcp = Filter {
        protocol: Some(6),
        src_port: Ports::new(22, 22),
        dst_port: Ports::new(1024, 65535),
        source: net("2001:db8::/64"),
        destination: net("2001:db8::1/128"),
        drop: false,
        ..filter()
    };
    assert_eq!(
        rule(Family::V6, &tcp),
        "meta protocol ip6 meta l4proto 6 th sport 22 th dport 1024-65535 ip6 daddr 2001:db8::1/128 \
         ip6 saddr 2001:db8::/64 counter return comment \"A|R\""
    );
    let v4 = Filter { source: net("192.0.2.0/24"), destination: net("0.0.0.0/0"), ..filter() };
    assert_eq!(rule(Family::V4, &v4), "meta protocol ip ip saddr 192.0.2.0/24 counter drop comment \"A|R\"");
}

#[test]
fn what_a_row_is_called_stays_within_its_quotes() {
    assert_eq!(comment("A|R"), "\"A|R\"");
    assert_eq!(comment("A|\" accept\\\n\u{e9}"), "\"A|__accept___\"");
    assert_eq!(comment(&"x".repeat(500)).len(), COMMENT_MAX + 2);
}

fn switch() -> SimSwitch {
    let mut switch = SimSwitch::new(&["Ethernet0".parse().unwrap(), "Ethernet4".parse().unwrap()]);
    switch.config_put(
        "ACL_TABLE",
        "A",
        fields([("type", "L3V6"), ("ports@", "Ethernet0,Ethernet4,Ethernet8")]),
    );
    switch.config_put("ACL_TABLE", "B", fields([("type", "L3"), ("ports@", "Ethernet4")]));
    switch.config_put("ACL_RULE", "A|R", fields([("PACKET_ACTION", "DROP"), ("IP_PROTOCOL", "6")]));
    switch
}

fn bind(ruleset: &mut Ruleset, switch: &SimSwitch) -> String {
    ruleset.bind(switch, &translate(switch.config()).ports)
}

#[test]
fn one_transaction_has_a_chain_per_table_and_one_per_port_that_exists() {
    let text = bind(&mut Ruleset::default(), &switch());
    assert_eq!(
        text.lines().map(str::trim_start).collect::<Vec<_>>(),
        [
            "add table netdev swss",
            "delete table netdev swss",
            "table netdev swss {",
            "chain acl0 {",
            "comment \"A\"",
            "meta protocol ip6 meta l4proto 6 counter drop comment \"A|R\"",
            "}",
            "chain acl1 {",
            "comment \"B\"",
            "}",
            "chain port0 {",
            "type filter hook ingress device \"Ethernet0\" priority filter; policy accept;",
            "jump acl0",
            "}",
            "chain port1 {",
            "type filter hook ingress device \"Ethernet4\" priority filter; policy accept;",
            "jump acl0",
            "jump acl1",
            "}",
            "}",
        ]
    );
}

#[test]
fn it_is_replaced_when_something_changed_and_removed_when_no_port_has_any() {
    let (mut ruleset, mut switch) = (Ruleset::default(), switch());
    let first = bind(&mut ruleset, &switch);
    assert_eq!(bind(&mut ruleset, &switch), "");
    // Ports come back as other netdevs, without their chains.
    switch.swss_restart();
    switch.settle(100);
    assert_eq!(bind(&mut ruleset, &switch), first);
    switch.config_put("ACL_RULE", "A|R", fields([("PACKET_ACTION", "DROP"), ("IP_PROTOCOL", "17")]));
    assert!(bind(&mut ruleset, &switch).contains(" l4proto 17 "));
    switch.config_del("ACL_TABLE", "A");
    assert!(bind(&mut ruleset, &switch).contains("jump acl0"));
    switch.config_del("ACL_TABLE", "B");
    assert_eq!(bind(&mut ruleset, &switch), remove());
    assert_eq!(bind(&mut ruleset, &switch), "");
    assert_eq!(bind(&mut Ruleset::default(), &switch), remove(), "of an earlier life");
}

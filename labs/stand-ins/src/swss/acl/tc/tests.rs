use std::net::IpAddr;

use switch_agent_core::row::fields;

use super::super::rules::{Ports, translate};
use super::*;

fn filter() -> Filter {
    Filter { rule: "A|R".to_owned(), drop: true, ..Filter::default() }
}

fn table(family: Family, filters: Vec<Filter>) -> Table {
    Table { name: "A".to_owned(), family, filters }
}

#[test]
fn every_field_is_a_key_of_flower_behind_that_of_its_protocol() {
    let net = |text: &str| Some(text.parse().unwrap());
    let icmp = Filter { protocol: Some(58), icmp_type: Some(135), icmp_code: Some(0), ..filter() };
    assert_eq!(matches(&icmp), " ip_proto icmpv6 type 135 code 0");
    let tcp = Filter {
        protocol: Some(6),
        src_port: Ports::new(22, 22),
        dst_port: Ports::new(1024, 65535),
        source: net("2001:db8::/64"),
        destination: Some(IpAddr::from([192, 0, 2, 7]).into()),
        ..filter()
    };
    assert_eq!(
        matches(&tcp),
        " ip_proto tcp src_port 22 dst_port 1024-65535 dst_ip 192.0.2.7/32 src_ip 2001:db8::/64"
    );
    assert_eq!(matches(&Filter { protocol: Some(17), ..filter() }), " ip_proto udp");
    assert_eq!(matches(&Filter { protocol: Some(89), ..filter() }), " ip_proto 89");
    assert_eq!(matches(&filter()), "");
    let v4 = install("Ethernet0", &[table(Family::V4, vec![filter()])], false);
    assert!(v4.contains(" chain 1 protocol ip pref 1 flower skip_hw action drop\n"), "{v4}");
}

#[test]
fn a_packet_passes_every_table_of_its_port() {
    let tcp = Filter { protocol: Some(6), ..filter() };
    let forward = Filter { drop: false, ..tcp.clone() };
    let tables = [table(Family::V6, vec![forward]), table(Family::V6, vec![tcp])];
    let text = install("Ethernet0", &tables, true);
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "qdisc replace dev Ethernet0 clsact",
            "filter add dev Ethernet0 ingress chain 1001 protocol ipv6 pref 1 flower skip_hw ip_proto tcp action \
             goto chain 1002",
            "filter add dev Ethernet0 ingress chain 1001 protocol all pref 65535 flower skip_hw action goto chain \
             1002",
            "filter add dev Ethernet0 ingress chain 1002 protocol ipv6 pref 1 flower skip_hw ip_proto tcp action drop",
            "filter add dev Ethernet0 ingress chain 1002 protocol all pref 65535 flower skip_hw action ok",
            "filter replace dev Ethernet0 ingress protocol all pref 1 handle 1 flower skip_hw action goto chain 1001",
        ]
    );
    assert_eq!(
        retire("Ethernet0", 2, true),
        "filter del dev Ethernet0 ingress chain 1001\nfilter del dev Ethernet0 ingress chain 1002\n"
    );
}

fn switch() -> SimSwitch {
    let mut switch = SimSwitch::new(&["Ethernet0".parse().unwrap(), "Ethernet4".parse().unwrap()]);
    let ports = "Ethernet0,Ethernet4,Ethernet8";
    switch.config_put("ACL_TABLE", "A", fields([("type", "L3V6"), ("ports@", ports)]));
    switch
}

fn drop_tcp(switch: &mut SimSwitch, port: &str) {
    let rule = [("PACKET_ACTION", "DROP"), ("IP_PROTOCOL", "6"), ("L4_DST_PORT", port)];
    switch.config_put("ACL_RULE", "A|R", fields(rule));
}

fn bind(filters: &mut Filters, switch: &SimSwitch) -> String {
    filters.bind(switch, &translate(switch.config()).ports)
}

#[test]
fn only_ports_that_changed_are_touched_and_generations_take_turns() {
    let (mut filters, mut switch) = (Filters::default(), switch());
    let first = bind(&mut filters, &switch);
    assert!(first.contains("dev Ethernet0 ingress chain 1 ") && first.contains("dev Ethernet4 "));
    assert!(!first.contains("Ethernet8"), "no such netdev: {first}");
    assert_eq!(bind(&mut filters, &switch), "");
    drop_tcp(&mut switch, "22");
    let second = bind(&mut filters, &switch);
    let at = |text: &str| second.find(text).unwrap_or_else(|| panic!("{text} is not in {second}"));
    let dropped = at("Ethernet0 ingress chain 1001 protocol ipv6 pref 1 flower");
    let switched = at("filter replace dev Ethernet0 ingress protocol all pref 1 handle 1");
    let retired = at("filter del dev Ethernet0 ingress chain 1\n");
    assert!(dropped < switched && switched < retired, "{second}");
    drop_tcp(&mut switch, "23");
    assert!(bind(&mut filters, &switch).contains("filter del dev Ethernet0 ingress chain 1001\n"));
    assert_eq!(filters.unbind_all(), "qdisc del dev Ethernet0 clsact\nqdisc del dev Ethernet4 clsact\n");
}

#[test]
fn a_port_that_leaves_a_table_is_open_and_a_new_netdev_is_filtered_anew() {
    let (mut filters, mut switch) = (Filters::default(), switch());
    bind(&mut filters, &switch);
    switch.config_put("ACL_TABLE", "A", fields([("type", "L3V6"), ("ports@", "Ethernet4")]));
    assert_eq!(bind(&mut filters, &switch), "qdisc del dev Ethernet0 clsact\n");
    switch.swss_restart();
    switch.settle(100);
    let again = bind(&mut filters, &switch);
    assert!(again.starts_with("qdisc replace dev Ethernet4 clsact\n"), "{again}");
    assert!(!again.contains("qdisc del"), "{again}");
}

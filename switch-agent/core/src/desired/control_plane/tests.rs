use super::*;

/// Fields of each rule of a table.
type Rules<'a> = &'a [&'a [(&'a str, &'a str)]];

/// Two partitions, one without a proxy.
fn config() -> ConfigDb {
    let mut config = ConfigDb::default();
    config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", "2001:db8::/56")]));
    let silent = fields([("prefix", "2001:db8:0:100::/56"), ("proxy", "disabled")]);
    config.insert("BOOT_NETWORK_PARTITION", "p2", silent);
    config
}

fn table(config: &mut ConfigDb, name: &str, service: &str, rules: Rules<'_>) {
    config.insert("ACL_TABLE", name, fields([("type", "CTRLPLANE"), ("services@", service)]));
    for (number, rule) in rules.iter().enumerate() {
        let row = rule.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        config.insert("ACL_RULE", &format!("{name}|R{number}"), row);
    }
}

fn judged(config: &ConfigDb) -> Option<ControlPlane> {
    control_plane(config, &Desired::from_config(config))
}

/// Sources that are denied, with these tables of control-plane ACLs.
fn denied(tables: &[(&str, Rules<'_>)]) -> Vec<String> {
    let mut config = config();
    for (number, (service, rules)) in tables.iter().enumerate() {
        table(&mut config, &format!("T{number}"), service, rules);
    }
    judged(&config).unwrap().denied.iter().map(ToString::to_string).collect()
}

const SSH: (&str, Rules<'_>) =
    ("SSH", &[&[("PRIORITY", "1"), ("PACKET_ACTION", "ACCEPT"), ("SRC_IP", "10.0.0.0/8")]]);
const ALL: [&str; 2] = ["2001:db8::/56", "fe80::/10"];

#[test]
fn nothing_is_reported_where_nothing_is_dropped() {
    let mut config = config();
    assert_eq!(judged(&config), None);
    table(&mut config, "EMPTY", "SSH", &[]);
    config.insert("ACL_TABLE", "DATA", fields([("type", "L3V6"), ("ports@", "Ethernet0")]));
    config.insert("ACL_RULE", "DATA|R", fields([("PRIORITY", "1"), ("PACKET_ACTION", "DROP")]));
    assert_eq!(judged(&config), None);
}

#[test]
fn one_rule_for_ssh_keeps_machines_from_the_proxy() {
    assert_eq!(denied(&[SSH]), ALL);
    let mut config = config();
    table(&mut config, "SSH_ONLY", SSH.0, SSH.1);
    let report = judged(&config).unwrap();
    assert_eq!((report.tables, report.proxy_port), (vec!["SSH_ONLY".to_owned()], 18090));
    config.insert("BOOT_NETWORK", "global", fields([("admin_status", "down")]));
    assert_eq!(judged(&config), None, "no proxy at all");
}

#[test]
fn the_proposed_rows_are_what_is_missing() {
    let mut config = config();
    config.insert("BOOT_NETWORK", "global", fields([("proxy_port", "8080")]));
    table(&mut config, "SSH_ONLY", SSH.0, SSH.1);
    let report = judged(&config).unwrap();
    let rows = report.rows_in_config_db();
    assert_eq!(rows["ACL_TABLE"]["BOOT_NETWORK_PROXY"]["services@"], "EXTERNAL_CLIENT");
    let rules = &rows["ACL_RULE"];
    let first = fields([
        ("PRIORITY", "9000"),
        ("PACKET_ACTION", "ACCEPT"),
        ("IP_PROTOCOL", "6"),
        ("SRC_IPV6", "2001:db8::/56"),
        ("L4_DST_PORT", "8080"),
    ]);
    assert_eq!(rules["BOOT_NETWORK_PROXY|RULE_1"], first);
    assert_eq!(rules["BOOT_NETWORK_PROXY|RULE_2"]["SRC_IPV6"], "fe80::/10");
    assert_eq!(
        serde_json::to_value(&report).unwrap()["rows"]["ACL_TABLE"]["BOOT_NETWORK_PROXY"]["services"][0],
        "EXTERNAL_CLIENT"
    );
    for (table, rows) in rows {
        rows.into_iter().for_each(|(key, row)| config.insert(table, &key, row));
    }
    let report = judged(&config).unwrap();
    assert_eq!((report.denied, report.rows), (vec![], BTreeMap::new()));
}

#[test]
fn a_rule_counts_for_its_port_its_source_and_all_packets() {
    const P: (&str, &str) = ("PRIORITY", "10");
    const OK: (&str, &str) = ("PACKET_ACTION", "ACCEPT");
    const PORT: (&str, &str) = ("L4_DST_PORT", "18090");
    const ANYONE: (&str, &str) = ("SRC_IPV6", "::/0");
    let one = |service: &'static str, rule: &'static [(&str, &str)]| denied(&[SSH, (service, &[rule])]);
    assert!(one("EXTERNAL_CLIENT", &[P, OK, PORT, ANYONE]).is_empty());
    assert!(one("EXTERNAL_CLIENT", &[P, OK, ("L4_DST_PORT_RANGE", "18000-18100"), ANYONE]).is_empty());
    assert!(one("ANY", &[P, OK, ANYONE]).is_empty());
    assert_eq!(one("EXTERNAL_CLIENT", &[P, OK, PORT, ("SRC_IPV6", "2001:db8::/32")]), ["fe80::/10"]);
    assert_eq!(one("EXTERNAL_CLIENT", &[P, OK, PORT, ("SRC_IPV6", "2001:db8::/64")]), ALL, "one port's");
    assert_eq!(one("EXTERNAL_CLIENT", &[P, OK, ("L4_DST_PORT", "22"), ANYONE]), ALL);
    assert_eq!(one("EXTERNAL_CLIENT", &[P, OK, ANYONE]), ALL, "no port");
    assert_eq!(one("EXTERNAL_CLIENT", &[P, OK, PORT, ("SRC_IP", "0.0.0.0/0")]), ALL, "an IPv4 table");
    assert_eq!(one("SSH", &[P, OK, PORT, ANYONE]), ALL, "another service");
    assert_eq!(
        one("EXTERNAL_CLIENT", &[P, OK, PORT, ANYONE, ("IN_PORTS", "eth0")]),
        ALL,
        "another interface"
    );
    assert_eq!(one("EXTERNAL_CLIENT", &[P, OK, PORT, ANYONE, ("DST_IPV6", "2001:db8::1")]), ALL);
    assert_eq!(one("EXTERNAL_CLIENT", &[OK, PORT, ANYONE]), ALL, "no priority");
}

#[test]
fn a_refusal_that_comes_first_or_in_another_table_counts() {
    let accept: &[(&str, &str)] =
        &[("PRIORITY", "20"), ("PACKET_ACTION", "ACCEPT"), ("L4_DST_PORT", "18090"), ("SRC_IPV6", "::/0")];
    let drop = |priority: &'static str| {
        vec![("PRIORITY", priority), ("PACKET_ACTION", "DROP"), ("SRC_IPV6", "2001:db8:0:1::/64")]
    };
    let with = |priority| denied(&[("EXTERNAL_CLIENT", &[accept, &drop(priority)])]);
    assert_eq!(with("30"), ["2001:db8::/56"]);
    assert!(with("10").is_empty());
    assert_eq!(with("9"), ["2001:db8::/56"], "caclmgrd compares priorities as texts");
    let elsewhere = denied(&[("EXTERNAL_CLIENT", &[accept]), ("ANY", &[&drop("1")])]);
    assert_eq!(elsewhere, ["2001:db8::/56"]);
}

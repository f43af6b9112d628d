//! The rows that the agent writes into SONiC's tables, as the YANG models of SONiC get to see them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::rig::Rig;
use crate::control_plane::control_plane;
use crate::desired::Desired;
use crate::row::{ConfigDb, Fields, fields};

/// `sonic-package/yang/check` judges this file by SONiC's models.
const JUDGED: &str = include_str!("../../../../../sonic-package/yang/cases/agent-rows.json");

#[test]
fn rows_written_are_those_that_yang_judges() {
    let mut rig = Rig::new(&["Ethernet0", "Ethernet4", "PortChannel7"]);
    let everything = [
        ("dhcp6", "enabled"),
        ("leak_prefix@", "2001:db8:a91::/64,::/0"),
        ("service_address@", "2001:db8:f::53"),
    ];
    rig.partition("p1", "2001:db8:0:100::/56", &everything);
    rig.partition("a-long-partition-id", "2001:db8:0:200::/56", &[("proxy", "disabled")]);
    rig.boot_port("Ethernet0", "p1");
    rig.boot_port("Ethernet4", "a-long-partition-id");
    rig.boot_port("PortChannel7", "p1");
    rig.converge();
    let config = rig.config();
    let rows: BTreeMap<&str, &Fields> = rig
        .written
        .iter()
        .map(|row| {
            let (table, key) = row.split_once('|').unwrap();
            (row.as_str(), config.row(table, key).unwrap())
        })
        .collect();
    let proposed = proposed();
    let written = json!({"accepted": [
        {"case": "what the agent writes for two partitions", "rows": rows},
        {"case": "what the agent proposes beside control-plane ACLs", "rows": proposed},
    ]});
    let judged: Value = serde_json::from_str(JUDGED).unwrap();
    assert!(judged == written, "sonic-package/yang/cases/agent-rows.json should be:\n{written:#}");
}

/// Beside an operator's table that arms caclmgrd's DROP.
fn proposed() -> BTreeMap<String, Fields> {
    let mut config = ConfigDb::default();
    config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", "2001:db8:0:100::/56")]));
    let ssh = fields([("type", "CTRLPLANE"), ("services@", "SSH"), ("stage", "ingress")]);
    config.insert("ACL_TABLE", "SSH_ONLY", ssh);
    let rule = fields([("PRIORITY", "9999"), ("PACKET_ACTION", "ACCEPT"), ("SRC_IP", "10.0.0.0/8")]);
    config.insert("ACL_RULE", "SSH_ONLY|RULE_1", rule);
    let found = control_plane(&config, &Desired::from_config(&config)).unwrap();
    let rows = found.rows_in_config_db().into_iter();
    rows.flat_map(|(table, rows)| rows.into_iter().map(move |(key, row)| (format!("{table}|{key}"), row)))
        .collect()
}

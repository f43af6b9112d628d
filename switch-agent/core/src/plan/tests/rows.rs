//! The rows that the agent writes into SONiC's tables, as the YANG models of SONiC get to see them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::rig::Rig;
use crate::desired::Desired;
use crate::desired::control_plane::control_plane;
use crate::row::{ConfigDb, Fields, fields};

/// `sonic-package/yang/check` judges this file by SONiC's models.
const JUDGED: &str = include_str!("../../../../../sonic-package/yang/cases/agent-rows.json");

/// A converged switch with two partitions; `metadata` says who configures FRR.
fn written(metadata: Fields, leak_prefixes: &str) -> Value {
    let mut rig = Rig::new(&["Ethernet0", "Ethernet4", "PortChannel7"]);
    rig.switch.config_set("DEVICE_METADATA", "localhost", metadata);
    rig.foreign_set(
        "BGP_GLOBALS",
        "default",
        fields([("local_asn", "4200000011"), ("router_id", "10.0.0.1")]),
    );
    let everything =
        [("dhcp6", "enabled"), ("leak_prefix@", leak_prefixes), ("service_address@", "2001:db8:f::53")];
    rig.partition("p1", "2001:db8:0:100::/56", &everything);
    rig.partition("a-long-partition-id", "2001:db8:0:200::/56", &[("proxy", "disabled")]);
    rig.boot_port("Ethernet0", "p1");
    rig.boot_port("Ethernet4", "a-long-partition-id");
    rig.boot_port("PortChannel7", "p1");
    rig.converge();
    let config = rig.config();
    let row = |row: &String| {
        let (table, key) = row.split_once('|').unwrap();
        (row.clone(), config.row(table, key).unwrap().clone())
    };
    let rows: BTreeMap<String, Fields> = rig.written.iter().map(row).collect();
    json!(rows)
}

#[test]
fn rows_written_are_those_that_yang_judges() {
    let leak = |rows: &mut Value| {
        let tables = crate::frr::rows::LEAK_TABLES;
        rows.as_object_mut().unwrap().retain(|row, _| tables.contains(&row.split('|').next().unwrap()));
        // What the rows refer to, by whoever configures the fabric.
        rows["BGP_GLOBALS|default"] = json!({"local_asn": "4200000011", "router_id": "10.0.0.1"});
    };
    let bgpcfgd = written(Fields::new(), "2001:db8:a91::/64,::/0");
    let framework = fields([("frr_mgmt_framework_config", "true")]);
    let mut frrcfgd = written(framework, "2001:db8:a91::/64,2001:db8:a92::/64");
    leak(&mut frrcfgd);
    for vrf in ["VrfBoot-p1", "VrfBoot-wdwtl4l"] {
        frrcfgd[format!("VRF|{vrf}")] = json!({});
    }
    let proposed = proposed();
    let written = json!({"accepted": [
        {"case": "what the agent writes for two partitions", "rows": bgpcfgd},
        {"case": "their leak by leak_method frr-mgmt", "rows": frrcfgd},
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

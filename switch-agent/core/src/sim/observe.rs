//! The model as the agent's observer would read it.

use std::collections::BTreeMap;

use ipnet::Ipv6Net;

use super::effect::ApplTable;
use super::queue::Produced;
use super::world::World;
use crate::observed::{AclState, ApplDb, PortState, Reboot, StateDb};
use crate::row::Fields;

fn state_ok(row: &Fields) -> bool {
    row.get("state").is_some_and(|state| state == "ok")
}

pub(super) fn state_db(world: &World, reboot: Option<Reboot>) -> StateDb {
    let names = |table| world.state.table(table).map(|(key, _)| key.to_owned()).collect();
    let mut observed = StateDb {
        vrf_table: names("VRF_TABLE"),
        vrf_object_table: names("VRF_OBJECT_TABLE"),
        reboot,
        ..StateDb::default()
    };
    for (key, row) in world.state.table("INTERFACE_TABLE") {
        match key.split_once('|') {
            None => {
                if let Ok(port) = key.parse() {
                    let vrf = row.get("vrf").cloned().unwrap_or_default();
                    observed.interface_table.insert(port, vrf);
                }
            }
            Some((port, prefix)) => {
                if let (Ok(port), Ok(prefix)) = (port.parse(), prefix.parse::<Ipv6Net>()) {
                    observed.interface_prefixes.insert((port, prefix));
                }
            }
        }
    }
    for (table, field) in [("PORT_TABLE", "netdev_oper_status"), ("LAG_TABLE", "oper_status")] {
        for (key, row) in world.state.table(table) {
            let oper_up = row.get(field).is_some_and(|status| status == "up");
            if let Ok(port) = key.parse() {
                observed.port_table.insert(port, PortState { state_ok: state_ok(row), oper_up });
            }
        }
    }
    observed.acl = acl(world);
    observed.vlan_members = world
        .state
        .table("VLAN_MEMBER_TABLE")
        .filter_map(|(key, _)| key.split_once('|')?.1.parse().ok())
        .collect();
    observed
}

/// aclorch, which the model does not have, with an ASIC that has room for everything.
fn acl(world: &World) -> AclState {
    let active = |table: &str| -> BTreeMap<String, String> {
        world.config.table(table).map(|(key, _)| (key.to_owned(), "Active".to_owned())).collect()
    };
    let (tables, rules) = (active("ACL_TABLE"), active("ACL_RULE"));
    AclState { told: !tables.is_empty(), tables, rules }
}

pub(super) fn appl_db(world: &World) -> ApplDb {
    let name = ApplTable::Intf.name();
    let waiting = world.produced.get(&ApplTable::Intf);
    ApplDb {
        intf_table: world.appl.table(name).filter_map(|(key, _)| key.parse().ok()).collect(),
        intf_key_set: waiting.into_iter().flat_map(Produced::keys).filter_map(|k| k.parse().ok()).collect(),
        port_init_done: world.port_init_done,
    }
}

//! The role `isolate`: ACL rows around boot ports, there before a port is bound and gone after it left.

use std::collections::BTreeMap;

use ipnet::Ipv6Net;

use super::binding::{Assessment, Progress};
use super::view::View;
use super::wanted::WantedSet;
use crate::action::Action;
use crate::desired::Partition;
use crate::isolate::{AclTable, acl_table, acl_table_vrf};
use crate::name::{PortKind, PortName};
use crate::ownership::OwnedAcl;
use crate::row::Fields;
use crate::status::Waiting;

pub(super) fn plan(
    view: &View<'_>,
    wanted: &WantedSet<'_>,
    assessments: &BTreeMap<PortName, Assessment>,
    actions: &mut Vec<Action>,
    waiting: &mut Vec<Waiting>,
) {
    let tables: BTreeMap<String, AclTable> = wanted
        .partitions
        .values()
        .filter(|partition| partition.isolate)
        .map(|partition| table(view, wanted, partition, assessments))
        .filter(|table| !table.row["ports@"].is_empty())
        .map(|table| (table.name.clone(), table))
        .collect();
    for table in tables.values() {
        let row = || table.row.iter().map(|(field, value)| (field.as_str(), value.as_str()));
        set(view, "ACL_TABLE", table.name.clone(), row, actions, waiting);
        for (rule, row) in &table.rules {
            let row = || row.iter().map(|(field, value)| (*field, value.as_ref()));
            set(view, "ACL_RULE", format!("{}|{rule}", table.name), row, actions, waiting);
        }
    }
    let wanted_rule = |key: &str| {
        let (table, rule) = key.split_once('|')?;
        tables.get(table)?.rules.get(rule)
    };
    let rules = view.config.table("ACL_RULE").filter(|(key, _)| wanted_rule(key).is_none());
    let rows = view.config.table("ACL_TABLE").filter(|(key, _)| !tables.contains_key(*key));
    let stale = rules.map(|(key, _)| ("ACL_RULE", key)).chain(rows.map(|(key, _)| ("ACL_TABLE", key)));
    for (table, key) in stale {
        let name = key.split('|').next().unwrap_or(key);
        if let (Some(owned), false) = (OwnedAcl::new(table, key), in_use(view, wanted, &tables, name)) {
            actions.push(Action::DeleteAcl(owned));
        }
    }
}

/// The wanted table of a partition: its ports that are in the VRF, or about to be bound.
fn table(
    view: &View<'_>,
    wanted: &WantedSet<'_>,
    partition: &Partition,
    assessments: &BTreeMap<PortName, Assessment>,
) -> AclTable {
    let in_vrf = |name: &PortName| {
        let binding = assessments
            .get(name)
            .is_some_and(|assessment| matches!(assessment.progress, Progress::Binding | Progress::Addressed));
        binding || view.interface(name).row_vrf == Some(partition.vrf.as_str())
    };
    let configured = wanted.interfaces.iter().filter(|(_, wanted)| wanted.partition.id == partition.id);
    let mut ports: BTreeMap<PortName, Ipv6Net> = configured
        .filter_map(|(name, wanted)| Some((name.clone(), wanted.port?.prefix)))
        .filter(|(name, _)| in_vrf(name))
        .collect();
    // A port that leaves, or is held, stays fenced in until it is out.
    for (name, entry) in &view.ledger.ports {
        let known = entry.vrf != partition.vrf || ports.contains_key(name);
        if known || name.kind() == PortKind::Loopback || !in_vrf(name) {
            continue;
        }
        if let Some(address) = entry.addresses.first() {
            ports.insert(name.clone(), address.trunc());
        }
    }
    acl_table(partition, &ports, view.desired.global.proxy_port)
}

fn set<'a, R: Iterator<Item = (&'a str, &'a str)>>(
    view: &View<'_>,
    table: &'static str,
    key: String,
    row: impl Fn() -> R,
    actions: &mut Vec<Action>,
    waiting: &mut Vec<Waiting>,
) {
    // Fields that others added stay, and say nothing about ours.
    let same = |present: &Fields| {
        row().all(|(field, value)| present.get(field).is_some_and(|present| present == value))
    };
    let differs = !view.config.row(table, &key).is_some_and(same);
    if !differs {
        return;
    }
    let on = format!("the next try to write {table}|{key}");
    let action = Action::SetAcl {
        table,
        key,
        row: row().map(|(field, value)| (field.to_owned(), value.to_owned())).collect(),
    };
    let object = action.object();
    if view.free(&object) {
        actions.push(action);
    } else {
        waiting.push(Waiting { object, port: None, on });
    }
}

/// A table that is not wanted as such still fences ports in: those of a removed partition on their way out,
/// and those of a partition whose row is broken.
fn in_use(view: &View<'_>, wanted: &WantedSet<'_>, tables: &BTreeMap<String, AclTable>, name: &str) -> bool {
    let Some(vrf) = acl_table_vrf(name) else { return false };
    let switched_off = wanted.partitions.values().any(|partition| partition.vrf == vrf && !partition.isolate);
    let leaving = !view.rows_in_vrf(vrf.as_str()).is_empty();
    !tables.contains_key(name) && !switched_off && (wanted.vrfs_held || leaving)
}

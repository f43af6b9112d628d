//! The role `isolate`: ACL rows around boot ports, there before a port is bound and gone after it left.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv6Net;

use super::binding::{Assessment, Progress};
use super::view::View;
use super::wanted::WantedSet;
use crate::action::Action;
use crate::desired::{Partition, quoted};
use crate::isolate::{
    ACL_TABLE_IPV4, ACL_TABLE_PREFIX, AclTable, acl_table, acl_table_ipv4, acl_table_name, acl_table_vrf,
};
use crate::map::IntoMap;
use crate::name::{PartitionId, PortKind, PortName, VrfName};
use crate::observed::AclState;
use crate::ownership::OwnedAcl;
use crate::row::{Fields, leaf_list};
use crate::status::{Conflict, IsolationStatus, Waiting};

/// What the plan found about isolation.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    pub(super) status: BTreeMap<PartitionId, IsolationStatus>,
    /// VRFs whose rows cannot be written now: no port may enter.
    pub(super) unfenced: BTreeSet<VrfName>,
}

pub(super) fn plan(
    view: &View<'_>,
    wanted: &WantedSet<'_>,
    assessments: &BTreeMap<PortName, Assessment>,
    actions: &mut Vec<Action>,
    waiting: &mut Vec<Waiting>,
    conflicts: &mut Vec<Conflict>,
) -> Isolation {
    let mut tables: BTreeMap<String, AclTable> = wanted
        .partitions
        .values()
        .filter(|partition| partition.isolate)
        .map(|partition| table(view, wanted, partition, assessments))
        .filter(|table| !table.row["ports@"].is_empty())
        .map(|table| (table.name.clone(), table))
        .into_map();
    let staying = staying(view, wanted, &tables);
    let fenced = tables.values().flat_map(|table| bound(&table.row)).filter_map(|port| port.parse().ok());
    let ipv4 = acl_table_ipv4(&fenced.chain(staying.values().flatten().cloned()).collect());
    if !ipv4.row["ports@"].is_empty() {
        tables.insert(ipv4.name.clone(), ipv4);
    }
    conflicts.extend(foreign(view, &tables));
    let mut late: BTreeSet<&str> = BTreeSet::new();
    for table in tables.values() {
        let row = || table.row.iter().map(|(field, value)| (field.as_str(), value.as_str()));
        let mut there = set(view, "ACL_TABLE", table.name.clone(), row, actions, waiting);
        for (rule, row) in &table.rules {
            let row = || row.iter().map(|(field, value)| (*field, value.as_ref()));
            there &= set(view, "ACL_RULE", format!("{}|{rule}", table.name), row, actions, waiting);
        }
        if !there {
            late.insert(&table.name);
        }
    }
    let vrfs = tables.keys().filter_map(|name| Some((name, acl_table_vrf(name)?)));
    let unfenced = vrfs
        .filter(|(name, _)| late.contains(name.as_str()) || late.contains(ACL_TABLE_IPV4))
        .map(|(_, vrf)| vrf)
        .collect();
    for (name, ports) in &staying {
        let ports: Vec<&str> = ports.iter().map(PortName::as_str).collect();
        let row = || std::iter::once(("ports@", ports.join(",")));
        set(view, "ACL_TABLE", (*name).to_owned(), row, actions, waiting);
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
        if let (Some(owned), false) = (OwnedAcl::new(table, key), staying.contains_key(name)) {
            actions.push(Action::DeleteAcl(owned));
        }
    }
    let partitions = wanted.partitions.iter();
    let of = |partition: &Partition| isolation(view, partition, &tables);
    let status: BTreeMap<PartitionId, IsolationStatus> =
        partitions.map(|(id, partition)| ((*id).clone(), of(partition))).into_map();
    for partition in wanted.partitions.values() {
        if let (Some(IsolationStatus::Pending(on)), true) =
            (status.get(&partition.id), tables.contains_key(&acl_table_name(&partition.vrf)))
        {
            let object = format!("ACL_TABLE|{}", acl_table_name(&partition.vrf));
            waiting.push(Waiting { object, port: None, on: on.clone() });
        }
    }
    Isolation { status, unfenced }
}

/// Names of the ports that a table is bound to.
fn bound(row: &Fields) -> impl Iterator<Item = &str> {
    row.get("ports@").into_iter().flat_map(|ports| leaf_list(ports))
}

/// Tables of somebody else on our ports. The ASIC looks up all of them, and how it settles differing answers
/// is its own business: one that drops takes machines off, one that forwards may let them out.
fn foreign(view: &View<'_>, tables: &BTreeMap<String, AclTable>) -> Vec<Conflict> {
    let ours: BTreeSet<&str> = tables.values().flat_map(|table| bound(&table.row)).collect();
    let filters = |row: &Fields| {
        let is = |field: &str, wanted: &[&str]| {
            row.get(field).is_some_and(|value| wanted.iter().any(|word| value.eq_ignore_ascii_case(word)))
        };
        is("type", &["L3", "L3V6", "L3V4V6"]) && !is("stage", &["egress"])
    };
    let others = view.config.table("ACL_TABLE").filter(|(name, _)| !name.starts_with(ACL_TABLE_PREFIX));
    let conflict = |(name, row): (&str, &Fields)| {
        let shared: Vec<&str> = bound(row).filter(|port| ours.contains(port)).collect();
        let (first, more) = shared.split_first()?;
        let more =
            if more.is_empty() { String::new() } else { format!(" and {} more boot ports", more.len()) };
        let reason = format!(
            "is bound to {first}{more} at ingress, as the agent's own: the ASIC decides which of both counts"
        );
        Some(Conflict { object: format!("ACL_TABLE|{name}"), port: None, reason })
    };
    others.filter(|(_, row)| filters(row)).filter_map(conflict).collect()
}

/// Whether a partition's machines are fenced in, by what orchagent says.
fn isolation(view: &View<'_>, partition: &Partition, tables: &BTreeMap<String, AclTable>) -> IsolationStatus {
    if !partition.isolate {
        return IsolationStatus::Off;
    }
    let Some(own) = tables.get(&acl_table_name(&partition.vrf)) else {
        return IsolationStatus::Pending("a port in the boot VRF".to_owned());
    };
    let AclState { told, tables: told_tables, rules: told_rules } = &view.state.acl;
    for table in [Some(own), tables.get(ACL_TABLE_IPV4)].into_iter().flatten() {
        let rules = table.rules.keys().map(|rule| ("ACL_RULE", format!("{}|{rule}", table.name)));
        for (kind, key) in std::iter::once(("ACL_TABLE", table.name.clone())).chain(rules) {
            if view.config.row(kind, &key).is_none() {
                return IsolationStatus::Pending(format!("CONFIG_DB {kind}|{key}"));
            }
            let status = if kind == "ACL_TABLE" { told_tables.get(&key) } else { told_rules.get(&key) };
            if *told && status.is_none_or(|status| status != "Active") {
                let says = status.map_or(String::new(), |status| format!(" (now {:?})", quoted(status)));
                let on = format!("orchagent: STATE_DB {kind}_TABLE|{key} status Active{says}");
                return IsolationStatus::Pending(on);
            }
        }
    }
    if *told {
        IsolationStatus::Active
    } else {
        let why = "this release of SONiC does not tell what became of ACLs (STATE_DB ACL_TABLE_TABLE)";
        IsolationStatus::Unknown(why.to_owned())
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
        .into_map();
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

/// Whether the row is there, or about to be written.
fn set<'a, T: AsRef<str>, R: Iterator<Item = (&'a str, T)>>(
    view: &View<'_>,
    table: &'static str,
    key: String,
    row: impl Fn() -> R,
    actions: &mut Vec<Action>,
    waiting: &mut Vec<Waiting>,
) -> bool {
    // Fields that others added stay, and say nothing about ours.
    let same = |present: &Fields| {
        row().all(|(field, value)| present.get(field).is_some_and(|present| present == value.as_ref()))
    };
    let differs = !view.config.row(table, &key).is_some_and(same);
    if !differs {
        return true;
    }
    let on = format!("the next try to write {table}|{key}");
    let action = Action::SetAcl {
        table,
        key,
        row: row().map(|(field, value)| (field.to_owned(), value.as_ref().to_owned())).into_map(),
    };
    let object = action.object();
    let free = view.free(&object);
    if free {
        actions.push(action);
    } else {
        waiting.push(Waiting { object, port: None, on });
    }
    free
}

/// Tables that are not wanted as such and still fence ports in, with those ports: of a removed partition whose
/// ports are on their way out, or of one whose row is broken. A port that has left is somebody else's.
fn staying<'a>(
    view: &View<'a>,
    wanted: &WantedSet<'_>,
    tables: &BTreeMap<String, AclTable>,
) -> BTreeMap<&'a str, Vec<PortName>> {
    let off = |vrf: &VrfName| wanted.partitions.values().any(|of| of.vrf == *vrf && !of.isolate);
    let ports = |(name, row): (&'a str, &Fields)| {
        let vrf = acl_table_vrf(name).filter(|vrf| !off(vrf) && !tables.contains_key(name))?;
        let inside = |port: &PortName| view.interface(port).row_vrf == Some(vrf.as_str());
        let ports: Vec<PortName> = bound(row).filter_map(|port| port.parse().ok()).filter(inside).collect();
        (!ports.is_empty()).then_some((name, ports))
    };
    view.config.table("ACL_TABLE").filter_map(ports).into_map()
}

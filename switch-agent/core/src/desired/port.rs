//! `BOOT_NETWORK_PORT`, joined with SONiC's own rows about the port.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::Ipv6Net;

use super::dhcp6::with_router_variables;
use super::fields::{Reader, Rule, number, row_name};
use super::global::admin_status;
use super::profile::{BootOnce, Profile, Profiles, boot_once, known_profile};
use super::router::{self, RouterVariables, router_variables};
use super::{Findings, in_use, partition};
use crate::desired::{DesiredPort, Partition, Rejected};
use crate::name::{PartitionId, PortKind, PortName, port_prefix};
use crate::row::{ConfigDb, Fields};

const TABLE: &str = "BOOT_NETWORK_PORT";
/// Its own; the router variables come on top.
pub(super) const FIELDS: [&str; 5] =
    ["partition", "prefix_offset", "admin_status", "boot_profile", "boot_profile_once"];

/// Reads the ports. Where two have the same /64, the one that is in use stays; else the earlier one in
/// natural order.
pub(super) fn ports(
    config: &ConfigDb,
    partitions: &BTreeMap<PartitionId, Partition>,
    profiles: &Profiles,
    findings: &mut Findings,
) -> BTreeMap<PortName, DesiredPort> {
    let mut rows: BTreeMap<PortName, &Fields> = BTreeMap::new();
    for (key, fields) in config.table(TABLE) {
        let routed = key.parse().ok().filter(|name: &PortName| name.kind() != PortKind::Loopback);
        let Some(name) = routed else {
            let rule = "the key must be a port name (Ethernet<n> or PortChannel<n>, at most 15 bytes)";
            findings.rejected.push(Rejected::of_row(&row_name(TABLE, key), rule));
            continue;
        };
        rows.insert(name, fields);
    }
    let mut candidates = Vec::new();
    for (name, fields) in rows {
        let mut reader = Reader::new(row_name(TABLE, name.as_str()), fields, &[&FIELDS, &router::FIELDS]);
        let port = read(&mut reader, &name, config, partitions, profiles);
        let vrf = port.as_ref().and_then(|port| Some(&partitions.get(&port.partition)?.vrf));
        let in_use = port.as_ref().zip(vrf).is_some_and(|(port, vrf)| in_use::port(config, port, vrf));
        candidates.push((!in_use, name, reader, port));
    }
    candidates.sort_by_key(|(idle, ..)| *idle);
    let mut ports = BTreeMap::new();
    let mut holders: BTreeMap<Ipv6Net, PortName> = BTreeMap::new();
    for (_, name, mut reader, port) in candidates {
        if let Some((prefix, holder)) = port.as_ref().and_then(|port| holders.get_key_value(&port.prefix)) {
            reader.reject("prefix_offset", format!("{prefix} is already the prefix of {holder}"));
        }
        let rejected = reader.finish();
        match port {
            Some(port) if rejected.is_empty() => {
                if let Some(own) = &port.own {
                    let row = row_name(TABLE, name.as_str());
                    let has = |field: &str| {
                        config.row(TABLE, name.as_str()).is_some_and(|row| row.contains_key(field))
                    };
                    findings.warnings.extend(router::warnings(&row, own, has));
                }
                holders.insert(port.prefix, name.clone());
                ports.insert(name, port);
            }
            _ => findings.rejected.extend(rejected),
        }
    }
    ports
}

fn read<'a>(
    reader: &mut Reader<'a>,
    name: &PortName,
    config: &'a ConfigDb,
    partitions: &BTreeMap<PartitionId, Partition>,
    profiles: &Profiles,
) -> Option<DesiredPort> {
    let port_row = sonic_row(reader, name, config);
    let partition = reader.required("partition", |value| known_partition(value, config, partitions));
    let explicit = reader.optional("prefix_offset", number(0..=u64::MAX));
    let admin_up = reader.or("admin_status", true, admin_status());
    let (port_row, partition) = (port_row?, partition?);
    let number = port_number(name);
    let index = match name.kind() {
        PortKind::PortChannel => Some(number),
        _ => port_row.get("index").and_then(|index| index.parse().ok()),
    };
    // Before the row inherits its partition's fields.
    let boot = own_boot(reader, config, profiles);
    let own = with_boot(own_settings(reader, config, partition), partition, boot);
    if reader.is_bad("prefix_offset") {
        return None;
    }
    let Some(offset) = explicit.or(index) else {
        reader.reject("prefix_offset", format!("is required where PORT|{name} has no index"));
        return None;
    };
    let prefix = port_prefix(partition.prefix, offset);
    if prefix.is_none() {
        let rule = offset_rule(name, partition.prefix, explicit.is_some(), offset);
        reader.reject("prefix_offset", rule);
    }
    Some(DesiredPort {
        name: name.clone(),
        partition: partition.id.clone(),
        prefix: prefix?,
        alias: port_row.get("alias").filter(|alias| !alias.is_empty()).map_or(name.as_str(), |a| a).into(),
        index: index.unwrap_or(number),
        admin_up,
        own: own.map(Arc::from),
    })
}

/// The profile that the port is pinned to, and the one for a single boot.
fn own_boot<'p>(
    reader: &mut Reader<'_>,
    config: &ConfigDb,
    profiles: &'p Profiles,
) -> (Option<&'p Profile>, Option<BootOnce>) {
    let pinned = reader.optional("boot_profile", |value| known_profile(value, config, profiles));
    let once = reader.optional("boot_profile_once", |value| boot_once(value, config, profiles));
    (pinned, once)
}

/// What the port sees of its partition, with the profiles of its own row.
fn with_boot(
    own: Option<Box<Partition>>,
    partition: &Partition,
    boot: (Option<&Profile>, Option<BootOnce>),
) -> Option<Box<Partition>> {
    let (pinned, once) = boot;
    if pinned.is_none() && once.is_none() {
        return own;
    }
    let mut own = own.unwrap_or_else(|| Box::new(partition.clone()));
    if let Some(profile) = pinned {
        profile.apply(&mut own);
    }
    own.boot_once = once.map(Box::new);
    Some(own)
}

/// The partition as the port sees it, where the row's router variables change anything. They are judged
/// together with those of the partition's row.
fn own_settings<'a>(
    reader: &mut Reader<'a>,
    config: &'a ConfigDb,
    partition: &Partition,
) -> Option<Box<Partition>> {
    if !router::FIELDS.iter().any(|field| reader.has(field)) {
        return None;
    }
    reader.inherit(config.row(partition::TABLE, partition.id.as_str())?);
    let router = router_variables(reader, partition.dhcp6.is_some());
    let dhcp6 = partition.dhcp6.as_ref().map(|options| with_router_variables(reader, options, &router));
    let RouterVariables { config: ra, prefix: adv_prefix } = router;
    (ra != partition.ra || adv_prefix != partition.adv_prefix)
        .then(|| Box::new(Partition { ra, adv_prefix, dhcp6, ..partition.clone() }))
}

/// SONiC's row of the port, if the port exists and faces outwards.
fn sonic_row<'a>(reader: &mut Reader<'_>, name: &PortName, config: &'a ConfigDb) -> Option<&'a Fields> {
    let table = if name.kind() == PortKind::PortChannel { "PORTCHANNEL" } else { "PORT" };
    let Some(row) = config.row(table, name.as_str()) else {
        reader.reject_row(format!("port does not exist: there is no {table}|{name}"));
        return None;
    };
    let role = row.get("role").map(String::as_str).unwrap_or_default();
    if !matches!(role, "" | "Ext") {
        let role = super::fields::quoted(role);
        reader.reject_row(format!("{table}|{name} has role {role}; only Ext ports can be boot ports"));
        return None;
    }
    Some(row)
}

fn known_partition<'a>(
    value: &str,
    config: &ConfigDb,
    partitions: &'a BTreeMap<PartitionId, Partition>,
) -> Result<&'a Partition, Rule> {
    let id: PartitionId = value.parse()?;
    partitions.get(&id).ok_or_else(|| match config.row(partition::TABLE, value) {
        Some(_) => format!("the row {}|{id} is rejected", partition::TABLE).into(),
        None => format!("partition {id} has no row in {}", partition::TABLE).into(),
    })
}

/// Why `offset` does not fit, and where it comes from.
fn offset_rule(name: &PortName, prefix: Ipv6Net, explicit: bool, offset: u64) -> String {
    let last = (1u128 << (64 - u32::from(prefix.prefix_len().min(64)))) - 1;
    let range = format!("/{} has {} /64s: 0..{last}", prefix.prefix_len(), last + 1);
    match (explicit, name.kind()) {
        (true, _) => range,
        (false, PortKind::PortChannel) => format!("defaults to {offset}, the number of {name}, but {range}"),
        (false, _) => format!("defaults to {offset}, the index of PORT|{name}, but {range}"),
    }
}

fn port_number(name: &PortName) -> u64 {
    let digits = name.as_str().trim_start_matches(|c: char| c.is_ascii_alphabetic());
    digits.parse().unwrap_or(u64::MAX)
}

/// The row that makes `port` a member of a VLAN or a port channel, and what it means: such a port cannot
/// be routed, and belongs to whoever made it a member.
pub fn membership(config: &ConfigDb, port: &PortName) -> Option<String> {
    let kinds = [
        ("VLAN_MEMBER", "the port is a VLAN member"),
        ("PORTCHANNEL_MEMBER", "the port is a port-channel member"),
    ];
    kinds.into_iter().find_map(|(table, meaning)| {
        let member = |key: &str| key.rsplit_once('|').is_some_and(|(_, member)| member == port.as_str());
        let (key, _) = config.table(table).find(|(key, _)| member(key))?;
        Some(format!("{}: {meaning}", row_name(table, key)))
    })
}

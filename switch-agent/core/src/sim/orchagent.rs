//! orchagent: virtual routers and router interfaces, with the references that hold them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::effect::{ApplTable, Daemon};
use super::queue::{Op, Outcome, Tasks};
use super::world::World;
use crate::row::{Fields, fields};

/// Fields of a VRF row that orchagent's request parser knows.
const VRF_FIELDS: [&str; 12] = [
    "NULL",
    "empty",
    "fallback",
    "in_band_mgmt_enabled",
    "ip_opt_action",
    "l3_mc_action",
    "mgmtVrfEnabled",
    "src_mac",
    "ttl_action",
    "v4",
    "v6",
    "vni",
];

/// A router interface: it stays in the VRF it was created in, whatever later rows say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rif {
    /// Empty for the default VRF.
    vrf: String,
    prefixes: BTreeSet<IpNet>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Orchagent {
    tasks: BTreeMap<ApplTable, Tasks>,
    vrfs: BTreeSet<String>,
    rifs: BTreeMap<String, Rif>,
    /// References from outside the model: routes that are left in a VRF.
    pub(super) held: BTreeMap<String, u32>,
}

impl Orchagent {
    pub(super) fn rif_vrf(&self, port: &str) -> Option<&str> {
        self.rifs.get(port).map(|rif| rif.vrf.as_str())
    }

    pub(super) fn rif_has_prefix(&self, port: &str, prefix: IpNet) -> bool {
        self.rifs.get(port).is_some_and(|rif| rif.prefixes.contains(&prefix))
    }

    pub(super) fn worth_retrying(&self, generation: u64) -> bool {
        self.tasks.values().any(|tasks| tasks.worth_retrying(generation))
    }

    pub(super) fn pop(&mut self, world: &mut World, table: ApplTable) {
        let tasks = self.tasks.entry(table).or_default();
        for popped in world.pop(table) {
            match popped.fields {
                Some(fields) => tasks.add(Op::Set, &popped.key, fields),
                None => tasks.add(Op::Del, &popped.key, Fields::new()),
            }
        }
        self.run(world, table);
    }

    pub(super) fn run(&mut self, world: &mut World, table: ApplTable) {
        let Some(mut tasks) = self.tasks.remove(&table) else {
            return;
        };
        let generation = world.generation;
        let result = tasks.run(generation, |op, key, row| match table {
            ApplTable::Vrf => self.vrf(world, op, key, row),
            ApplTable::Intf => self.intf(world, op, key, row),
        });
        self.tasks.insert(table, tasks);
        if let Err(log) = result {
            world.refused(Daemon::Orchagent, log);
        }
    }

    fn vrf(&mut self, world: &mut World, op: Op, name: &str, row: &Fields) -> Outcome {
        match op {
            Op::Set => {
                if let Some(unknown) = row.keys().find(|field| !VRF_FIELDS.contains(&field.as_str())) {
                    let log = format!("Unknown attribute name: {unknown}");
                    world.refused(Daemon::Orchagent, log);
                    return Outcome::Done;
                }
                self.vrfs.insert(name.to_owned());
                world.state_set("VRF_OBJECT_TABLE", name, fields([("state", "ok")]));
            }
            Op::Del => {
                let interfaces = self.rifs.values().any(|rif| rif.vrf == name);
                let routes = self.held.get(name).is_some_and(|count| *count > 0);
                if interfaces || routes {
                    return Outcome::Pending;
                }
                if self.vrfs.remove(name) {
                    world.generation += 1;
                    world.state_del("VRF_OBJECT_TABLE", name);
                }
            }
        }
        Outcome::Done
    }

    fn intf(&mut self, world: &mut World, op: Op, key: &str, row: &Fields) -> Outcome {
        if !world.port_init_done {
            return Outcome::Pending;
        }
        let outcome = match (op, key.split_once(':')) {
            (Op::Set, None) => self.rif_set(key, row),
            (Op::Del, None) => self.rif_del(key),
            (op, Some((alias, prefix))) => match prefix.parse::<IpNet>() {
                Ok(prefix) => self.prefix(op, alias, prefix),
                Err(_) => Outcome::Done,
            },
        };
        if outcome == Outcome::Done {
            world.generation += 1;
        }
        outcome
    }

    fn rif_set(&mut self, alias: &str, row: &Fields) -> Outcome {
        let vrf = row.get("vrf_name").map_or("", String::as_str);
        if !vrf.is_empty() && !self.vrfs.contains(vrf) {
            return Outcome::Pending;
        }
        self.rifs
            .entry(alias.to_owned())
            .or_insert_with(|| Rif { vrf: vrf.to_owned(), prefixes: BTreeSet::new() });
        Outcome::Done
    }

    fn rif_del(&mut self, alias: &str) -> Outcome {
        match self.rifs.get(alias) {
            Some(rif) if !rif.prefixes.is_empty() => Outcome::Pending,
            _ => {
                self.rifs.remove(alias);
                Outcome::Done
            }
        }
    }

    /// A prefix that overlaps one of another interface in the same VRF is never programmed.
    fn prefix(&mut self, op: Op, alias: &str, prefix: IpNet) -> Outcome {
        let Some(rif) = self.rifs.get(alias) else {
            return if op == Op::Set { Outcome::Pending } else { Outcome::Done };
        };
        if op == Op::Set {
            let vrf = &rif.vrf;
            let overlaps = |other: &IpNet| other.contains(&prefix) || prefix.contains(other);
            let taken = self.rifs.iter().any(|(name, other)| {
                name != alias && other.vrf == *vrf && other.prefixes.iter().any(overlaps)
            });
            if taken {
                return Outcome::Pending;
            }
        }
        if let Some(rif) = self.rifs.get_mut(alias) {
            match op {
                Op::Set => rif.prefixes.insert(prefix),
                Op::Del => rif.prefixes.remove(&prefix),
            };
        }
        Outcome::Done
    }
}

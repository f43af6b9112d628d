//! vrfmgrd: `VRF` rows to kernel devices.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::{ApplTable, Daemon};
use super::kernel::LinkKind;
use super::queue::{Op, Outcome, Tasks};
use super::world::World;
use crate::row::{Fields, fields};

/// Routing tables of VRFs, lowest free first.
const TABLE_FIRST: u32 = 1001;
const TABLE_LAST: u32 = 5096;
const MGMT_VRF: &str = "mgmt";

#[derive(Debug, Clone, Default)]
pub(super) struct Vrfmgrd {
    pub(super) tasks: Tasks,
    /// VRFs that this process made, whatever became of their devices.
    tables: BTreeMap<String, u32>,
    /// Table ids lost to failed attempts.
    burned: BTreeSet<u32>,
}

impl Vrfmgrd {
    /// A cold start deletes every VRF of the kernel except `mgmt`, its own or not; a warm one takes them
    /// over with their tables.
    pub(super) fn start(world: &mut World, warm: bool) -> Vrfmgrd {
        if warm {
            let links = world.kernel.links.iter();
            let tables = links.filter_map(|(name, link)| match link.kind {
                LinkKind::Vrf { table } if name != MGMT_VRF => Some((name.clone(), table)),
                _ => None,
            });
            return Vrfmgrd { tables: tables.collect(), ..Vrfmgrd::default() };
        }
        for name in world.kernel.vrfs() {
            if name != MGMT_VRF {
                world.vrf_del(&name);
            }
        }
        Vrfmgrd::default()
    }

    pub(super) fn run(&mut self, world: &mut World) -> Result<(), String> {
        let mut tasks = std::mem::take(&mut self.tasks);
        let generation = world.generation;
        let result = tasks.run(generation, |op, key, row| match op {
            Op::Set => self.set(world, key, row),
            Op::Del => self.del(world, key),
        });
        self.tasks = tasks;
        result
    }

    fn set(&mut self, world: &mut World, name: &str, row: &Fields) -> Outcome {
        if name != MGMT_VRF && !self.tables.contains_key(name) {
            let used: BTreeSet<u32> = self.tables.values().copied().collect();
            let free = (TABLE_FIRST..=TABLE_LAST)
                .find(|table| !used.contains(table) && !self.burned.contains(table));
            match free {
                None => world.refused(Daemon::Vrfmgrd, format!("Failed to create vrf netdev {name}")),
                Some(table) if world.vrf_add(name, table) => {
                    self.tables.insert(name.to_owned(), table);
                }
                Some(table) => {
                    self.burned.insert(table);
                    return Outcome::Thrown(format!("ip link add {name} type vrf table {table}"));
                }
            }
        }
        world.state_set("VRF_TABLE", name, fields([("state", "ok")]));
        world.produce(ApplTable::Vrf, Op::Set, name, row.clone());
        Outcome::Done
    }

    fn del(&mut self, world: &mut World, name: &str) -> Outcome {
        if world.state_has("VRF_TABLE", name) {
            if !world.state_has("VRF_OBJECT_TABLE", name) {
                return Outcome::Pending;
            }
            world.produce(ApplTable::Vrf, Op::Del, name, Fields::new());
            world.state_del("VRF_TABLE", name);
        }
        if world.state_has("VRF_OBJECT_TABLE", name) {
            return Outcome::Pending;
        }
        if self.tables.contains_key(name) {
            if !world.vrf_del(name) {
                return Outcome::Thrown(format!("ip link del {name}"));
            }
            self.tables.remove(name);
        }
        Outcome::Done
    }
}

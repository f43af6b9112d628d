//! intfmgrd: `INTERFACE`, `PORTCHANNEL_INTERFACE` and `LOOPBACK_INTERFACE` rows to bindings and addresses.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::effect::{ApplTable, Daemon, Effect};
use super::kernel::LinkKind;
use super::queue::{Op, Outcome, Tasks};
use super::world::World;
use crate::row::{Fields, fields};

#[derive(Debug, Clone, Default)]
pub(super) struct Intfmgrd {
    /// Rows and address rows of one table share a queue: they are worked off in the order of their keys,
    /// a base row before its addresses.
    pub(super) tasks: BTreeMap<&'static str, Tasks>,
    loopbacks: BTreeSet<String>,
}

fn is_loopback(name: &str) -> bool {
    name.starts_with("Loopback")
}

impl Intfmgrd {
    /// A cold start removes the loopback devices; they come back with their rows. A warm one keeps them.
    pub(super) fn start(world: &mut World, warm: bool) -> Intfmgrd {
        let dummies: Vec<String> = world
            .kernel
            .links
            .iter()
            .filter(|(name, link)| link.kind == LinkKind::Dummy && is_loopback(name))
            .map(|(name, _)| name.clone())
            .collect();
        if warm {
            return Intfmgrd { loopbacks: dummies.into_iter().collect(), ..Intfmgrd::default() };
        }
        for name in dummies {
            world.kernel.remove(&name);
            world.effect(Effect::DummyDel { name });
        }
        Intfmgrd::default()
    }

    pub(super) fn run(&mut self, world: &mut World, table: &'static str) -> Result<(), String> {
        let mut tasks = self.tasks.remove(table).unwrap_or_default();
        let generation = world.generation;
        let result = tasks.run(generation, |op, key, row| match key.split_once('|') {
            None => self.base_row(world, op, key, row),
            Some((alias, prefix)) => address_row(world, op, alias, prefix),
        });
        self.tasks.insert(table, tasks);
        result
    }

    fn base_row(&mut self, world: &mut World, op: Op, alias: &str, row: &Fields) -> Outcome {
        match op {
            Op::Set => self.set(world, alias, row),
            Op::Del => self.del(world, alias),
        }
    }

    fn set(&mut self, world: &mut World, alias: &str, row: &Fields) -> Outcome {
        let vrf = row.get("vrf_name").map_or("", String::as_str);
        if !is_usable(world, alias) || (!vrf.is_empty() && !is_usable(world, vrf)) {
            return Outcome::Pending;
        }
        let bound = world.state.row("INTERFACE_TABLE", alias).and_then(|row| row.get("vrf"));
        if bound.is_some_and(|bound| bound != vrf) {
            let log = format!("{alias} can not change to {vrf} directly, skipping");
            world.refused(Daemon::Intfmgrd, log);
            return Outcome::Done;
        }
        if is_loopback(alias) && self.loopbacks.insert(alias.to_owned()) {
            let link = world.kernel.add(alias, LinkKind::Dummy, None);
            link.mtu = 65536;
            world.effect(Effect::DummyAdd { name: alias.to_owned() });
        }
        if !vrf.is_empty() && !world.set_master(alias, vrf) {
            let log = format!("Command 'ip link set {alias} master {vrf}' failed");
            world.refused(Daemon::Intfmgrd, log);
        }
        let mut published = row.clone();
        if published.is_empty() {
            published.insert("NULL".to_owned(), "NULL".to_owned());
        }
        published.entry("mac_addr".to_owned()).or_insert_with(|| "00:00:00:00:00:00".to_owned());
        world.produce(ApplTable::Intf, Op::Set, alias, published);
        world.state_set("INTERFACE_TABLE", alias, fields([("vrf", vrf)]));
        Outcome::Done
    }

    fn del(&mut self, world: &mut World, alias: &str) -> Outcome {
        match world.kernel.links.get(alias) {
            Some(link) if link.holds_address() => return Outcome::Pending,
            Some(_) => world.no_master(alias),
            None => {
                let log = format!("Command 'ip link set {alias} nomaster' failed");
                world.refused(Daemon::Intfmgrd, log);
            }
        }
        if self.loopbacks.remove(alias) {
            world.kernel.remove(alias);
            world.effect(Effect::DummyDel { name: alias.to_owned() });
        }
        world.produce(ApplTable::Intf, Op::Del, alias, Fields::new());
        world.state_del("INTERFACE_TABLE", alias);
        Outcome::Done
    }
}

/// Whether a name that a row refers to exists, told by the start of the name. A VRF of any other name is
/// looked up as a port and never found.
fn is_usable(world: &World, name: &str) -> bool {
    if name.starts_with("Vrf") || name.starts_with("Vnet") || name.starts_with("mgmt") {
        world.state_has("VRF_TABLE", name)
    } else if is_loopback(name) {
        true
    } else if name.starts_with("PortChannel") {
        world.state_has("LAG_TABLE", name)
    } else {
        world.state.row("PORT_TABLE", name).is_some_and(|row| row.contains_key("state"))
    }
}

fn address_row(world: &mut World, op: Op, alias: &str, prefix: &str) -> Outcome {
    let Ok(address) = prefix.parse::<IpNet>() else {
        return Outcome::Thrown(format!("{prefix} is not a valid prefix"));
    };
    let appl_key = format!("{alias}:{prefix}");
    let state_key = format!("{alias}|{prefix}");
    match op {
        Op::Set => {
            if !is_usable(world, alias) || !world.state_has("INTERFACE_TABLE", alias) {
                return Outcome::Pending;
            }
            world.addr_add(alias, address);
            let (family, local) = match address {
                IpNet::V4(_) => ("IPv4", false),
                IpNet::V6(net) => ("IPv6", net.addr().is_unicast_link_local()),
            };
            let scope = if local { "local" } else { "global" };
            let row = fields([("family", family), ("scope", scope)]);
            world.produce(ApplTable::Intf, Op::Set, &appl_key, row);
            world.state_set("INTERFACE_TABLE", &state_key, fields([("state", "ok")]));
        }
        Op::Del => {
            world.addr_del(alias, address);
            world.produce(ApplTable::Intf, Op::Del, &appl_key, Fields::new());
            world.state_del("INTERFACE_TABLE", &state_key);
        }
    }
    Outcome::Done
}

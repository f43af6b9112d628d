//! What the daemons share: the databases, the kernel, and the record of what was done to them.

use std::collections::{BTreeMap, VecDeque};

use ipnet::IpNet;

use super::effect::{ApplTable, Daemon, Effect};
use super::kernel::{LinkKind, SimKernel};
use super::queue::{Op, Popped, Produced};
use crate::name::MacAddr;
use crate::row::{ConfigDb, Fields, fields};

/// A port as portsyncd is about to report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortReport {
    pub(super) admin_up: bool,
    pub(super) oper_up: bool,
    pub(super) mtu: u32,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) config: ConfigDb,
    pub(super) state: ConfigDb,
    /// Hashes of APPL_DB that orchagent's pops made.
    pub(super) appl: ConfigDb,
    pub(super) produced: BTreeMap<ApplTable, Produced>,
    pub(super) kernel: SimKernel,
    pub(super) port_reports: BTreeMap<String, VecDeque<PortReport>>,
    pub(super) port_init_done: bool,
    /// Whether the model owns ports and their flaps; otherwise a real kernel tells.
    pub(super) models_ports: bool,
    pub(super) base_mac: MacAddr,
    /// Grows with every change: a failed attempt is worth repeating only in a changed world.
    pub(super) generation: u64,
    pub(super) effects: Vec<Effect>,
}

impl World {
    pub(super) fn new(models_ports: bool) -> World {
        World {
            config: ConfigDb::default(),
            state: ConfigDb::default(),
            appl: ConfigDb::default(),
            produced: BTreeMap::new(),
            kernel: SimKernel::new(),
            port_reports: BTreeMap::new(),
            port_init_done: false,
            models_ports,
            base_mac: MacAddr([0x52, 0x54, 0x00, 0xff, 0x00, 0x01]),
            generation: 0,
            effects: Vec::new(),
        }
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.generation += 1;
        self.effects.push(effect);
    }

    /// A log line changes nothing: no daemon tries again because of it.
    pub(super) fn refused(&mut self, daemon: Daemon, log: String) {
        self.effects.push(Effect::Refused { daemon, log });
    }

    // STATE_DB

    pub(super) fn state_set(&mut self, table: &'static str, key: &str, row: Fields) {
        let mut merged = self.state.row(table, key).cloned().unwrap_or_default();
        merged.extend(row.clone());
        self.state.insert(table, key, merged);
        self.effect(Effect::StateSet { table, key: key.to_owned(), fields: row });
    }

    pub(super) fn state_del(&mut self, table: &'static str, key: &str) {
        if self.state.remove(table, key).is_some() {
            self.effect(Effect::StateDel { table, key: key.to_owned() });
        }
    }

    pub(super) fn state_has(&self, table: &str, key: &str) -> bool {
        self.state.row(table, key).is_some()
    }

    // APPL_DB

    pub(super) fn produce(&mut self, table: ApplTable, op: Op, key: &str, mut row: Fields) {
        if row.is_empty() {
            row = fields([("NULL", "NULL")]);
        }
        let produced = self.produced.entry(table).or_default();
        let new = match op {
            Op::Set => produced.set(key, row),
            Op::Del => produced.del(key),
        };
        self.generation += 1;
        if new {
            self.effect(Effect::KeySetAdd { table: table.name(), key: key.to_owned() });
        }
    }

    /// Empties one queue towards orchagent, as its Lua script does, and makes the hashes visible.
    pub(super) fn pop(&mut self, table: ApplTable) -> Vec<Popped> {
        let popped = self.produced.get_mut(&table).map(Produced::pop).unwrap_or_default();
        let name = table.name();
        for Popped { key, clear, fields } in &popped {
            self.effect(Effect::KeySetDel { table: name, key: key.clone() });
            if *clear && self.appl.remove(name, key).is_some() {
                self.effect(Effect::ApplDel { table: name, key: key.clone() });
            }
            if let Some(row) = fields {
                let mut merged = self.appl.row(name, key).cloned().unwrap_or_default();
                merged.extend(row.clone());
                self.appl.insert(name, key, merged);
                self.effect(Effect::ApplSet { table: name, key: key.clone(), fields: row.clone() });
            }
        }
        popped
    }

    // Kernel

    pub(super) fn vrf_add(&mut self, name: &str, table: u32) -> bool {
        if !super::kernel::is_link_name(name) || self.kernel.links.contains_key(name) {
            return false;
        }
        let link = self.kernel.add(name, LinkKind::Vrf { table }, None);
        link.mtu = 65575;
        self.effect(Effect::VrfAdd { name: name.to_owned(), table });
        true
    }

    pub(super) fn vrf_del(&mut self, name: &str) -> bool {
        if !self.kernel.is_vrf(name) {
            return false;
        }
        let members: Vec<String> = self
            .kernel
            .links
            .iter()
            .filter(|(_, link)| link.master.as_deref() == Some(name))
            .map(|(port, _)| port.clone())
            .collect();
        self.kernel.remove(name);
        self.effect(Effect::VrfDel { name: name.to_owned() });
        for port in members {
            self.flap(&port);
        }
        true
    }

    /// `ip link set <port> master <master>`; fails without either device, and is nothing where the port
    /// already has that master.
    pub(super) fn set_master(&mut self, port: &str, master: &str) -> bool {
        if !self.kernel.links.contains_key(master) {
            return false;
        }
        let Some(link) = self.kernel.links.get_mut(port) else {
            return false;
        };
        if link.master.as_deref() == Some(master) {
            return true;
        }
        link.master = Some(master.to_owned());
        link.regenerate_link_local();
        self.effect(Effect::SetMaster { port: port.to_owned(), master: master.to_owned() });
        self.flap(port);
        true
    }

    pub(super) fn no_master(&mut self, port: &str) {
        let Some(link) = self.kernel.links.get_mut(port) else {
            return;
        };
        if link.master.take().is_some() {
            link.regenerate_link_local();
            self.effect(Effect::NoMaster { port: port.to_owned() });
            self.flap(port);
        }
    }

    pub(super) fn addr_add(&mut self, port: &str, address: IpNet) {
        let Some(link) = self.kernel.links.get_mut(port) else {
            return;
        };
        if link.addresses.insert(address) {
            self.effect(Effect::AddrAdd { port: port.to_owned(), address });
        }
    }

    pub(super) fn addr_del(&mut self, port: &str, address: IpNet) {
        let Some(link) = self.kernel.links.get_mut(port) else {
            return;
        };
        if link.addresses.remove(&address) {
            self.effect(Effect::AddrDel { port: port.to_owned(), address });
        }
    }

    /// The kernel cycles an up netdev on enslave and release; portsyncd reports down, then up.
    fn flap(&mut self, port: &str) {
        let Some(link) = self.kernel.links.get(port) else {
            return;
        };
        if self.models_ports && link.kind == LinkKind::Port && link.admin_up {
            let up = PortReport { admin_up: true, oper_up: link.carrier, mtu: link.mtu };
            let down = PortReport { admin_up: false, oper_up: false, ..up };
            self.port_reports.entry(port.to_owned()).or_default().extend([down, up]);
        }
    }

    /// Queues a report of the port as it is now.
    pub(super) fn report_port(&mut self, port: &str) {
        let Some(link) = self.kernel.links.get(port) else {
            return;
        };
        let report =
            PortReport { admin_up: link.admin_up, oper_up: link.admin_up && link.carrier, mtu: link.mtu };
        self.port_reports.entry(port.to_owned()).or_default().push_back(report);
    }
}

//! SimSwitch: a model of vrfmgrd, intfmgrd and orchagent as observed.
//!
//! Every daemon is a process of its own that reads notifications when it gets to it, so the model is a
//! set of steps that can happen next ([`SimSwitch::runnable`]) and a function that lets one of them
//! happen ([`SimSwitch::step`]). A test chooses the order, the lab's stand-in carries the effects out for
//! real. Nothing happens by itself: without steps the switch stands still.
//!
//! A daemon's retry of pending work is runnable only after something changed since its last attempt, so
//! a switch that has come to rest has no runnable step.

mod config;
mod effect;
mod faults;
mod intfmgrd;
mod kernel;
mod observe;
mod orchagent;
mod portsyncd;
mod queue;
#[cfg(test)]
mod tests;
mod vrfmgrd;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

pub use config::ConfigWrite;
pub use effect::{ApplTable, Batch, Daemon, Effect, Step};
pub use faults::STATE_TABLES_FLUSHED;
pub use kernel::{LinkKind, SimLink};

use crate::name::{PortKind, PortName};
use crate::observed::{ApplDb, Kernel, Reboot, StateDb};
use crate::row::{ConfigDb, Fields, fields};
use intfmgrd::Intfmgrd;
use orchagent::Orchagent;
use portsyncd::Vlanmgrd;
use queue::{Notification, Op, Subscription};
use vrfmgrd::Vrfmgrd;
use world::World;

/// The switch. Clones are independent, so a test can try several futures of one state.
#[derive(Debug, Clone)]
pub struct SimSwitch {
    world: World,
    running: BTreeSet<Daemon>,
    /// Daemons that exited by themselves: only a restart of swss brings them back.
    exited: BTreeSet<Daemon>,
    subscriptions: BTreeMap<(Daemon, &'static str), Subscription>,
    vrfmgrd: Vrfmgrd,
    intfmgrd: Intfmgrd,
    vlanmgrd: Vlanmgrd,
    orchagent: Orchagent,
    transaction: u64,
    /// vrfmgrd exits when `ip link` fails (releases up to 202511); later ones log and retry for ever,
    /// and never come to the rows behind the bad one.
    vrfmgrd_exits: bool,
    reboot: Option<Reboot>,
    /// Daemons that start keep what they find in the kernel.
    warm: bool,
}

impl SimSwitch {
    /// A booted switch with these ports, all with carrier, and no VRF or interface row. `Ethernet*`
    /// names become `PORT` rows (`index` counts from 1), `PortChannel*` names `PORTCHANNEL` rows.
    pub fn new(ports: &[PortName]) -> SimSwitch {
        let mut switch = SimSwitch::with_world(World::new(true));
        let metadata = fields([("hostname", "leaf01"), ("mac", "52:54:00:ff:00:01")]);
        switch.config_set("DEVICE_METADATA", "localhost", metadata);
        for (number, port) in ports.iter().enumerate() {
            let index = (number + 1).to_string();
            let alias = format!("Eth1/{index}");
            match port.kind() {
                PortKind::Ethernet => {
                    let row = [
                        ("admin_status", "up"),
                        ("alias", alias.as_str()),
                        ("index", &index),
                        ("mtu", "9100"),
                    ];
                    switch.config_set("PORT", port.as_str(), fields(row));
                }
                PortKind::PortChannel => {
                    switch.config_set("PORTCHANNEL", port.as_str(), fields([("admin_status", "up")]));
                }
                PortKind::Loopback => {}
            }
        }
        // Each port takes two steps, each daemon one.
        switch.settle(2 * ports.len() + Daemon::ALL.len());
        switch
    }

    /// A model whose ports, carriers and addresses are told by a real kernel ([`SimSwitch::sync_link`]);
    /// no daemon has started and CONFIG_DB is empty.
    pub fn for_real_kernel() -> SimSwitch {
        SimSwitch::with_world(World::new(false))
    }

    fn with_world(world: World) -> SimSwitch {
        SimSwitch {
            world,
            running: BTreeSet::new(),
            exited: BTreeSet::new(),
            subscriptions: BTreeMap::new(),
            vrfmgrd: Vrfmgrd::default(),
            intfmgrd: Intfmgrd::default(),
            vlanmgrd: Vlanmgrd::default(),
            orchagent: Orchagent::default(),
            transaction: 0,
            vrfmgrd_exits: true,
            reboot: None,
            warm: false,
        }
    }

    /// Lets vrfmgrd survive a failing `ip link`, as releases after 202511 do.
    pub fn with_surviving_vrfmgrd(mut self) -> SimSwitch {
        self.vrfmgrd_exits = false;
        self
    }

    // Steps

    /// Everything that can happen next, in a fixed order: what a quick switch does first comes first.
    pub fn runnable(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for daemon in Daemon::ALL {
            if !self.running.contains(&daemon) && !self.exited.contains(&daemon) {
                steps.push(Step::Start(daemon));
            }
        }
        self.port_steps(&mut steps);
        for ((daemon, table), subscription) in &self.subscriptions {
            if subscription.is_empty() || !self.running.contains(daemon) {
                continue;
            }
            steps.push(Step::Deliver { daemon: *daemon, table, batch: Batch::All });
            if subscription.spans_transactions() {
                steps.push(Step::Deliver { daemon: *daemon, table, batch: Batch::First });
            }
        }
        for table in ApplTable::ALL {
            let waiting = self.world.produced.get(&table).is_some_and(|queue| !queue.is_empty());
            if waiting && self.running.contains(&Daemon::Orchagent) {
                steps.push(Step::Pop(table));
            }
        }
        let retries = Daemon::ALL.into_iter().filter(|daemon| self.worth_retrying(*daemon));
        steps.extend(retries.map(Step::Retry));
        steps
    }

    fn port_steps(&self, steps: &mut Vec<Step>) {
        let world = &self.world;
        if world.models_ports && self.running.contains(&Daemon::Orchagent) {
            let configured = ["PORT", "PORTCHANNEL"].into_iter().flat_map(|table| world.config.table(table));
            let missing = configured.filter(|(port, _)| !world.kernel.links.contains_key(*port));
            steps.extend(missing.map(|(port, _)| Step::CreatePort(port.to_owned())));
            let surplus = world.kernel.links.iter().filter(|(name, link)| {
                link.kind == LinkKind::Port && portsyncd::state_table(world, name).is_none()
            });
            steps.extend(surplus.map(|(port, _)| Step::RemovePort(port.clone())));
        }
        if self.running.contains(&Daemon::Portsyncd) {
            steps.extend(world.port_reports.keys().map(|port| Step::SyncPort(port.clone())));
        }
    }

    fn worth_retrying(&self, daemon: Daemon) -> bool {
        let generation = self.world.generation;
        self.running.contains(&daemon)
            && match daemon {
                Daemon::Portsyncd => false,
                Daemon::Vlanmgrd => self.vlanmgrd.tasks.worth_retrying(generation),
                Daemon::Vrfmgrd => self.vrfmgrd.tasks.worth_retrying(generation),
                Daemon::Intfmgrd => {
                    self.intfmgrd.tasks.values().any(|tasks| tasks.worth_retrying(generation))
                }
                Daemon::Orchagent => self.orchagent.worth_retrying(generation),
            }
    }

    /// Lets one step happen. A step that is not runnable changes nothing.
    pub fn step(&mut self, step: &Step) -> Vec<Effect> {
        let world = &mut self.world;
        match step {
            Step::Start(daemon) => self.start(*daemon),
            Step::CreatePort(port) => {
                if !world.kernel.links.contains_key(port) && portsyncd::state_table(world, port).is_some() {
                    let mac = Some(world.base_mac);
                    world.kernel.add(port, LinkKind::Port, mac);
                    world.effect(Effect::PortAdd { port: port.clone() });
                    world.report_port(port);
                }
                portsyncd::check_init_done(world);
            }
            Step::RemovePort(port) => {
                if portsyncd::state_table(world, port).is_none() && world.kernel.remove(port).is_some() {
                    world.effect(Effect::PortDel { port: port.clone() });
                    world.port_reports.remove(port);
                    world.state_del("PORT_TABLE", port);
                    world.state_del("LAG_TABLE", port);
                }
            }
            Step::SyncPort(port) => {
                portsyncd::sync_port(world, port);
                if self.running.contains(&Daemon::Orchagent) {
                    portsyncd::check_init_done(world);
                }
            }
            Step::Deliver { daemon, table, batch } => self.deliver(*daemon, table, *batch),
            Step::Pop(table) => self.orchagent.pop(world, *table),
            Step::Retry(daemon) => self.retry(*daemon),
        }
        std::mem::take(&mut self.world.effects)
    }

    /// Takes the first runnable step until none is left, at most `max_steps` times. Whether the switch
    /// came to rest tells [`SimSwitch::is_idle`].
    pub fn settle(&mut self, max_steps: usize) -> Vec<Effect> {
        self.run(max_steps, |_| 0)
    }

    /// Takes up to `max_steps` runnable steps; `choose` picks an index below the count it is given
    /// (larger ones wrap around).
    pub fn run(&mut self, max_steps: usize, mut choose: impl FnMut(usize) -> usize) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..max_steps {
            let steps = self.runnable();
            if steps.is_empty() {
                break;
            }
            let index = choose(steps.len()) % steps.len();
            effects.extend(self.step(&steps[index]));
        }
        effects
    }

    pub fn is_idle(&self) -> bool {
        self.runnable().is_empty()
    }

    fn start(&mut self, daemon: Daemon) {
        self.exited.remove(&daemon);
        self.running.insert(daemon);
        let world = &mut self.world;
        match daemon {
            Daemon::Portsyncd => {
                let links: Vec<String> = world.kernel.links.keys().cloned().collect();
                for link in links {
                    if portsyncd::state_table(world, &link).is_some() {
                        world.report_port(&link);
                    }
                }
            }
            Daemon::Vlanmgrd => self.vlanmgrd = Vlanmgrd::start(world),
            Daemon::Vrfmgrd => self.vrfmgrd = Vrfmgrd::start(world, self.warm),
            Daemon::Intfmgrd => self.intfmgrd = Intfmgrd::start(world, self.warm),
            Daemon::Orchagent => portsyncd::check_init_done(world),
        }
        // A subscriber begins with the rows that are there.
        self.transaction += 1;
        for table in daemon.config_tables() {
            let subscription = Subscription::default();
            self.subscriptions.insert((daemon, table), subscription);
            let keys: Vec<String> = self.world.config.table(table).map(|(key, _)| key.to_owned()).collect();
            for key in keys {
                let notification = Notification { op: Op::Set, key, transaction: self.transaction };
                self.subscriptions.entry((daemon, table)).or_default().push(notification);
            }
        }
        self.world.generation += 1;
    }

    fn deliver(&mut self, daemon: Daemon, table: &'static str, batch: Batch) {
        let Some(subscription) = self.subscriptions.get_mut(&(daemon, table)) else {
            return;
        };
        let notifications = match batch {
            Batch::All => subscription.take_all(),
            Batch::First => subscription.take_first(),
        };
        let tasks = match daemon {
            Daemon::Vlanmgrd => &mut self.vlanmgrd.tasks,
            Daemon::Vrfmgrd => &mut self.vrfmgrd.tasks,
            Daemon::Intfmgrd => self.intfmgrd.tasks.entry(table).or_default(),
            Daemon::Portsyncd | Daemon::Orchagent => return,
        };
        for Notification { op, key, .. } in notifications {
            match (op, self.world.config.row(table, &key)) {
                (Op::Del, _) => tasks.add(Op::Del, &key, Fields::new()),
                (Op::Set, Some(row)) => tasks.add(Op::Set, &key, row.clone()),
                // The row is gone again; its DEL follows.
                (Op::Set, None) => {}
            }
        }
        self.work(daemon, table);
    }

    fn work(&mut self, daemon: Daemon, table: &'static str) {
        let world = &mut self.world;
        let result = match daemon {
            Daemon::Vlanmgrd => self.vlanmgrd.run(world),
            Daemon::Vrfmgrd => self.vrfmgrd.run(world),
            Daemon::Intfmgrd => self.intfmgrd.run(world, table),
            Daemon::Portsyncd | Daemon::Orchagent => Ok(()),
        };
        let Err(log) = result else { return };
        if daemon == Daemon::Vrfmgrd && !self.vrfmgrd_exits {
            self.world.refused(daemon, log);
            return;
        }
        self.world.effect(Effect::Exit { daemon, log });
        self.running.remove(&daemon);
        self.exited.insert(daemon);
    }

    fn retry(&mut self, daemon: Daemon) {
        if daemon == Daemon::Orchagent {
            for table in ApplTable::ALL {
                self.orchagent.run(&mut self.world, table);
            }
            return;
        }
        for table in daemon.config_tables() {
            if self.running.contains(&daemon) {
                self.work(daemon, table);
            }
        }
    }

    // Observation

    /// STATE_DB, APPL_DB and the kernel, as the agent reads them.
    pub fn observe(&self) -> (StateDb, ApplDb, Kernel) {
        (
            observe::state_db(&self.world, self.reboot),
            observe::appl_db(&self.world),
            self.world.kernel.observe(),
        )
    }

    /// Raw rows of STATE_DB.
    pub fn state(&self) -> &ConfigDb {
        &self.world.state
    }

    /// Raw hashes of APPL_DB (`VRF_TABLE`, `INTF_TABLE`) that orchagent has taken.
    pub fn appl(&self) -> &ConfigDb {
        &self.world.appl
    }

    pub fn links(&self) -> impl Iterator<Item = (&str, &SimLink)> {
        self.world.kernel.links.iter().map(|(name, link)| (name.as_str(), link))
    }

    pub fn link(&self, name: &str) -> Option<&SimLink> {
        self.world.kernel.links.get(name)
    }

    /// VRF that the port's router interface is in, in the ASIC; empty for the default VRF.
    pub fn rif_vrf(&self, port: &str) -> Option<&str> {
        self.orchagent.rif_vrf(port)
    }

    /// Whether orchagent programmed an address; it never does where prefixes overlap in a VRF.
    pub fn rif_has_prefix(&self, port: &str, prefix: IpNet) -> bool {
        self.orchagent.rif_has_prefix(port, prefix)
    }

    /// Whether a daemon exited by itself: on a switch that restarts swss.
    pub fn has_exited(&self, daemon: Daemon) -> bool {
        self.exited.contains(&daemon)
    }

    /// Whether a daemon still has work for this key that it could not do.
    pub fn is_pending(&self, daemon: Daemon, key: &str) -> bool {
        match daemon {
            Daemon::Vrfmgrd => self.vrfmgrd.tasks.is_pending(key),
            Daemon::Vlanmgrd => self.vlanmgrd.tasks.is_pending(key),
            Daemon::Intfmgrd => self.intfmgrd.tasks.values().any(|tasks| tasks.is_pending(key)),
            Daemon::Portsyncd | Daemon::Orchagent => false,
        }
    }
}

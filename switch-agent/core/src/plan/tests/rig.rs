//! An agent around SimSwitch: it carries plans out as the executor does, one action at a time, and checks
//! every action's precondition and owner on the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::action::Action;
use crate::desired::Desired;
use crate::frr::FrrObserved;
use crate::isolate::{ACL_TABLE_IPV4, acl_table_name};
use crate::name::{PortKind, PortName, VrfName};
use crate::observed::{AdvertiserState, Observed, Runtime, Source};
use crate::ownership::Ledger;
use crate::plan::{Plan, plan};
use crate::row::{CONFIG_TABLES, ConfigDb, Fields, fields, leaf_list, without_placeholder};
use crate::service::UpstreamState;
use crate::sim::SimSwitch;
use crate::status::{ALL_ROWS, Status};

/// Passes that a written object is left alone for; stands in for the reconciler's clock.
const COOLING_PASSES: u32 = 4;
/// Passes after which an object that waits for the same thing is overdue.
const PATIENCE_PASSES: u32 = 3;

pub(super) struct Rig {
    pub(super) switch: SimSwitch,
    pub(super) ledger: Ledger,
    pub(super) runtime: Runtime,
    /// Rows that the agent wrote and still owns, by `TABLE|key`.
    pub(super) written: BTreeSet<String>,
    /// Every zero-lifetime burst, by port.
    pub(super) finals: Vec<PortName>,
    /// What the last pass carried out.
    pub(super) last: Vec<Action>,
    /// What is read of FRR.
    pub(super) frr: FrrObserved,
    cooling: BTreeMap<String, u32>,
    /// Passes that objects have waited for what they wait for.
    waits: BTreeMap<(String, String), u32>,
    /// Rows that somebody else wrote into SONiC's tables.
    foreign: BTreeMap<(String, String), Fields>,
}

/// The boot VRF that a route of the leak is about: where it leads in from, or back into.
fn boot_vrf_of<'a>(key: &'a str, row: &'a Fields) -> &'a str {
    if row.contains_key("ifname") { &row["nexthop-vrf"] } else { key.split('|').next().unwrap() }
}

pub(super) fn port(name: &str) -> PortName {
    name.parse().unwrap()
}

impl Rig {
    pub(super) fn new(ports: &[&str]) -> Rig {
        let ports: Vec<PortName> = ports.iter().map(|name| port(name)).collect();
        let mut switch = SimSwitch::new(&ports);
        switch.set_net_admin(true);
        switch.settle(10_000);
        Rig {
            switch,
            ledger: Ledger::default(),
            runtime: Runtime::default(),
            written: BTreeSet::new(),
            finals: Vec::new(),
            last: Vec::new(),
            frr: FrrObserved::default(),
            cooling: BTreeMap::new(),
            waits: BTreeMap::new(),
            foreign: BTreeMap::new(),
        }
    }

    pub(super) fn partition(&mut self, id: &str, prefix: &str, extra: &[(&str, &str)]) {
        let mut row = fields([("prefix", prefix)]);
        row.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.switch.config_set("BOOT_NETWORK_PARTITION", id, row);
    }

    pub(super) fn boot_port(&mut self, name: &str, partition: &str) {
        self.switch.config_set("BOOT_NETWORK_PORT", name, fields([("partition", partition)]));
    }

    /// Somebody else's HSET in a SONiC table.
    pub(super) fn foreign_set(&mut self, table: &str, key: &str, row: Fields) {
        let id = (table.to_owned(), key.to_owned());
        self.switch.config_set(table, key, row);
        let now = self.config().row(table, key).cloned().unwrap_or_default();
        self.written.remove(&format!("{table}|{key}"));
        self.foreign.insert(id, now);
    }

    pub(super) fn foreign_del(&mut self, table: &str, key: &str) {
        self.switch.config_del(table, key);
        self.written.remove(&format!("{table}|{key}"));
        self.foreign.remove(&(table.to_owned(), key.to_owned()));
    }

    pub(super) fn config(&self) -> ConfigDb {
        let mut config = ConfigDb::default();
        for name in CONFIG_TABLES {
            for (key, row) in self.switch.config().table(name) {
                config.insert(name, key, without_placeholder(row.clone()));
            }
        }
        config
    }

    pub(super) fn observe(&self) -> Observed {
        let (state, appl, kernel) = self.switch.observe();
        Observed {
            config: Source::Known(self.config()),
            state: Source::Known(state),
            appl: Source::Known(appl),
            kernel: Source::Known(kernel),
            frr: Source::Known(self.frr.clone()),
            ledger: Source::Known(self.ledger.clone()),
            runtime: self.runtime.clone(),
            backing_off: BTreeMap::new(),
            cooling: self.cooling.keys().cloned().collect(),
            overdue: self.overdue(),
        }
    }

    /// Lets an object wait as it does after a write.
    pub(super) fn cool(&mut self, object: &str) {
        self.cooling.insert(object.to_owned(), COOLING_PASSES);
    }

    fn overdue(&self) -> BTreeSet<String> {
        let overdue = self.waits.iter().filter(|(_, passes)| **passes >= PATIENCE_PASSES);
        overdue.map(|((object, _), _)| object.clone()).collect()
    }

    fn note_waits(&mut self, status: &Status) {
        let mut before = std::mem::take(&mut self.waits);
        if status.waiting.iter().any(|waiting| waiting.object == ALL_ROWS) {
            return;
        }
        for waiting in &status.waiting {
            let entry = (waiting.object.clone(), waiting.on.clone());
            let passes = before.remove(&entry).map_or(0, |passes| (passes + 1).min(PATIENCE_PASSES));
            self.waits.insert(entry, passes);
        }
    }

    pub(super) fn plan(&self) -> Plan {
        let config = self.config();
        plan(&Desired::from_config(&config), &self.observe())
    }

    /// One pass; with `crash_after`, the process dies after that many actions and starts again.
    /// Returns the kinds of the actions carried out.
    pub(super) fn pass(&mut self, crash_after: Option<usize>) -> Vec<&'static str> {
        for waits in self.cooling.values_mut() {
            *waits -= 1;
        }
        self.cooling.retain(|_, waits| *waits > 0);
        self.runtime.advertisers.retain(|_, state| *state != AdvertiserState::Ceasing);
        let Plan { actions, status } = self.plan();
        self.note_waits(&status);
        let count = crash_after.unwrap_or(usize::MAX).min(actions.len());
        for action in &actions[..count] {
            self.carry_out(action);
        }
        if crash_after.is_some() {
            self.runtime = Runtime::default();
            self.cooling.clear();
            self.waits.clear();
        }
        self.last = actions.into_iter().take(count).collect();
        self.last.iter().map(Action::kind).collect()
    }

    /// Passes and daemon steps in turn until nothing moves; panics when that does not happen.
    pub(super) fn converge(&mut self) {
        for _ in 0..400 {
            self.switch.settle(10_000);
            assert!(self.switch.is_idle(), "the switch does not come to rest");
            let acted = self.pass(None);
            let patient = self.waits.values().any(|passes| *passes < PATIENCE_PASSES);
            if acted.is_empty() && self.cooling.is_empty() && !patient && self.switch.is_idle() {
                return;
            }
        }
        panic!("does not converge; last plan: {:#?}", self.plan());
    }

    fn carry_out(&mut self, action: &Action) {
        self.check(action);
        match action {
            Action::RecordLedger(ledger) => self.ledger = ledger.clone(),
            Action::CreateVrf(vrf) | Action::RepairVrf(vrf) => self.write("VRF", vrf.as_str(), fields([])),
            Action::DeleteVrf(owned) => self.delete("VRF", owned.name().as_str()),
            Action::BindInterface { port, vrf } | Action::RepairBinding { port, vrf } => {
                self.write(
                    port.kind().interface_table(),
                    port.as_str(),
                    fields([("vrf_name", vrf.as_str())]),
                );
            }
            Action::DeleteInterface(owned) => {
                self.delete(owned.port().kind().interface_table(), owned.port().as_str());
            }
            Action::AddAddress { port, address } | Action::RepairAddress { port, address } => {
                self.write(port.kind().interface_table(), &format!("{port}|{address}"), fields([]));
            }
            Action::DeleteAddress(owned) => {
                let key = format!("{}|{}", owned.port(), owned.address());
                self.delete(owned.port().kind().interface_table(), &key);
            }
            Action::SetAcl { table, key, row } => self.write(table, key, row.clone()),
            Action::DeleteAcl(owned) => self.delete(owned.table(), owned.key()),
            Action::SetLeakRow { table, key, row } | Action::RewriteLeakRow { table, key, row } => {
                self.write(table, key, row.clone());
            }
            Action::DeleteLeakRow(owned) => self.delete(owned.table(), owned.key()),
            Action::RenewLeakRow { row, .. } => self.delete(row.table(), row.key()),
            Action::CeaseAdvertiser { port, cease } => {
                if *cease == crate::ra::Cease::Final {
                    self.finals.push(port.clone());
                    self.runtime.advertisers.insert(port.clone(), AdvertiserState::Ceasing);
                } else {
                    self.runtime.advertisers.remove(port);
                }
            }
            Action::SetAdvertiser(spec) => {
                let running = AdvertiserState::Running(spec.clone());
                self.runtime.advertisers.insert(spec.port.clone(), running);
            }
            Action::CloseService { port } => {
                self.runtime.services.remove(port);
            }
            Action::SetService(service) => {
                self.runtime.services.insert(service.listener.port.clone(), (**service).clone());
            }
            Action::SetUpstream(spec) => {
                self.runtime.upstream = spec.clone().map(|spec| UpstreamState { spec, error: None });
            }
            Action::AddUnreachableDefault { vrf, .. } => {
                self.switch.kernel_add_unreachable_default(vrf.as_str());
            }
            Action::RemoveUnreachableDefault { .. } => {}
            Action::AddConvenienceLinkLocal { port, address, .. } => {
                let net = ipnet::Ipv6Net::new_assert(*address, 64);
                self.switch.kernel_add_address(port.as_str(), net.into());
            }
            Action::RemoveConvenienceLinkLocal { port, address, .. } => {
                let net = ipnet::Ipv6Net::new_assert(*address, 64);
                self.switch.kernel_del_address(port.as_str(), net.into());
            }
            Action::WithdrawLeak(_) | Action::ApplyLeak(_) => panic!("FRR is not managed here"),
        }
        let settles = !matches!(
            action,
            Action::RecordLedger(_)
                | Action::SetService(_)
                | Action::SetAdvertiser(_)
                | Action::SetUpstream(_)
        );
        if settles && !action.kind().starts_with("delete") {
            self.cooling.insert(action.object(), COOLING_PASSES);
        } else {
            self.cooling.remove(&action.object());
        }
    }

    fn write(&mut self, table: &str, key: &str, row: Fields) {
        self.check_gates();
        let id = format!("{table}|{key}");
        assert!(!self.foreign.contains_key(&(table.to_owned(), key.to_owned())), "{id} is foreign");
        self.written.insert(id);
        self.switch.config_set(table, key, row);
    }

    fn delete(&mut self, table: &str, key: &str) {
        self.check_gates();
        let id = format!("{table}|{key}");
        assert!(self.written.remove(&id), "{id} was not written by the agent");
        self.switch.config_del(table, key);
    }

    /// swss has its ports, and no reboot carries CONFIG_DB over.
    fn check_gates(&self) {
        let (state, appl, _) = self.switch.observe();
        assert!(appl.port_init_done, "a row before PortInitDone");
        assert_eq!(state.reboot, None, "a row in a reboot");
    }

    /// The preconditions that `Action` documents, read from the switch and not from the plan's own view.
    fn check(&self, action: &Action) {
        let (state, appl, kernel) = self.switch.observe();
        let config = self.config();
        let row = |port: &PortName| config.row(port.kind().interface_table(), port.as_str());
        let master = |port: &PortName| kernel.links.get(port.as_str()).and_then(|link| link.master.clone());
        let vrf_ready = |vrf: &VrfName| {
            state.vrf_table.contains(vrf.as_str()) && state.vrf_object_table.contains(vrf.as_str())
        };
        match action {
            Action::CreateVrf(vrf) => {
                assert!(config.row("VRF", vrf.as_str()).is_none());
                assert!(!kernel.links.contains_key(vrf.as_str()), "{vrf} is still in the kernel");
            }
            Action::DeleteVrf(owned) => {
                let vrf = owned.name().as_str();
                let user = kernel.links.iter().find(|(_, link)| link.master.as_deref() == Some(vrf));
                assert!(user.is_none(), "{vrf} still has {user:?}");
            }
            Action::BindInterface { port, vrf } => {
                assert!(row(port).is_none() && vrf_ready(vrf));
                assert!(!state.interface_table.contains_key(port), "{port}: an earlier binding lives");
                assert!(!appl.intf_table.contains(port) && !appl.intf_key_set.contains(port));
                assert_eq!(master(port), None);
                let desired = Desired::from_config(&config);
                let isolated = desired.partitions.values().any(|of| of.vrf == *vrf && of.isolate);
                if isolated && port.kind() != PortKind::Loopback {
                    for table in [acl_table_name(vrf).as_str(), ACL_TABLE_IPV4] {
                        assert!(self.fenced_by(table).contains(port), "{port} is bound before {table}");
                    }
                }
            }
            Action::AddAddress { port, .. } => {
                let vrf = row(port).and_then(|row| row.get("vrf_name")).unwrap();
                assert_eq!(state.interface_table.get(port), Some(vrf));
                assert_eq!(master(port).as_ref(), Some(vrf));
            }
            Action::DeleteInterface(owned) => {
                let prefix = format!("{}|", owned.port());
                let table = owned.port().kind().interface_table();
                assert!(config.table(table).all(|(key, _)| !key.starts_with(&prefix)), "addresses left");
                assert!(state.interface_prefixes.iter().all(|(port, _)| port != owned.port()));
                assert!(!self.runtime.advertisers.contains_key(owned.port()));
            }
            Action::DeleteAddress(owned) => {
                assert!(!self.runtime.services.contains_key(owned.port()), "a listener is open");
                assert!(!self.runtime.advertisers.contains_key(owned.port()), "an advertiser runs");
            }
            Action::SetAdvertiser(spec) => {
                let vrf = row(&spec.port).and_then(|row| row.get("vrf_name")).unwrap();
                assert_eq!(master(&spec.port).as_ref(), Some(vrf));
                let desired = Desired::from_config(&config);
                let partition = desired.ports.get(&spec.port).map(|port| &port.partition);
                let proxied = partition.and_then(|id| desired.partitions.get(id)).is_some_and(|p| p.proxy);
                let listening = self.runtime.services.contains_key(&spec.port);
                assert!(listening || !proxied, "{}: advertised before its listener is open", spec.port);
            }
            Action::SetLeakRow { table: "STATIC_ROUTE", key, row } if row.contains_key("nexthop-vrf") => {
                let vrf = boot_vrf_of(key, row);
                let deny = config.row("STATIC_ROUTE", &format!("{vrf}|::/0"));
                assert!(deny.is_some_and(|row| row["blackhole"] == "true"), "{key} before the deny of {vrf}");
            }
            Action::DeleteLeakRow(owned)
                if owned.table() == "STATIC_ROUTE" && owned.key().ends_with("|::/0") =>
            {
                let vrf = owned.key().trim_end_matches("|::/0");
                let open = config
                    .table("STATIC_ROUTE")
                    .find(|(key, row)| row.contains_key("nexthop-vrf") && boot_vrf_of(key, row) == vrf);
                assert_eq!(open, None, "the deny of {vrf} goes first");
            }
            _ => {}
        }
        // No way back to a port that leaves outlives its binding, and none into a VRF outlives the VRF. A port
        // that stays may lose its rows to others for a moment.
        let stays = |port: &PortName| Desired::from_config(&config).ports.contains_key(port);
        let routes = || {
            config
                .table("STATIC_ROUTE")
                .filter(|(key, _)| self.written.contains(&format!("STATIC_ROUTE|{key}")))
        };
        let gone = match action {
            Action::DeleteAddress(owned) if !stays(owned.port()) => {
                Some(("ifname", owned.port().to_string()))
            }
            Action::DeleteInterface(owned) if !stays(owned.port()) => {
                Some(("ifname", owned.port().to_string()))
            }
            Action::DeleteVrf(owned) => Some(("nexthop-vrf", owned.name().to_string())),
            _ => None,
        };
        if let Some((field, name)) = gone {
            let left = routes().find(|(_, row)| row.get(field) == Some(&name));
            assert_eq!(left, None, "{action:?}");
        }
    }

    /// Ports that one of our ACL tables is bound to, where it denies by default.
    fn fenced_by(&self, table: &str) -> BTreeSet<PortName> {
        let config = self.config();
        let denies = config.row("ACL_RULE", &format!("{table}|DEFAULT_RULE")).is_some();
        let row = config.row("ACL_TABLE", table).filter(|_| denies);
        let ports = row.and_then(|row| row.get("ports@")).cloned().unwrap_or_default();
        leaf_list(&ports).map(port).collect()
    }

    /// At rest, IPv4 is dropped on exactly the ports that are isolated, and those are all that are in the VRF
    /// of a partition with the role.
    pub(super) fn assert_fences_fit(&self) {
        let config = self.config();
        let tables = config.table("ACL_TABLE").map(|(name, _)| name);
        let v6: BTreeSet<PortName> =
            tables.filter(|name| *name != ACL_TABLE_IPV4).flat_map(|name| self.fenced_by(name)).collect();
        assert_eq!(self.fenced_by(ACL_TABLE_IPV4), v6);
        let desired = Desired::from_config(&config);
        for port in desired.ports.values() {
            let Some(partition) = desired.partition_of(port).filter(|partition| partition.isolate) else {
                continue;
            };
            let row = config.row(port.name.kind().interface_table(), port.name.as_str());
            let bound =
                row.and_then(|row| row.get("vrf_name")).is_some_and(|vrf| vrf == partition.vrf.as_str());
            assert!(!bound || v6.contains(&port.name), "{} is not isolated", port.name);
        }
    }

    /// Foreign rows are exactly as their owner left them.
    pub(super) fn assert_foreign_untouched(&self) {
        let config = self.config();
        for ((table, key), row) in &self.foreign {
            if CONFIG_TABLES.contains(&table.as_str()) {
                assert_eq!(config.row(table, key), Some(row), "{table}|{key}");
            }
        }
    }
}

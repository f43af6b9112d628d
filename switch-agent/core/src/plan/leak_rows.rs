//! Rows of the leak against those of CONFIG_DB: what goes, what comes now, what waits.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv6Net;

use super::view::View;
use super::wanted::WantedSet;
use crate::action::Action;
use crate::desired::LeakMethod;
use crate::frr::rows::{self, Globals, Kind, LEAK_TABLES, REDISTRIBUTION, RowId, Stage, WantedRow};
use crate::frr::{DEFAULT_VRF, FrrObserved, FrrSpec, Running, route_map_name};
use crate::name::{PortName, VrfName};
use crate::ownership::{Ledger, OwnedLeakRow};
use crate::row::Fields;
use crate::status::Conflict;

#[derive(Debug, Default)]
pub(super) struct RowsPlan {
    /// In order.
    pub(super) delete: Vec<OwnedLeakRow>,
    /// In order: the actions, all of them rows to write, or to take away for a moment.
    pub(super) set: Vec<Action>,
    /// Rows of ours that stay or come, with their boot VRF, for the ledger.
    pub(super) ours: BTreeMap<String, VrfName>,
    /// What the leak of a VRF waits for.
    pub(super) waiting: BTreeMap<VrfName, String>,
    pub(super) conflicts: Vec<Conflict>,
    /// VRFs that rows on their way out still name.
    pub(super) lingering: BTreeSet<VrfName>,
}

/// A row of ours that is there.
#[derive(Debug)]
pub(super) struct Present<'a> {
    owned: OwnedLeakRow,
    row: &'a Fields,
    pub(super) vrf: VrfName,
    kind: Kind,
}

impl Present<'_> {
    fn is(&self, id: &RowId) -> bool {
        self.is_row(id.table, &id.key)
    }

    pub(super) fn is_row(&self, table: &str, key: &str) -> bool {
        self.owned.table() == table && self.owned.key() == key
    }

    /// Takes the row away, to be written anew as `wanted`.
    pub(super) fn renewed(&self, wanted: Fields) -> Action {
        Action::RenewLeakRow { row: self.owned.clone(), wanted }
    }
}

pub(super) struct Rows<'a, 'v, 'w> {
    pub(super) view: &'a View<'v>,
    pub(super) ledger: &'a Ledger,
    pub(super) wanted: &'a WantedSet<'w>,
    pub(super) spec: &'a FrrSpec,
    /// `None` while FRR is not read.
    pub(super) observed: Option<&'a FrrObserved>,
    pub(super) present: OnceCell<Vec<Present<'a>>>,
}

impl<'a> Rows<'a, '_, '_> {
    pub(super) fn present(&self) -> &[Present<'a>] {
        self.present.get_or_init(|| {
            let tables = LEAK_TABLES.into_iter();
            let rows = tables.flat_map(|table| {
                let rows = self.view.config.tables.get(table).into_iter().flatten();
                rows.map(move |(key, row)| (table, key.as_str(), row))
            });
            let ours = rows.filter_map(|(table, key, row)| {
                let (owned, vrf, kind) = self.ledger.owned_leak_row(self.view.config, table, key, row)?;
                Some(Present { owned, row, vrf, kind })
            });
            let mut ours: Vec<Present<'_>> = ours.collect();
            ours.sort_by_key(|row| row.kind);
            ours
        })
    }

    /// Every row of ours goes: another method carries the leak.
    pub(super) fn withdraw_all(&self) -> RowsPlan {
        self.compare(&[], None)
    }

    /// What the method that ran no longer wants goes; nothing comes.
    pub(super) fn withdraw_unwanted(&self, ran: Option<LeakMethod>) -> RowsPlan {
        let mut plan = self.compare(&self.wanted_rows(ran), ran);
        let there: BTreeSet<String> = self.present().iter().map(|row| name(&row.owned)).collect();
        plan.ours.retain(|id, _| there.contains(id));
        plan.set.clear();
        plan
    }

    fn wanted_rows(&self, method: Option<LeakMethod>) -> Vec<WantedRow> {
        match method {
            Some(LeakMethod::FrrMgmt) => {
                rows::frr_mgmt(self.spec, &|vrf| self.globals(vrf), self.view.config)
            }
            Some(LeakMethod::StaticRoute) => rows::static_route(self.spec),
            _ => Vec::new(),
        }
    }

    pub(super) fn plan(&self, method: LeakMethod) -> RowsPlan {
        let frr_mgmt = method == LeakMethod::FrrMgmt;
        let wanted = self.wanted_rows(Some(method));
        let mut plan = self.compare(&wanted, Some(method));
        if !frr_mgmt {
            super::leak_filter::restore(self, &wanted, &mut plan);
        }
        for (vrf, boot) in self.spec.vrfs.iter().filter(|(_, boot)| !boot.leak_prefixes.is_empty()) {
            let on = match frr_mgmt {
                true => self.globals(&boot.leak_vrf).asn.is_none().then(|| {
                    format!(
                        "CONFIG_DB BGP_GLOBALS|{} with local_asn, by whoever configures the fabric",
                        boot.leak_vrf
                    )
                }),
                false => rows::not_static(boot).or_else(|| self.connected(boot)),
            };
            if let Some(on) = on {
                plan.waiting.entry(vrf.clone()).or_insert(on);
            }
        }
        plan
    }

    /// A leak prefix that is connected in the leak VRF has no next hop to look up.
    fn connected(&self, boot: &crate::frr::BootVrfSpec) -> Option<String> {
        let connected = self.observed?.connected.get(&boot.leak_vrf)?;
        let on_link = |net: &Ipv6Net| connected.iter().any(|on_link| on_link.contains(&net.network()));
        let on_link = |prefix: &&Ipv6Net| rows::static_prefixes(**prefix).iter().any(on_link);
        let prefix = boot.leak_prefixes.iter().find(on_link)?;
        let reason =
            "is connected there, and leak_method static-route has no next hop for it: use vtysh or frr-mgmt";
        Some(format!("{prefix} of VRF {} {reason}", boot.leak_vrf))
    }

    fn globals(&self, vrf: &str) -> Globals {
        let row = |vrf: &str| self.view.config.row("BGP_GLOBALS", vrf);
        let field = |vrf: &str, name: &str| row(vrf).and_then(|row| row.get(name)).cloned();
        let router_id = field(vrf, "router_id").or_else(|| field(DEFAULT_VRF, "router_id"));
        Globals { asn: field(vrf, "local_asn"), router_id }
    }

    fn compare(&self, wanted: &[WantedRow], method: Option<LeakMethod>) -> RowsPlan {
        let mut plan = RowsPlan::default();
        self.withdraw(wanted, &mut plan);
        let going: BTreeSet<String> = plan.delete.iter().map(name).collect();
        let gates = Gates {
            view: self.view,
            observed: self.observed,
            wanted,
            frr_mgmt: method == Some(LeakMethod::FrrMgmt),
        };
        let mut order: Vec<&WantedRow> = wanted.iter().collect();
        order.sort_by_key(|row| (row.stage, Reverse(row.kind)));
        for wanted in order {
            self.set(wanted, &gates, &going, &mut plan);
        }
        let staying = self.present().iter().map(|row| (name(&row.owned), row.vrf.clone()));
        plan.ours.extend(staying.filter(|(id, _)| !going.contains(id)));
        plan
    }

    /// Rows of ours that nothing wants, and those that have to be written anew.
    fn withdraw(&self, wanted: &[WantedRow], plan: &mut RowsPlan) {
        for present in self.present() {
            let wanted_here = || wanted.iter().filter(|row| present.is(&row.id));
            let last = wanted_here().next_back();
            let renewed = last.is_some_and(|row| rows::must_be_renewed(present.kind, present.row, &row.row));
            if (last.is_some() && !renewed) || self.kept(present) {
                continue;
            }
            if last.is_none() {
                plan.lingering.insert(present.vrf.clone());
            }
            let too_early = match present.kind {
                Kind::Prefix => self.list_would_empty(present, wanted),
                Kind::Deny => self.still_in_use(&present.vrf),
                _ => false,
            };
            if !too_early {
                plan.delete.push(present.owned.clone());
            }
        }
    }

    /// An entry of a list that stays in use goes after all that replace it are there.
    fn list_would_empty(&self, present: &Present<'_>, wanted: &[WantedRow]) -> bool {
        let entries = wanted.iter().filter(|row| row.kind == Kind::Prefix && row.vrf == present.vrf);
        entries.into_iter().any(|row| self.view.config.row(row.id.table, &row.id.key).is_none())
    }

    /// Ports are still in a VRF of ours that goes: nothing but the deny keeps their machines in it.
    fn still_in_use(&self, vrf: &VrfName) -> bool {
        let goes = !self.spec.vrfs.contains_key(vrf) && self.ledger.owned_vrf(vrf).is_some();
        goes && !self.view.rows_in_vrf(vrf.as_str()).is_empty()
    }

    /// Rows that a broken row of the configuration may be about stay as they are.
    fn kept(&self, present: &Present<'_>) -> bool {
        let of_port = matches!(present.kind, Kind::Network | Kind::Out);
        let unclear = self.wanted.vrfs_held && !self.spec.vrfs.contains_key(&present.vrf);
        (unclear && !of_port) || self.of_held_port(present)
    }

    /// The ways back to a port whose row is broken.
    fn of_held_port(&self, present: &Present<'_>) -> bool {
        let by = |row: &Fields| row.get("ifname").and_then(|name| name.parse::<PortName>().ok());
        let held = |row: &Fields| by(row).is_some_and(|port| self.wanted.held.contains(&port));
        let (vrf, net) = present.owned.key().rsplit_once('|').unwrap_or_default();
        let vrf = vrf.split('|').next().unwrap_or_default();
        let Ok(net) = net.parse::<Ipv6Net>() else { return false };
        match present.kind {
            Kind::Network | Kind::Out if !self.wanted.held.is_empty() => {
                let Ok(port_net) = Ipv6Net::new(net.addr(), 64) else { return false };
                let way_back = format!("{vrf}|{}", port_net.trunc());
                self.view.config.row("STATIC_ROUTE", &way_back).is_some_and(held)
            }
            _ => false,
        }
    }

    fn set(&self, wanted: &WantedRow, gates: &Gates<'_, '_>, going: &BTreeSet<String>, plan: &mut RowsPlan) {
        let WantedRow { id, row, vrf, .. } = wanted;
        let present = self.view.config.row(id.table, &id.key);
        if present.is_some_and(|present| rows::same(present, row)) && !going.contains(&id.to_string()) {
            return self.renew(wanted, plan);
        }
        let mut wait = |on: String| {
            plan.waiting.entry(vrf.clone()).or_insert(on);
        };
        let owned = self.present().iter().any(|row| row.is(id));
        if present.is_some() && !owned {
            let reason = format!("{id} is somebody else's: the leak of {vrf} needs it as {row:?}");
            wait(reason.clone());
            plan.conflicts.push(Conflict { object: id.to_string(), port: None, reason });
            return;
        }
        if going.contains(&id.to_string()) {
            return wait(format!("{id} to be written anew"));
        }
        if let Some(on) = gates.closed(vrf, wanted.stage) {
            return wait(on);
        }
        let vrfs = || rows::static_route_vrfs(self.view.config);
        let first =
            || id.table == "STATIC_ROUTE" && !vrfs().contains(id.key.split('|').next().unwrap_or_default());
        if !gates.frr_mgmt && first() && !(going.is_empty() && self.view.free(REDISTRIBUTION)) {
            return wait(format!("{REDISTRIBUTION} to come to rest, before {id}"));
        }
        let action = Action::SetLeakRow { table: id.table, key: id.key.clone(), row: row.clone() };
        if self.view.free(&action.object()) {
            plan.set.push(action);
            plan.ours.insert(id.to_string(), vrf.clone());
        } else {
            wait(format!("the next try to write {id}"));
        }
    }
}

impl Rows<'_, '_, '_> {
    /// A row that is as wanted and yet not in FRR: its daemon could not carry it out, or somebody else took
    /// the line away, and it will not look at the row again.
    fn renew(&self, wanted: &WantedRow, plan: &mut RowsPlan) {
        let Some(observed) = self.observed else { return };
        let Some(present) = self.present().iter().find(|row| row.is(&wanted.id)) else { return };
        let action = present.renewed(wanted.row.clone());
        let lost = observed.routes.contains_key(&wanted.vrf)
            && rows::in_running(&Running::parse(&observed.running_config), wanted) == Some(false);
        if !lost {
            return;
        }
        plan.waiting.entry(wanted.vrf.clone()).or_insert_with(|| format!("{} in FRR", wanted.id));
        if self.view.free(&action.object()) {
            plan.set.push(action);
        }
    }
}

fn name(owned: &OwnedLeakRow) -> String {
    format!("{}|{}", owned.table(), owned.key())
}

/// Whether a stage may begin.
struct Gates<'a, 'v> {
    view: &'a View<'v>,
    observed: Option<&'a FrrObserved>,
    wanted: &'a [WantedRow],
    frr_mgmt: bool,
}

impl Gates<'_, '_> {
    /// Why rows of `stage` may not be written yet: rows before them are missing, or not in effect.
    fn closed(&self, vrf: &VrfName, stage: Stage) -> Option<String> {
        let view = self.view;
        for before in self.wanted.iter().filter(|row| row.vrf == *vrf && row.stage < stage) {
            let present = view.config.row(before.id.table, &before.id.key);
            if !present.is_some_and(|present| rows::same(present, &before.row)) {
                return Some(format!("{} before what depends on it", before.id));
            }
            let (table, key, row) = (before.id.table, before.id.key.clone(), before.row.clone());
            if self.observed.is_none() && !view.free(&Action::SetLeakRow { table, key, row }.object()) {
                return Some(format!("{} to take effect", before.id));
            }
        }
        let observed = self.observed.filter(|_| stage > Stage::Base)?;
        let routes = observed.routes.get(vrf)?;
        let leaked_default = routes.imported.contains_key(&Ipv6Net::default());
        if !routes.deny_installed && !leaked_default {
            return Some(format!("the ::/0 blackhole of VRF {vrf} installed by FRR"));
        }
        if !self.frr_mgmt {
            return None;
        }
        let running = Running::parse(&observed.running_config);
        let instance = running.bgp.get(vrf.as_str());
        if !crate::frr::route_map_sound(&running, vrf) {
            return Some(format!("frrcfgd: route-map {} in FRR", route_map_name(vrf)));
        }
        if instance.is_none() {
            return Some(format!("frrcfgd: `router bgp` of VRF {vrf} in FRR"));
        }
        let filtered =
            instance.and_then(|instance| instance.import_route_map()) == Some(&route_map_name(vrf));
        (stage == Stage::Import && !filtered)
            .then(|| format!("frrcfgd: `import vrf route-map` of VRF {vrf} in FRR"))
    }
}

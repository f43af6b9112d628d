//! Keeps the announcements of `static-route` alive while others go.
//!
//! bgpcfgd announces static routes of all VRFs by one route-map. It makes the route-map with the first row of a
//! VRF, and takes it away with the last one of any VRF, whoever else still announces by it; it looks at no row
//! again. So where a VRF loses its last row and others stay, the rows of one of those, all of them ours, are
//! taken away and written again at once: the first of them makes the route-map anew. One transaction does both,
//! and bgpcfgd hands both to FRR in one go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::leak_rows::{Rows, RowsPlan};
use crate::action::Action;
use crate::frr::rows::{self, WantedRow};
use crate::frr::{DEFAULT_VRF, FrrObserved};
use crate::row::Fields;

/// bgpcfgd's route-map.
const FILTER: &str = "STATIC_ROUTE_FILTER";
const TABLE: &str = "STATIC_ROUTE";

/// Adds to `plan`, which has everything else that happens to rows, what makes the route-map again.
pub(super) fn keep(rows: &Rows<'_, '_, '_>, wanted: &[WantedRow], plan: &mut RowsPlan) {
    let view = rows.view;
    let backing_off = |object: &str| view.backing_off.contains_key(object);
    let deletes = plan.delete.iter().filter(|owned| owned.table() == TABLE);
    let going: BTreeSet<&str> = deletes
        .filter(|owned| !backing_off(&Action::DeleteLeakRow((*owned).clone()).object()))
        .map(|owned| owned.key())
        .collect();
    let mut vrfs: BTreeMap<&str, BTreeMap<&str, &Fields>> = BTreeMap::new();
    for (key, row) in view.config.table(TABLE) {
        vrfs.entry(vrf_of(key)).or_default().insert(key, row);
    }
    let goes = |key: &&str| going.contains(key);
    let emptied = vrfs.values().any(|rows| rows.keys().all(goes));
    if !emptied && !rows.observed.is_some_and(is_lost) {
        return;
    }
    vrfs.retain(|_, rows| !rows.keys().all(goes));
    let staying = || vrfs.values().flatten().filter(|(key, _)| !goes(key));
    let announced =
        staying().any(|(_, row)| row.get("advertise").is_none_or(|advertise| advertise != "false"));
    if !announced {
        return;
    }
    let wanted_at = |key: &str| wanted.iter().find(|wanted| wanted.id.table == TABLE && wanted.id.key == key);
    let unchanged = |key: &str, row: &Fields| {
        let ours = rows.present().iter().any(|present| present.is_row(TABLE, key));
        let wanted = wanted_at(key).filter(|wanted| rows::same(row, &wanted.row));
        ours && !goes(&key) && wanted.is_some_and(|wanted| !backing_off(&set(wanted).object()))
    };
    // Where machines are, nothing but the kernel's own deny may stand in for that of FRR.
    let boot = |vrf: &str| rows.spec.vrfs.keys().any(|boot| boot.as_str() == vrf);
    let safe = |vrf: &str| {
        !boot(vrf) || view.kernel.unreachable_defaults.contains(vrf) || view.rows_in_vrf(vrf).is_empty()
    };
    let fit = |(vrf, rows): &(&&str, &BTreeMap<&str, &Fields>)| {
        safe(vrf) && rows.iter().all(|(key, row)| unchanged(key, row))
    };
    let Some((_, chosen)) = vrfs.iter().filter(fit).min_by_key(|(vrf, rows)| (boot(vrf), rows.len())) else {
        return;
    };
    let mut again: Vec<&WantedRow> = chosen.keys().filter_map(|key| wanted_at(key)).collect();
    // A VRF loses its last row once; FRR is read again when what was written has had its time.
    if !emptied && !again.iter().all(|row| view.free(&set(row).object())) {
        return;
    }
    again.sort_by_key(|row| (row.stage, Reverse(row.kind)));
    for present in rows.present() {
        if let Some(row) = again.iter().find(|row| present.is_row(TABLE, &row.id.key)) {
            plan.set.push(present.renewed(row.row.clone()));
        }
    }
    let written = again.iter().map(|row| Action::RewriteLeakRow {
        table: row.id.table,
        key: row.id.key.clone(),
        row: row.row.clone(),
    });
    plan.set.extend(written);
}

fn set(wanted: &WantedRow) -> Action {
    let WantedRow { id, row, .. } = wanted;
    Action::SetLeakRow { table: id.table, key: id.key.clone(), row: row.clone() }
}

/// The VRF that a row of `STATIC_ROUTE` is in.
fn vrf_of(key: &str) -> &str {
    key.split_once('|').map_or(DEFAULT_VRF, |(vrf, _)| vrf)
}

/// FRR announces by the route-map, and has none.
fn is_lost(observed: &FrrObserved) -> bool {
    let mut lines = observed.running_config.lines();
    let used = format!("redistribute static route-map {FILTER}");
    let made = format!("route-map {FILTER} ");
    lines.clone().any(|line| line.trim() == used) && !lines.any(|line| line.starts_with(&made))
}

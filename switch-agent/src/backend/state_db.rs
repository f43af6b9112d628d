//! STATE_DB and APPL_DB: what swss says, and our own status tables.

mod digests;
mod feature;
mod lldp;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use switch_agent_core::isolate::ACL_TABLE_PREFIX;
use switch_agent_core::name::PortName;
use switch_agent_core::observed::{ApplDb, PortState, Reboot, StateDb};
use switch_agent_core::row::Fields;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::redis::{Change, Database, DatabaseError, Databases, follow, tells};
use crate::wake::{Reason, Waker};

pub use feature::{FeatureWriter, Readiness};
pub use lldp::follow_lldp;
pub use status::{STATUS_TABLES, StatusRows, StatusWriter};

/// Tables of STATE_DB that make up [`StateDb`].
const STATE_TABLES: [&str; 11] = [
    "ACL_TABLE_TABLE",
    "ACL_RULE_TABLE",
    "VRF_TABLE",
    "VRF_OBJECT_TABLE",
    "INTERFACE_TABLE",
    "PORT_TABLE",
    "LAG_TABLE",
    "VLAN_MEMBER_TABLE",
    "WARM_RESTART_ENABLE_TABLE",
    "FAST_RESTART_ENABLE_TABLE",
    LEGACY_FAST_REBOOT_TABLE,
];
/// Flag of a fast reboot up to release 202211: a string, which expires by itself.
const LEGACY_FAST_REBOOT_TABLE: &str = "FAST_REBOOT";
/// Set of the keys of `INTF_TABLE` that orchagent has not popped yet.
const INTF_KEY_SET: &str = "INTF_TABLE_KEY_SET";
const LLDP_TABLE: &str = "LLDP_ENTRY_TABLE";

/// What swss publishes in STATE_DB and APPL_DB. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StateStore {
    state_db: Database,
    appl_db: Database,
}

impl StateStore {
    pub fn new(databases: &Databases) -> StateStore {
        StateStore { state_db: databases.state_db.clone(), appl_db: databases.appl_db.clone() }
    }

    /// STATE_DB as far as the agent needs it.
    ///
    /// # Errors
    /// STATE_DB cannot be read.
    pub async fn read_state(&self) -> Result<StateDb, DatabaseError> {
        let db = &self.state_db;
        let keys =
            db.keys(|key| db.split_key(key).is_some_and(|(table, _)| STATE_TABLES.contains(&table))).await?;
        let mut state = StateDb::default();
        // Existence is all that counts for these; only the rest needs its fields.
        let (plain, hashes): (BTreeSet<String>, BTreeSet<String>) =
            keys.into_iter().partition(|key| match db.split_key(key) {
                Some((
                    "VRF_TABLE" | "VRF_OBJECT_TABLE" | "VLAN_MEMBER_TABLE" | LEGACY_FAST_REBOOT_TABLE,
                    _,
                )) => true,
                // Of others' it only counts that there are any.
                Some(("ACL_TABLE_TABLE" | "ACL_RULE_TABLE", row)) => !row.starts_with(ACL_TABLE_PREFIX),
                Some((_, row)) => row.contains('|'),
                None => false,
            });
        for key in &plain {
            if let Some((table, row)) = db.split_key(key) {
                fold_key(&mut state, table, row);
            }
        }
        let fold = |key: &str, fields: Fields| {
            if let Some((table, row)) = db.split_key(key) {
                fold_hash(&mut state, table, row, &fields);
            }
        };
        db.each_hash(&hashes, fold).await?;
        Ok(state)
    }

    /// APPL_DB's barrier of a rebind, for these ports. To be read after STATE_DB: intfmgrd queues a
    /// deletion here before it removes its row there, so a port that is gone there and not found here has
    /// really passed orchagent.
    ///
    /// Rows are asked for by name: APPL_DB also holds the routing table, and scanning that on every pass
    /// would load the switch. And first as it is while nothing is under way, the same ports as in STATE_DB:
    /// two commands then tell of all.
    ///
    /// # Errors
    /// APPL_DB cannot be read.
    pub async fn read_appl(
        &self,
        ports: &BTreeSet<PortName>,
        expected: impl Fn(&PortName) -> bool,
    ) -> Result<ApplDb, DatabaseError> {
        let db = &self.appl_db;
        let mut pipeline = redis::pipe();
        pipeline.cmd("SMEMBERS").arg(INTF_KEY_SET);
        pipeline.cmd("EXISTS").arg(self.port_init_done());
        let (members, port_init_done): (Vec<Vec<u8>>, bool) = db.query("SMEMBERS", &pipeline).await?;
        let (present, absent): (Vec<&PortName>, Vec<&PortName>) =
            ports.iter().partition(|port| expected(port));
        let key = |port: &&PortName| db.key("INTF_TABLE", port.as_str());
        let keys = |ports: &[&PortName]| ports.iter().map(key).collect::<Vec<String>>();
        let intf_table = if db.exist_as(&keys(&present), &keys(&absent)).await? {
            present.into_iter().cloned().collect()
        } else {
            let keys: Vec<(&PortName, String)> = ports.iter().map(|port| (port, key(&port))).collect();
            let existing = db.existing(keys.iter().map(|(_, key)| key)).await?;
            let found = keys.iter().filter(|(_, key)| existing.contains(key.as_str()));
            found.map(|(port, _)| (*port).clone()).collect()
        };
        Ok(ApplDb {
            intf_table,
            intf_key_set: members
                .iter()
                .filter_map(|member| std::str::from_utf8(member).ok()?.split(':').next()?.parse().ok())
                .collect(),
            port_init_done,
        })
    }

    /// Whether orchagent's mark of started ports is there, which a flush of APPL_DB would take without an event.
    /// `None` where nothing can be concluded from it: a database cannot be read, or emits no events at all.
    pub async fn glance(&self) -> Option<bool> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EXISTS").arg(self.port_init_done());
        let (port_init_done,) = self.appl_db.query("EXISTS", &pipeline).await.ok()?;
        (tells(&self.appl_db).await && tells(&self.state_db).await).then_some(port_init_done)
    }

    fn port_init_done(&self) -> String {
        self.appl_db.key("PORT_TABLE", "PortInitDone")
    }

    /// Wakes the reconciler whenever swss may have changed something that [`StateStore::read_state`] or
    /// [`StateStore::read_appl`] shows, and `lldp` whenever an LLDP row was written: lldp_syncd rewrites
    /// every row each ten seconds, which must not cost a pass. Ends when cancelled.
    pub async fn follow(self, waker: Waker, lldp: Arc<Notify>, cancel: CancellationToken) {
        let state_patterns = STATE_TABLES.iter().map(|table| self.state_db.key(table, "*")).collect();
        let lldp_prefix = self.appl_db.key(LLDP_TABLE, "");
        let appl_patterns = vec![
            self.appl_db.key("INTF_TABLE", "*"),
            INTF_KEY_SET.to_owned(),
            self.port_init_done(),
            format!("{lldp_prefix}*"),
        ];
        let state_report = |_: Change<'_>| waker.wake(Reason::StateDb);
        let appl_report = |change: Change<'_>| match change {
            Change::Key(key) if key.starts_with(&lldp_prefix) => lldp.notify_one(),
            Change::Key(_) => waker.wake(Reason::StateDb),
            Change::Subscribed => {
                lldp.notify_one();
                waker.wake(Reason::StateDb);
            }
        };
        tokio::join!(
            follow(self.state_db, state_patterns, state_report, cancel.clone()),
            follow(self.appl_db, appl_patterns, appl_report, cancel),
        );
    }
}

/// Rows that count by existing.
fn fold_key(state: &mut StateDb, table: &str, row: &str) {
    match (table, row.split_once('|')) {
        ("VRF_TABLE", None) => _ = state.vrf_table.insert(row.to_owned()),
        ("VRF_OBJECT_TABLE", None) => _ = state.vrf_object_table.insert(row.to_owned()),
        ("VLAN_MEMBER_TABLE", Some((_, port))) => state.vlan_members.extend(port.parse::<PortName>()),
        (LEGACY_FAST_REBOOT_TABLE, None) if row == "system" => state.reboot = Some(Reboot::Fast),
        ("ACL_TABLE_TABLE", _) => state.acl.told = true,
        ("INTERFACE_TABLE", Some((port, prefix))) => {
            // IPv4 rows of foreign interfaces do not parse, and do not matter here.
            if let (Ok(port), Ok(prefix)) = (port.parse(), prefix.parse()) {
                state.interface_prefixes.insert((port, prefix));
            }
        }
        _ => {}
    }
}

fn fold_hash(state: &mut StateDb, table: &str, row: &str, fields: &Fields) {
    let is = |field: &str, value: &str| fields.get(field).is_some_and(|found| found == value);
    let status = || fields.get("status").cloned().unwrap_or_default();
    match (table, row.parse::<PortName>()) {
        ("ACL_TABLE_TABLE", _) => {
            state.acl.told = true;
            state.acl.tables.insert(row.to_owned(), status());
        }
        ("ACL_RULE_TABLE", _) => _ = state.acl.rules.insert(row.to_owned(), status()),
        ("INTERFACE_TABLE", Ok(port)) => {
            state.interface_table.insert(port, fields.get("vrf").cloned().unwrap_or_default());
        }
        ("PORT_TABLE", Ok(port)) => {
            let port_state =
                PortState { state_ok: is("state", "ok"), oper_up: is("netdev_oper_status", "up") };
            state.port_table.insert(port, port_state);
        }
        // teamsyncd calls it oper_status, and has no netdev_oper_status.
        ("LAG_TABLE", Ok(port)) => {
            let port_state = PortState {
                state_ok: is("state", "ok"),
                oper_up: is("oper_status", "up") || is("netdev_oper_status", "up"),
            };
            state.port_table.insert(port, port_state);
        }
        ("WARM_RESTART_ENABLE_TABLE", _) if row == "system" && is("enable", "true") => {
            state.reboot.get_or_insert(Reboot::Warm);
        }
        // A fast reboot sets both.
        ("FAST_RESTART_ENABLE_TABLE", _) if row == "system" && is("enable", "true") => {
            state.reboot = Some(Reboot::Fast);
        }
        _ => {}
    }
}

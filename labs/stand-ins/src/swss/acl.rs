//! aclorch and the ASIC: data-plane ACLs of CONFIG_DB as ingress filters of the ports.
//!
//! An ASIC looks ACLs up where a packet enters, before any routing; so do the kernel's filters on the port's own
//! netdev, also when the port is enslaved to a VRF: nftables where the kernel has it there, else `tc`. Nothing is
//! denied that no rule denies.

mod enforcer;
mod nft;
mod rules;
mod tc;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switch_agent_core::row::Fields;
use switch_agent_core::sim::SimSwitch;
use tokio::time::Instant;

use super::Error;
use super::database::Databases;
use super::kernel::Kernel;
use enforcer::Enforcer;
use rules::{Translation, translate};

/// Tables of CONFIG_DB that aclorch reads.
pub(super) const CONFIG_TABLES: [&str; 2] = ["ACL_TABLE", "ACL_RULE"];
/// Tables of STATE_DB that aclorch empties when it starts.
pub(super) const STATE_TABLES: [&str; 2] = [rules::TABLE_STATUS, rules::RULE_STATUS];
/// Rows of one ACL are written one after the other, and each process costs.
const TOGETHER: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Acls {
    /// When changed rows are looked at.
    due: Option<Instant>,
    /// Chosen when it is needed first.
    enforcer: Option<Enforcer>,
    /// Rows written to STATE_DB.
    state: BTreeMap<(&'static str, String), Fields>,
    complaints: BTreeSet<String>,
    /// The kernel may have filters that the enforcer does not know of.
    stale: bool,
    /// What the enforcer's program said the last time, said once.
    failure: Option<String>,
}

impl Acls {
    /// swss starts: STATE_DB was emptied, the kernel has what an earlier life left.
    pub(super) fn reset(&mut self) {
        let enforcer = self.enforcer.take();
        *self = Acls { enforcer, due: Some(Instant::now()), stale: true, ..Acls::default() };
    }

    /// A row changed.
    pub(super) fn changed(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + TOGETHER);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Brings ports and STATE_DB up to date if rows changed and their time has come.
    pub(super) async fn work(
        &mut self,
        switch: &SimSwitch,
        kernel: &Kernel,
        databases: &mut Databases,
    ) -> Result<(), Error> {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.apply(switch, kernel, databases).await?;
        }
        Ok(())
    }

    /// Brings ports and STATE_DB up to date; ports may have come or gone. A failure is logged and everything
    /// tried anew the next time.
    pub(super) async fn apply(
        &mut self,
        switch: &SimSwitch,
        kernel: &Kernel,
        databases: &mut Databases,
    ) -> Result<(), Error> {
        self.due = None;
        let Translation { ports, state, complaints } = translate(switch.config());
        self.complain(complaints);
        let enforcer = match &mut self.enforcer {
            Some(enforcer) => enforcer,
            none => none.insert(Enforcer::choose().await),
        };
        let mut commands = String::new();
        if self.stale {
            commands = enforcer.begin_anew(switch, kernel).await?;
        }
        commands.push_str(&enforcer.bind(switch, &ports));
        if !commands.is_empty()
            && let Err(error) = enforcer.tell(&commands).await
        {
            let said = std::error::Error::source(&error).map(ToString::to_string);
            if said != self.failure {
                tracing::warn!(error = &error as &dyn std::error::Error, "ACLs are not what they should be");
            }
            self.failure = said;
            self.stale = true;
            return Ok(());
        }
        self.stale = false;
        self.failure = None;
        self.report(state, databases).await
    }

    /// Takes away what is in front of the ports.
    pub(super) async fn remove(&mut self) -> Result<(), Error> {
        match &mut self.enforcer {
            Some(enforcer) => enforcer.remove().await,
            None => Ok(()),
        }
    }

    fn complain(&mut self, complaints: Vec<String>) {
        let complaints: BTreeSet<String> = complaints.into_iter().collect();
        for complaint in complaints.difference(&self.complaints) {
            tracing::warn!("not installed: {complaint}");
        }
        self.complaints = complaints;
    }

    /// As aclorch does: a table before its rules, and the rules gone before their table.
    async fn report(
        &mut self,
        state: BTreeMap<(&'static str, String), Fields>,
        databases: &mut Databases,
    ) -> Result<(), Error> {
        for table in STATE_TABLES.into_iter().rev() {
            for (_, key) in self.state.keys().filter(|row| row.0 == table && !state.contains_key(*row)) {
                databases.state_del(table, key).await?;
            }
        }
        for table in STATE_TABLES {
            for (row, fields) in state.iter().filter(|(row, _)| row.0 == table) {
                if self.state.get(row) != Some(fields) {
                    databases.state_set(table, &row.1, fields).await?;
                }
            }
        }
        self.state = state;
        Ok(())
    }
}

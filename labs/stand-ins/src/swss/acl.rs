//! aclorch and the ASIC: data-plane ACLs of CONFIG_DB as ingress filters of the ports.
//!
//! An ASIC looks ACLs up where a packet enters, before any routing; so do `tc`'s filters on the port's own
//! netdev, also when the port is enslaved to a VRF. Nothing is denied that no rule denies.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use switch_agent_core::row::Fields;
use switch_agent_core::sim::SimSwitch;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::Error;
use super::database::Databases;
use super::kernel::Kernel;
use rules::{Table, Translation, install, retire, translate, unbind};

/// Tables of CONFIG_DB that aclorch reads.
pub(super) const CONFIG_TABLES: [&str; 2] = ["ACL_TABLE", "ACL_RULE"];
/// Tables of STATE_DB that aclorch empties when it starts.
pub(super) const STATE_TABLES: [&str; 2] = [rules::TABLE_STATUS, rules::RULE_STATUS];
/// Rows of one ACL are written one after the other, and each process costs.
const TOGETHER: Duration = Duration::from_millis(50);
const PROCESS_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Acls {
    /// When changed rows are looked at.
    due: Option<Instant>,
    /// What is in front of each port.
    bound: BTreeMap<String, Bound>,
    /// Rows written to STATE_DB.
    state: BTreeMap<(&'static str, String), Fields>,
    complaints: BTreeSet<String>,
    /// The kernel may have filters that `bound` does not know of.
    stale: bool,
    /// What `tc` said the last time, said once.
    failure: Option<String>,
}

#[derive(Debug)]
struct Bound {
    /// A netdev that comes back has lost its filters.
    ifindex: u32,
    tables: Vec<Table>,
    generation: bool,
}

impl Acls {
    /// swss starts: STATE_DB was emptied, the kernel has what an earlier life left.
    pub(super) fn reset(&mut self) {
        *self = Acls { due: Some(Instant::now()), stale: true, ..Acls::default() };
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
        let mut batch = String::new();
        if self.stale {
            let indexes = kernel.with_ingress_filters().await?;
            let left_over = switch.links().filter(|(_, link)| indexes.contains(&link.ifindex));
            batch.extend(left_over.filter(|(name, _)| is_port(switch, name)).map(|(name, _)| unbind(name)));
            self.bound.clear();
        }
        batch.push_str(&self.bind(switch, &ports));
        if !batch.is_empty()
            && let Err(error) = run_tc(&batch).await
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

    fn complain(&mut self, complaints: Vec<String>) {
        let complaints: BTreeSet<String> = complaints.into_iter().collect();
        for complaint in complaints.difference(&self.complaints) {
            tracing::warn!("not installed: {complaint}");
        }
        self.complaints = complaints;
    }

    /// The commands that lead from what is bound to what should be.
    fn bind(&mut self, switch: &SimSwitch, ports: &BTreeMap<String, Vec<Table>>) -> String {
        let mut batch = String::new();
        let ifindex = |port: &str| switch.link(port).map(|link| link.ifindex);
        self.bound.retain(|port, bound| {
            let same_netdev = ifindex(port) == Some(bound.ifindex);
            let wanted = ports.contains_key(port);
            if same_netdev && !wanted {
                batch.push_str(&unbind(port));
            }
            same_netdev && wanted
        });
        for (port, tables) in ports {
            let Some(ifindex) = ifindex(port) else {
                continue;
            };
            let generation = match self.bound.get(port) {
                Some(bound) if bound.tables == *tables => continue,
                Some(bound) => {
                    batch.push_str(&install(port, tables, !bound.generation));
                    batch.push_str(&retire(port, bound.tables.len(), bound.generation));
                    !bound.generation
                }
                None => {
                    batch.push_str(&install(port, tables, false));
                    false
                }
            };
            self.bound.insert(port.clone(), Bound { ifindex, tables: tables.clone(), generation });
        }
        batch
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

fn is_port(switch: &SimSwitch, name: &str) -> bool {
    ["PORT", "PORTCHANNEL"].into_iter().any(|table| switch.config().row(table, name).is_some())
}

/// All commands in one process, also those behind one that fails.
async fn run_tc(batch: &str) -> Result<(), Error> {
    let step = "run tc";
    let failed = |source| Error::Io { step, source };
    let mut tc = Command::new("tc")
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdin = tc.stdin.take();
    let feed = async {
        match stdin {
            Some(mut stdin) => stdin.write_all(batch.as_bytes()).await,
            None => Ok(()),
        }
    };
    let both = async { tokio::try_join!(feed, tc.wait_with_output()) };
    let (_, output) = timeout(PROCESS_TIMEOUT, both)
        .await
        .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(std::io::Error::other(said)))
}

#[cfg(test)]
mod tests {
    use switch_agent_core::row::fields;

    use super::*;

    fn switch() -> SimSwitch {
        let mut switch = SimSwitch::new(&["Ethernet0".parse().unwrap(), "Ethernet4".parse().unwrap()]);
        let ports = "Ethernet0,Ethernet4,Ethernet8";
        switch.config_put("ACL_TABLE", "A", fields([("type", "L3V6"), ("ports@", ports)]));
        switch
    }

    fn drop_tcp(switch: &mut SimSwitch, port: &str) {
        let rule = [("PACKET_ACTION", "DROP"), ("IP_PROTOCOL", "6"), ("L4_DST_PORT", port)];
        switch.config_put("ACL_RULE", "A|R", fields(rule));
    }

    fn bind(acls: &mut Acls, switch: &SimSwitch) -> String {
        acls.bind(switch, &translate(switch.config()).ports)
    }

    #[test]
    fn only_ports_that_changed_are_touched_and_generations_take_turns() {
        let (mut acls, mut switch) = (Acls::default(), switch());
        let first = bind(&mut acls, &switch);
        assert!(first.contains("dev Ethernet0 ingress chain 1 ") && first.contains("dev Ethernet4 "));
        assert!(!first.contains("Ethernet8"), "no such netdev: {first}");
        assert_eq!(bind(&mut acls, &switch), "");
        drop_tcp(&mut switch, "22");
        let second = bind(&mut acls, &switch);
        let at = |text: &str| second.find(text).unwrap_or_else(|| panic!("{text} is not in {second}"));
        let dropped = at("Ethernet0 ingress chain 1001 protocol ipv6 pref 1 flower");
        let switched = at("filter replace dev Ethernet0 ingress protocol all pref 1 handle 1");
        let retired = at("filter del dev Ethernet0 ingress chain 1\n");
        assert!(dropped < switched && switched < retired, "{second}");
        drop_tcp(&mut switch, "23");
        assert!(bind(&mut acls, &switch).contains("filter del dev Ethernet0 ingress chain 1001\n"));
    }

    #[test]
    fn a_port_that_leaves_a_table_is_open_and_a_new_netdev_is_filtered_anew() {
        let (mut acls, mut switch) = (Acls::default(), switch());
        bind(&mut acls, &switch);
        switch.config_put("ACL_TABLE", "A", fields([("type", "L3V6"), ("ports@", "Ethernet4")]));
        assert_eq!(bind(&mut acls, &switch), "qdisc del dev Ethernet0 clsact\n");
        switch.swss_restart();
        switch.settle(100);
        let again = bind(&mut acls, &switch);
        assert!(again.starts_with("qdisc replace dev Ethernet4 clsact\n"), "{again}");
        assert!(!again.contains("qdisc del"), "{again}");
    }
}

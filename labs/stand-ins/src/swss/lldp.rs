//! lldp_syncd: `LLDP_ENTRY_TABLE` from a file in place of lldpd.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use switch_agent_core::row::Fields;
use tokio::time::Instant;

use super::Error;
use super::database::Databases;

const TABLE: &str = "LLDP_ENTRY_TABLE";
/// Every row is written again this often, with a new time mark.
const CYCLE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Lldp {
    path: PathBuf,
    started: Instant,
    written_at: Option<Instant>,
    written: BTreeMap<String, Fields>,
}

impl Lldp {
    pub(super) fn new(path: PathBuf) -> Lldp {
        Lldp { path, started: Instant::now(), written_at: None, written: BTreeMap::new() }
    }

    /// The database was flushed.
    pub(super) fn forget(&mut self) {
        self.written.clear();
        self.written_at = None;
    }

    /// Writes what changed in the file, and everything once a cycle. A file that is not there has no
    /// neighbours; one that does not parse changes nothing.
    pub(super) async fn refresh(&mut self, databases: &mut Databases) -> Result<(), Error> {
        let wanted: BTreeMap<String, Fields> = match std::fs::read(&self.path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(wanted) => wanted,
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "LLDP file ignored");
                    return Ok(());
                }
            },
            Err(_) => BTreeMap::new(),
        };
        let now = Instant::now();
        let all = self.written_at.is_none_or(|at| now.duration_since(at) >= CYCLE);
        let time_mark = now.duration_since(self.started).as_secs().to_string();
        for (port, row) in &wanted {
            if all || self.written.get(port) != Some(row) {
                let mut row = row.clone();
                row.entry("lldp_rem_index".to_owned()).or_insert_with(|| "1".to_owned());
                row.insert("lldp_rem_time_mark".to_owned(), time_mark.clone());
                databases.appl_set(TABLE, port, &row).await?;
            }
        }
        for port in self.written.keys().filter(|port| !wanted.contains_key(*port)) {
            databases.appl_del(TABLE, port).await?;
        }
        if all {
            self.written_at = Some(now);
        }
        self.written = wanted;
        Ok(())
    }
}

//! Our own tables of STATE_DB: the agent's status, for `sonic-db-cli`, telemetry and people.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switch_agent_core::row::{Fields, Table, without_placeholder};
use tokio::time::Instant;

use crate::backend::redis::{Database, DatabaseError};

/// The tables that are ours. Nothing else in STATE_DB is ever written.
pub const STATUS_TABLES: [&str; 3] =
    ["BOOT_NETWORK_PORT_TABLE", "BOOT_NETWORK_PARTITION_TABLE", "BOOT_NETWORK_STATE"];

/// Rows by table; tables other than [`STATUS_TABLES`] are ignored.
pub type StatusRows = BTreeMap<String, Table>;

/// How long what was written is believed to be still there. FLUSHDB emits no events, and STATE_DB is
/// pruned by reboots of its owners.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Keeps [`STATUS_TABLES`] equal to what [`StatusWriter::publish`] is given, writing only differences.
#[derive(Debug)]
pub struct StatusWriter {
    database: Database,
    /// Rows by full key as they are believed to be, and until when; `None` after an error.
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    rows: BTreeMap<String, Fields>,
    valid_until: Instant,
}

impl StatusWriter {
    pub fn new(state_db: Database) -> StatusWriter {
        StatusWriter { database: state_db, known: None }
    }

    /// Makes the tables equal to `wanted`. Without differences this is no I/O, but for a check every
    /// [`CHECK_INTERVAL`]. Returns the number of rows written or deleted.
    ///
    /// # Errors
    /// STATE_DB cannot be read or written; the next call reads again what is there.
    pub async fn publish(&mut self, wanted: StatusRows) -> Result<usize, DatabaseError> {
        let Known { rows, valid_until } = self.current().await?;
        let wanted: BTreeMap<String, Fields> = wanted
            .into_iter()
            .filter(|(table, _)| STATUS_TABLES.contains(&table.as_str()))
            .flat_map(|(table, rows)| {
                let database = &self.database;
                rows.into_iter().map(move |(key, fields)| (database.key(&table, &key), fields))
            })
            .collect();
        let (pipeline, changed) = difference(&rows, &wanted);
        if changed > 0 {
            let () = self.database.query("MULTI", &pipeline).await?;
        }
        self.known = Some(Known { rows: wanted, valid_until });
        Ok(changed)
    }

    /// Whether every row that was written is there, by one command. Where it is, the rows are believed in for
    /// another [`CHECK_INTERVAL`]; else the next [`StatusWriter::publish`] looks at each.
    pub async fn intact(&mut self) -> bool {
        let Some(known) = &mut self.known else { return false };
        let keys: Vec<String> = known.rows.keys().cloned().collect();
        let intact = self.database.exist_as(&keys, &[]).await.unwrap_or(false);
        known.valid_until = Instant::now() + if intact { CHECK_INTERVAL } else { Duration::ZERO };
        intact
    }

    /// What is there now. Takes `known`, so that an error on the way leaves it unknown.
    async fn current(&mut self) -> Result<Known, DatabaseError> {
        let db = &self.database;
        let now = Instant::now();
        let keys: BTreeSet<String> = match self.known.take() {
            Some(known) if now < known.valid_until => return Ok(known),
            Some(known) => known.rows.into_keys().collect(),
            None => {
                db.keys(|key| db.split_key(key).is_some_and(|(table, _)| STATUS_TABLES.contains(&table)))
                    .await?
            }
        };
        let rows = db.hashes(&keys).await?;
        let rows = rows.into_iter().map(|(key, fields)| (key.to_owned(), without_placeholder(fields)));
        Ok(Known { rows: rows.collect(), valid_until: now + CHECK_INTERVAL })
    }
}

/// One transaction that turns `current` into `wanted`, and how many rows it touches.
///
/// The last command on a row that stays is an HSET: SONiC's gNMI server takes `hdel` of a field for the end
/// of the row, and reads a row anew at `hset`.
fn difference(
    current: &BTreeMap<String, Fields>,
    wanted: &BTreeMap<String, Fields>,
) -> (redis::Pipeline, usize) {
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    let mut changed = 0;
    for key in current.keys().filter(|key| !wanted.contains_key(*key)) {
        pipeline.cmd("DEL").arg(key).ignore();
        changed += 1;
    }
    for (key, fields) in wanted {
        let before = current.get(key);
        if before == Some(fields) {
            continue;
        }
        changed += 1;
        let gone: Vec<&String> =
            before.into_iter().flat_map(Fields::keys).filter(|name| !fields.contains_key(*name)).collect();
        if !gone.is_empty() {
            pipeline.cmd("HDEL").arg(key).arg(gone).ignore();
        }
        let command = pipeline.cmd("HSET").arg(key);
        if fields.is_empty() {
            command.arg("NULL").arg("NULL");
        }
        for (name, value) in fields {
            command.arg(name).arg(value);
        }
        command.ignore();
    }
    (pipeline, changed)
}

#[cfg(test)]
mod tests {
    use redis::Arg;
    use switch_agent_core::row::fields;

    use super::*;

    #[test]
    fn the_last_word_on_a_row_is_its_content() {
        let rows = |row: Fields| BTreeMap::from([("BOOT_NETWORK_PORT_TABLE|Ethernet0".to_owned(), row)]);
        let (before, after) = (fields([("phase", "ready"), ("mac", "m")]), fields([("phase", "ready")]));
        let (pipeline, changed) = difference(&rows(before), &rows(after));
        let name = |command: &redis::Cmd| match command.args_iter().next() {
            Some(Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => panic!("a command without a name"),
        };
        assert_eq!(
            (pipeline.cmd_iter().map(name).collect::<Vec<_>>(), changed),
            (vec!["HDEL".to_owned(), "HSET".to_owned()], 1)
        );
    }
}

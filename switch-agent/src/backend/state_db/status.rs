//! Our own tables of STATE_DB: the agent's status, for `sonic-db-cli`, telemetry and people.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use switch_agent_core::map::IntoMap;
use switch_agent_core::row::{Fields, Table, without_placeholder};
use tokio::time::Instant;

use super::digests::Digests;
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
    hasher: RandomState,
    /// `None` at the start and after an error.
    known: Option<Known>,
}

/// What is believed to be there, and until when.
#[derive(Debug)]
struct Known {
    /// By full key; the rows themselves would be a third of a megabyte.
    rows: Digests,
    valid_until: Instant,
}

/// Rows that are written by one transaction: the connection keeps a buffer as large as the largest.
const ROWS_AT_A_TIME: usize = 64;

impl StatusWriter {
    pub fn new(state_db: Database) -> StatusWriter {
        StatusWriter { database: state_db, hasher: RandomState::new(), known: None }
    }

    /// Makes the tables equal to `wanted`. Without differences this is no I/O, but for a check every
    /// [`CHECK_INTERVAL`]. Returns the number of rows written or deleted.
    ///
    /// # Errors
    /// STATE_DB cannot be read or written; the next call reads again what is there.
    pub async fn publish(&mut self, wanted: StatusRows) -> Result<usize, DatabaseError> {
        let wanted: BTreeMap<String, Fields> = wanted
            .into_iter()
            .filter(|(table, _)| STATUS_TABLES.contains(&table.as_str()))
            .flat_map(|(table, rows)| {
                let database = &self.database;
                rows.into_iter().map(move |(key, fields)| (database.key(&table, &key), fields))
            })
            .into_map();
        let digests = Digests::new(wanted.iter().map(|(key, row)| (key.as_str(), self.hasher.hash_one(row))));
        let (doubted, valid_until) = self.doubted(&digests).await?;
        let mut changed = 0;
        for keys in doubted.chunks(ROWS_AT_A_TIME) {
            let there = self.database.hashes(keys).await?;
            let (pipeline, count) = difference(keys, &there, &wanted);
            if count > 0 {
                let () = self.database.query("MULTI", &pipeline).await?;
            }
            changed += count;
        }
        self.known = Some(Known { rows: digests, valid_until });
        Ok(changed)
    }

    /// Keys of rows that may not be as wanted, and until when the others are believed in. Takes `known`, so that
    /// an error on the way leaves it unknown.
    async fn doubted(&mut self, wanted: &Digests) -> Result<(Vec<String>, Instant), DatabaseError> {
        let db = &self.database;
        let now = Instant::now();
        let valid_until = now + CHECK_INTERVAL;
        Ok(match self.known.take() {
            Some(known) if now < known.valid_until => {
                let gone = known.rows.keys().filter(|key| wanted.get(key).is_none());
                let differs = |(key, digest): &(&str, u64)| known.rows.get(key) != Some(*digest);
                let changed = wanted.iter().filter(differs).map(|(key, _)| key);
                (gone.chain(changed).map(str::to_owned).collect(), known.valid_until)
            }
            Some(known) => {
                let gone = known.rows.keys().filter(|key| wanted.get(key).is_none());
                (gone.chain(wanted.keys()).map(str::to_owned).collect(), valid_until)
            }
            None => {
                let ours =
                    |key: &str| db.split_key(key).is_some_and(|(table, _)| STATUS_TABLES.contains(&table));
                let mut keys = db.keys(ours).await?;
                keys.extend(wanted.keys().map(str::to_owned));
                (keys.into_iter().collect(), valid_until)
            }
        })
    }

    /// Whether every row that was written is there, by one command. Where it is, the rows are believed in for
    /// another [`CHECK_INTERVAL`]; else the next [`StatusWriter::publish`] looks at each.
    pub async fn intact(&mut self) -> bool {
        let Some(known) = &mut self.known else { return false };
        let keys: Vec<String> = known.rows.keys().map(str::to_owned).collect();
        let intact = self.database.exist_as(&keys, &[]).await.unwrap_or(false);
        known.valid_until = Instant::now() + if intact { CHECK_INTERVAL } else { Duration::ZERO };
        intact
    }
}

/// One transaction that turns the rows `keys` from what is `there` into what is `wanted`, and how many of them it
/// touches.
///
/// The last command on a row that stays is an HSET: SONiC's gNMI server takes `hdel` of a field for the end
/// of the row, and reads a row anew at `hset`.
fn difference(
    keys: &[String],
    there: &BTreeMap<&str, Fields>,
    wanted: &BTreeMap<String, Fields>,
) -> (redis::Pipeline, usize) {
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    let mut changed = 0;
    for key in keys {
        let before = there.get(key.as_str()).cloned().map(without_placeholder);
        let Some(fields) = wanted.get(key) else {
            if before.is_some() {
                pipeline.cmd("DEL").arg(key).ignore();
                changed += 1;
            }
            continue;
        };
        if before.as_ref() == Some(fields) {
            continue;
        }
        changed += 1;
        let gone: Vec<&String> =
            before.iter().flat_map(Fields::keys).filter(|name| !fields.contains_key(*name)).collect();
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
        let key = "BOOT_NETWORK_PORT_TABLE|Ethernet0".to_owned();
        let (before, after) = (fields([("phase", "ready"), ("mac", "m")]), fields([("phase", "ready")]));
        let (there, wanted) =
            (BTreeMap::from([(key.as_str(), before)]), BTreeMap::from([(key.clone(), after)]));
        let (pipeline, changed) = difference(std::slice::from_ref(&key), &there, &wanted);
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

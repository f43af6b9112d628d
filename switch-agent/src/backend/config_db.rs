//! CONFIG_DB: reading our tables, writing rows, following changes.

use std::collections::BTreeSet;

use switch_agent_core::row::{CONFIG_TABLES, ConfigDb, Fields, without_placeholder};
use tokio_util::sync::CancellationToken;

use super::redis::{Change, Database, DatabaseError, follow, tells};
use crate::wake::{Reason, Waker};

/// Key that SONiC sets to `1` once `config_db.json` is loaded, and deletes before a `config reload`.
const INITIALIZED_KEY: &str = "CONFIG_DB_INITIALIZED";

/// Runs commands, each given as the number of its words and the words, while [`INITIALIZED_KEY`] is `1`. A
/// script is one step for everybody else, like MULTI; a `config reload` is before or after it.
const GUARDED_WRITE: &str = "
if redis.call('GET', KEYS[1]) ~= '1' then return 0 end
local word = 1
while word <= #ARGV do
  local last = word + tonumber(ARGV[word])
  redis.call(unpack(ARGV, word + 1, last))
  word = last + 1
end
return 1";

/// CONFIG_DB could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigDbError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// SONiC is loading the configuration: what is there now is half of it.
    #[error("CONFIG_DB is not initialised")]
    NotInitialized,
}

/// One row to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// Sets these fields in one event; other fields of the row stay. No fields make SONiC's empty row.
    Set {
        table: String,
        key: String,
        fields: Fields,
    },
    Delete {
        table: String,
        key: String,
    },
}

/// CONFIG_DB. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConfigStore {
    database: Database,
}

impl ConfigStore {
    pub fn new(database: Database) -> ConfigStore {
        ConfigStore { database }
    }

    /// The tables of [`CONFIG_TABLES`] as they are now; see [`ConfigStore::read_counted`].
    ///
    /// # Errors
    /// CONFIG_DB cannot be read, or SONiC has not finished loading it.
    pub async fn read(&self) -> Result<ConfigDb, ConfigDbError> {
        Ok(self.read_counted().await?.0)
    }

    /// The tables of [`CONFIG_TABLES`] as they are now, and how many keys of any table there were before they
    /// were read: what [`ConfigStore::glance`] will find as long as nothing changes.
    ///
    /// Rows are read one after another while others may write: the result can mix two states of the
    /// database. Whoever wrote woke the reconciler, which reads again.
    ///
    /// # Errors
    /// CONFIG_DB cannot be read, or SONiC has not finished loading it (checked before and after, so a
    /// `config reload` that starts meanwhile is no empty configuration).
    pub async fn read_counted(&self) -> Result<(ConfigDb, u64), ConfigDbError> {
        let count = self.count().await?;
        let keys = self
            .database
            .keys(|key| self.database.split_key(key).is_some_and(|(table, _)| CONFIG_TABLES.contains(&table)))
            .await?;
        let mut config = ConfigDb::default();
        let insert = |key: &str, fields| {
            if let Some((table, key)) = self.database.split_key(key) {
                config.insert(table, key, without_placeholder(fields));
            }
        };
        self.database.each_hash(&keys, insert).await?;
        self.count().await?;
        Ok((config, count))
    }

    /// How many keys there are, of any table: what emits no event, a flush, changes that. `None` where nothing
    /// can be concluded from it: the database cannot be read, is being loaded, or emits no events at all.
    pub async fn glance(&self) -> Option<u64> {
        let keys = self.count().await.ok()?;
        tells(&self.database).await.then_some(keys)
    }

    /// How many keys there are in a database that SONiC has finished loading.
    async fn count(&self) -> Result<u64, ConfigDbError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(INITIALIZED_KEY);
        pipeline.cmd("DBSIZE");
        let (value, keys): (Option<String>, u64) = self.database.query("GET", &pipeline).await?;
        if value.as_deref() == Some("1") { Ok(keys) } else { Err(ConfigDbError::NotInitialized) }
    }

    /// Writes all rows in one step, in this order, unless SONiC has begun to load the configuration anew since
    /// they were decided on: rows must not appear in a database that was just emptied. SONiC's daemons still
    /// handle them key by key and in an order of their own.
    ///
    /// # Errors
    /// CONFIG_DB is being loaded: nothing was written. Or the write failed, or it is unknown whether it did:
    /// read again before deciding anything.
    pub async fn write(&self, changes: &[RowChange]) -> Result<(), ConfigDbError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        let script = pipeline.cmd("EVAL").arg(GUARDED_WRITE).arg(1).arg(INITIALIZED_KEY);
        for change in changes {
            match change {
                RowChange::Set { table, key, fields } => {
                    // Redis has no empty hash; SONiC's placeholder keeps the row alive.
                    let placeholder = [("NULL", "NULL")];
                    let placeholder = placeholder.iter().copied().filter(|_| fields.is_empty());
                    let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                    let pairs: Vec<(&str, &str)> = fields.chain(placeholder).collect();
                    script.arg(2 + 2 * pairs.len()).arg("HSET").arg(self.database.key(table, key));
                    for (name, value) in pairs {
                        script.arg(name).arg(value);
                    }
                }
                RowChange::Delete { table, key } => {
                    script.arg(2).arg("DEL").arg(self.database.key(table, key));
                }
            }
        }
        let (written,): (bool,) = self.database.query("EVAL", &pipeline).await?;
        if written { Ok(()) } else { Err(ConfigDbError::NotInitialized) }
    }

    /// Wakes the reconciler whenever a row of our tables may have changed. Ends when cancelled.
    pub async fn follow(self, waker: Waker, cancel: CancellationToken) {
        let patterns: BTreeSet<String> =
            CONFIG_TABLES.iter().map(|table| self.database.key(table, "*")).collect();
        let patterns = patterns.into_iter().chain([INITIALIZED_KEY.to_owned()]).collect();
        let report = |_: Change<'_>| waker.wake(Reason::ConfigDb);
        follow(self.database, patterns, report, cancel).await;
    }
}

#[cfg(test)]
mod tests;

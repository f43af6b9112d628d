//! CONFIG_DB: reading our tables, writing rows, following changes.

use std::collections::BTreeSet;

use switch_agent_core::row::{CONFIG_TABLES, ConfigDb, Fields, without_placeholder};
use tokio_util::sync::CancellationToken;

use super::redis::{Change, Database, DatabaseError, follow};
use crate::wake::{Reason, Waker};

/// Key that SONiC sets to `1` once `config_db.json` is loaded, and deletes before a `config reload`.
const INITIALIZED_KEY: &str = "CONFIG_DB_INITIALIZED";

/// CONFIG_DB could not be read.
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

    /// The tables of [`CONFIG_TABLES`] as they are now.
    ///
    /// Rows are read one after another while others may write: the result can mix two states of the
    /// database. Whoever wrote woke the reconciler, which reads again.
    ///
    /// # Errors
    /// CONFIG_DB cannot be read, or SONiC has not finished loading it (checked before and after, so a
    /// `config reload` that starts meanwhile is no empty configuration).
    pub async fn read(&self) -> Result<ConfigDb, ConfigDbError> {
        self.require_initialized().await?;
        let keys = self
            .database
            .keys(|key| self.database.split_key(key).is_some_and(|(table, _)| CONFIG_TABLES.contains(&table)))
            .await?;
        let mut config = ConfigDb::default();
        for (key, fields) in self.database.hashes(&keys).await? {
            if let Some((table, key)) = self.database.split_key(key) {
                config.insert(table, key, without_placeholder(fields));
            }
        }
        self.require_initialized().await?;
        Ok(config)
    }

    async fn require_initialized(&self) -> Result<(), ConfigDbError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(INITIALIZED_KEY);
        let (value,): (Option<String>,) = self.database.query("GET", &pipeline).await?;
        if value.as_deref() == Some("1") { Ok(()) } else { Err(ConfigDbError::NotInitialized) }
    }

    /// Writes one row in a single HSET: daemons see it whole.
    ///
    /// # Errors
    /// The write failed, or it is unknown whether it did: read again before deciding anything.
    pub async fn set_row(&self, table: &str, key: &str, fields: &Fields) -> Result<(), DatabaseError> {
        let mut pipeline = redis::pipe();
        push_set(&mut pipeline, &self.database.key(table, key), fields);
        self.database.query("HSET", &pipeline).await
    }

    /// Deletes one row; deleting an absent one is no error.
    ///
    /// # Errors
    /// As [`ConfigStore::set_row`].
    pub async fn delete_row(&self, table: &str, key: &str) -> Result<(), DatabaseError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("DEL").arg(self.database.key(table, key)).ignore();
        self.database.query("DEL", &pipeline).await
    }

    /// Writes all rows in one MULTI/EXEC, in this order. SONiC's daemons still handle them key by key and
    /// in an order of their own.
    ///
    /// # Errors
    /// As [`ConfigStore::set_row`]; all rows are written or none.
    pub async fn write(&self, changes: &[RowChange]) -> Result<(), DatabaseError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for change in changes {
            match change {
                RowChange::Set { table, key, fields } => {
                    push_set(&mut pipeline, &self.database.key(table, key), fields);
                }
                RowChange::Delete { table, key } => {
                    pipeline.cmd("DEL").arg(self.database.key(table, key)).ignore();
                }
            }
        }
        self.database.query("MULTI", &pipeline).await
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

fn push_set(pipeline: &mut redis::Pipeline, key: &str, fields: &Fields) {
    let command = pipeline.cmd("HSET").arg(key);
    if fields.is_empty() {
        // Redis has no empty hash; SONiC's placeholder keeps the row alive.
        command.arg("NULL").arg("NULL");
    }
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
    command.ignore();
}

#[cfg(test)]
mod tests;

//! Writes to CONFIG_DB and the notifications they make.

use super::SimSwitch;
use super::effect::Daemon;
use super::queue::{Notification, Op};
use crate::row::{ConfigDb, Fields};

/// A write to CONFIG_DB, as a redis client does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigWrite {
    /// HSET: merges into an existing row; without fields the `NULL` placeholder.
    Set { table: String, key: String, fields: Fields },
    /// HDEL: a row that loses its last field is gone.
    Hdel { table: String, key: String, field: String },
    /// DEL of the whole row.
    Del { table: String, key: String },
}

impl SimSwitch {
    pub fn config(&self) -> &ConfigDb {
        &self.world.config
    }

    /// HSET of one row.
    pub fn config_set(&mut self, table: &str, key: &str, fields: Fields) {
        self.config_transaction([ConfigWrite::Set { table: table.into(), key: key.into(), fields }]);
    }

    /// HDEL of one field.
    pub fn config_hdel(&mut self, table: &str, key: &str, field: &str) {
        let write = ConfigWrite::Hdel { table: table.into(), key: key.into(), field: field.into() };
        self.config_transaction([write]);
    }

    /// DEL of one row.
    pub fn config_del(&mut self, table: &str, key: &str) {
        self.config_transaction([ConfigWrite::Del { table: table.into(), key: key.into() }]);
    }

    /// MULTI/EXEC: daemons get the notifications of all writes together.
    pub fn config_transaction(&mut self, writes: impl IntoIterator<Item = ConfigWrite>) {
        self.transaction += 1;
        for write in writes {
            self.config_write(write);
        }
        self.world.generation += 1;
    }

    fn config_write(&mut self, write: ConfigWrite) {
        let config = &mut self.world.config;
        match write {
            ConfigWrite::Set { table, key, fields } => {
                let mut row = config.row(&table, &key).cloned().unwrap_or_default();
                row.extend(fields);
                config.insert(&table, &key, row);
                self.notify(&table, &key, Op::Set);
            }
            ConfigWrite::Hdel { table, key, field } => {
                let Some(mut row) = config.row(&table, &key).cloned() else {
                    return;
                };
                if row.remove(&field).is_none() {
                    return;
                }
                if row.is_empty() {
                    config.remove(&table, &key);
                    self.notify(&table, &key, Op::Del);
                } else {
                    config.insert(&table, &key, row);
                    self.notify(&table, &key, Op::Set);
                }
            }
            ConfigWrite::Del { table, key } => {
                if config.remove(&table, &key).is_some() {
                    self.notify(&table, &key, Op::Del);
                }
            }
        }
    }

    /// Makes a row exactly `fields`, with one notification: for a mirror of a real CONFIG_DB.
    pub fn config_put(&mut self, table: &str, key: &str, fields: Fields) {
        self.transaction += 1;
        self.world.config.insert(table, key, fields);
        self.notify(table, key, Op::Set);
        self.world.generation += 1;
        if !self.world.models_ports && matches!(table, "PORT" | "PORTCHANNEL") {
            self.world.report_port(key);
        }
    }

    fn notify(&mut self, table: &str, key: &str, op: Op) {
        let transaction = self.transaction;
        for daemon in Daemon::ALL {
            let subscribed = daemon.config_tables().iter().find(|name| **name == table);
            let (Some(name), true) = (subscribed, self.running.contains(&daemon)) else {
                continue;
            };
            let notification = Notification { op, key: key.to_owned(), transaction };
            self.subscriptions.entry((daemon, *name)).or_default().push(notification);
        }
    }
}

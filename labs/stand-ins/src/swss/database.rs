//! SONiC's databases: CONFIG_DB mirrored by keyspace events, STATE_DB and APPL_DB written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncCommands, ConnectionAddr, IntoConnectionInfo};
use serde::Deserialize;
use switch_agent_core::row::{ConfigDb, Fields, without_placeholder};
use switch_agent_core::sim::{Daemon, STATE_TABLES_FLUSHED};

use super::{Error, acl};

/// The whole lab shares one slow CPU: with many ports an answer takes longer than on a switch.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Writes of one transaction follow each other within this time.
const TOGETHER: Duration = Duration::from_millis(2);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct DatabaseConfig {
    instances: BTreeMap<String, Instance>,
    databases: BTreeMap<String, Database>,
}

#[derive(Debug, Deserialize)]
struct Instance {
    unix_socket_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Database {
    id: i64,
    separator: String,
    instance: String,
}

struct Connection {
    redis: MultiplexedConnection,
    separator: String,
}

pub(super) struct Databases {
    config: Connection,
    state: Connection,
    appl: Connection,
}

pub(super) struct ConfigEvent {
    pub(super) table: String,
    pub(super) key: String,
    pub(super) deleted: bool,
}

pub(super) struct ConfigEvents {
    stream: PubSubStream,
    /// The subscription lasts as long as this half.
    _sink: PubSubSink,
    separator: String,
}

fn refused(step: &'static str) -> impl FnOnce(redis::RedisError) -> Error {
    move |source| Error::Redis { step, source }
}

/// Subscribes to CONFIG_DB first, so that nothing happens between reading it and following it.
pub(super) async fn open(path: &Path) -> Result<(Databases, ConfigEvents), Error> {
    let text = std::fs::read(path).map_err(|source| Error::ReadFile { path: path.into(), source })?;
    let file: DatabaseConfig =
        serde_json::from_slice(&text).map_err(|source| Error::ParseFile { path: path.into(), source })?;
    let database = |name: &'static str| {
        let database = file.databases.get(name);
        database
            .and_then(|database| Some((database, file.instances.get(&database.instance)?)))
            .ok_or_else(|| Error::NoDatabase { path: path.into(), database: name })
    };
    let (config, instance) = database("CONFIG_DB")?;
    let (mut sink, stream) =
        client(config, instance)?.get_async_pubsub().await.map_err(refused("connect"))?.split();
    sink.psubscribe(format!("__keyspace@{}__:*", config.id)).await.map_err(refused("subscribe"))?;
    let events = ConfigEvents { stream, _sink: sink, separator: config.separator.clone() };
    let mut connections = Vec::new();
    for name in ["CONFIG_DB", "STATE_DB", "APPL_DB"] {
        let (database, instance) = database(name)?;
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT));
        let redis = client(database, instance)?
            .get_multiplexed_async_connection_with_config(&patient)
            .await
            .map_err(refused("connect"))?;
        connections.push(Connection { redis, separator: database.separator.clone() });
    }
    match <[Connection; 3]>::try_from(connections) {
        Ok([config, state, appl]) => Ok((Databases { config, state, appl }, events)),
        Err(_) => Err(Error::Ended("the list of databases")),
    }
}

fn client(database: &Database, instance: &Instance) -> Result<redis::Client, Error> {
    let address = ConnectionAddr::Unix(instance.unix_socket_path.clone());
    let info = address.into_connection_info().map_err(refused("connect"))?;
    let settings = info.redis_settings().clone().set_db(database.id);
    redis::Client::open(info.set_redis_settings(settings)).map_err(refused("connect"))
}

/// Tables that a daemon of the model reads.
fn is_mirrored(table: &str) -> bool {
    matches!(table, "PORT" | "PORTCHANNEL")
        || acl::CONFIG_TABLES.contains(&table)
        || Daemon::ALL.iter().any(|daemon| daemon.config_tables().contains(&table))
}

impl ConfigEvents {
    /// The next change of a row that the model reads.
    pub(super) async fn next(&mut self) -> Result<ConfigEvent, Error> {
        loop {
            let message = self.stream.next().await.ok_or(Error::Ended("the subscription to CONFIG_DB"))?;
            let channel = message.get_channel_name();
            let Some((_, name)) = channel.split_once(':') else {
                continue;
            };
            let Some((table, key)) = name.split_once(self.separator.as_str()) else {
                continue;
            };
            if !is_mirrored(table) {
                continue;
            }
            let operation: String = message.get_payload().map_err(refused("read an event"))?;
            let deleted = operation == "del";
            return Ok(ConfigEvent { table: table.to_owned(), key: key.to_owned(), deleted });
        }
    }

    /// A change that came together with the last one.
    pub(super) async fn next_soon(&mut self) -> Result<Option<ConfigEvent>, Error> {
        match tokio::time::timeout(TOGETHER, self.next()).await {
            Ok(event) => event.map(Some),
            Err(_) => Ok(None),
        }
    }
}

impl Connection {
    fn key(&self, table: &str, key: &str) -> String {
        format!("{table}{}{key}", self.separator)
    }

    async fn set(&mut self, table: &str, key: &str, fields: &Fields) -> Result<(), Error> {
        let name = self.key(table, key);
        let result = if fields.is_empty() {
            self.redis.hset(name, "NULL", "NULL").await
        } else {
            let pairs: Vec<(&String, &String)> = fields.iter().collect();
            self.redis.hset_multiple(name, &pairs).await
        };
        result.map_err(refused("HSET"))
    }

    async fn del(&mut self, table: &str, key: &str) -> Result<(), Error> {
        let name = self.key(table, key);
        self.redis.del(name).await.map_err(refused("DEL"))
    }
}

impl Databases {
    pub(super) async fn config(&mut self) -> Result<ConfigDb, Error> {
        let names: Vec<String> = self.config.redis.keys("*").await.map_err(refused("KEYS"))?;
        let mut config = ConfigDb::default();
        for name in names {
            let Some((table, key)) = name.split_once(self.config.separator.as_str()) else {
                continue;
            };
            if is_mirrored(table)
                && let Some(row) = self.config_row(table, key).await?
            {
                config.insert(table, key, row);
            }
        }
        Ok(config)
    }

    /// One row, or `None` where it is gone.
    pub(super) async fn config_row(&mut self, table: &str, key: &str) -> Result<Option<Fields>, Error> {
        let name = self.config.key(table, key);
        let row: Fields = self.config.redis.hgetall(name).await.map_err(refused("HGETALL"))?;
        Ok((!row.is_empty()).then(|| without_placeholder(row)))
    }

    /// What a cold start of swss removes: all of APPL_DB, and its own tables of STATE_DB.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        let () = redis::cmd("FLUSHDB").query_async(&mut self.appl.redis).await.map_err(refused("FLUSHDB"))?;
        for table in STATE_TABLES_FLUSHED.into_iter().chain(acl::STATE_TABLES) {
            let pattern = self.state.key(table, "*");
            let keys: Vec<String> = self.state.redis.keys(pattern).await.map_err(refused("KEYS"))?;
            for key in keys {
                let () = self.state.redis.del(key).await.map_err(refused("DEL"))?;
            }
        }
        Ok(())
    }

    pub(super) async fn state_set(&mut self, table: &str, key: &str, row: &Fields) -> Result<(), Error> {
        self.state.set(table, key, row).await
    }

    pub(super) async fn state_del(&mut self, table: &str, key: &str) -> Result<(), Error> {
        self.state.del(table, key).await
    }

    pub(super) async fn appl_set(&mut self, table: &str, key: &str, row: &Fields) -> Result<(), Error> {
        self.appl.set(table, key, row).await
    }

    pub(super) async fn appl_del(&mut self, table: &str, key: &str) -> Result<(), Error> {
        self.appl.del(table, key).await
    }

    /// Marks a key as not yet taken by orchagent, or as taken.
    pub(super) async fn key_set(&mut self, table: &str, key: &str, waiting: bool) -> Result<(), Error> {
        let name = format!("{table}_KEY_SET");
        let result = if waiting {
            self.appl.redis.sadd(name, key).await
        } else {
            self.appl.redis.srem(name, key).await
        };
        result.map_err(refused("SADD"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_s_own_file_of_databases_is_understood() {
        let text = r#"{
            "INSTANCES": {
                "redis": {
                    "hostname": "127.0.0.1", "port": 6379, "persistence_for_warm_boot": "yes",
                    "unix_socket_path": "/var/run/redis/redis.sock"
                }
            },
            "DATABASES": {
                "APPL_DB": {"id": 0, "separator": ":", "instance": "redis"},
                "CONFIG_DB": {"id": 4, "separator": "|", "instance": "redis"}
            },
            "VERSION": "1.0"
        }"#;
        let file: DatabaseConfig = serde_json::from_str(text).unwrap();
        let config = &file.databases["CONFIG_DB"];
        let client = client(config, &file.instances[&config.instance]).unwrap();
        let info = client.get_connection_info();
        assert_eq!(info.redis_settings().db(), 4);
        assert_eq!(*info.addr(), ConnectionAddr::Unix("/var/run/redis/redis.sock".into()));
    }

    #[test]
    fn only_tables_of_the_model_are_mirrored() {
        for table in
            ["VRF", "INTERFACE", "LOOPBACK_INTERFACE", "PORTCHANNEL_INTERFACE", "VLAN_MEMBER", "PORT"]
        {
            assert!(is_mirrored(table), "{table}");
        }
        assert!(!is_mirrored("BOOT_NETWORK_PORT") && !is_mirrored("FEATURE"));
    }
}

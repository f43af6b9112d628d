//! One database of a Redis instance: a connection that is made again when it broke, and the few access
//! patterns the agent has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo,
};
use switch_agent_core::map::IntoMap;
use switch_agent_core::row::Fields;
use tokio::sync::Mutex;

use super::config::{DatabaseEntry, Endpoint};

/// Longest wait for a connection to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the answer to one pipeline.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Keys per step of a scan. SONiC's databases hold some thousand keys: a few round trips.
const SCAN_COUNT: u32 = 4096;
/// Upper bound of scan steps: 4 million keys, far beyond any switch.
const SCAN_STEPS_MAX: u32 = 1024;
/// Commands per pipeline, which bounds the memory of one exchange, and of the buffers that a connection keeps.
const PIPELINE_MAX: usize = 128;

/// An exchange with a database that failed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("{database}: cannot read its password from {}", path.display())]
    Password {
        database: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{database}: cannot connect to {endpoint}")]
    Connect {
        database: String,
        endpoint: Endpoint,
        #[source]
        source: redis::RedisError,
    },
    #[error("{database}: {operation} failed")]
    Command {
        database: String,
        operation: &'static str,
        #[source]
        source: redis::RedisError,
    },
    #[error("{database}: no answer to {operation} within {timeout:?}")]
    Timeout { database: String, operation: &'static str, timeout: Duration },
    #[error("{database}: a scan did not end after {steps} steps")]
    Scan { database: String, steps: u32 },
}

/// A handle of one database. Cheap to clone; clones share one connection.
#[derive(Debug, Clone)]
pub struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    entry: DatabaseEntry,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Database {
    pub fn new(entry: DatabaseEntry) -> Database {
        Database(Arc::new(Inner { entry, connection: Mutex::new(None) }))
    }

    pub fn name(&self) -> &str {
        &self.0.entry.name
    }

    pub fn id(&self) -> u32 {
        self.0.entry.id
    }

    /// The key of a row: table, separator, key.
    pub fn key(&self, table: &str, key: &str) -> String {
        format!("{table}{}{key}", self.0.entry.separator)
    }

    /// Splits a key of this database into table and key of the row.
    pub fn split_key<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        key.split_once(self.0.entry.separator.as_str())
    }

    /// Sends one pipeline and decodes its answer.
    ///
    /// A connection that turns out to be dead (the server was restarted) is replaced once, so pipelines
    /// must be idempotent; all of the agent's are.
    ///
    /// # Errors
    /// No connection, an error reply, or no answer in time. The next call starts with a new connection.
    pub async fn query<T: FromRedisValue>(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<T, DatabaseError> {
        let failed = |source| DatabaseError::Command { database: self.name().to_owned(), operation, source };
        let (mut connection, fresh) = self.connection().await?;
        let first = match self.exchange(operation, pipeline, &mut connection).await? {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if fresh || !first.is_unrecoverable_error() {
            return Err(failed(first));
        }
        let (mut connection, _) = self.connection().await?;
        self.exchange(operation, pipeline, &mut connection).await?.map_err(failed)
    }

    /// One exchange; forgets the connection unless the server answered.
    async fn exchange<T: FromRedisValue>(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
        connection: &mut MultiplexedConnection,
    ) -> Result<Result<T, redis::RedisError>, DatabaseError> {
        let result = tokio::time::timeout(RESPONSE_TIMEOUT, pipeline.query_async(connection)).await;
        let Ok(result) = result else {
            self.forget().await;
            return Err(DatabaseError::Timeout {
                database: self.name().to_owned(),
                operation,
                timeout: RESPONSE_TIMEOUT,
            });
        };
        if let Err(error) = &result
            && (error.is_unrecoverable_error() || error.is_timeout())
        {
            self.forget().await;
        }
        Ok(result)
    }

    async fn forget(&self) {
        self.0.connection.lock().await.take();
    }

    /// The shared connection, and whether it was made just now.
    async fn connection(&self) -> Result<(MultiplexedConnection, bool), DatabaseError> {
        let mut slot = self.0.connection.lock().await;
        if let Some(connection) = slot.as_ref() {
            return Ok((connection.clone(), false));
        }
        let client = self.client()?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connection = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|source| self.connect_error(source))?,
            Err(_) => return Err(self.connect_timeout()),
        };
        *slot = Some(connection.clone());
        Ok((connection, true))
    }

    /// A new connection for keyspace events alone.
    pub(super) async fn subscriber(&self) -> Result<redis::aio::PubSub, DatabaseError> {
        let client = self.client()?;
        match tokio::time::timeout(CONNECT_TIMEOUT, client.get_async_pubsub()).await {
            Ok(connected) => connected.map_err(|source| self.connect_error(source)),
            Err(_) => Err(self.connect_timeout()),
        }
    }

    fn connect_error(&self, source: redis::RedisError) -> DatabaseError {
        DatabaseError::Connect {
            database: self.name().to_owned(),
            endpoint: self.0.entry.endpoint.clone(),
            source,
        }
    }

    fn connect_timeout(&self) -> DatabaseError {
        DatabaseError::Timeout {
            database: self.name().to_owned(),
            operation: "connecting",
            timeout: CONNECT_TIMEOUT,
        }
    }

    fn client(&self) -> Result<Client, DatabaseError> {
        let entry = &self.0.entry;
        // RESP2: the Redis of older SONiC releases knows nothing else, nor CLIENT SETINFO.
        let mut settings = RedisConnectionInfo::default().set_db(i64::from(entry.id)).set_skip_set_lib_name();
        if let Some(path) = &entry.password_path {
            let password = std::fs::read_to_string(path).map_err(|source| DatabaseError::Password {
                database: entry.name.clone(),
                path: path.clone(),
                source,
            })?;
            settings = settings.set_password(password.trim());
        }
        let address = match &entry.endpoint {
            Endpoint::Unix(path) => ConnectionAddr::Unix(path.clone()),
            Endpoint::Tcp { hostname, port } => ConnectionAddr::Tcp(hostname.clone(), *port),
        };
        let info = address.into_connection_info().map_err(|source| self.connect_error(source))?;
        Client::open(info.set_redis_settings(settings)).map_err(|source| self.connect_error(source))
    }

    /// The keys that `wanted` accepts, by SCAN: never KEYS, and never longer than [`SCAN_STEPS_MAX`] steps.
    ///
    /// # Errors
    /// As [`Database::query`], or the scan did not end.
    pub async fn keys(&self, wanted: impl Fn(&str) -> bool) -> Result<BTreeSet<String>, DatabaseError> {
        let mut found = BTreeSet::new();
        let mut cursor = 0u64;
        for _ in 0..SCAN_STEPS_MAX {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SCAN").arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            let ((next, keys),): ((u64, Vec<Vec<u8>>),) = self.query("SCAN", &pipeline).await?;
            // A key that is no text is nobody's we know.
            found
                .extend(keys.into_iter().filter_map(|key| String::from_utf8(key).ok()).filter(|k| wanted(k)));
            if next == 0 {
                return Ok(found);
            }
            cursor = next;
        }
        Err(DatabaseError::Scan { database: self.name().to_owned(), steps: SCAN_STEPS_MAX })
    }

    /// The hashes of `keys`, pipelined. A key that is gone by now is left out.
    ///
    /// # Errors
    /// As [`Database::query`]; a key that is no hash is an error too.
    pub async fn hashes<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a String>,
    ) -> Result<BTreeMap<&'a str, Fields>, DatabaseError> {
        let mut hashes = BTreeMap::new();
        self.each_hash(keys, |key, fields| _ = hashes.insert(key, fields)).await?;
        Ok(hashes)
    }

    /// As [`Database::hashes`], each told as it comes: whoever keeps a few fields of thousands of rows need not
    /// hold them all.
    ///
    /// # Errors
    /// As [`Database::hashes`]; some hashes may have been told by then.
    pub async fn each_hash<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a String>,
        mut tell: impl FnMut(&'a str, Fields),
    ) -> Result<(), DatabaseError> {
        let keys: Vec<&String> = keys.into_iter().collect();
        for chunk in keys.chunks(PIPELINE_MAX) {
            let mut pipeline = redis::pipe();
            for key in chunk {
                pipeline.cmd("HGETALL").arg(key);
            }
            let replies: Vec<Vec<(Vec<u8>, Vec<u8>)>> = self.query("HGETALL", &pipeline).await?;
            for (key, reply) in chunk.iter().zip(replies) {
                if !reply.is_empty() {
                    tell(key.as_str(), text_fields(reply));
                }
            }
        }
        Ok(())
    }

    /// Whether all of `present` exist and none of `absent`, by two commands for any number of keys.
    ///
    /// # Errors
    /// As [`Database::query`].
    pub async fn exist_as(&self, present: &[String], absent: &[String]) -> Result<bool, DatabaseError> {
        let mut pipeline = redis::pipe();
        let asked = [(present, present.len()), (absent, 0)].into_iter().filter(|(keys, _)| !keys.is_empty());
        let wanted: Vec<usize> = asked
            .map(|(keys, exist)| {
                pipeline.cmd("EXISTS").arg(keys);
                exist
            })
            .collect();
        if wanted.is_empty() {
            return Ok(true);
        }
        let counts: Vec<usize> = self.query("EXISTS", &pipeline).await?;
        Ok(counts == wanted)
    }

    /// Which of `keys` exist, pipelined.
    ///
    /// # Errors
    /// As [`Database::query`].
    pub async fn existing<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a String>,
    ) -> Result<BTreeSet<&'a str>, DatabaseError> {
        let keys: Vec<&String> = keys.into_iter().collect();
        let mut existing = BTreeSet::new();
        for chunk in keys.chunks(PIPELINE_MAX) {
            let mut pipeline = redis::pipe();
            for key in chunk {
                pipeline.cmd("EXISTS").arg(key);
            }
            let replies: Vec<bool> = self.query("EXISTS", &pipeline).await?;
            existing
                .extend(chunk.iter().zip(replies).filter(|(_, exists)| *exists).map(|(key, _)| key.as_str()));
        }
        Ok(existing)
    }
}

/// Fields as text. Foreign rows may hold any bytes (a port's description), and must not blind the agent.
fn text_fields(reply: Vec<(Vec<u8>, Vec<u8>)>) -> Fields {
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    };
    reply.into_iter().map(|(name, value)| (text(name), text(value))).into_map()
}

//! SONiC's databases: where they are, connections to them, and their keyspace events.
//!
//! A [`Database`] is a handle, not a connection: opening one does no I/O, and a connection is made when it
//! is first used and again after it broke. Nothing here waits longer than [`RESPONSE_TIMEOUT`] per step.

mod config;
mod database;
mod follow;
#[cfg(test)]
pub(crate) mod testing;

pub use config::{DatabaseConfig, DatabaseConfigError, DatabaseEntry, Endpoint};
pub use database::{CONNECT_TIMEOUT, Database, DatabaseError, RESPONSE_TIMEOUT};
pub(crate) use follow::{Change, follow, tells};

/// The databases that the agent uses.
#[derive(Debug, Clone)]
pub struct Databases {
    pub config_db: Database,
    pub state_db: Database,
    pub appl_db: Database,
}

impl Databases {
    /// Handles of the databases that `config` describes; no I/O.
    ///
    /// # Errors
    /// One of the three is missing from the file, or refers to an instance that is.
    pub fn new(config: &DatabaseConfig) -> Result<Databases, DatabaseConfigError> {
        let open = |name: &str| config.database(name).map(Database::new);
        Ok(Databases {
            config_db: open("CONFIG_DB")?,
            state_db: open("STATE_DB")?,
            appl_db: open("APPL_DB")?,
        })
    }
}

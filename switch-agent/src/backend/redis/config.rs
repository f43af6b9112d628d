//! `database_config.json`: which Redis instance holds which database (written by SONiC's database
//! container; ids and separators are never assumed).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A `database_config.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseConfigError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not a database configuration", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_path_to_error::Error<serde_json::Error>,
    },
    #[error("{}: DATABASES has no {database}", path.display())]
    NoDatabase { path: PathBuf, database: String },
    #[error(
        "{}: DATABASES.{database}.instance is {instance:?}, which INSTANCES does not have",
        path.display()
    )]
    NoInstance { path: PathBuf, database: String, instance: String },
    #[error("{}: INSTANCES.{instance} has neither unix_socket_path nor hostname and port", path.display())]
    NoEndpoint { path: PathBuf, instance: String },
    #[error("NAMESPACE_COUNT is {count:?}: switches with more than one ASIC are not supported")]
    MultiAsic { count: String },
}

/// Where a Redis instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Unix(PathBuf),
    Tcp { hostname: String, port: u16 },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => path.display().fmt(f),
            Endpoint::Tcp { hostname, port } => write!(f, "{hostname}:{port}"),
        }
    }
}

/// One database as the file describes it, its instance resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseEntry {
    pub name: String,
    pub id: u32,
    /// Between the table's name and the row's key: `|` or `:`.
    pub separator: String,
    pub endpoint: Endpoint,
    /// File with the instance's password, on images that set one.
    pub password_path: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
struct Instance {
    hostname: Option<String>,
    port: Option<u16>,
    unix_socket_path: Option<PathBuf>,
    password_path: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
struct DatabaseJson {
    id: u32,
    separator: String,
    instance: String,
}

/// The parsed file.
#[derive(Debug, Clone, Deserialize)]
pub struct DatabaseConfig {
    /// Where it was read.
    #[serde(skip)]
    path: PathBuf,
    #[serde(rename = "INSTANCES")]
    instances: BTreeMap<String, Instance>,
    #[serde(rename = "DATABASES")]
    databases: BTreeMap<String, DatabaseJson>,
}

impl DatabaseConfig {
    /// Reads the file at `path`. `namespace_count` is the variable `NAMESPACE_COUNT` that SONiC gives to
    /// every container.
    ///
    /// # Errors
    /// The file cannot be read or parsed, or the switch has several ASICs (each with its own databases).
    pub fn load(path: &Path, namespace_count: Option<&str>) -> Result<DatabaseConfig, DatabaseConfigError> {
        if let Some(count) = namespace_count
            && count.trim().parse::<u32>().is_ok_and(|count| count > 1)
        {
            return Err(DatabaseConfigError::MultiAsic { count: count.to_owned() });
        }
        let text = std::fs::read(path)
            .map_err(|source| DatabaseConfigError::Read { path: path.to_owned(), source })?;
        let mut deserializer = serde_json::Deserializer::from_slice(&text);
        let config: DatabaseConfig = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|source| DatabaseConfigError::Parse { path: path.to_owned(), source })?;
        Ok(DatabaseConfig { path: path.to_owned(), ..config })
    }

    /// The database called `name`. Its unix socket is preferred, as SONiC's own clients on the switch do.
    ///
    /// # Errors
    /// The file lacks the database, its instance, or a way to reach that.
    pub fn database(&self, name: &str) -> Result<DatabaseEntry, DatabaseConfigError> {
        let Some(database) = self.databases.get(name) else {
            let (path, database) = (self.path.clone(), name.to_owned());
            return Err(DatabaseConfigError::NoDatabase { path, database });
        };
        let Some(instance) = self.instances.get(&database.instance) else {
            return Err(DatabaseConfigError::NoInstance {
                path: self.path.clone(),
                database: name.to_owned(),
                instance: database.instance.clone(),
            });
        };
        let socket = instance.unix_socket_path.clone().filter(|path| !path.as_os_str().is_empty());
        let endpoint = match (socket, &instance.hostname, instance.port) {
            (Some(path), _, _) => Endpoint::Unix(path),
            (None, Some(hostname), Some(port)) => Endpoint::Tcp { hostname: hostname.clone(), port },
            _ => {
                let (path, instance) = (self.path.clone(), database.instance.clone());
                return Err(DatabaseConfigError::NoEndpoint { path, instance });
            }
        };
        Ok(DatabaseEntry {
            name: name.to_owned(),
            id: database.id,
            separator: database.separator.clone(),
            endpoint,
            password_path: instance.password_path.clone().filter(|path| !path.as_os_str().is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DatabaseConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn databases_are_resolved_through_their_instance() {
        let config = parse(
            r#"{"INSTANCES": {
                  "redis": {"hostname": "127.0.0.1", "port": 6379, "unix_socket_path": "/run/r.sock",
                            "persistence_for_warm_boot": "yes"},
                  "remote": {"hostname": "::1", "port": 6380, "unix_socket_path": "",
                             "password_path": "/etc/shadow_redis"}},
                "DATABASES": {
                  "CONFIG_DB": {"id": 4, "separator": "|", "instance": "redis"},
                  "APPL_DB": {"id": 0, "separator": ":", "instance": "remote"},
                  "LOST_DB": {"id": 1, "separator": ":", "instance": "gone"}},
                "VERSION": "1.0"}"#,
        );
        let config_db = config.database("CONFIG_DB").unwrap();
        assert_eq!((config_db.id, config_db.separator.as_str()), (4, "|"));
        assert_eq!(config_db.endpoint, Endpoint::Unix("/run/r.sock".into()));
        assert_eq!(config_db.password_path, None);
        let appl_db = config.database("APPL_DB").unwrap();
        assert_eq!(appl_db.endpoint, Endpoint::Tcp { hostname: "::1".to_owned(), port: 6380 });
        assert_eq!(appl_db.password_path, Some("/etc/shadow_redis".into()));
        let lost = config.database("LOST_DB").unwrap_err().to_string();
        assert_eq!(lost, ": DATABASES.LOST_DB.instance is \"gone\", which INSTANCES does not have");
        assert!(matches!(config.database("STATE_DB"), Err(DatabaseConfigError::NoDatabase { .. })));
    }

    #[test]
    fn several_asics_and_bad_files_are_refused_with_a_reason() {
        let dir = crate::backend::redis::testing::TempDir::new();
        let path = dir.path().join("database_config.json");
        assert!(matches!(DatabaseConfig::load(&path, None), Err(DatabaseConfigError::Read { .. })));
        std::fs::write(&path, "{\"INSTANCES\": {}}").unwrap();
        assert!(matches!(DatabaseConfig::load(&path, None), Err(DatabaseConfigError::Parse { .. })));
        std::fs::write(&path, r#"{"INSTANCES": {}, "DATABASES": {}}"#).unwrap();
        for single in [None, Some("1"), Some("0"), Some("")] {
            assert!(DatabaseConfig::load(&path, single).is_ok(), "{single:?}");
        }
        let several = DatabaseConfig::load(&path, Some("3")).unwrap_err();
        assert!(several.to_string().contains("more than one ASIC"), "{several}");
    }
}

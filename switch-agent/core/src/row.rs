//! Rows of SONiC's databases as plain data, and the grammar of their keys.
//!
//! Nothing here knows redis. A table is a map from the key after `TABLE|` to the row's fields; an empty
//! SONiC row carries the placeholder field `NULL`, which is dropped on reading and added on writing.

use crate::map::IntoMap;
use std::collections::BTreeMap;

use serde::Serialize;

/// Fields of one row, without SONiC's `NULL` placeholder.
pub type Fields = BTreeMap<String, String>;
/// Rows of one table by the part of the key after the table's name and separator.
pub type Table = BTreeMap<String, Fields>;

/// CONFIG_DB: every table the agent reads, by table name. A table without rows is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ConfigDb {
    pub tables: BTreeMap<String, Table>,
}

/// Tables of CONFIG_DB that the agent reads, each with a reason to be read. Nothing else is fetched.
pub const CONFIG_TABLES: [&str; 28] = [
    "ACL_RULE",
    "ACL_TABLE",
    "BOOT_NETWORK",
    "BOOT_NETWORK_PARTITION",
    "BOOT_NETWORK_PORT",
    "BOOT_NETWORK_PROFILE",
    "BGP_GLOBALS",
    "BGP_GLOBALS_AF",
    "BGP_GLOBALS_AF_NETWORK",
    "DEVICE_METADATA",
    "FEATURE",
    "INTERFACE",
    "LOGGER",
    "LOOPBACK_INTERFACE",
    "MGMT_VRF_CONFIG",
    "PORT",
    "PORTCHANNEL",
    "PORTCHANNEL_INTERFACE",
    "PORTCHANNEL_MEMBER",
    "PREFIX",
    "PREFIX_SET",
    "ROUTE_MAP",
    "ROUTE_MAP_SET",
    "STATIC_ROUTE",
    "VLAN_INTERFACE",
    "VLAN_MEMBER",
    "VLAN_SUB_INTERFACE",
    "VRF",
];

impl ConfigDb {
    pub fn table(&self, name: &str) -> impl Iterator<Item = (&str, &Fields)> {
        self.tables.get(name).into_iter().flatten().map(|(key, fields)| (key.as_str(), fields))
    }

    pub fn row(&self, table: &str, key: &str) -> Option<&Fields> {
        self.tables.get(table)?.get(key)
    }

    pub fn insert(&mut self, table: &str, key: &str, fields: Fields) {
        self.tables.entry(table.to_owned()).or_default().insert(key.to_owned(), fields);
    }

    pub fn remove(&mut self, table: &str, key: &str) -> Option<Fields> {
        let rows = self.tables.get_mut(table)?;
        let removed = rows.remove(key);
        if rows.is_empty() {
            self.tables.remove(table);
        }
        removed
    }
}

/// Builds [`Fields`] from pairs; `fields([])` is SONiC's empty row.
pub fn fields<const N: usize>(pairs: [(&str, &str); N]) -> Fields {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).into_map()
}

/// Drops the `NULL` placeholder that keeps an empty row alive in redis.
pub fn without_placeholder(mut fields: Fields) -> Fields {
    if fields.get("NULL").is_some_and(|value| value == "NULL") {
        fields.remove("NULL");
    }
    fields
}

/// Splits a SONiC leaf-list value (`a,b,c`); empty items vanish.
pub fn leaf_list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

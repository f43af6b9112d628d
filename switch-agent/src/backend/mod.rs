//! The only modules that touch redis, rtnetlink, raw sockets, files and processes.

pub mod config_db;
pub mod frr;
pub mod kernel;
pub mod keys;
pub mod memory;
#[cfg(test)]
pub(crate) mod namespace;
mod netlink;
pub mod nftables;
pub mod packet;
pub mod privileges;
pub mod redis;
pub mod state_db;
pub mod state_dir;

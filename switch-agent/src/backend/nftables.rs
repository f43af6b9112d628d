//! The drop rule: the kernel does not see the Router Solicitations of our ports.
//!
//! A forwarding kernel makes a neighbour entry for every solicitation with a Source Link-Layer Address
//! option (Linux `ndisc_recv_rs`), and its table is one for all ports: a machine that invents sources takes
//! the neighbours of the whole switch away. A packet socket sees frames before netfilter does, so the kernel
//! need not see them at all.
//!
//! ```text
//! table ip6 switch_agent {
//!     set ports { type ifname; elements = { "Ethernet0", ... } }
//!     chain prerouting {
//!         type filter hook prerouting priority raw; policy accept;
//!         iifname @ports icmpv6 type nd-router-solicit counter drop
//!     }
//! }
//! ```
//! Ports go by name, for swss makes their devices anew with other indexes. The table is ours alone and
//! replaced as a whole, in one transaction; it outlives the process.

mod message;
mod socket;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::io;

use nix::errno::Errno;

use message::{Batch, Family, request};
pub use socket::Changes;
use socket::NftSocket;

/// Says by which version of the rule the table was made.
const COMMENT: &str = "switch-agent drop rule 1";
const TABLE: &str = "switch_agent";
const CHAIN: &str = "prerouting";
const SET: &str = "ports";

/// The kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("CAP_NET_ADMIN is not held")]
    NotPermitted,
    /// No nf_tables in the kernel, or none for IPv6.
    #[error("the kernel has no nf_tables for IPv6")]
    NotSupported,
    #[error("cannot {operation}")]
    Failed {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
}

impl NftError {
    fn new(operation: &'static str, source: io::Error) -> NftError {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) => NftError::NotPermitted,
            Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => NftError::NotSupported,
            _ => NftError::Failed { operation, source },
        }
    }

    fn is(&self, errno: Errno) -> bool {
        matches!(self, NftError::Failed { source, .. } if source.raw_os_error() == Some(errno as i32))
    }
}

/// The ports that the rule covers now; `None` where it is not there, or is not as we make it.
///
/// # Errors
/// As [`NftError`] says. Reading needs CAP_NET_ADMIN as well.
pub async fn read() -> Result<Option<BTreeSet<String>>, NftError> {
    let socket = NftSocket::open()?;
    let rules = socket.dump("list the drop rule", request::rules(TABLE, CHAIN)).await;
    let comments: Vec<Option<String>> = match rules {
        Ok(rules) => rules.iter().map(|rule| message::comment(rule)).collect(),
        Err(error) if error.is(Errno::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    if comments != [Some(COMMENT.to_owned())] {
        return Ok(None);
    }
    match socket.dump("list the drop rule's ports", request::elements(TABLE, SET)).await {
        Ok(parts) => Ok(Some(parts.iter().flat_map(|part| message::element_names(part)).collect())),
        Err(error) if error.is(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the rule cover exactly these ports, whatever there was in our table.
///
/// # Errors
/// As [`NftError`] says; nothing was changed then.
pub async fn replace(ports: &BTreeSet<String>) -> Result<(), NftError> {
    let mut batch = Batch::new(Family::Ipv6);
    // Deleting what is not there fails the transaction, so it is made first.
    batch.new_table(TABLE);
    batch.delete_table(TABLE);
    batch.new_table(TABLE);
    batch.new_prerouting_chain(TABLE, CHAIN);
    batch.new_name_set(TABLE, SET);
    batch.new_names(TABLE, SET, ports);
    batch.new_drop_rule(TABLE, CHAIN, SET, COMMENT);
    NftSocket::open()?.commit("install the drop rule", batch).await
}

/// Removes our table; none is no error.
///
/// # Errors
/// As [`NftError`] says.
pub async fn remove() -> Result<(), NftError> {
    let mut batch = Batch::new(Family::Ipv6);
    batch.delete_table(TABLE);
    match NftSocket::open()?.commit("remove the drop rule", batch).await {
        Err(error) if error.is(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

//! rtnetlink: links, addresses, neighbours, routes, and their changes.
//!
//! Requests and dumps each use a socket of their own that lives for one call, so there is no connection
//! that can break between calls. Events arrive on sockets of [`KernelHandle::follow`] alone.

mod decode;
mod follow;
mod neighbors;
mod snapshot;
mod socket;
#[cfg(test)]
mod tests;
mod track;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, address::AddressHeader};
use nix::errno::Errno;
use switch_agent_core::name::MacAddr;
use switch_agent_core::observed::{CONVENIENCE_LINK_LOCAL, Kernel};

pub use follow::RouteEvent;
use neighbors::NeighborCache;
use socket::NetlinkSocket;
pub(in crate::backend) use socket::{errno as netlink_errno, messages as netlink_messages};

/// Metric of the deny route: the kernel's own for "no route" in a VRF, so that any real route wins.
pub const UNREACHABLE_METRIC: u32 = 4_278_198_272;

/// The kernel did not answer, or refused.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("cannot {step} a netlink socket")]
    Socket {
        step: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("the kernel refused to {operation}")]
    Refused {
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("no answer to \"{operation}\" within {timeout:?}")]
    Timeout { operation: &'static str, timeout: Duration },
    #[error("{operation}: changed under every one of {attempts} attempts")]
    Interrupted { operation: &'static str, attempts: u32 },
    #[error("cannot read the process's capabilities")]
    Capabilities(#[source] std::io::Error),
}

impl KernelError {
    fn is(&self, errno: Errno) -> bool {
        matches!(self, KernelError::Refused { source, .. } if source.raw_os_error() == Some(errno as i32))
    }
}

/// The kernel's network state. Cheap to clone; clones share the neighbour cache.
#[derive(Debug, Clone, Default)]
pub struct KernelHandle {
    neighbors: Arc<Mutex<NeighborCache>>,
}

impl KernelHandle {
    pub fn new() -> KernelHandle {
        KernelHandle::default()
    }

    /// Links, their IPv6 addresses and the deny routes of all VRFs, as they are now.
    ///
    /// # Errors
    /// The kernel does not answer, or keeps changing while it is read.
    pub async fn snapshot(&self) -> Result<Kernel, KernelError> {
        snapshot::snapshot().await
    }

    /// The IPv6 neighbours of one link that the kernel knows a link-layer address of.
    ///
    /// # Errors
    /// As [`KernelHandle::snapshot`].
    pub async fn neighbors(&self, ifindex: u32) -> Result<BTreeMap<Ipv6Addr, MacAddr>, KernelError> {
        let present = snapshot::neighbors(&NetlinkSocket::open()?, Some(ifindex)).await?;
        Ok(present.into_iter().map(|neighbor| (neighbor.address, neighbor.mac)).collect())
    }

    /// A link as the kernel has it at this moment, by its index: its name and the index of its master;
    /// `None` where no link has that index.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn link(&self, ifindex: u32) -> Result<Option<(String, Option<u32>)>, KernelError> {
        snapshot::link(&NetlinkSocket::open()?, ifindex).await
    }

    /// The link-layer address of a neighbour, from the cache that [`KernelHandle::follow`] keeps. No I/O.
    pub fn neighbor_mac(&self, ifindex: u32, address: Ipv6Addr) -> Option<MacAddr> {
        self.neighbors.lock().unwrap_or_else(PoisonError::into_inner).mac(ifindex, address)
    }

    /// Adds `unreachable default` with [`UNREACHABLE_METRIC`] to a routing table, for IPv6 and for IPv4:
    /// nobody has IPv4 on a boot port, so nothing of it may fall through to the main table either. Needs
    /// CAP_NET_ADMIN; adding it twice is no error.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn add_unreachable_default(&self, table: u32) -> Result<(), KernelError> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = RouteNetlinkMessage::NewRoute(unreachable_default(family, table));
            let result = NetlinkSocket::open()?
                .acknowledged("add an unreachable default route", request, NLM_F_CREATE | NLM_F_EXCL)
                .await;
            unless(result, &[Errno::EEXIST])?;
        }
        Ok(())
    }

    /// Removes what [`KernelHandle::add_unreachable_default`] added; an absent route is no error.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn remove_unreachable_default(&self, table: u32) -> Result<(), KernelError> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = RouteNetlinkMessage::DelRoute(unreachable_default(family, table));
            let result =
                NetlinkSocket::open()?.acknowledged("remove an unreachable default route", request, 0).await;
            unless(result, &[Errno::ESRCH, Errno::ENOENT])?;
        }
        Ok(())
    }

    /// Adds a link-local address (`/64`) without duplicate address detection: it is meant to be the same
    /// on every port. Needs CAP_NET_ADMIN; adding it twice is no error.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn add_link_local(&self, ifindex: u32, address: Ipv6Addr) -> Result<(), KernelError> {
        let request = RouteNetlinkMessage::NewAddress(link_local(ifindex, address));
        let result = NetlinkSocket::open()?
            .acknowledged("add a link-local address", request, NLM_F_CREATE | NLM_F_EXCL)
            .await;
        unless(result, &[Errno::EEXIST])
    }

    /// Removes [`CONVENIENCE_LINK_LOCAL`]; an absent address or link is no error.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn remove_link_local(&self, ifindex: u32) -> Result<(), KernelError> {
        let request = RouteNetlinkMessage::DelAddress(link_local(ifindex, CONVENIENCE_LINK_LOCAL));
        let result = NetlinkSocket::open()?.acknowledged("remove a link-local address", request, 0).await;
        unless(result, &[Errno::EADDRNOTAVAIL, Errno::ENODEV])
    }
}

/// Turns errors that mean "already so" into success.
fn unless(result: Result<(), KernelError>, harmless: &[Errno]) -> Result<(), KernelError> {
    match result {
        Err(error) if harmless.iter().any(|errno| error.is(*errno)) => Ok(()),
        other => other,
    }
}

fn unreachable_default(family: AddressFamily, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unreachable;
    message.attributes = vec![RouteAttribute::Table(table), RouteAttribute::Priority(UNREACHABLE_METRIC)];
    message
}

fn link_local(ifindex: u32, address: Ipv6Addr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header = AddressHeader {
        family: AddressFamily::Inet6,
        prefix_len: 64,
        flags: AddressHeaderFlags::Nodad,
        scope: AddressScope::Link,
        index: ifindex,
    };
    message.attributes = vec![
        AddressAttribute::Local(address.into()),
        AddressAttribute::Address(address.into()),
        AddressAttribute::Flags(AddressFlags::Nodad),
    ];
    message
}

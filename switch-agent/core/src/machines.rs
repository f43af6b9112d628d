//! The port-to-MAC table: who was seen where, folded from events, aged by an argument.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use crate::dhcp6::{Architecture, MessageType};
use crate::name::{MacAddr, PortName};

mod change;
mod port;
mod table;
#[cfg(test)]
mod tests;

pub use change::{Counters, Limits, MachineChange, Removal};
pub use port::Machine;
pub use table::MachineTable;

/// What told us of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SightingSource {
    /// A Router Solicitation with a source link-layer address (or its Ethernet source).
    Rs,
    /// The kernel's neighbour table, or a probe for a duplicate address.
    Neighbor,
    /// `LLDP_ENTRY_TABLE` of APPL_DB.
    Lldp,
    /// A connection to the discovery proxy.
    Proxy,
    Dhcp6,
}

impl SightingSource {
    /// In the order of their declaration.
    pub const ALL: [SightingSource; 5] = [
        SightingSource::Rs,
        SightingSource::Neighbor,
        SightingSource::Lldp,
        SightingSource::Proxy,
        SightingSource::Dhcp6,
    ];
}

/// One row of `LLDP_ENTRY_TABLE`, as far as people want to see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LldpNeighbor {
    pub chassis_id: String,
    pub port_id: String,
    pub port_desc: String,
    pub sys_name: String,
    pub sys_desc: String,
    /// The chassis or port id as a MAC, where its subtype says it is one.
    pub mac: Option<MacAddr>,
}

/// Something that happened on a port. Every shell part reports through this one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEvent {
    /// Carrier of the port, as the kernel reports it. A bind makes it flap within a millisecond.
    Carrier { port: PortName, up: bool },
    /// A valid Router Solicitation; `address` is `None` when it came from `::`.
    Solicit { port: PortName, mac: MacAddr, address: Option<Ipv6Addr> },
    /// A probe for a duplicate address: somebody is there, whose address is not one yet.
    Probe { port: PortName, mac: MacAddr },
    /// A Router Advertisement left the port.
    Advertised { port: PortName },
    /// The kernel's neighbour table has (or confirmed) this entry.
    Neighbor { port: PortName, mac: MacAddr, address: Ipv6Addr },
    /// The entry went away or failed.
    NeighborGone { port: PortName, address: Ipv6Addr },
    /// LLDP rows of all ports as they are now (a snapshot: ports without a neighbour are absent).
    Lldp { neighbors: Vec<(PortName, LldpNeighbor)> },
    /// A DHCPv6 message was answered; `address` is the link-local one it came from, `boot_url` the one that a
    /// Reply told.
    Dhcp6 {
        port: PortName,
        mac: MacAddr,
        address: Ipv6Addr,
        request: MessageType,
        architecture: Option<Architecture>,
        ipxe: bool,
        boot_url: Option<String>,
    },
    /// A request reached the proxy.
    Proxy { port: PortName, mac: Option<MacAddr>, address: Ipv6Addr, step: ProxyStep },
    /// The port left the boot network: its machines are forgotten.
    Released { port: PortName },
}

/// What the machine asked of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyStep {
    /// Anything that is no step of its own (health checks).
    Seen,
    /// `GET /v1/boot`, `boot.ipxe`: the config was fetched.
    Config,
    /// A token was minted, with the machine id that was claimed.
    Token { machine_id: Option<String> },
    /// A request was forwarded to the control API; its status.
    Api { status: u16 },
    /// `POST /v1/events`.
    Event { stage: String, message: Option<String> },
}

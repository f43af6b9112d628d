//! DHCPv6 of one port (RFC 8415): one address, DNS and a boot file, computed instead of remembered.
//!
//! ```text
//!  frame ─► parse_frame ─► Message::parse ─► token bucket ─► respond ─► Answer ─► write_frame
//!                 └──────────────┴─── Refusal ───┴──────────────┘
//! ```
//! There is no lease store. The address follows from the port's /64 and the Ethernet source of the request,
//! as SLAAC would compute it (RFC 4291 appendix A); every server that knows the prefix computes the same
//! one, before and after a restart. That is safe because a boot port has its /64 for itself and an Ethernet
//! address is unique on its link. A codec of our own, as frames come from a packet socket and answers have
//! to stay small; nothing a peer sends can make it panic, and nothing is allocated before a message passed
//! every check.

use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::Ipv6Net;
use serde::Serialize;

use crate::name::MacAddr;

mod boot;
mod encode;
mod frame;
mod message;
mod option;
mod refusal;
mod respond;
mod server;
#[cfg(test)]
mod tests;

pub use boot::{Architecture, BootClient, BootUrl, expand, has_unknown_placeholder};
pub use encode::{ANSWER_LEN_MAX, longest_answer};
pub use frame::{Datagram, is_udp, parse_frame, write_frame};
pub use message::{Ia, IaKind, Message, MessageType};
pub use refusal::Refusal;
pub use respond::{Answer, AnswerType, PortFacts, machine_address, respond};
pub use server::{Handled, Server};

/// All_DHCP_Relay_Agents_and_Servers (RFC 8415 section 7.1).
pub const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// `33:33:00:01:00:02`, the Ethernet address of [`ALL_DHCP_SERVERS`] (RFC 2464 section 7).
pub const ALL_DHCP_SERVERS_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 1, 0, 2]);

/// RFC 8415 section 7.2.
pub const CLIENT_PORT: u16 = 546;
/// RFC 8415 section 7.2.
pub const SERVER_PORT: u16 = 547;

/// What a partition's DHCPv6 tells, already checked against its bounds; shared by its ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Dhcp6Options {
    /// Lifetimes of the address, seconds; `u32::MAX` is infinity. Those of the /64 in the advertisements.
    pub valid_s: u32,
    pub preferred_s: u32,
    /// RFC 3646.
    pub dns_servers: Vec<Ipv6Addr>,
    pub domain_search: Vec<String>,
    /// Addresses and names; IPv4 addresses are left out, as RFC 5908 has no form for them.
    pub ntp_servers: Vec<String>,
    pub boot_urls: Vec<BootUrl>,
    /// Parameters of the boot file, in order (RFC 5970 section 3.2).
    pub boot_params: Vec<String>,
}

/// Everything DHCPv6 needs to serve one port, besides the addresses of the port itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dhcp6Config {
    /// What the server's DUID-LL is made of (RFC 8415 section 11.4): the chassis MAC, so that all ports of
    /// a switch are one server, before and after a restart; the port's own where there is none.
    pub server_mac: MacAddr,
    /// The port's /64.
    pub prefix: Ipv6Net,
    /// `::1` of it.
    pub router: Ipv6Addr,
    /// TCP port of the discovery proxy, where it runs on the port.
    pub proxy_port: Option<u16>,
    pub options: Arc<Dhcp6Options>,
}

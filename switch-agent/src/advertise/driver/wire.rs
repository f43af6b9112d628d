//! What the driver needs of a socket.

use std::io;

use switch_agent_core::name::MacAddr;

use crate::backend::packet::{Outbox, PacketSocket, SocketMode};

/// Where frames leave, and what keeps them from coming.
pub(in crate::advertise) trait Wire {
    /// Sends frames without blocking and notes in each what became of it.
    fn send(&self, outbox: &mut Outbox);

    /// Keeps the frames of these ports away, and of no others.
    fn set_muted(&self, ifindexes: &[u32]) -> io::Result<()>;

    /// Lets a device take in frames to a multicast address, or no longer.
    fn join(&self, ifindex: u32, group: MacAddr, member: bool) -> io::Result<()>;

    /// Whether whole frames come and go, as DHCPv6 needs.
    fn carries_datagrams(&self) -> bool;
}

impl Wire for PacketSocket {
    fn send(&self, outbox: &mut Outbox) {
        PacketSocket::send(self, outbox);
    }

    fn set_muted(&self, ifindexes: &[u32]) -> io::Result<()> {
        PacketSocket::set_muted(self, ifindexes)
    }

    fn join(&self, ifindex: u32, group: MacAddr, member: bool) -> io::Result<()> {
        PacketSocket::join(self, ifindex, group, member)
    }

    fn carries_datagrams(&self) -> bool {
        self.mode() == SocketMode::Packet
    }
}

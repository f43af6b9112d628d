//! The socket of router discovery: solicitations in, advertisements out, for all ports of all VRFs.
//!
//! One socket, bound to no device, in one of two modes that deliver the same frames: AF_PACKET, or raw
//! ICMPv6 where packet sockets are refused. Both need CAP_NET_RAW and join no multicast group, and a filter
//! in the kernel keeps everything else, and the ports that are muted, from waking the process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::Socket;
use switch_agent_core::name::MacAddr;
use switch_agent_core::ndp::ChecksumOffload;
use thiserror::Error;

mod ethernet;
mod filter;
mod outbox;
mod raw;
mod sys;

pub use outbox::{Outbox, Outgoing};
pub use raw::UNKNOWN_MAC;
use sys::Layer;

/// Holds a burst of solicitations of a whole switch; the default holds some 250 frames.
const RECEIVE_BUFFER_LEN: usize = 1 << 20;

/// TC_PRIO_INTERACTIVE: the highest that needs no CAP_NET_ADMIN.
const PRIORITY: u32 = 6;

/// A clock step must not make a frame look older than this.
const AGE_MAX: Duration = Duration::from_secs(1);

/// Ports that the filter can leave out at a time. Two copies of the longest filter must fit into the
/// smallest `net.core.optmem_max` in use (20 KiB) while one replaces the other.
pub const MUTED_MAX: usize = 64;

#[derive(Debug, Error)]
#[error("router discovery: cannot {step}")]
pub struct PacketError {
    step: &'static str,
    #[source]
    source: io::Error,
}

fn step(step: &'static str) -> impl Fn(io::Error) -> PacketError {
    move |source| PacketError { step, source }
}

/// Which socket to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum SocketChoice {
    /// A packet socket, else a raw one.
    #[default]
    Auto,
    /// AF_PACKET
    Packet,
    /// Raw ICMPv6
    Raw,
}

/// Which socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketMode {
    Packet,
    Raw,
}

impl SocketMode {
    pub fn as_str(self) -> &'static str {
        match self {
            SocketMode::Packet => "packet",
            SocketMode::Raw => "raw",
        }
    }

    fn layer(self) -> Layer {
        match self {
            SocketMode::Packet => Layer::Link,
            SocketMode::Raw => Layer::Icmpv6,
        }
    }
}

/// The socket, which never blocks. Dropping it closes it.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    mode: SocketMode,
}

/// Room for the frames of one [`PacketSocket::receive`].
pub struct Batch {
    slots: sys::Slots,
    filled: usize,
    received_at: Duration,
    mode: SocketMode,
}

/// One frame as it arrived on a port.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    pub ifindex: u32,
    pub frame: &'a [u8],
    pub offload: ChecksumOffload,
    /// Time since the kernel took the frame from the port.
    pub age: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            slots: sys::Slots::default(),
            filled: 0,
            received_at: Duration::ZERO,
            mode: SocketMode::Packet,
        }
    }
}

impl Batch {
    pub fn frames(&self) -> impl Iterator<Item = Received<'_>> {
        self.slots.iter().take(self.filled).map(|(frame, meta)| {
            let age = meta.stamp.map_or(Duration::ZERO, |stamp| self.received_at.saturating_sub(stamp));
            // The kernel has verified what a raw socket gets.
            let verified = meta.checksum_not_ready || self.mode == SocketMode::Raw;
            Received {
                ifindex: meta.ifindex,
                frame,
                offload: if verified { ChecksumOffload::NotReady } else { ChecksumOffload::Complete },
                age: age.min(AGE_MAX),
            }
        })
    }

    /// Frames that the socket had no room for since it was opened, where the kernel told with this batch.
    pub fn lost(&self) -> Option<u32> {
        self.slots.iter().take(self.filled).filter_map(|(_, meta)| meta.lost).last()
    }
}

/// Readable while there are frames.
impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl PacketSocket {
    /// Opens the socket.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; otherwise a kernel without such sockets.
    pub fn open(choice: SocketChoice) -> Result<Self, PacketError> {
        let opened = match choice {
            SocketChoice::Auto => ethernet::open().map(|socket| (socket, SocketMode::Packet)).or_else(
                |refused| match raw::open() {
                    Ok(socket) => {
                        tracing::warn!(
                            error = &refused as &dyn std::error::Error,
                            "no packet socket; a raw ICMPv6 socket serves instead"
                        );
                        Ok((socket, SocketMode::Raw))
                    }
                    Err(_) => Err(refused),
                },
            ),
            SocketChoice::Packet => ethernet::open().map(|socket| (socket, SocketMode::Packet)),
            SocketChoice::Raw => raw::open().map(|socket| (socket, SocketMode::Raw)),
        };
        let (socket, mode) = opened?;
        Ok(PacketSocket { socket, mode })
    }

    pub fn mode(&self) -> SocketMode {
        self.mode
    }

    /// Takes a bounded number of the frames that wait; none is no error.
    ///
    /// # Errors
    /// What the kernel reports for the socket as a whole.
    pub fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        batch.mode = self.mode;
        batch.filled = match sys::receive(self.as_fd(), self.mode.layer(), &mut batch.slots) {
            Ok(filled) => filled,
            Err(error) => {
                batch.filled = 0;
                return if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) };
            }
        };
        batch.received_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.mode == SocketMode::Raw {
            for (frame, meta) in batch.slots.iter_mut().take(batch.filled) {
                raw::make_headers(frame, meta);
            }
        }
        Ok(())
    }

    /// Sends frames without blocking and notes in each what became of it. Errors are those of its port: ENXIO
    /// or ENODEV (gone), ENETDOWN, EMSGSIZE, and EAGAIN or ENOBUFS where its queue is full.
    pub fn send(&self, outbox: &mut Outbox) {
        let mut left = outbox.frames_mut();
        while !left.is_empty() {
            let sent = match sys::send(self.socket.as_fd(), self.mode.layer(), left) {
                Ok(sent) => sent.max(1),
                Err(error) => {
                    if let Some(first) = left.first_mut() {
                        first.fail(&error);
                    }
                    1
                }
            };
            left = left.get_mut(sent..).unwrap_or_default();
        }
    }

    /// Lets a device take in frames to a multicast address, or no longer. Only a packet socket can.
    ///
    /// # Errors
    /// ENODEV where the device is gone, EOPNOTSUPP on a raw socket.
    pub fn join(&self, ifindex: u32, group: MacAddr, member: bool) -> io::Result<()> {
        match self.mode {
            SocketMode::Packet => sys::set_membership(self.socket.as_fd(), ifindex, group.0, member),
            SocketMode::Raw => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
    }

    /// Keeps the frames of these ports, at most [`MUTED_MAX`], from the socket, and of no others.
    ///
    /// # Errors
    /// ENOMEM where `net.core.optmem_max` is too small; the former set stays in force.
    pub fn set_muted(&self, ifindexes: &[u32]) -> io::Result<()> {
        let filter = filter::router_discovery(self.mode.layer(), ifindexes);
        self.socket.attach_filter(&filter)
    }
}

/// Options of both modes.
fn prepare_to_receive(socket: &Socket) -> Result<(), PacketError> {
    // Without stamps an answer's latency counts from when the frame is read.
    sys::set_timestamps(socket.as_fd()).ok();
    // Before Linux 2.6.33 losses are not told of.
    sys::set_loss_reports(socket.as_fd()).ok();
    // Beyond net.core.rmem_max only with CAP_NET_ADMIN.
    sys::force_receive_buffer(socket.as_fd(), RECEIVE_BUFFER_LEN)
        .or_else(|_| socket.set_recv_buffer_size(RECEIVE_BUFFER_LEN))
        .map_err(step("size the receive buffer"))
}

//! AF_PACKET: router discovery frames in, advertisements out, for all ports of all VRFs.
//!
//! One socket, bound to no device: a frame is seen once, with the ifindex of the port it arrived on, before
//! the VRF takes it. It needs no multicast membership (a router's ports are members of `ff02::2` by
//! themselves), no route, no neighbour entry and no link-local address in the kernel, and only CAP_NET_RAW.
//! A filter in the kernel keeps everything else from waking the process.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket, Type};
use switch_agent_core::ndp::ChecksumOffload;
use thiserror::Error;
use tokio::io::unix::AsyncFd;

mod filter;
mod sys;

/// Holds a burst of solicitations of a whole switch; the default holds some 250 frames.
const RECEIVE_BUFFER_LEN: usize = 1 << 20;

/// TC_PRIO_INTERACTIVE: the highest that needs no CAP_NET_ADMIN.
const PRIORITY: u32 = 6;

/// Frames taken before timers get their turn.
const BATCH_LEN: usize = 64;

/// A clock step must not make a frame look older than this.
const AGE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Error)]
#[error("packet socket: cannot {step}")]
pub struct PacketError {
    step: &'static str,
    #[source]
    source: io::Error,
}

/// The socket. Dropping it closes it.
#[derive(Debug)]
pub struct PacketSocket(AsyncFd<Socket>);

/// Room for the frames of one [`PacketSocket::receive`].
pub struct Batch {
    slots: Vec<sys::Slot>,
    filled: usize,
    received_at: Duration,
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
            slots: (0..BATCH_LEN).map(|_| sys::Slot::default()).collect(),
            filled: 0,
            received_at: Duration::ZERO,
        }
    }
}

impl Batch {
    pub fn frames(&self) -> impl Iterator<Item = Received<'_>> {
        self.slots.iter().take(self.filled).map(|slot| {
            let age = slot.meta.stamp.map_or(Duration::ZERO, |stamp| self.received_at.saturating_sub(stamp));
            Received {
                ifindex: slot.meta.ifindex,
                frame: slot.frame(),
                offload: match slot.meta.checksum_not_ready {
                    true => ChecksumOffload::NotReady,
                    false => ChecksumOffload::Complete,
                },
                age: age.min(AGE_MAX),
            }
        })
    }
}

impl PacketSocket {
    /// Opens the socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; otherwise a kernel without packet sockets.
    pub fn open() -> Result<Self, PacketError> {
        let step = |step: &'static str| move |source: io::Error| PacketError { step, source };
        // No frame is received before `bind` names a protocol, so none gets past the filter.
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(Domain::PACKET, kind, None::<Protocol>).map_err(step("open"))?;
        socket.attach_filter(&filter::router_discovery()).map_err(step("attach the filter"))?;
        sys::set_auxdata(socket.as_fd()).map_err(step("ask for checksum states"))?;
        // Linux before 4.20 does not know the option; the filter drops outgoing frames as well.
        sys::set_ignore_outgoing(socket.as_fd()).ok();
        // Without stamps an answer's latency counts from when the frame is read.
        sys::set_timestamps(socket.as_fd()).ok();
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN.
        sys::force_receive_buffer(socket.as_fd(), RECEIVE_BUFFER_LEN)
            .or_else(|_| socket.set_recv_buffer_size(RECEIVE_BUFFER_LEN))
            .map_err(step("size the receive buffer"))?;
        socket.set_priority(PRIORITY).map_err(step("set the priority"))?;
        sys::bind_all_ports(socket.as_fd()).map_err(step("bind"))?;
        sys::register(socket).map(PacketSocket).map_err(step("register with the runtime"))
    }

    /// Waits for frames and takes a bounded number of them. Cancel-safe: frames stay in the socket.
    ///
    /// # Errors
    /// What the kernel reports for the socket as a whole.
    pub async fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|socket| sys::receive(socket.as_fd(), &mut batch.slots)) {
                Ok(received) => {
                    batch.filled = received?;
                    batch.received_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    return Ok(());
                }
                Err(_would_block) => {}
            }
        }
    }

    /// Sends one whole Ethernet frame out of a port. Never blocks.
    ///
    /// # Errors
    /// Those of the port: ENXIO (gone), ENETDOWN, EMSGSIZE, and EAGAIN or ENOBUFS where its queue is full.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        sys::send(self.0.get_ref().as_raw_fd(), ifindex, frame)
    }
}

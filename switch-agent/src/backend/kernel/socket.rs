//! A netlink socket: one request at a time, bounded waits, dumps repeated when they were inconsistent.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};

use super::KernelError;

/// Longest wait for the answer to one request, or for the next part of a dump.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a dump is repeated that changed while it was read.
const DUMP_ATTEMPTS: u32 = 5;
/// Parts of one dump at most: 32 KiB each, far more than any switch has.
const DUMP_PARTS_MAX: u32 = 1 << 16;
/// The largest datagram that the kernel builds for a dump (net/netlink/af_netlink.c, netlink_recvmsg()).
const BUFFER_SIZE: usize = 1 << 15;
const NETLINK_HEADER_LEN: usize = 16;

/// One message of a datagram, its header reduced to what matters.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct Message<'a> {
    pub(in crate::backend) kind: u16,
    flags: u16,
    pub(in crate::backend) sequence: u32,
    pub(in crate::backend) payload: &'a [u8],
}

/// The messages of one datagram; ends early where a length is wrong.
pub(in crate::backend) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let u16_at = |at: usize| Some(u16::from_ne_bytes(datagram.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(datagram.get(at..at + 4)?.try_into().ok()?));
        let length = usize::try_from(u32_at(0)?).ok()?;
        let message = Message {
            kind: u16_at(4)?,
            flags: u16_at(6)?,
            sequence: u32_at(8)?,
            payload: datagram.get(NETLINK_HEADER_LEN..length)?,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

pub(super) struct NetlinkSocket {
    socket: TokioSocket,
    /// Whether the kernel filters dumps as asked (Linux 4.20).
    pub(super) strict: bool,
}

/// How one attempt at a dump ended.
enum Dump {
    Complete,
    Inconsistent,
}

impl NetlinkSocket {
    /// A socket for requests.
    pub(super) fn open() -> Result<NetlinkSocket, KernelError> {
        let failed = |step| move |source| KernelError::Socket { step, source };
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed("open"))?;
        socket.socket_mut().bind_auto().map_err(failed("bind"))?;
        let strict = socket.socket_ref().set_netlink_get_strict_chk(true).is_ok();
        Ok(NetlinkSocket { socket, strict })
    }

    /// A socket that hears `groups`, with room for `receive_buffer` bytes of events.
    pub(super) fn subscribe(groups: &[u32], receive_buffer: usize) -> Result<NetlinkSocket, KernelError> {
        let failed = |step| move |source| KernelError::Socket { step, source };
        let subscribed = NetlinkSocket::open()?;
        let socket = subscribed.socket.socket_ref();
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN; a smaller buffer overflows earlier, no more.
        if setsockopt(socket, sockopt::RcvBufForce, &receive_buffer).is_err() {
            setsockopt(socket, sockopt::RcvBuf, &receive_buffer)
                .map_err(|errno| failed("size the buffer of")(errno.into()))?;
        }
        for group in groups {
            socket.add_membership(*group).map_err(failed("subscribe"))?;
        }
        Ok(subscribed)
    }

    /// Keeps events about the neighbours of these links from the socket, and of no others: a classic BPF
    /// program that looks at one message, as events come.
    pub(super) fn quiet_neighbors(&self, links: impl Iterator<Item = u32>) -> io::Result<()> {
        const LOAD_HALF: u16 = 0x28;
        const LOAD_WORD: u16 = 0x20;
        const JUMP_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        /// `nlmsg_type`, and `ndm_ifindex` behind the netlink header.
        const TYPE: u32 = 4;
        const IFINDEX: u32 = 20;
        // Netlink is in host order, and the program loads big-endian.
        let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
        let mut program = vec![
            SockFilter::new(LOAD_HALF, 0, 0, TYPE),
            SockFilter::new(JUMP_EQUAL, 2, 0, kind(libc::RTM_NEWNEIGH)),
            SockFilter::new(JUMP_EQUAL, 1, 0, kind(libc::RTM_DELNEIGH)),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
            SockFilter::new(LOAD_WORD, 0, 0, IFINDEX),
        ];
        for ifindex in links {
            program.push(SockFilter::new(JUMP_EQUAL, 0, 1, u32::from_be_bytes(ifindex.to_ne_bytes())));
            program.push(SockFilter::new(RETURN, 0, 0, 0));
        }
        program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
        SockRef::from(self.socket.socket_ref()).attach_filter(&program)
    }

    /// The next datagram from the kernel; waits without limit. `ENOBUFS` means that events were lost.
    pub(super) async fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        loop {
            buffer.clear();
            buffer.reserve(BUFFER_SIZE);
            let sender = self.socket.recv_from(buffer).await?;
            // Any process may send to a netlink port; only the kernel's is 0.
            if sender.port_number() == 0 {
                return Ok(());
            }
        }
    }

    async fn send(&self, message: RouteNetlinkMessage, flags: u16, sequence: u32) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0)).await.map(|_| ())
    }

    async fn reply(&self, operation: &'static str, buffer: &mut Vec<u8>) -> Result<(), KernelError> {
        match tokio::time::timeout(REPLY_TIMEOUT, self.receive(buffer)).await {
            Ok(received) => received.map_err(|source| KernelError::Socket { step: "receive from", source }),
            Err(_) => Err(KernelError::Timeout { operation, timeout: REPLY_TIMEOUT }),
        }
    }

    /// Sends a request that changes something and waits for the kernel's verdict.
    pub(super) async fn acknowledged(
        &self,
        operation: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), KernelError> {
        const SEQUENCE: u32 = 1;
        self.send(message, flags | NLM_F_ACK, SEQUENCE)
            .await
            .map_err(|source| KernelError::Socket { step: "send to", source })?;
        let mut buffer = Vec::new();
        self.reply(operation, &mut buffer).await?;
        let verdict = messages(&buffer).find(|message| message.kind == NLMSG_ERROR);
        match verdict.and_then(|message| errno(message.payload)) {
            Some(0) => Ok(()),
            Some(code) => Err(KernelError::Refused { operation, source: io::Error::from_raw_os_error(code) }),
            None => Err(KernelError::Refused { operation, source: io::ErrorKind::InvalidData.into() }),
        }
    }

    /// Asks for one object; `None` where there is none.
    pub(super) async fn one<T>(
        &self,
        operation: &'static str,
        message: RouteNetlinkMessage,
        take: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, KernelError> {
        const SEQUENCE: u32 = 1;
        self.send(message, 0, SEQUENCE)
            .await
            .map_err(|source| KernelError::Socket { step: "send to", source })?;
        let mut buffer = Vec::new();
        self.reply(operation, &mut buffer).await?;
        let answer = messages(&buffer).find(|message| message.sequence == SEQUENCE);
        Ok(answer.filter(|message| message.kind != NLMSG_ERROR).and_then(take))
    }

    /// Dumps, giving each attempt an empty `T` to fill; the first consistent one is the result.
    pub(super) async fn dump<T: Default>(
        &self,
        operation: &'static str,
        message: RouteNetlinkMessage,
        fold: impl Fn(&mut T, Message<'_>),
    ) -> Result<T, KernelError> {
        for sequence in 1..=DUMP_ATTEMPTS {
            self.send(message.clone(), NLM_F_DUMP, sequence)
                .await
                .map_err(|source| KernelError::Socket { step: "send to", source })?;
            let mut result = T::default();
            match self.dump_parts(operation, sequence, |message| fold(&mut result, message)).await? {
                Dump::Complete => return Ok(result),
                Dump::Inconsistent => {}
            }
        }
        Err(KernelError::Interrupted { operation, attempts: DUMP_ATTEMPTS })
    }

    async fn dump_parts(
        &self,
        operation: &'static str,
        sequence: u32,
        mut fold: impl FnMut(Message<'_>),
    ) -> Result<Dump, KernelError> {
        let mut buffer = Vec::new();
        let mut end = Dump::Complete;
        for _ in 0..DUMP_PARTS_MAX {
            self.reply(operation, &mut buffer).await?;
            for message in messages(&buffer).filter(|message| message.sequence == sequence) {
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    end = Dump::Inconsistent;
                }
                match message.kind {
                    // Both carry an error code; that of a complete dump is 0.
                    NLMSG_DONE | NLMSG_ERROR => match errno(message.payload) {
                        Some(code) if code != 0 => {
                            let source = io::Error::from_raw_os_error(code);
                            return Err(KernelError::Refused { operation, source });
                        }
                        _ => return Ok(end),
                    },
                    _ => fold(message),
                }
            }
        }
        Err(KernelError::Timeout { operation, timeout: REPLY_TIMEOUT })
    }
}

/// The error code of an `NLMSG_ERROR` or `NLMSG_DONE`, as a positive errno; 0 is success.
pub(in crate::backend) fn errno(payload: &[u8]) -> Option<i32> {
    let code = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    Some(code.saturating_neg())
}

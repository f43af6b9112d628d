//! The system calls that no safe wrapper offers: link-layer addresses, socket options of packet and raw
//! sockets, `recvmmsg` and `sendmmsg` with control messages.
#![expect(unsafe_code, reason = "sockaddr_ll, in6_pktinfo, recvmmsg and sendmmsg, which only libc offers")]

use std::io;
use std::mem;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::outbox::Outgoing;

/// Frames of one `recvmmsg` or `sendmmsg`. Their headers live on the stack: no allocation for a solicitation.
pub(super) const BATCH_LEN: usize = 64;
/// A solicitation is 70 bytes; a foreign advertisement rarely fills an Ethernet frame.
const FRAME_LEN: usize = 1536;
/// Ethernet and IPv6 header, which a raw socket neither delivers nor takes.
pub(super) const HEADERS_LEN: usize = 54;
/// Room for the control messages (auxdata or packet information and hop limit, timestamp, losses), in words
/// to keep their alignment.
const CONTROL_WORDS: usize = 20;
/// Room for a `sockaddr_ll` or a `sockaddr_in6`, in words to keep their alignment.
const ADDRESS_WORDS: usize = 4;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// `ICMP6_FILTER` (linux/icmpv6.h), an option of level `SOL_ICMPV6`: 256 bits, one set blocks a type.
const ICMPV6_FILTER: libc::c_int = 1;

type Control = [u64; CONTROL_WORDS];
type Address = [u64; ADDRESS_WORDS];

/// Room for a batch of frames.
pub(super) struct Slots {
    /// [`FRAME_LEN`] bytes for each. Zeroes from the kernel: what no frame was in yet is no memory yet.
    data: Vec<u8>,
    received: [Slot; BATCH_LEN],
}

/// One frame, and what the kernel says about it.
#[derive(Debug, Clone, Copy)]
struct Slot {
    length: usize,
    meta: Meta,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub(super) ifindex: u32,
    pub(super) checksum_not_ready: bool,
    /// Arrival, since the Unix epoch.
    pub(super) stamp: Option<Duration>,
    /// Frames that the socket had no room for since it was opened, where the kernel told of some.
    pub(super) lost: Option<u32>,
    /// Raw socket only.
    pub(super) source: Ipv6Addr,
    /// Raw socket only.
    pub(super) destination: Ipv6Addr,
    /// Raw socket only.
    pub(super) hop_limit: u8,
}

impl Default for Meta {
    fn default() -> Self {
        Meta {
            ifindex: 0,
            checksum_not_ready: false,
            stamp: None,
            lost: None,
            source: Ipv6Addr::UNSPECIFIED,
            destination: Ipv6Addr::UNSPECIFIED,
            hop_limit: 0,
        }
    }
}

impl Default for Slots {
    fn default() -> Self {
        let empty = Slot { length: 0, meta: Meta::default() };
        Slots { data: vec![0; BATCH_LEN * FRAME_LEN], received: [empty; BATCH_LEN] }
    }
}

impl Slots {
    /// All slots, those of the last batch first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Meta)> {
        let frames = self.data.chunks_exact(FRAME_LEN).zip(&self.received);
        frames.map(|(data, slot)| (data.get(..slot.length).unwrap_or(data), &slot.meta))
    }

    /// As [`Slots::iter`], to fill in headers.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&mut [u8], &Meta)> {
        let frames = self.data.chunks_exact_mut(FRAME_LEN).zip(&self.received);
        frames.map(|(data, slot)| (data.get_mut(..slot.length).unwrap_or_default(), &slot.meta))
    }
}

/// What a socket delivers and takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// Whole Ethernet frames.
    Link,
    /// ICMPv6 messages: the first [`HEADERS_LEN`] bytes of a frame are not the kernel's.
    Icmpv6,
}

fn check(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}

fn set<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length_of::<T>())
    };
    check(result).map(drop)
}

const ON: libc::c_int = 1;

pub(super) fn set_auxdata(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, ON)
}

/// Lets the device take in frames to a multicast address, for as long as the socket or the device exists.
pub(super) fn set_membership(
    socket: BorrowedFd<'_>,
    ifindex: u32,
    group: [u8; 6],
    member: bool,
) -> io::Result<()> {
    let mut request = libc::packet_mreq {
        mr_ifindex: libc::c_int::try_from(ifindex).unwrap_or(libc::c_int::MAX),
        mr_type: libc::PACKET_MR_MULTICAST as libc::c_ushort,
        mr_alen: 6,
        mr_address: [0; 8],
    };
    request.mr_address[..6].copy_from_slice(&group);
    let option = if member { libc::PACKET_ADD_MEMBERSHIP } else { libc::PACKET_DROP_MEMBERSHIP };
    set(socket, libc::SOL_PACKET, option, request)
}

pub(super) fn set_ignore_outgoing(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, ON)
}

pub(super) fn set_timestamps(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, ON)
}

pub(super) fn set_loss_reports(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, ON)
}

pub(super) fn force_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
}

/// Lets a raw ICMPv6 socket receive these types alone.
pub(super) fn pass_icmpv6_types(socket: BorrowedFd<'_>, types: &[u8]) -> io::Result<()> {
    let mut blocked = [u32::MAX; 8];
    for kind in types {
        blocked[usize::from(kind >> 5)] &= !(1 << (kind & 31));
    }
    set(socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, blocked)
}

/// Asks a raw socket for the port and the addresses of what it receives.
pub(super) fn set_packet_information(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, ON)?;
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, ON)
}

fn link_address(ifindex: u32, destination: &[u8]) -> libc::sockaddr_ll {
    // SAFETY: all-zero is a valid sockaddr_ll; it has only integer fields.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ETHERTYPE_IPV6.to_be();
    address.sll_ifindex = libc::c_int::try_from(ifindex).unwrap_or(libc::c_int::MAX);
    for (octet, value) in address.sll_addr.iter_mut().zip(destination) {
        *octet = *value;
    }
    address.sll_halen = u8::try_from(destination.len()).unwrap_or(u8::MAX).min(8);
    address
}

fn ipv6_address(address: Ipv6Addr, scope: u32) -> libc::sockaddr_in6 {
    // SAFETY: all-zero is a valid sockaddr_in6; it has only integer fields.
    let mut socket_address: libc::sockaddr_in6 = unsafe { mem::zeroed() };
    socket_address.sin6_family = libc::AF_INET6 as u16;
    socket_address.sin6_addr.s6_addr = address.octets();
    socket_address.sin6_scope_id = scope;
    socket_address
}

/// Starts to receive IPv6 frames of every device.
pub(super) fn bind_all_ports(socket: BorrowedFd<'_>) -> io::Result<()> {
    let address = link_address(0, &[]);
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    let result = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>())
    };
    check(result).map(drop)
}

fn empty_headers() -> [libc::mmsghdr; BATCH_LEN] {
    // SAFETY: all-zero is a valid mmsghdr: null pointers with lengths of zero.
    unsafe { mem::zeroed() }
}

const NO_VECTOR: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Sends at most [`BATCH_LEN`] frames, in order, until one fails. The number that left; an error is that of
/// the first frame.
pub(super) fn send(socket: BorrowedFd<'_>, layer: Layer, frames: &[Outgoing]) -> io::Result<usize> {
    let frames = frames.get(..BATCH_LEN).unwrap_or(frames);
    let mut headers = empty_headers();
    let mut vectors = [NO_VECTOR; BATCH_LEN];
    let mut addresses: [Address; BATCH_LEN] = [[0; ADDRESS_WORDS]; BATCH_LEN];
    let mut controls: [Control; BATCH_LEN] = [[0; CONTROL_WORDS]; BATCH_LEN];
    let parts = headers.iter_mut().zip(&mut vectors).zip(addresses.iter_mut().zip(&mut controls));
    for (frame, ((header, vector), (address, control))) in frames.iter().zip(parts) {
        let bytes = match layer {
            Layer::Link => frame.bytes(),
            Layer::Icmpv6 => frame.bytes().get(HEADERS_LEN..).unwrap_or_default(),
        };
        *vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let header = &mut header.msg_hdr;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        header.msg_name = address.as_mut_ptr().cast();
        match layer {
            Layer::Link => {
                let to = link_address(frame.ifindex(), frame.bytes().get(..6).unwrap_or_default());
                // SAFETY: `address` is large and aligned enough for a sockaddr_ll.
                unsafe { address.as_mut_ptr().cast::<libc::sockaddr_ll>().write(to) };
                header.msg_namelen = length_of::<libc::sockaddr_ll>();
            }
            Layer::Icmpv6 => {
                let to = ipv6_address(frame.destination(), frame.ifindex());
                // SAFETY: `address` is large and aligned enough for a sockaddr_in6.
                unsafe { address.as_mut_ptr().cast::<libc::sockaddr_in6>().write(to) };
                header.msg_namelen = length_of::<libc::sockaddr_in6>();
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = size_of::<Control>() as _;
                // SAFETY: the header describes `control`, which is alive and zeroed.
                unsafe { write_packet_information(header, frame.source(), frame.ifindex()) };
            }
        }
    }
    let count = u32::try_from(frames.len()).unwrap_or(0);
    // SAFETY: the first `count` headers point to frames, addresses and control buffers of the lengths given,
    // all of which live until the end of this function; the kernel only reads them.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT as _) };
    check(sent)
}

/// Names the port and the source address of a message; shortens the control buffer to what is used.
///
/// # Safety
/// `header` must describe a live control buffer of zeros with room for an `in6_pktinfo`.
unsafe fn write_packet_information(header: &mut libc::msghdr, source: Ipv6Addr, ifindex: u32) {
    let information =
        libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: ifindex };
    let length = length_of::<libc::in6_pktinfo>();
    // SAFETY: the first control message lies within the buffer (contract of this function); the payload is
    // written without regard to its alignment.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::IPPROTO_IPV6;
        (*message).cmsg_type = libc::IPV6_PKTINFO;
        (*message).cmsg_len = libc::CMSG_LEN(length) as _;
        libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().write_unaligned(information);
        header.msg_controllen = libc::CMSG_SPACE(length) as _;
    }
}

/// Fills slots with the frames that wait, at most [`BATCH_LEN`]; the number of slots filled. Those of
/// [`Layer::Icmpv6`] begin with [`HEADERS_LEN`] bytes that are the caller's to fill.
pub(super) fn receive(socket: BorrowedFd<'_>, layer: Layer, slots: &mut Slots) -> io::Result<usize> {
    let headroom = match layer {
        Layer::Link => 0,
        Layer::Icmpv6 => HEADERS_LEN,
    };
    let mut headers = empty_headers();
    let mut vectors = [NO_VECTOR; BATCH_LEN];
    let mut addresses: [Address; BATCH_LEN] = [[0; ADDRESS_WORDS]; BATCH_LEN];
    let mut controls: [Control; BATCH_LEN] = [[0; CONTROL_WORDS]; BATCH_LEN];
    let parts = headers.iter_mut().zip(&mut vectors).zip(addresses.iter_mut().zip(&mut controls));
    let mut count = 0;
    for (data, ((header, vector), (address, control))) in slots.data.chunks_exact_mut(FRAME_LEN).zip(parts) {
        let room = data.get_mut(headroom..).unwrap_or_default();
        *vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = control.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        header.msg_hdr.msg_name = address.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = length_of::<Address>();
        count += 1;
    }
    // SAFETY: the first `count` headers point to a buffer, a control buffer and an address of the lengths
    // given; all of them are borrowed mutably by nothing else and live until the end of this function.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    let received = check(received)?;
    for ((slot, header), address) in slots.received.iter_mut().zip(&headers).zip(&addresses).take(received) {
        let length = usize::try_from(header.msg_len).unwrap_or(FRAME_LEN);
        slot.length = length.saturating_add(headroom).min(FRAME_LEN);
        // SAFETY: the kernel has filled the header; its control buffer (`controls`) is still alive.
        slot.meta = unsafe { control_messages(&header.msg_hdr) };
        match layer {
            Layer::Link => {
                // SAFETY: the buffer is large enough; every bit pattern is a valid sockaddr_ll.
                let from = unsafe { address.as_ptr().cast::<libc::sockaddr_ll>().read() };
                slot.meta.ifindex = u32::try_from(from.sll_ifindex).unwrap_or(0);
            }
            Layer::Icmpv6 => {
                // SAFETY: the buffer is large enough; every bit pattern is a valid sockaddr_in6.
                let from = unsafe { address.as_ptr().cast::<libc::sockaddr_in6>().read() };
                slot.meta.source = Ipv6Addr::from(from.sin6_addr.s6_addr);
            }
        }
    }
    Ok(received)
}

/// # Safety
/// `header` must have been filled by the kernel, and its control buffer must be alive.
unsafe fn control_messages(header: &libc::msghdr) -> Meta {
    let mut meta = Meta::default();
    // SAFETY: the header describes a valid control buffer (contract of this function).
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a header within the buffer.
        let (level, kind, length) =
            unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
        // SAFETY: `message` is a header within the buffer.
        let data = unsafe { libc::CMSG_DATA(message) };
        // SAFETY: computes a length, touches no memory.
        let whole = |payload: usize| length >= unsafe { libc::CMSG_LEN(payload as u32) } as _;
        /// The payload as a value of a type without padding rules or invalid bit patterns.
        macro_rules! payload {
            ($type:ty) => {
                // SAFETY: the message is long enough; all bit patterns are valid for the types used.
                whole(size_of::<$type>()).then(|| unsafe { data.cast::<$type>().read_unaligned() })
            };
        }
        match (level, kind) {
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                let status = payload!(libc::tpacket_auxdata).map_or(0, |auxdata| auxdata.tp_status);
                meta.checksum_not_ready = status & libc::TP_STATUS_CSUMNOTREADY != 0;
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                meta.stamp = payload!(libc::timespec).and_then(duration);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => meta.lost = payload!(u32),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(information) = payload!(libc::in6_pktinfo) {
                    meta.ifindex = information.ipi6_ifindex;
                    meta.destination = Ipv6Addr::from(information.ipi6_addr.s6_addr);
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                let hops = payload!(libc::c_int).unwrap_or(0);
                meta.hop_limit = u8::try_from(hops).unwrap_or(0);
            }
            _ => {}
        }
        // SAFETY: `message` is a header within the buffer that `header` describes.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    meta
}

fn duration(stamp: libc::timespec) -> Option<Duration> {
    let nanos = u32::try_from(stamp.tv_nsec).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(stamp.tv_sec).ok()?, nanos))
}

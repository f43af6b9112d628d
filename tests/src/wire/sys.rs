//! The system calls of packet sockets that no safe crate offers.

#![expect(unsafe_code, reason = "sockaddr_ll, sendmmsg and control messages have no safe wrapper")]

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::{SockFilter, Socket};

/// Room for the control message of a stamp, in words to keep its alignment.
const CONTROL_WORDS: usize = 16;

pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}

fn set_option(socket: &Socket, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const value).cast(),
            length_of::<libc::c_int>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(super) fn stamp_packets(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::SO_TIMESTAMPNS, 1)
}

pub(super) fn force_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    set_option(socket, libc::SO_RCVBUFFORCE, libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX))
}

fn link_address(protocol: u16, ifindex: u32) -> libc::sockaddr_ll {
    // SAFETY: all-zero is a valid sockaddr_ll; it has only integer fields.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = libc::c_int::try_from(ifindex).unwrap_or(libc::c_int::MAX);
    address
}

/// Starts to receive the frames of a protocol, of every device.
pub(super) fn bind_all(socket: &Socket, protocol: u16) -> io::Result<()> {
    let address = link_address(protocol, 0);
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    let result = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends whole frames out of interfaces; the number that left.
pub(super) fn send(socket: &Socket, frames: &[(u32, &[u8])]) -> io::Result<usize> {
    let mut addresses: Vec<_> =
        frames.iter().map(|(ifindex, _)| link_address(super::ETHERTYPE_IPV6, *ifindex)).collect();
    let mut vectors: Vec<_> = frames
        .iter()
        .map(|(_, frame)| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .zip(&mut addresses)
        .map(|(vector, address)| {
            // SAFETY: all-zero is a valid mmsghdr: null pointers with lengths of zero.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut *address).cast();
            header.msg_hdr.msg_namelen = length_of::<libc::sockaddr_ll>();
            header
        })
        .collect();
    let count = u32::try_from(headers.len()).unwrap_or(u32::MAX);
    // SAFETY: every header points to a buffer and an address of the lengths given, which live until the end
    // of this function; the kernel only reads the buffers.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives one frame: its length, interface and stamp. `None` where the kernel gave no stamp.
pub(super) fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<(usize, u32, Duration)>> {
    let mut address = link_address(0, 0);
    let mut control = [0u64; CONTROL_WORDS];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr: null pointers with lengths of zero.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_name = (&raw mut address).cast();
    header.msg_namelen = length_of::<libc::sockaddr_ll>();
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header points to a buffer, a control buffer and an address of the lengths given; all of
    // them are borrowed by nothing else and live until the end of this function.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled the header; its control buffer is still alive.
    let stamp = unsafe { stamp(&header) };
    let ifindex = u32::try_from(address.sll_ifindex).unwrap_or(0);
    Ok(stamp.map(|stamp| (length.min(buffer.len()), ifindex, stamp)))
}

/// # Safety
/// `header` must have been filled by the kernel, and its control buffer must be alive.
unsafe fn stamp(header: &libc::msghdr) -> Option<Duration> {
    // SAFETY: the header describes a valid control buffer (contract of this function).
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a header within the buffer.
        let (level, kind, length) =
            unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
        // SAFETY: computes a length, touches no memory.
        let needed = unsafe { libc::CMSG_LEN(size_of::<libc::timespec>() as u32) };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) && length >= needed as _ {
            // SAFETY: the message is long enough, its payload has any alignment, all bit patterns are valid.
            let time = unsafe { libc::CMSG_DATA(message).cast::<libc::timespec>().read_unaligned() };
            let nanos = u32::try_from(time.tv_nsec).ok().filter(|nanos| *nanos < 1_000_000_000)?;
            return Some(Duration::new(u64::try_from(time.tv_sec).ok()?, nanos));
        }
        // SAFETY: `message` is a header within the buffer that `header` describes.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

/// ICMPv6 type 134 in an IPv6 packet without extension headers (RFC 4861 4.2); 0 drops.
pub(super) fn advertisements_only() -> [SockFilter; 6] {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let statement = |code, k| SockFilter::new(code, 0, 0, k);
    let unless_equal = |k, jf| SockFilter::new(JUMP_EQUAL, 0, jf, k);
    [
        // Next header behind the Ethernet header, then the type behind the IPv6 header.
        statement(LOAD_BYTE, 14 + 6),
        unless_equal(u32::from(super::NEXT_HEADER_ICMPV6), 3),
        statement(LOAD_BYTE, 14 + 40),
        unless_equal(134, 1),
        statement(RETURN, u32::MAX),
        statement(RETURN, 0),
    ]
}

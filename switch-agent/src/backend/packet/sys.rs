//! The system calls that no safe wrapper offers: link-layer addresses, packet socket options, `recvmmsg`
//! with control messages.
#![expect(unsafe_code, reason = "AF_PACKET needs sockaddr_ll, auxdata and recvmmsg, which only libc offers")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A solicitation is 70 bytes; a foreign advertisement rarely fills an Ethernet frame.
const FRAME_LEN: usize = 1536;
/// Room for the two control messages (auxdata, timestamp), in words to keep their alignment.
const CONTROL_WORDS: usize = 16;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Room for one frame and what the kernel says about it.
pub(super) struct Slot {
    data: [u8; FRAME_LEN],
    length: usize,
    pub(super) meta: Meta,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meta {
    pub(super) ifindex: u32,
    pub(super) checksum_not_ready: bool,
    /// Arrival, since the Unix epoch.
    pub(super) stamp: Option<Duration>,
}

impl Default for Slot {
    fn default() -> Self {
        Slot { data: [0; FRAME_LEN], length: 0, meta: Meta::default() }
    }
}

impl Slot {
    pub(super) fn frame(&self) -> &[u8] {
        self.data.get(..self.length).unwrap_or(&self.data)
    }
}

fn check(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}

fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            length_of::<libc::c_int>(),
        )
    };
    check(result).map(drop)
}

pub(super) fn set_auxdata(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)
}

pub(super) fn set_ignore_outgoing(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)
}

pub(super) fn set_timestamps(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

pub(super) fn force_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
}

/// Registers the socket with the runtime, to be woken for frames only.
pub(super) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket is moved into the result, which neither replaces nor closes its descriptor.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
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

/// Starts to receive IPv6 frames of every device.
pub(super) fn bind_all_ports(socket: BorrowedFd<'_>) -> io::Result<()> {
    let address = link_address(0, &[]);
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    let result = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>())
    };
    check(result).map(drop)
}

pub(super) fn send(socket: RawFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let address = link_address(ifindex, frame.get(..6).unwrap_or_default());
    // SAFETY: both pointers are valid for reads of the lengths given with them, for the whole call.
    let sent = unsafe {
        libc::sendto(
            socket,
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const address).cast(),
            length_of::<libc::sockaddr_ll>(),
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Fills slots with the frames that wait; the number of slots filled.
pub(super) fn receive(socket: BorrowedFd<'_>, slots: &mut [Slot]) -> io::Result<usize> {
    let mut controls = vec![[0u64; CONTROL_WORDS]; slots.len()];
    let mut addresses = vec![link_address(0, &[]); slots.len()];
    let mut vectors: Vec<libc::iovec> = slots
        .iter_mut()
        .map(|slot| libc::iovec { iov_base: slot.data.as_mut_ptr().cast(), iov_len: FRAME_LEN })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .zip(&mut controls)
        .zip(&mut addresses)
        .map(|((vector, control), address)| {
            // SAFETY: all-zero is a valid mmsghdr: null pointers with lengths of zero.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of_val(control) as _;
            header.msg_hdr.msg_name = (address as *mut libc::sockaddr_ll).cast();
            header.msg_hdr.msg_namelen = length_of::<libc::sockaddr_ll>();
            header
        })
        .collect();
    let count = u32::try_from(headers.len()).unwrap_or(u32::MAX);
    // SAFETY: every header points to a buffer, a control buffer and an address of the lengths given; all of
    // them are borrowed mutably by nothing else and live until the end of this function.
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
    for ((slot, header), address) in slots.iter_mut().zip(&headers).zip(&addresses).take(received) {
        slot.length = usize::try_from(header.msg_len).unwrap_or(FRAME_LEN).min(FRAME_LEN);
        // SAFETY: the kernel has filled the header; its control buffer (`controls`) is still alive.
        slot.meta = unsafe { control_messages(&header.msg_hdr) };
        slot.meta.ifindex = u32::try_from(address.sll_ifindex).unwrap_or(0);
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
        // SAFETY: computes a length, touches no memory.
        let needs = |payload: usize| length >= unsafe { libc::CMSG_LEN(payload as u32) } as _;
        // SAFETY: `message` is a header within the buffer.
        let data = unsafe { libc::CMSG_DATA(message) };
        if (level, kind) == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
            && needs(size_of::<libc::tpacket_auxdata>())
        {
            // SAFETY: the message is long enough, its payload has any alignment, all bit patterns are valid.
            let auxdata = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
            meta.checksum_not_ready = auxdata.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
        } else if (level, kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)
            && needs(size_of::<libc::timespec>())
        {
            // SAFETY: as above.
            let stamp = unsafe { data.cast::<libc::timespec>().read_unaligned() };
            meta.stamp = duration(stamp);
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

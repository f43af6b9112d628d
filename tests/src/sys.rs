//! The system calls that no safe crate offers: interface flags, bridge ports, kernel routes of a thread.

#![expect(unsafe_code, reason = "ioctl(2) on interfaces has no safe wrapper")]

use std::ffi::{c_int, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `struct ifreq` as far as the requests below use it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    value: c_int,
    rest: [u8; 20],
}

const SIOCBRADDIF: c_ulong = 0x89a2;
const SIOCBRDELIF: c_ulong = 0x89a3;

fn request(name: &str, value: c_int) -> io::Result<InterfaceRequest> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("interface name {name} is too long"),
        ));
    }
    let mut bytes = [0; libc::IFNAMSIZ];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(InterfaceRequest { name: bytes, value, rest: [0; 20] })
}

fn control_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

fn ioctl(code: c_ulong, request: &mut InterfaceRequest) -> io::Result<()> {
    let socket = control_socket()?;
    // SAFETY: `request` is a live, exclusive `struct ifreq`-sized buffer (40 bytes on 64-bit Linux), and
    // the codes used in this module read and write nothing beyond it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), code as _, request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets `IFF_UP` of an interface of the calling thread's network namespace.
pub(crate) fn set_link_up(name: &str, up: bool) -> io::Result<()> {
    let mut flags = request(name, 0)?;
    ioctl(libc::SIOCGIFFLAGS, &mut flags)?;
    // `ifr_flags` is a short at the start of the union.
    let current = flags.value & 0xffff;
    flags.value = if up { current | libc::IFF_UP } else { current & !libc::IFF_UP };
    ioctl(libc::SIOCSIFFLAGS, &mut flags)
}

/// Puts `port` into the bridge, or takes it out.
pub(crate) fn set_bridge_port(bridge: &str, port: &str, member: bool) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(port)?;
    let index = c_int::try_from(index).map_err(io::Error::other)?;
    let code = if member { SIOCBRADDIF } else { SIOCBRDELIF };
    ioctl(code, &mut request(bridge, index)?)
}

/// Sets the MAC of an Ethernet interface; the interface must be down.
pub(crate) fn set_mac(name: &str, mac: [u8; 6]) -> io::Result<()> {
    // `struct sockaddr`: family in the first two bytes, the address after them.
    let [a, b, c, d, e, f] = mac;
    let family = libc::ARPHRD_ETHER.to_ne_bytes();
    let mut request = request(name, c_int::from_ne_bytes([family[0], family[1], a, b]))?;
    request.rest[..4].copy_from_slice(&[c, d, e, f]);
    ioctl(libc::SIOCSIFHWADDR, &mut request)
}

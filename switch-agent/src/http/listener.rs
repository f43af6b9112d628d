//! One port's listening socket.
//!
//! The ingress port is what the kernel says: the socket is bound to the port's device, so replies leave
//! by it and nothing else reaches it, whatever address the machine dialled. A classic BPF filter on top
//! drops every segment that did not come through the VRF's device, so that the kernel cuts the port (and
//! every connection accepted before) off at the moment it leaves its VRF, without waiting for netlink.
//!
//! Binding needs no capability. The filter needs CAP_NET_ADMIN on kernels that let nobody else filter TCP;
//! without it the port is cut off when rtnetlink tells of the change ([`Ingress::Watched`]).

pub mod acceptor;
pub mod connection;
pub mod stream;
pub mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use switch_agent_core::discovery::Limits;
use switch_agent_core::ra::LinkEvent;
use switch_agent_core::service::ListenerSpec;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 64;
/// linux/in6.h
const IPV6_MINHOPCOUNT: libc::c_int = 73;

/// Why a port's listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    #[error("cannot {step} on {device}")]
    Socket {
        step: &'static str,
        device: String,
        #[source]
        source: io::Error,
    },
    #[error("{device} has interface index {found:?}, not {wanted}: it was deleted or made anew")]
    Device { device: String, found: Option<u32>, wanted: u32 },
}

/// `skb->dev->ifindex == ifindex`. At this point of the receive path that device is the VRF for an enslaved
/// port, for link-local traffic too.
fn ingress_filter(ifindex: u32) -> [SockFilter; 4] {
    let op = |code: u32, jump_true, jump_false, k| {
        SockFilter::new(u16::try_from(code).unwrap_or_default(), jump_true, jump_false, k)
    };
    let ancillary = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned();
    [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, ancillary),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, ifindex),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

/// What keeps a port that left its VRF from being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingress {
    /// The kernel drops its segments.
    Filtered,
    /// The kernel does not let this process filter; what rtnetlink tells has to do.
    Watched,
}

/// Whether a link, as the kernel reports it, is still the port that was bound, and in its VRF. A device
/// that is its own "VRF" needs no master.
pub fn through_vrf(spec: &ListenerSpec, link: &LinkEvent) -> bool {
    let enslaved = spec.vrf_ifindex == spec.ifindex || link.master == Some(spec.vrf_ifindex);
    !link.gone && link.ifindex == spec.ifindex && enslaved
}

/// Opens the listener of a port. `device` is the name of the port's netdev. It does not block.
pub fn open(
    spec: &ListenerSpec,
    device: &str,
    limits: &Limits,
) -> Result<(TcpListener, Ingress), ListenerError> {
    let failed = |step| {
        let device = device.to_owned();
        move |source| ListenerError::Socket { step, device, source }
    };
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), Some(Protocol::TCP))
        .map_err(failed("make a socket"))?;
    socket.set_only_v6(true).map_err(failed("set IPV6_V6ONLY"))?;
    socket.set_reuse_address(true).map_err(failed("set SO_REUSEADDR"))?;
    socket.bind_device(Some(device.as_bytes())).map_err(failed("set SO_BINDTODEVICE"))?;
    // The kernel resolved the name just now; only the interface that was asked for will do.
    let found = if_nametoindex(device).ok();
    if found != Some(spec.ifindex) {
        return Err(ListenerError::Device { device: device.to_owned(), found, wanted: spec.ifindex });
    }
    let ingress = match socket.attach_filter(&ingress_filter(spec.vrf_ifindex)) {
        Ok(()) => Ingress::Filtered,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ingress::Watched,
        Err(source) => return Err(failed("set SO_ATTACH_FILTER")(source)),
    };
    // Inherited by accepted sockets. A machine is one hop away: what is told to it (tokens above all)
    // cannot be passed on by a machine that routes for others.
    socket.set_unicast_hops_v6(1).map_err(failed("set IPV6_UNICAST_HOPS"))?;
    if limits.min_hop_limit > 0 {
        set_min_hop_limit(&socket, limits.min_hop_limit).map_err(failed("set IPV6_MINHOPCOUNT"))?;
    }
    socket.set_tcp_nodelay(true).map_err(failed("set TCP_NODELAY"))?;
    socket.set_tcp_user_timeout(Some(limits.write_stall_timeout)).map_err(failed("set TCP_USER_TIMEOUT"))?;
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, spec.tcp_port));
    socket.bind(&SockAddr::from(address)).map_err(failed("bind"))?;
    socket.listen(BACKLOG).map_err(failed("listen"))?;
    Ok((socket.into(), ingress))
}

/// Drops what comes with a lower hop limit (RFC 5082). Inherited by accepted sockets.
#[expect(unsafe_code, reason = "no crate wraps IPV6_MINHOPCOUNT; one integer is passed by its address")]
fn set_min_hop_limit(socket: &Socket, hop_limit: u8) -> io::Result<()> {
    let value = libc::c_int::from(hop_limit);
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of `value`, which outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            IPV6_MINHOPCOUNT,
            (&raw const value).cast(),
            length,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! AF_PACKET: whole frames, for all ports of all VRFs.
//!
//! Bound to no device: a frame is seen once, with the ifindex of the port it arrived on, before the VRF and
//! netfilter take it. It needs no multicast membership (a router's ports are members of `ff02::2` by
//! themselves), no route, no neighbour entry and no link-local address in the kernel.

use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::sys::{self, Layer};
use super::{PRIORITY, PacketError, filter, prepare_to_receive, step};

/// EPERM without CAP_NET_RAW; otherwise a kernel without packet sockets.
pub(super) fn open() -> Result<Socket, PacketError> {
    // No frame is received before `bind` names a protocol, so none gets past the filter.
    let kind = Type::RAW.nonblocking().cloexec();
    let socket = Socket::new(Domain::PACKET, kind, None::<Protocol>).map_err(step("open a packet socket"))?;
    socket.attach_filter(&filter::router_discovery(Layer::Link, &[])).map_err(step("attach the filter"))?;
    sys::set_auxdata(socket.as_fd()).map_err(step("ask for checksum states"))?;
    // Linux before 4.20 does not know the option; the filter drops outgoing frames as well.
    sys::set_ignore_outgoing(socket.as_fd()).ok();
    prepare_to_receive(&socket)?;
    socket.set_priority(PRIORITY).map_err(step("set the priority"))?;
    sys::bind_all_ports(socket.as_fd()).map_err(step("bind"))?;
    Ok(socket)
}

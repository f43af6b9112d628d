//! A raw ICMPv6 socket, where packet sockets are refused or not wanted.
//!
//! Bound to no device: Neighbor Discovery keeps the port as its device through a VRF, so packet information
//! names the port. No group is joined, for a forwarding port is in `ff02::2` by itself, and memberships and
//! the control data of every send share one small budget (`net.core.optmem_max`).
//!
//! The frames that it hands over are made up: the kernel has taken the Ethernet header, and checked and
//! consumed the IPv6 header. Probes for duplicate addresses are not heard, an answer to `::` is a real
//! multicast, and the kernel resolves the address of a machine before it is answered.

use std::net::Ipv6Addr;
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};
use switch_agent_core::name::MacAddr;

use super::sys::{self, HEADERS_LEN, Layer, Meta};
use super::{PRIORITY, PacketError, filter, prepare_to_receive, step};

const HOP_LIMIT: u32 = 255;
/// CS6 (RFC 4594 section 3.2), as packet mode writes it.
const TRAFFIC_CLASS: u32 = 0xc0;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;

/// Source of the made-up frame of a machine whose MAC nothing tells.
pub const UNKNOWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0]);

/// EPERM without CAP_NET_RAW; otherwise a kernel without IPv6.
pub(super) fn open() -> Result<Socket, PacketError> {
    let kind = Type::RAW.nonblocking().cloexec();
    let socket =
        Socket::new(Domain::IPV6, kind, Some(Protocol::ICMPV6)).map_err(step("open a raw ICMPv6 socket"))?;
    socket.attach_filter(&filter::router_discovery(Layer::Icmpv6, &[])).map_err(step("attach the filter"))?;
    let types = [ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT];
    sys::pass_icmpv6_types(socket.as_fd(), &types).map_err(step("attach the type filter"))?;
    sys::set_packet_information(socket.as_fd()).map_err(step("ask for packet information"))?;
    socket.set_multicast_hops_v6(HOP_LIMIT).map_err(step("set the hop limit"))?;
    socket.set_unicast_hops_v6(HOP_LIMIT).map_err(step("set the hop limit"))?;
    socket.set_multicast_loop_v6(false).map_err(step("switch loops off"))?;
    socket.set_tclass_v6(TRAFFIC_CLASS).map_err(step("set the traffic class"))?;
    prepare_to_receive(&socket)?;
    socket.set_priority(PRIORITY).map_err(step("set the priority"))?;
    Ok(socket)
}

/// Writes the headers that the kernel took before the message that follows them in `frame`.
pub(super) fn make_headers(frame: &mut [u8], meta: &Meta) {
    let Some((headers, message)) = frame.split_at_mut_checked(HEADERS_LEN) else { return };
    let mac = source_mac(meta.source, message);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    headers.fill(0);
    headers[6..12].copy_from_slice(&mac.0);
    headers[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
    headers[18..20].copy_from_slice(&length.to_be_bytes());
    headers[20] = 58;
    headers[21] = meta.hop_limit;
    headers[22..38].copy_from_slice(&meta.source.octets());
    headers[38..54].copy_from_slice(&meta.destination.octets());
}

/// What the machine says its MAC is, or what its address was made of.
fn source_mac(source: Ipv6Addr, message: &[u8]) -> MacAddr {
    let options_at = if message.first() == Some(&ROUTER_ADVERTISEMENT) { 16 } else { 8 };
    let told = match message.get(options_at..) {
        Some([1, 1, mac @ ..]) => mac.first_chunk::<6>().copied().map(MacAddr),
        _ => None,
    };
    told.or_else(|| eui64_mac(source)).filter(|mac| mac.is_unicast()).unwrap_or(UNKNOWN_MAC)
}

/// The MAC that modified EUI-64 made a link-local address of (RFC 4291 appendix A).
fn eui64_mac(address: Ipv6Addr) -> Option<MacAddr> {
    let [.., a, b, c, 0xff, 0xfe, d, e, f] = address.octets() else { return None };
    let mac = MacAddr([a ^ 2, b, c, d, e, f]);
    (mac.eui64_link_local() == address).then_some(mac)
}

#[cfg(test)]
mod tests {
    use switch_agent_core::ndp::{ChecksumOffload, Message, parse_frame};

    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

    fn solicit(source: Ipv6Addr, message: &[u8]) -> switch_agent_core::ndp::Solicit {
        let meta =
            Meta { source, destination: "ff02::2".parse().unwrap(), hop_limit: 255, ..Meta::default() };
        let mut frame = vec![0xaa; HEADERS_LEN];
        frame.extend_from_slice(message);
        make_headers(&mut frame, &meta);
        match parse_frame(&frame, ChecksumOffload::NotReady) {
            Ok(Message::Solicit(solicit)) => solicit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_becomes_a_frame_with_the_best_mac_there_is() {
        let bare = [133, 0, 1, 2, 0, 0, 0, 0];
        let with_option = [133, 0, 1, 2, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 0, 0, 1];
        let other: Ipv6Addr = "fe80::1234".parse().unwrap();
        let solicited = solicit(other, &with_option);
        assert_eq!((solicited.source, solicited.mac, solicited.sllao), (Some(other), MAC, Some(MAC)));
        assert_eq!(solicit(MAC.eui64_link_local(), &bare).mac, MAC);
        assert_eq!(solicit(other, &bare).mac, UNKNOWN_MAC);
        let firmware = solicit(Ipv6Addr::UNSPECIFIED, &bare);
        assert_eq!((firmware.source, firmware.mac), (None, UNKNOWN_MAC));
    }
}

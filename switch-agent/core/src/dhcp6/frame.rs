//! Ethernet frames around DHCPv6 messages.

use std::net::Ipv6Addr;

use super::{CLIENT_PORT, Refusal, SERVER_PORT};
use crate::name::MacAddr;
use crate::ndp::{ChecksumOffload, FrameAddresses, upper_layer_checksum};

const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const NEXT_HEADER_UDP: u8 = 17;
const ETHERNET_HEADER_LEN: usize = 14;
const IPV6_HEADER_LEN: usize = 40;
pub(super) const UDP_HEADER_LEN: usize = 8;

/// Traffic class CS6 (RFC 4594 section 3.2, network control), flow label 0.
const VERSION_CLASS_FLOW: u32 = 6 << 28 | 0xc0 << 20;
/// What hosts send with; answers go to link-local addresses, which no router passes on.
const HOP_LIMIT: u8 = 64;

/// One message as it arrived, its headers checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Source of the Ethernet frame.
    pub mac: MacAddr,
    /// The client's link-local address.
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub payload: &'a [u8],
}

/// Whether a frame carries UDP directly behind the IPv6 header, and is none of Neighbor Discovery.
pub fn is_udp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ETHERTYPE_IPV6[..]) && frame.get(20) == Some(&NEXT_HEADER_UDP)
}

/// Reads one untagged Ethernet frame. Padding behind the datagram is ignored, extension headers are not
/// followed: no client sends them, and fragments are not reassembled.
///
/// The source port is not looked at: answers go to port 546 of the client, whatever it was (RFC 8415
/// section 7.2).
///
/// # Errors
/// What is wrong with the headers.
pub fn parse_frame(frame: &[u8], offload: ChecksumOffload) -> Result<Datagram<'_>, Refusal> {
    if frame.len() < ETHERNET_HEADER_LEN + IPV6_HEADER_LEN + UDP_HEADER_LEN {
        return Err(Refusal::Truncated);
    }
    if !is_udp(frame) {
        return Err(Refusal::NotDhcp);
    }
    let mac = MacAddr(array(frame, 6)?);
    if !mac.is_unicast() {
        return Err(Refusal::EthernetSource);
    }
    let (_, packet) = frame.split_at_checked(ETHERNET_HEADER_LEN).ok_or(Refusal::Truncated)?;
    let (header, payload) = packet.split_at_checked(IPV6_HEADER_LEN).ok_or(Refusal::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Refusal::NotDhcp);
    }
    let length = usize::from(u16::from_be_bytes(array(header, 4)?));
    let payload = payload.get(..length).ok_or(Refusal::Truncated)?;
    let source = Ipv6Addr::from(array::<16>(header, 8)?);
    let destination = Ipv6Addr::from(array::<16>(header, 24)?);
    if u16::from_be_bytes(array(payload, 2)?) != SERVER_PORT {
        return Err(Refusal::NotDhcp);
    }
    let length = usize::from(u16::from_be_bytes(array(payload, 4)?));
    let udp = payload.get(..length).filter(|_| length >= UDP_HEADER_LEN).ok_or(Refusal::Truncated)?;
    // Zero, "no checksum", is not allowed in IPv6 (RFC 8200 section 8.1).
    let missing = array::<2>(udp, 6)? == [0, 0];
    if offload == ChecksumOffload::Complete
        && (missing || upper_layer_checksum(source, destination, NEXT_HEADER_UDP, udp) != 0)
    {
        return Err(Refusal::Checksum);
    }
    if !source.is_unicast_link_local() {
        return Err(Refusal::Source);
    }
    Ok(Datagram { mac, source, destination, payload: udp.get(UDP_HEADER_LEN..).unwrap_or_default() })
}

/// Writes Ethernet, IPv6 and UDP header and `message` into `frame`, replacing its content: from the
/// server's port to the client's.
pub fn write_frame(frame: &mut Vec<u8>, addresses: &FrameAddresses, message: &[u8]) {
    let length = u16::try_from(UDP_HEADER_LEN + message.len()).unwrap_or(u16::MAX).to_be_bytes();
    frame.clear();
    frame.extend_from_slice(&addresses.destination_mac.0);
    frame.extend_from_slice(&addresses.source_mac.0);
    frame.extend_from_slice(&ETHERTYPE_IPV6);
    frame.extend_from_slice(&VERSION_CLASS_FLOW.to_be_bytes());
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&[NEXT_HEADER_UDP, HOP_LIMIT]);
    frame.extend_from_slice(&addresses.source.octets());
    frame.extend_from_slice(&addresses.destination.octets());
    let start = frame.len();
    frame.extend_from_slice(&SERVER_PORT.to_be_bytes());
    frame.extend_from_slice(&CLIENT_PORT.to_be_bytes());
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(message);
    let checksum =
        upper_layer_checksum(addresses.source, addresses.destination, NEXT_HEADER_UDP, &frame[start..]);
    // A sum of zero is sent as all ones: zero would be "no checksum".
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    frame[start + 6..start + 8].copy_from_slice(&checksum.to_be_bytes());
}

/// `N` bytes at `offset`.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], Refusal> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(Refusal::Truncated)
}

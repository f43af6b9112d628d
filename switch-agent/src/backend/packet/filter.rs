//! The filter that runs in the kernel, as classic BPF (Linux `Documentation/networking/filter.rst`).

use socket2::SockFilter;

const LD_BYTE: u16 = 0x30;
const LD_HALF: u16 = 0x28;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// SKF_AD_OFF + SKF_AD_PKTTYPE: how the kernel classified the frame.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// First of PACKET_OTHERHOST (which covers frames of a VLAN that the port does not have), PACKET_OUTGOING.
const PACKET_OTHERHOST: u32 = 3;

const ETHERTYPE: u32 = 12;
const NEXT_HEADER: u32 = 20;
const HOP_LIMIT: u32 = 21;
const ICMPV6_TYPE: u32 = 54;
const ICMPV6_CODE: u32 = 55;

const ACCEPT: u32 = 0x0004_0000;
const DROP: u32 = 0;

/// Accepts Router Solicitations with code 0 and Router Advertisements, both with hop limit 255 and directly
/// behind the IPv6 header, that were sent to this host.
pub(super) fn router_discovery() -> Vec<SockFilter> {
    let instructions = [
        (LD_BYTE, 0, 0, PACKET_TYPE),
        (JUMP_GREATER_OR_EQUAL, 12, 0, PACKET_OTHERHOST),
        (LD_HALF, 0, 0, ETHERTYPE),
        (JUMP_EQUAL, 0, 10, 0x86dd),
        (LD_BYTE, 0, 0, NEXT_HEADER),
        (JUMP_EQUAL, 0, 8, 58),
        (LD_BYTE, 0, 0, HOP_LIMIT),
        (JUMP_EQUAL, 0, 6, 255),
        (LD_BYTE, 0, 0, ICMPV6_TYPE),
        (JUMP_EQUAL, 3, 0, 134),
        (JUMP_EQUAL, 0, 3, 133),
        (LD_BYTE, 0, 0, ICMPV6_CODE),
        (JUMP_EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ACCEPT),
        (RETURN, 0, 0, DROP),
    ];
    instructions
        .into_iter()
        .map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k))
        .collect()
}

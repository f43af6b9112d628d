//! The filters that run in the kernel, as classic BPF (Linux `Documentation/networking/filter.rst`).
//!
//! Each begins with the ports that are muted, two instructions for each: a flood on a port costs no wake-up.

use socket2::SockFilter;

use super::sys::Layer;

const LD_WORD: u16 = 0x20;
const LD_BYTE: u16 = 0x30;
const LD_HALF: u16 = 0x28;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// SKF_AD_OFF + SKF_AD_PKTTYPE: how the kernel classified the frame.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// First of PACKET_OTHERHOST (which covers frames of a VLAN that the port does not have), PACKET_OUTGOING.
const PACKET_OTHERHOST: u32 = 3;

/// SKF_AD_OFF + SKF_AD_IFINDEX: the device the frame arrived on.
const IFINDEX: u32 = 0xffff_f000 + 8;
/// SKF_NET_OFF + 7: hop limit, where the program sees the ICMPv6 message alone.
const HOP_LIMIT_BEFORE: u32 = 0xfff0_0000 + 7;

const ETHERTYPE: u32 = 12;
const ETHERTYPE_IPV6: u32 = 0x86dd;
const NEXT_HEADER: u32 = 20;
const HOP_LIMIT: u32 = 21;
/// First of the four words of the source address.
const SOURCE: u32 = 22;
const DESTINATION: u32 = 38;
const UDP_DESTINATION_PORT: u32 = 56;
/// Hop-by-Hop Options header, where there is one.
const HOP_BY_HOP: u32 = 54;
const ICMPV6_TYPE: u32 = 54;
const ICMPV6_CODE: u32 = 55;

const ACCEPT: u32 = 0x0004_0000;
const DROP: u32 = 0;

/// Code, jump if true, jump if false, operand; jumps count from the next instruction.
type Instruction = (u16, u8, u8, u32);

/// Goes on with IPv6 that was sent to this host, and drops everything else.
const TO_THIS_HOST: [Instruction; 5] = [
    (LD_BYTE, 0, 0, PACKET_TYPE),
    (JUMP_GREATER_OR_EQUAL, 2, 0, PACKET_OTHERHOST),
    (LD_HALF, 0, 0, ETHERTYPE),
    (JUMP_EQUAL, 1, 0, ETHERTYPE_IPV6),
    (RETURN, 0, 0, DROP),
];

/// Accepts Router Solicitations with code 0, Router Advertisements, and Neighbor Solicitations with code 0
/// from the unspecified address, all with hop limit 255 and directly behind the IPv6 header.
const ROUTER_DISCOVERY: [Instruction; 20] = [
    (LD_BYTE, 0, 0, NEXT_HEADER),
    (JUMP_EQUAL, 0, 17, 58),
    (LD_BYTE, 0, 0, HOP_LIMIT),
    (JUMP_EQUAL, 0, 15, 255),
    (LD_BYTE, 0, 0, ICMPV6_TYPE),
    (JUMP_EQUAL, 12, 0, 134),
    (JUMP_EQUAL, 9, 0, 133),
    (JUMP_EQUAL, 0, 11, 135),
    (LD_WORD, 0, 0, SOURCE),
    (JUMP_EQUAL, 0, 9, 0),
    (LD_WORD, 0, 0, SOURCE + 4),
    (JUMP_EQUAL, 0, 7, 0),
    (LD_WORD, 0, 0, SOURCE + 8),
    (JUMP_EQUAL, 0, 5, 0),
    (LD_WORD, 0, 0, SOURCE + 12),
    (JUMP_EQUAL, 0, 3, 0),
    (LD_BYTE, 0, 0, ICMPV6_CODE),
    (JUMP_EQUAL, 0, 1, 0),
    (RETURN, 0, 0, ACCEPT),
    (RETURN, 0, 0, DROP),
];

/// Accepts UDP to port 547 of a multicast group or a link-local address, directly behind the IPv6 header
/// (RFC 8415 section 7); goes on behind its end with everything else.
const DHCPV6: [Instruction; 8] = [
    (LD_BYTE, 0, 0, NEXT_HEADER),
    (JUMP_EQUAL, 0, 6, 17),
    (LD_HALF, 0, 0, UDP_DESTINATION_PORT),
    (JUMP_EQUAL, 0, 4, 547),
    (LD_HALF, 0, 0, DESTINATION),
    (JUMP_EQUAL, 1, 0, 0xff02),
    (JUMP_EQUAL, 0, 1, 0xfe80),
    (RETURN, 0, 0, ACCEPT),
];

/// Accepts MLD reports (RFC 2710, RFC 3810) directly behind a Hop-by-Hop Options header of 8 bytes, which holds
/// their Router Alert and nothing else; goes on behind its end with everything else.
const MLD: [Instruction; 10] = [
    (LD_BYTE, 0, 0, NEXT_HEADER),
    (JUMP_EQUAL, 0, 8, 0),
    (LD_BYTE, 0, 0, HOP_LIMIT),
    (JUMP_EQUAL, 0, 6, 1),
    // Next header and length of the options.
    (LD_HALF, 0, 0, HOP_BY_HOP),
    (JUMP_EQUAL, 0, 4, 58 << 8),
    (LD_BYTE, 0, 0, HOP_BY_HOP + 8),
    (JUMP_EQUAL, 1, 0, 143),
    (JUMP_EQUAL, 0, 1, 131),
    (RETURN, 0, 0, ACCEPT),
];

/// Accepts Router Solicitations with code 0 and Router Advertisements with hop limit 255, on a raw ICMPv6
/// socket.
const ICMPV6_ROUTER_DISCOVERY: [Instruction; 9] = [
    (LD_BYTE, 0, 0, HOP_LIMIT_BEFORE),
    (JUMP_EQUAL, 0, 6, 255),
    (LD_BYTE, 0, 0, 0),
    (JUMP_EQUAL, 3, 0, 134),
    (JUMP_EQUAL, 0, 3, 133),
    (LD_BYTE, 0, 0, 1),
    (JUMP_EQUAL, 0, 1, 0),
    (RETURN, 0, 0, ACCEPT),
    (RETURN, 0, 0, DROP),
];

/// The program of a socket on this layer, as the kernel takes it, without the frames of these ports.
pub(super) fn router_discovery(layer: Layer, muted: &[u32]) -> Vec<SockFilter> {
    program(layer, muted).into_iter().map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k)).collect()
}

fn program(layer: Layer, muted: &[u32]) -> Vec<Instruction> {
    let mut program = Vec::with_capacity(
        2 * muted.len() + 1 + TO_THIS_HOST.len() + DHCPV6.len() + MLD.len() + ROUTER_DISCOVERY.len(),
    );
    if !muted.is_empty() {
        program.push((LD_WORD, 0, 0, IFINDEX));
    }
    for ifindex in muted {
        program.push((JUMP_EQUAL, 0, 1, *ifindex));
        program.push((RETURN, 0, 0, DROP));
    }
    match layer {
        Layer::Link => {
            program.extend(TO_THIS_HOST);
            program.extend(DHCPV6);
            program.extend(MLD);
            program.extend(ROUTER_DISCOVERY);
        }
        Layer::Icmpv6 => program.extend(ICMPV6_ROUTER_DISCOVERY),
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u32 = 7;

    fn accepts(packet_type: u8, frame: &[u8]) -> bool {
        runs(&program(Layer::Link, &[]), packet_type, frame)
    }

    /// Runs the program as the kernel does for a frame of [`PORT`]: a load past the end of the frame drops
    /// it.
    fn runs(program: &[Instruction], packet_type: u8, frame: &[u8]) -> bool {
        let mut accumulator = 0;
        let mut next = 0;
        loop {
            let (code, if_true, if_false, operand) = program[next];
            let offset = usize::try_from(operand).unwrap();
            next += 1;
            let jump = |taken: bool| usize::from(if taken { if_true } else { if_false });
            match code {
                LD_BYTE if operand == PACKET_TYPE => accumulator = u32::from(packet_type),
                LD_BYTE if operand == HOP_LIMIT_BEFORE => accumulator = u32::from(packet_type),
                LD_WORD if operand == IFINDEX => accumulator = PORT,
                LD_BYTE => match frame.get(offset) {
                    Some(byte) => accumulator = u32::from(*byte),
                    None => return false,
                },
                LD_HALF => match frame.get(offset..offset + 2) {
                    Some(half) => accumulator = u32::from(u16::from_be_bytes([half[0], half[1]])),
                    None => return false,
                },
                LD_WORD => match frame.get(offset..).and_then(|rest| rest.first_chunk()) {
                    Some(word) => accumulator = u32::from_be_bytes(*word),
                    None => return false,
                },
                JUMP_EQUAL => next += jump(accumulator == operand),
                JUMP_GREATER_OR_EQUAL => next += jump(accumulator >= operand),
                RETURN => return operand != DROP,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn frame(kind: u8) -> Vec<u8> {
        let mut frame = vec![0; 62];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[20..22].copy_from_slice(&[58, 255]);
        frame[54] = kind;
        frame
    }

    #[test]
    fn only_router_discovery_for_this_host_wakes_the_process() {
        const TO_HOST: u8 = 0;
        const MULTICAST: u8 = 2;
        assert!(accepts(MULTICAST, &frame(133)));
        assert!(accepts(TO_HOST, &frame(133)));
        assert!(accepts(MULTICAST, &frame(134)));
        assert!(!accepts(3, &frame(133)), "another host's, or of an unknown VLAN");
        assert!(!accepts(4, &frame(134)), "outgoing");
        assert!(accepts(MULTICAST, &frame(135)), "a probe for a duplicate address");
        for offset in 22..38 {
            let mut resolution = frame(135);
            resolution[offset] = 0xfe;
            assert!(!accepts(MULTICAST, &resolution), "byte {offset}");
        }
        for (offset, value) in [(12, 8), (20, 0), (21, 254), (54, 136), (55, 1)] {
            let mut other = frame(133);
            other[offset] = value;
            assert!(!accepts(MULTICAST, &other), "byte {offset}");
        }
        assert!(!accepts(MULTICAST, &frame(133)[..54]), "cut before the ICMPv6 header");
    }

    #[test]
    fn dhcpv6_wakes_the_process_and_no_other_datagram() {
        let mut solicit = vec![0; 62];
        solicit[12..14].copy_from_slice(&[0x86, 0xdd]);
        solicit[20..22].copy_from_slice(&[17, 1]);
        solicit[38..40].copy_from_slice(&[0xff, 2]);
        solicit[56..58].copy_from_slice(&547u16.to_be_bytes());
        assert!(accepts(2, &solicit));
        let with = |at: usize, value: u8| {
            let mut frame = solicit.clone();
            frame[at] = value;
            frame
        };
        let mut unicast = with(38, 0xfe);
        unicast[39] = 0x80;
        assert!(accepts(0, &unicast));
        assert!(!accepts(3, &solicit) && !accepts(4, &solicit), "another host's, outgoing");
        for (at, value) in [(12, 8), (20, 6), (38, 0x20), (39, 5), (57, 0x22)] {
            assert!(!accepts(2, &with(at, value)), "byte {at}");
        }
        assert!(!accepts(2, &solicit[..57]));
    }

    #[test]
    fn mld_reports_wake_the_process_and_queries_do_not() {
        let mut report = vec![0; 70];
        report[12..14].copy_from_slice(&[0x86, 0xdd]);
        report[20..22].copy_from_slice(&[0, 1]);
        report[54..62].copy_from_slice(&[58, 0, 5, 2, 0, 0, 1, 0]);
        for kind in 128..=255u8 {
            report[62] = kind;
            assert_eq!(accepts(2, &report), [131, 143].contains(&kind), "type {kind}");
        }
        report[62] = 143;
        assert!(!accepts(3, &report) && !accepts(4, &report), "another host's, outgoing");
        for (at, value) in [(12, 8), (20, 43), (21, 255), (54, 6), (55, 1)] {
            let mut other = report.clone();
            other[at] = value;
            assert!(!accepts(2, &other), "byte {at}");
        }
        assert!(!accepts(2, &report[..62]));
    }

    #[test]
    fn a_muted_port_is_not_heard_and_others_are() {
        let solicitation = frame(133);
        let muted: Vec<u32> = (100..300).chain([PORT]).collect();
        assert!(!runs(&program(Layer::Link, &muted), 2, &solicitation));
        assert!(runs(&program(Layer::Link, &muted[..200]), 2, &solicitation));
        assert!(!runs(&program(Layer::Link, &muted[..200]), 2, &frame(136)));
        assert_eq!(
            program(Layer::Link, &muted).len(),
            2 * muted.len() + 1 + TO_THIS_HOST.len() + DHCPV6.len() + MLD.len() + ROUTER_DISCOVERY.len()
        );
    }

    #[test]
    fn a_raw_socket_hears_router_discovery_from_the_link_alone() {
        let runs = |hop_limit, message: &[u8]| runs(&program(Layer::Icmpv6, &[]), hop_limit, message);
        assert!(runs(255, &[133, 0, 0, 0]));
        assert!(runs(255, &[134, 1, 0, 0]), "counted as invalid");
        assert!(!runs(254, &[133, 0, 0, 0]));
        assert!(!runs(255, &[133, 1, 0, 0]));
        assert!(!runs(255, &[135, 0, 0, 0]));
        assert!(!runs(255, &[]));
    }
}

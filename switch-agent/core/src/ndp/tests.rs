use std::net::Ipv6Addr;

use super::*;

mod encoding;

const MACHINE: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const SWITCH: MacAddr = MacAddr([0x22, 0xa4, 0x61, 0, 0, 7]);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

fn frame(source: Ipv6Addr, icmp: &[u8]) -> Vec<u8> {
    let mut bytes = vec![];
    let addresses = FrameAddresses {
        source_mac: MACHINE,
        destination_mac: MacAddr([0x33, 0x33, 0, 0, 0, 2]),
        source,
        destination: ALL_ROUTERS,
    };
    write_frame(&mut bytes, &addresses, icmp);
    bytes
}

fn solicitation(options: &[u8]) -> Vec<u8> {
    [&[133, 0, 0, 0, 0, 0, 0, 0], options].concat()
}

const SLLAO: [u8; 8] = [1, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56];

fn parsed(source: Ipv6Addr, icmp: &[u8]) -> Result<Message<'static>, Invalid> {
    parse_frame(frame(source, icmp).leak(), ChecksumOffload::Complete)
}

/// A solicitation of Linux 6.1, as `tcpdump -xx` printed it on the router's port: link-local, SLLAO.
#[rustfmt::skip]
const LINUX_SOLICITATION: [u8; 70] = [
    0x33, 0x33, 0x00, 0x00, 0x00, 0x02, 0x52, 0x49, 0x60, 0x88, 0x41, 0xab, 0x86, 0xdd,
    0x60, 0x00, 0x00, 0x00, 0x00, 0x10, 0x3a, 0xff,
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x49, 0x60, 0xff, 0xfe, 0x88, 0x41, 0xab,
    0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02,
    0x85, 0x00, 0x96, 0x34, 0, 0, 0, 0, 1, 1, 0x52, 0x49, 0x60, 0x88, 0x41, 0xab,
];

#[test]
fn reads_the_solicitations_of_linux_and_of_firmware() {
    let linux = parse_frame(&LINUX_SOLICITATION, ChecksumOffload::Complete);
    let source = Some("fe80::5049:60ff:fe88:41ab".parse().unwrap());
    let mac: MacAddr = "52:49:60:88:41:ab".parse().unwrap();
    assert_eq!(linux, Ok(Message::Solicit(Solicit { source, mac, sllao: Some(mac) })));

    let firmware = parsed(Ipv6Addr::UNSPECIFIED, &solicitation(&[]));
    assert_eq!(firmware, Ok(Message::Solicit(Solicit { source: None, mac: MACHINE, sllao: None })));

    let global: Ipv6Addr = "2001:db8::9".parse().unwrap();
    let legal = parsed(global, &solicitation(&[]));
    assert!(
        matches!(legal, Ok(Message::Solicit(Solicit { source: Some(address), .. })) if address == global)
    );
}

/// Titles of v6LC.2.2.4 where it has one.
#[test]
fn refuses_what_rfc_4861_section_6_1_1_refuses() {
    let link_local = MACHINE.eui64_link_local();
    let cases: &[(&str, Vec<u8>, Ipv6Addr, Invalid)] = &[
        ("C: code", vec![133, 1, 0, 0, 0, 0, 0, 0], link_local, Invalid::Code),
        ("D: length 6", vec![133, 0, 0, 0, 0, 0], link_local, Invalid::Length),
        (
            "E: option length 0",
            solicitation(&[1, 0, 0, 0, 0, 0, 0, 0]),
            link_local,
            Invalid::OptionLengthZero,
        ),
        ("F: :: with SLLAO", solicitation(&SLLAO), Ipv6Addr::UNSPECIFIED, Invalid::UnspecifiedWithSllao),
        ("option overrun", solicitation(&[14, 2, 0, 0, 0, 0, 0, 0]), link_local, Invalid::OptionOverrun),
        ("half an option", solicitation(&[14]), link_local, Invalid::OptionOverrun),
        ("multicast SLLAO", solicitation(&[1, 1, 1, 0, 0, 0, 0, 0]), link_local, Invalid::LinkLayerAddress),
        ("multicast source", solicitation(&[]), ALL_NODES, Invalid::Source),
        ("loopback source", solicitation(&[]), Ipv6Addr::LOCALHOST, Invalid::Source),
        ("echo request", vec![128, 0, 0, 0, 0, 0, 0, 0], link_local, Invalid::NotRouterDiscovery),
        ("empty", vec![], link_local, Invalid::Length),
        ("short advertisement", vec![134, 0, 0, 0, 0, 0, 0, 0], link_local, Invalid::Length),
    ];
    for (name, icmp, source, invalid) in cases {
        assert_eq!(parsed(*source, icmp), Err(*invalid), "{name}");
    }
    let broken = |offset: usize, value: u8| {
        let mut bytes = LINUX_SOLICITATION.to_vec();
        bytes[offset] = value;
        parse_frame(bytes.leak(), ChecksumOffload::Complete)
    };
    assert_eq!(broken(21, 254), Err(Invalid::HopLimit), "A: hop limit");
    assert_eq!(broken(56, 0), Err(Invalid::Checksum), "B: checksum");
    assert_eq!(broken(20, 0), Err(Invalid::NotRouterDiscovery), "hop-by-hop header");
    assert_eq!(broken(20, 44), Err(Invalid::NotRouterDiscovery), "fragment header");
    assert_eq!(broken(19, 200), Err(Invalid::Truncated), "payload length");
    assert_eq!(broken(6, 0x33), Err(Invalid::EthernetSource));
}

#[test]
fn a_probe_for_a_duplicate_address_tells_who_is_there() {
    let target: Ipv6Addr = "2001:db8:1:101:5054:ff:fe00:1".parse().unwrap();
    let probe = |source: Ipv6Addr, destination: &str, options: &[u8]| {
        let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
        icmp.extend(target.octets());
        icmp.extend(options);
        let addresses = FrameAddresses {
            source_mac: MACHINE,
            destination_mac: ALL_NODES_MAC,
            source,
            destination: destination.parse().unwrap(),
        };
        let mut frame = Vec::new();
        write_frame(&mut frame, &addresses, &icmp);
        parse_frame(frame.leak(), ChecksumOffload::Complete)
    };
    let any = Ipv6Addr::UNSPECIFIED;
    assert_eq!(probe(any, "ff02::1:ff00:1", &[]), Ok(Message::Probe(Probe { mac: MACHINE })));
    // Linux and others add a nonce (RFC 7527).
    assert!(probe(any, "ff02::1:ff00:1", &[14, 1, 1, 2, 3, 4, 5, 6]).is_ok());
    assert_eq!(probe(any, "ff02::1:ff00:2", &[]), Err(Invalid::Destination));
    assert_eq!(probe(any, "ff02::1:ff00:1", &SLLAO), Err(Invalid::UnspecifiedWithSllao));
    let resolution = probe(MACHINE.eui64_link_local(), "ff02::1:ff00:1", &[]);
    assert_eq!(resolution, Err(Invalid::NotRouterDiscovery));
}

/// The first frame of Linux 6.18 after carrier, 12 ms before its first probe and 1 s before its first
/// solicitation, as a packet socket got it: it joins its solicited-node group while it has no address.
#[rustfmt::skip]
const LINUX_MLD_REPORT: [u8; 90] = [
    0x33, 0x33, 0x00, 0x00, 0x00, 0x16, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0x86, 0xdd,
    0x60, 0x00, 0x00, 0x00, 0x00, 0x24, 0x00, 0x01,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16,
    0x3a, 0x00, 0x05, 0x02, 0x00, 0x00, 0x01, 0x00,
    0x8f, 0x00, 0x3b, 0x22, 0, 0, 0, 1,
    0x04, 0, 0, 0, 0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56,
];

#[test]
fn an_mld_report_tells_who_is_there() {
    let report = |source| Ok(Message::MldReport(MldReport { mac: MACHINE, source }));
    let complete = ChecksumOffload::Complete;
    assert_eq!(parse_frame(&LINUX_MLD_REPORT, complete), report(None));

    let changed = |offset: usize, value: u8| {
        let mut bytes = LINUX_MLD_REPORT.to_vec();
        bytes[offset] = value;
        parse_frame(bytes.leak(), ChecksumOffload::NotReady)
    };
    assert_eq!(changed(56, 3), Err(Invalid::Mld), "another option than Router Alert");
    assert_eq!(changed(59, 1), Err(Invalid::Mld), "Router Alert for something else");
    assert_eq!(changed(21, 255), Err(Invalid::Mld), "hop limit");
    assert_eq!(changed(22, 0x20), Err(Invalid::Mld), "routed source");
    assert_eq!(changed(53, 2), Err(Invalid::Mld), "sent to all routers");
    assert_eq!(changed(69, 2), Err(Invalid::Truncated), "more records than there are");
    assert_eq!(changed(69, 0), Err(Invalid::Mld), "no record");
    assert_eq!(changed(73, 1), Err(Invalid::Truncated), "more sources than there are");
    assert_eq!(changed(62, 130), Err(Invalid::NotRouterDiscovery), "a query");
    assert_eq!(changed(54, 6), Err(Invalid::NotRouterDiscovery), "TCP");
    let mut bytes = LINUX_MLD_REPORT.to_vec();
    bytes[89] = 0x57;
    assert_eq!(parse_frame(&bytes, complete), Err(Invalid::Checksum));

    // Version 1, to the group itself: the same header with another message.
    let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
    let mut version_1 = LINUX_MLD_REPORT[..62].to_vec();
    version_1[38..54].copy_from_slice(&group.octets());
    version_1[19] = 32;
    version_1.extend([131, 0, 0, 0, 0, 0, 0, 0]);
    version_1.extend(group.octets());
    assert_eq!(parse_frame(&version_1, ChecksumOffload::NotReady), report(None));
    version_1[85] = 0x57;
    assert_eq!(parse_frame(&version_1, ChecksumOffload::NotReady), Err(Invalid::Mld));
}

#[test]
fn a_checksum_that_is_not_filled_in_yet_is_not_verified() {
    let mut bytes = LINUX_SOLICITATION.to_vec();
    bytes[56] = 0;
    assert!(parse_frame(&bytes, ChecksumOffload::NotReady).is_ok());
}

#[test]
fn ethernet_padding_is_no_part_of_the_message() {
    let padded = [&LINUX_SOLICITATION[..], &[0; 9]].concat();
    assert!(parse_frame(&padded, ChecksumOffload::Complete).is_ok());
}

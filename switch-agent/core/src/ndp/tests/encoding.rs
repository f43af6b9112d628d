//! Advertisements: option by option, by an independent decoder, and by properties.

use ipnet::Ipv6Net;
use pnet_packet::Packet;
use pnet_packet::ethernet::EthernetPacket;
use pnet_packet::icmpv6::{self, Icmpv6Packet, ndp::RouterAdvertPacket};
use pnet_packet::ipv6::Ipv6Packet;
use proptest::prelude::*;

use super::*;
use crate::ra::{AdvPrefix, EncryptedDns, Preference, PrefixVariables, SvcParams};

fn prefix_information(prefix: Ipv6Net, adv_valid_lifetime_s: u32) -> NdpOption<'static> {
    let variables = PrefixVariables { adv_valid_lifetime_s, ..PrefixVariables::default() };
    NdpOption::PrefixInformation(AdvPrefix { prefix, variables })
}

fn header() -> Header {
    Header {
        cur_hop_limit: 64,
        managed: false,
        other_config: true,
        preference: Preference::High,
        router_lifetime_s: 1800,
        reachable_time_ms: 0,
        retrans_timer_ms: 100,
    }
}

/// Every option, byte for byte.
#[test]
fn encodes_each_option_as_its_rfc_draws_it() {
    let prefix: Ipv6Net = "2001:db8:1:2::/64".parse().unwrap();
    let domains = ["example.com".to_owned(), "bad..name".to_owned()];
    let servers: [Ipv6Addr; 1] = ["2001:db8::53".parse().unwrap()];
    let route = |text: &str| NdpOption::RouteInformation {
        prefix: text.parse().unwrap(),
        preference: Preference::Low,
        lifetime_s: 600,
    };
    let pd_preferred = PrefixVariables {
        adv_valid_lifetime_s: 10,
        adv_preferred_lifetime_s: u32::MAX,
        adv_on_link_flag: false,
        adv_autonomous_flag: false,
        adv_pd_preferred_flag: true,
    };
    let resolver = EncryptedDns {
        service_priority: 1,
        adn: "dns.example".to_owned(),
        addresses: servers.to_vec(),
        svc_params: SvcParams {
            alpn: vec!["dot".to_owned(), "h2".to_owned()],
            port: Some(853),
            dohpath: Some("/q{?dns}".to_owned()),
        },
    };
    let adn_only = EncryptedDns { addresses: vec![], service_priority: 258, ..resolver.clone() };
    let cases: &[(NdpOption<'_>, &str)] = &[
        (NdpOption::SourceLinkLayerAddress(SWITCH), "010122a461000007"),
        (
            prefix_information(prefix, 3600),
            "030440c000000e10000007080000000020010db8000100020000000000000000",
        ),
        (
            NdpOption::PrefixInformation(AdvPrefix { prefix, variables: pd_preferred }),
            "030440100000000affffffff0000000020010db8000100020000000000000000",
        ),
        (NdpOption::Mtu(9100), "050100000000238c"),
        (route("::/0"), "1801001800000258"),
        (route("2001:db8::/32"), "180220180000025820010db800000000"),
        (route("2001:db8::1/128"), "180380180000025820010db8000000000000000000000001"),
        (
            NdpOption::Rdnss { servers: &servers, lifetime_s: 1800 },
            "190300000000070820010db8000000000000000000000053",
        ),
        (
            NdpOption::Dnssl { domains: &domains, lifetime_s: 1800 },
            "1f03000000000708076578616d706c6503636f6d00000000",
        ),
        (
            NdpOption::Pref64 { prefix: "64:ff9b::/96".parse().unwrap(), lifetime_s: 1800 },
            "260207080064ff9b0000000000000000",
        ),
        (
            NdpOption::Pref64 { prefix: "2001:db8::/48".parse().unwrap(), lifetime_s: 100_000 },
            "2602fffb20010db80000000000000000",
        ),
        // Priority, lifetime, length and name, length and addresses, length and alpn, port, dohpath.
        (
            NdpOption::EncryptedDns { resolver: &resolver, lifetime_s: 1800 },
            "9009\
             000100000708\
             000d03646e73076578616d706c6500\
             001020010db8000000000000000000000053\
             001d0001000703646f74026832000300020355000700082f717b3f646e737d",
        ),
        (
            NdpOption::EncryptedDns { resolver: &adn_only, lifetime_s: 0 },
            "9003010200000000000d03646e73076578616d706c650000",
        ),
        (NdpOption::CaptivePortal("https://p/"), "250268747470733a2f2f702f00000000"),
    ];
    for (option, hex) in cases {
        let mut encoded = vec![];
        option.encode(&mut encoded);
        let text: String = encoded.iter().flatten().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&text, hex, "{option:?}");
    }
}

#[test]
fn encodes_the_fixed_part() {
    let [message] = &messages(&header(), SWITCH, &[])[..] else { panic!("one message") };
    assert_eq!(message[..16], [134, 0, 0, 0, 64, 0x48, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 100]);
    // RFC 4191 section 2.2: medium while the router lifetime is 0.
    let gone = Header { router_lifetime_s: 0, ..header() };
    assert_eq!(messages(&gone, SWITCH, &[])[0][5], 0x40);
}

#[test]
fn an_rfc_6085_frame_carries_the_multicast_destination_to_one_machine() {
    let mut bytes = vec![];
    let addresses = FrameAddresses {
        source_mac: SWITCH,
        destination_mac: MACHINE,
        source: SWITCH.eui64_link_local(),
        destination: ALL_NODES,
    };
    write_frame(&mut bytes, &addresses, &messages(&header(), SWITCH, &[])[0]);
    let ethernet = EthernetPacket::new(&bytes).unwrap();
    assert_eq!(ethernet.get_destination().octets(), MACHINE.0);
    let ip = Ipv6Packet::new(ethernet.payload()).unwrap();
    assert_eq!((ip.get_destination(), ip.get_hop_limit()), (ALL_NODES, 255));
}

/// Reads a frame with pnet: its own header layout and its own checksum.
fn independent(frame: &[u8]) -> (u8, u8, u16, Vec<(u8, Vec<u8>)>) {
    let ethernet = EthernetPacket::new(frame).unwrap();
    assert_eq!(ethernet.get_ethertype().0, 0x86dd);
    let ip = Ipv6Packet::new(ethernet.payload()).unwrap();
    assert_eq!((ip.get_version(), ip.get_hop_limit(), ip.get_next_header().0), (6, 255, 58));
    assert!(usize::from(ip.get_payload_length()) <= MESSAGE_LEN_MAX);
    let icmp = Icmpv6Packet::new(ip.payload()).unwrap();
    let checksum = icmpv6::checksum(&icmp, &ip.get_source(), &ip.get_destination());
    assert_eq!(icmp.get_checksum(), checksum);
    let advert = RouterAdvertPacket::new(ip.payload()).unwrap();
    (advert.get_hop_limit(), advert.get_flags(), advert.get_lifetime(), walk(&ip.payload()[16..]))
}

/// pnet's option iterator computes lengths in eight bits, so long options need a walk of our own.
fn walk(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut options = vec![];
    while let [kind, units, ..] = *bytes {
        let (option, rest) = bytes.split_at(usize::from(units) * 8);
        options.push((kind, option[2..].to_vec()));
        bytes = rest;
    }
    options
}

#[test]
fn pnet_reads_the_options_of_an_ordinary_advertisement() {
    let prefix: Ipv6Net = "2001:db8:1:2::/64".parse().unwrap();
    let servers = ["2001:db8::53".parse().unwrap()];
    let options = [
        prefix_information(prefix, 3600),
        NdpOption::Mtu(9100),
        NdpOption::Rdnss { servers: &servers, lifetime_s: 1800 },
    ];
    let [message] = &messages(&header(), SWITCH, &options)[..] else { panic!("one message") };
    let advert = RouterAdvertPacket::new(message).unwrap();
    let kinds: Vec<(u8, u8)> =
        advert.get_options().iter().map(|option| (option.option_type.0, option.length)).collect();
    assert_eq!(kinds, [(1, 1), (3, 4), (5, 1), (25, 3)]);
    assert_eq!((advert.get_reachable_time(), advert.get_retrans_time()), (0, 100));
}

/// `bytes` as options with lengths that fit: kinds and bodies stay what they are.
fn whole_options(bytes: &[u8]) -> Vec<u8> {
    let mut options = vec![];
    let mut rest = bytes;
    while let [kind, units, ..] = *rest {
        let kind = [3, 5, 24, 25, 31, 38, kind][usize::from(kind) % 7];
        let length = (usize::from(units % 6) + 1) * 8;
        let body = &rest[2..rest.len().min(length)];
        let start = options.len();
        options.extend([kind, u8::try_from(length / 8).unwrap()]);
        options.extend(body);
        options.resize(start + length, 0);
        rest = &rest[rest.len().min(length)..];
    }
    options
}

prop_compose! {
    fn any_prefix()(address in any::<u128>(), length in 0u8..=128) -> Ipv6Net {
        Ipv6Net::new(Ipv6Addr::from(address), length).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_the_parser(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in prop_oneof![Just(133u8), Just(134), any::<u8>()],
        source in prop_oneof![Just(MACHINE.eui64_link_local()), Just(Ipv6Addr::UNSPECIFIED)],
    ) {
        parse_frame(&bytes, ChecksumOffload::Complete).ok();
        // The same bytes behind valid headers reach the option walk.
        let icmp = [&[kind, 0, 0, 0][..], &bytes].concat();
        parse_frame(&frame(source, &icmp), ChecksumOffload::Complete).ok();
        // And whatever passes it is read as options.
        let advert = [&[134, 0, 0, 0], &[0; 12][..], &whole_options(&bytes)].concat();
        let advert = frame(MACHINE.eui64_link_local(), &advert);
        let Ok(Message::Advert(advert)) = parse_frame(&advert, ChecksumOffload::Complete) else {
            panic!("options of whole lengths")
        };
        for option in advert.options {
            if let AdvertOption::Dnssl { names, .. } = option {
                prop_assert!(names.count() <= bytes.len());
            }
        }
        let mut report = LINUX_MLD_REPORT[..54].to_vec();
        report[19] = u8::try_from(bytes.len() + 8).unwrap();
        report.extend([58, 0, 5, 2, 0, 0, 1, 0]);
        report.extend(&bytes);
        parse_frame(&report, ChecksumOffload::NotReady).ok();
        let mut cut = frame(source, &icmp);
        cut.truncate(bytes.len());
        parse_frame(&cut, ChecksumOffload::NotReady).ok();
    }

    #[test]
    fn every_advertisement_parses_and_keeps_its_options_in_order(
        prefixes in proptest::collection::vec(any_prefix(), 0..40),
        routes in proptest::collection::vec(any_prefix(), 0..40),
        servers in proptest::collection::vec(any::<u128>().prop_map(Ipv6Addr::from), 0..100),
        domains in proptest::collection::vec("[a-z]{1,63}(\\.[a-z]{1,20}){0,8}", 0..20),
        portal in "[a-z]{0,1300}",
        lifetime in any::<u32>(),
    ) {
        let mut options: Vec<NdpOption<'_>> = prefixes
            .iter()
            .map(|prefix| prefix_information(*prefix, lifetime))
            .collect();
        options.push(NdpOption::Rdnss { servers: &servers, lifetime_s: lifetime });
        options.push(NdpOption::Dnssl { domains: &domains, lifetime_s: lifetime });
        options.extend(routes.iter().map(|prefix| NdpOption::RouteInformation {
            prefix: *prefix, preference: Preference::High, lifetime_s: lifetime,
        }));
        options.push(NdpOption::CaptivePortal(&portal));
        let addresses = FrameAddresses {
            source_mac: SWITCH,
            destination_mac: ALL_NODES_MAC,
            source: SWITCH.eui64_link_local(),
            destination: ALL_NODES,
        };
        let mut found: Vec<(u8, usize)> = vec![];
        let (mut addresses_found, mut names_found) = (0, 0);
        let (mut read_prefixes, mut read_routes, mut read_servers) = (vec![], vec![], 0);
        let mut read_names: Vec<Vec<u8>> = vec![];
        for message in messages(&header(), SWITCH, &options) {
            let mut bytes = vec![];
            write_frame(&mut bytes, &addresses, &message);
            let Ok(Message::Advert(advert)) = parse_frame(&bytes, ChecksumOffload::Complete) else {
                panic!("own parser")
            };
            prop_assert_eq!(advert.router_lifetime_s, 1800);
            for option in advert.options {
                match option {
                    AdvertOption::PrefixInformation(entry) => read_prefixes.push(entry.prefix),
                    AdvertOption::RouteInformation(route) => read_routes.push(route.prefix),
                    AdvertOption::Rdnss { lifetime_s, servers: read } => {
                        prop_assert_eq!(lifetime_s, lifetime);
                        read_servers += servers.iter().filter(|server| read.contains(**server)).count();
                    }
                    AdvertOption::Dnssl { names, .. } => read_names.extend(names.map(<[u8]>::to_vec)),
                    AdvertOption::Mtu(_) | AdvertOption::Pref64 { .. } => prop_assert!(false, "{option:?}"),
                }
            }
            let (hop_limit, flags, lifetime, decoded) = independent(&bytes);
            prop_assert_eq!((hop_limit, flags, lifetime), (64, 0x48, 1800));
            prop_assert_eq!(decoded[0].0, 1);
            for (kind, data) in &decoded[1..] {
                addresses_found += if *kind == 25 { (data.len() - 6) / 16 } else { 0 };
                names_found += if *kind == 31 { names(&data[6..]) } else { 0 };
                found.push((*kind, data.len() + 2));
            }
        }
        prop_assert!(found.iter().all(|(_, length)| length % 8 == 0));
        let count = |kind: u8| found.iter().filter(|(found, _)| *found == kind).count();
        prop_assert_eq!(count(3), prefixes.len());
        prop_assert_eq!(count(24), routes.len());
        prop_assert_eq!(addresses_found, servers.len());
        prop_assert_eq!(read_prefixes, prefixes.iter().map(Ipv6Net::trunc).collect::<Vec<_>>());
        prop_assert_eq!(read_routes, routes.iter().map(Ipv6Net::trunc).collect::<Vec<_>>());
        prop_assert_eq!(read_servers, servers.len());
        prop_assert_eq!(read_names, domains.iter().filter_map(|domain| encode_domain(domain)).collect::<Vec<_>>());
        prop_assert_eq!(names_found, domains.iter().filter(|domain| is_encodable_domain(domain)).count());
        prop_assert_eq!(count(37), usize::from((1..=CAPTIVE_PORTAL_LEN_MAX).contains(&portal.len())));
    }
}

/// Counts the names of a DNSSL option body.
fn names(mut data: &[u8]) -> usize {
    let mut count = 0;
    let mut in_name = false;
    while let Some((&length, rest)) = data.split_first() {
        count += usize::from(length == 0 && in_name);
        in_name = length != 0;
        data = &rest[usize::from(length)..];
    }
    count
}

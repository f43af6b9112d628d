//! From the frame of a solicitation to the frame of its answer nothing is allocated, so that no flood can
//! make the process grow, and no answer waits for an allocator. Nor is anything to judge the header of a
//! request that the proxy forwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::net::Ipv6Addr;
use std::time::Duration;

use allocation_counter::measure;
use switch_agent_core::desired::Dialect;
use switch_agent_core::discovery::default_rules;
use switch_agent_core::discovery::head::{Framing, check, find_end};
use switch_agent_core::discovery::headers::{Hygiene, tells_of_forwarding};
use switch_agent_core::name::MacAddr;
use switch_agent_core::ndp::{
    ALL_NODES, ALL_NODES_MAC, ChecksumOffload, FrameAddresses, Message, parse_frame, write_frame,
};
use switch_agent_core::ra::{
    AdvPrefix, Advertiser, AdvertiserSpec, PrefixVariables, RaConfig, RaProfile, Trigger,
};

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

fn spec(profile: RaProfile) -> AdvertiserSpec {
    let prefix = "2001:db8:1:4::/64".parse().unwrap();
    AdvertiserSpec {
        port: "Ethernet4".parse().unwrap(),
        ifindex: 7,
        mac: MacAddr([0x22, 0, 0, 0, 0, 9]),
        link_local: "fe80::2000:ff:fe00:9".parse().unwrap(),
        forwarding: true,
        config: RaConfig {
            profile,
            adv_prefix_list: vec![AdvPrefix { prefix, variables: PrefixVariables::default() }],
            rdnss: vec!["2001:db8::53".parse().unwrap()],
            // More than one message.
            dnssl: (0..8)
                .map(|number| format!("{}d{number}", format!("{}.", "x".repeat(60)).repeat(3)))
                .collect(),
            ..RaConfig::default()
        },
        dhcp6: None,
    }
}

/// One frame of each kind that a machine can send, from each of 64 machines.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = vec![];
    for number in 0..64 {
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, number]);
        let mut push = |source, destination, icmp: &[u8]| {
            let mut frame = vec![];
            let addresses =
                FrameAddresses { source_mac: mac, destination_mac: ALL_NODES_MAC, source, destination };
            write_frame(&mut frame, &addresses, icmp);
            frames.push(frame);
        };
        let link_local = mac.eui64_link_local();
        let sllao = [133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 0, 0, number];
        push(link_local, ALL_ROUTERS, &sllao);
        push(Ipv6Addr::UNSPECIFIED, ALL_ROUTERS, &sllao[..8]);
        let [.., high, low] = link_local.segments();
        let mut probe = vec![135, 0, 0, 0, 0, 0, 0, 0];
        probe.extend(link_local.octets());
        push(
            Ipv6Addr::UNSPECIFIED,
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low),
            &probe,
        );
        // Somebody else's advertisement, and frames that do not hold.
        let advert = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0, 0, 0, 5, 220];
        push(link_local, ALL_NODES, &advert);
        push(link_local, ALL_ROUTERS, &[133, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
    frames
}

/// Takes in a frame and writes everything that is due into `out`; how many frames that were.
fn step(advertiser: &mut Advertiser, now: Duration, frame: &[u8], out: &mut Vec<u8>) -> usize {
    match parse_frame(frame, ChecksumOffload::Complete) {
        Ok(Message::Solicit(solicit)) => {
            advertiser.handle_solicit(now, &solicit);
        }
        Ok(Message::Probe(probe)) => {
            advertiser.handle_trigger(now, Trigger::Probe, probe.mac);
        }
        Ok(Message::MldReport(report)) => {
            advertiser.handle_trigger(now, Trigger::MldReport, report.mac);
        }
        Ok(Message::Advert(advert)) => assert_eq!(advert.options.count(), 1),
        Err(_) => {}
    }
    let mut sent = 0;
    while let Some(transmit) = advertiser.poll_transmit(now) {
        for message in &*transmit.messages {
            write_frame(out, &transmit.addresses, message);
            sent += 1;
        }
        // Every seventh does not leave.
        if sent % 7 == 6 {
            advertiser.transmit_failed(now);
        }
    }
    sent
}

#[test]
fn a_flood_of_solicitations_is_answered_without_allocating() {
    let frames = frames();
    for profile in [RaProfile::Boot, RaProfile::Strict] {
        let mut advertiser = Advertiser::new(spec(profile), true, 1, Duration::ZERO);
        let mut out = Vec::with_capacity(1500);
        let mut sent = 0;
        let info = measure(|| {
            let mut now = Duration::ZERO;
            for frame in frames.iter().cycle().take(60_000) {
                now += Duration::from_millis(1);
                sent += step(&mut advertiser, now, frame, &mut out);
            }
        });
        // A minute: up to ten unicast answers in each second, of two messages.
        assert!(sent > 1000, "{profile:?}: {sent}");
        assert_eq!((info.count_total, info.bytes_max), (0, 0), "{profile:?}: {sent} frames");
    }
}

#[test]
fn the_header_of_a_request_is_judged_without_allocating() {
    let head = b"GET /api/v1/machine HTTP/1.1\r\nHost: [2001:db8::1]:18090\r\nUser-Agent: hammer\r\n\
        Content-Length: 0\r\nX_Forwarded_For: 2001:db8::9\r\nAuthorization: Bearer 0\r\n\r\n";
    let names = ["host", "user-agent", "content-length", "x_forwarded_for", "authorization", "x-boot-port"];
    // The first that asks makes them.
    let dialects = [Dialect::Generic, Dialect::MetalStackV1, Dialect::MetalStackV2];
    let rules = dialects.map(|dialect| default_rules(dialect).len());
    let info = measure(|| {
        assert_eq!(find_end(head), Ok(Some(head.len())));
        assert_eq!(check(head), Ok(Framing::Length(0)));
        let hygiene = Hygiene::new([]);
        let passed = names.iter().filter(|name| hygiene.passes_up(name)).count();
        let replied = names.iter().filter(|name| hygiene.passes_down(name)).count();
        assert_eq!((passed, replied), (2, 2));
        assert_eq!(names.iter().filter(|name| tells_of_forwarding(name)).count(), 1);
        assert_eq!(dialects.map(|dialect| default_rules(dialect).len()), rules);
    });
    assert_eq!(info.count_total, 0);
}

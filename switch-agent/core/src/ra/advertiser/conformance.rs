//! Router tests of the IPv6 Ready Core group 2.2 (v6LC.2.2.4 to 2.2.9), on the `strict` profile from frame to
//! frame, each over many seeds. Times are as the test specification has them.

use std::net::Ipv6Addr;

use super::super::{AdvPrefix, PrefixVariables, RaConfig};
use super::tests::{ms, spec};
use super::*;
use crate::ndp::{
    ALL_NODES, ALL_NODES_MAC, AdvertOption, ChecksumOffload, FrameAddresses, Message, parse_frame,
    write_frame,
};

const HOST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SEEDS: std::ops::Range<u64> = 0..64;
const MAX_RA_DELAY: Duration = Duration::from_millis(500);
const MIN_DELAY: Duration = Duration::from_secs(3);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An advertising interface and everything it sent, as (time, frame).
struct Router {
    advertiser: Advertiser,
    sent: Vec<(Duration, Vec<u8>)>,
}

impl Router {
    fn new(seed: u64, min: u64, max: u64, config: RaConfig) -> Self {
        let config = RaConfig {
            profile: RaProfile::Strict,
            min_rtr_adv_interval: s(min),
            max_rtr_adv_interval: s(max),
            ..config
        };
        let spec = AdvertiserSpec { config, ..spec(RaProfile::Strict) };
        Router { advertiser: Advertiser::new(spec, true, seed, s(0)), sent: vec![] }
    }

    /// Initial advertisements over, and at rest for a while: the moment, and nothing sent as yet.
    fn settled(seed: u64) -> (Self, Duration) {
        let mut router = Router::new(seed, 30, 40, config());
        router.run(s(100));
        let last = router.sent.pop().map(|(time, _)| time).unwrap_or_default();
        router.sent.clear();
        let now = last + s(4);
        router.run(now);
        assert!(router.sent.is_empty(), "the next is due 30 s after the last");
        (router, now)
    }

    fn run(&mut self, until: Duration) {
        while let Some(due) = self.advertiser.next_deadline().filter(|due| *due <= until) {
            let transmit = self.advertiser.poll_transmit(due).expect("due");
            for message in &*transmit.messages {
                let mut frame = vec![];
                write_frame(&mut frame, &transmit.addresses, message);
                self.sent.push((due, frame));
            }
        }
    }

    /// A frame arrives, and time passes.
    fn hear(&mut self, now: Duration, frame: &[u8], until: Duration) {
        if let Ok(Message::Solicit(solicit)) = parse_frame(frame, ChecksumOffload::Complete) {
            self.advertiser.handle_solicit(now, &solicit);
        }
        self.run(until);
    }

    fn times(&self) -> Vec<Duration> {
        self.sent.iter().map(|(time, _)| *time).collect()
    }

    fn gaps(&self) -> Vec<Duration> {
        self.times().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

fn config() -> RaConfig {
    spec(RaProfile::Strict).config
}

/// A solicitation with these bytes behind the eight of its header.
fn solicitation(source: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let icmp = [&[133, 0, 0, 0, 0, 0, 0, 0], options].concat();
    framed(source, &icmp)
}

fn framed(source: Ipv6Addr, icmp: &[u8]) -> Vec<u8> {
    let mut frame = vec![];
    let addresses =
        FrameAddresses { source_mac: HOST, destination_mac: ALL_NODES_MAC, source, destination: ALL_ROUTERS };
    write_frame(&mut frame, &addresses, icmp);
    frame
}

const SLLAO: [u8; 8] = [1, 1, 0x52, 0x54, 0, 0, 0, 1];

/// What a host reads of a frame, all checks of RFC 4861 section 6.1.2 passed.
fn read(frame: &[u8]) -> crate::ndp::Advert<'_> {
    match parse_frame(frame, ChecksumOffload::Complete) {
        Ok(Message::Advert(advert)) => advert,
        other => panic!("{other:?}"),
    }
}

fn ignored(part: &str, frame: &[u8]) {
    for seed in SEEDS {
        let (mut router, now) = Router::settled(seed);
        router.hear(now, frame, now + MAX_RA_DELAY);
        assert_eq!(router.times(), [], "{part}");
    }
}

#[test]
fn v6lc_2_2_4_router_ignores_invalid_router_solicitations() {
    let link_local = HOST.eui64_link_local();
    let valid = solicitation(link_local, &SLLAO);
    let changed = |offset: usize, value: u8| {
        let mut frame = valid.clone();
        frame[offset] = value;
        frame
    };
    ignored("A: hop limit 254", &changed(21, 254));
    ignored("B: checksum", &changed(56, !valid[56]));
    ignored("C: code 1", &framed(link_local, &[133, 1, 0, 0, 0, 0, 0, 0]));
    ignored("D: ICMP length 6", &framed(link_local, &[133, 0, 0, 0, 0, 0]));
    ignored("E: option length 0", &solicitation(link_local, &[1, 0, 0x52, 0x54, 0, 0, 0, 1]));
    ignored("F: unspecified source with SLLAO", &solicitation(Ipv6Addr::UNSPECIFIED, &SLLAO));

    // The valid one they are made of is answered.
    let (mut router, now) = Router::settled(0);
    router.hear(now, &valid, now + MAX_RA_DELAY);
    assert_eq!(router.sent.len(), 1);
}

#[test]
fn v6lc_2_2_5_router_sends_valid_router_advertisement() {
    for seed in SEEDS {
        let (mut router, now) = Router::settled(seed);
        router.hear(now, &solicitation(HOST.eui64_link_local(), &SLLAO), now + s(1));
        router.hear(now + s(1), &solicitation(Ipv6Addr::UNSPECIFIED, &[]), now + s(10));
        router.run(now + s(60));
        router.advertiser.cease(now + s(60), Cease::Final);
        router.run(now + s(70));
        assert!(router.sent.len() >= 4, "unicast, solicited, periodic and final");
        for (_, frame) in &router.sent {
            let advert = read(frame);
            assert_eq!(advert.source, router.advertiser.spec().link_local);
            assert_eq!((frame[21], frame[54], frame[55]), (255, 134, 0), "hop limit, type, code");
            assert!(frame.len() - 54 >= 16);
            let mut options = &frame[54 + 16..];
            while let [_, units, ..] = *options {
                assert!(units > 0);
                options = &options[usize::from(units) * 8..];
            }
        }
    }
}

#[test]
fn v6lc_2_2_6_router_does_not_send_on_a_non_advertising_interface() {
    for seed in SEEDS {
        let mut advertising = Router::new(seed, 5, 10, config());
        let mut silent = Router::new(seed, 5, 10, config());
        silent.advertiser.cease(s(0), Cease::Silent);
        for (at, source) in [(20, HOST.eui64_link_local()), (40, Ipv6Addr::UNSPECIFIED)] {
            for router in [&mut advertising, &mut silent] {
                router.run(s(at));
                router.hear(s(at), &solicitation(source, &[]), s(at + 20));
            }
        }
        assert!(silent.sent.is_empty(), "A: none");
        assert!(advertising.sent.len() > 6, "B: one of two");
    }
}

#[test]
fn v6lc_2_2_7_a_unsolicited_intervals_are_random_and_never_below_the_minimum() {
    let mut all = vec![];
    for seed in SEEDS {
        let mut router = Router::new(seed, 5, 10, config());
        router.run(s(600));
        all.extend(router.gaps());
    }
    assert!(all.iter().all(|gap| (s(5)..=s(10)).contains(gap)));
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert!(distinct.len() > 10, "{} different intervals", distinct.len());
    let short = all.iter().filter(|gap| **gap < ms(7500)).count();
    assert!((all.len() * 4 / 10..all.len() * 6 / 10).contains(&short), "{short} of {}", all.len());
}

#[test]
fn v6lc_2_2_7_b_the_first_three_are_16_seconds_apart_at_most() {
    for seed in SEEDS {
        let mut router = Router::new(seed, 198, 600, config());
        router.run(s(2000));
        let gaps = router.gaps();
        assert!(gaps[..2].iter().all(|gap| *gap <= s(16)), "{gaps:?}");
        assert!(gaps[2..].iter().all(|gap| (s(198)..=s(600)).contains(gap)), "{gaps:?}");
    }
}

/// The values of an advertisement as a host reads them: hop limit, M, O, lifetime, reachable time, retrans
/// timer, MTU, and each prefix.
type Values = (u8, bool, bool, u16, u32, u32, Option<u32>, Vec<AdvPrefix>);

fn values(frame: &[u8]) -> Values {
    let advert = read(frame);
    let (mut mtu, mut prefixes) = (None, vec![]);
    for option in advert.options {
        match option {
            AdvertOption::Mtu(value) => mtu = Some(value),
            AdvertOption::PrefixInformation(entry) => prefixes.push(entry),
            _ => {}
        }
    }
    (
        advert.cur_hop_limit,
        advert.managed,
        advert.other_config,
        advert.router_lifetime_s,
        advert.reachable_time_ms,
        advert.retrans_timer_ms,
        mtu,
        prefixes,
    )
}

#[test]
fn v6lc_2_2_7_c_minimum_values() {
    let mut config = config();
    config.adv_cur_hop_limit = 0;
    config.adv_default_lifetime_s = 0;
    config.adv_retrans_timer_ms = 0;
    for entry in &mut config.adv_prefix_list {
        entry.variables = PrefixVariables {
            adv_valid_lifetime_s: 0,
            adv_preferred_lifetime_s: 0,
            adv_on_link_flag: false,
            adv_autonomous_flag: false,
            adv_pd_preferred_flag: false,
        };
    }
    for seed in SEEDS {
        let mut router = Router::new(seed, 3, 4, config.clone());
        router.run(s(60));
        assert!(router.gaps().iter().all(|gap| (s(3)..=s(4)).contains(gap)), "{:?}", router.gaps());
        let expected = (0, false, false, 0, 0, 0, None, config.adv_prefix_list.clone());
        assert!(router.sent.iter().all(|(_, frame)| values(frame) == expected));
    }
}

#[test]
fn v6lc_2_2_7_d_maximum_values() {
    let mut config = config();
    config.adv_cur_hop_limit = u8::MAX;
    config.adv_managed_flag = true;
    config.adv_other_config_flag = true;
    config.adv_default_lifetime_s = 9000;
    config.adv_reachable_time_ms = 3_600_000;
    config.adv_retrans_timer_ms = u32::MAX;
    config.adv_link_mtu = Some(1500);
    for entry in &mut config.adv_prefix_list {
        entry.variables.adv_valid_lifetime_s = u32::MAX;
        entry.variables.adv_preferred_lifetime_s = u32::MAX;
    }
    for seed in SEEDS {
        let mut router = Router::new(seed, 1350, 1800, config.clone());
        router.run(s(20_000));
        assert!(router.gaps()[2..].iter().all(|gap| (s(1350)..=s(1800)).contains(gap)));
        let prefixes = config.adv_prefix_list.clone();
        let expected = (255, true, true, 9000, 3_600_000, u32::MAX, Some(1500), prefixes);
        assert!(router.sent.iter().all(|(_, frame)| values(frame) == expected));
    }
}

#[test]
fn v6lc_2_2_7_e_f_further_prefixes() {
    for further in ["2001:db8:ffff::/64", "fec0::/64"] {
        let mut config = config();
        let entry = config.adv_prefix_list[0];
        config.adv_prefix_list.push(AdvPrefix { prefix: further.parse().unwrap(), ..entry });
        let mut router = Router::new(1, 5, 10, config.clone());
        router.run(s(60));
        assert!(router.sent.iter().all(|(_, frame)| values(frame).7 == config.adv_prefix_list), "{further}");
    }
}

#[test]
fn v6lc_2_2_8_ceasing_to_be_an_advertising_interface() {
    for seed in SEEDS {
        for wait in [0, 1, 2, 5, 20] {
            let mut router = Router::new(seed, 5, 10, config());
            router.run(s(30 + wait));
            let before = router.sent.len();
            router.advertiser.cease(s(30 + wait), Cease::Final);
            router.run(s(3600));
            assert!(router.advertiser.is_done());
            let last = router.sent[before..].to_vec();
            assert!((1..=3).contains(&last.len()), "{} final ones", last.len());
            assert!(last.iter().all(|(_, frame)| read(frame).router_lifetime_s == 0));
            assert!(router.gaps().iter().all(|gap| *gap >= MIN_DELAY), "spacing holds for them, too");
            router.hear(s(3600), &solicitation(HOST.eui64_link_local(), &SLLAO), s(3700));
            assert_eq!(router.sent.len(), before + last.len(), "nothing after that");
        }
    }
}

#[test]
fn v6lc_2_2_9_a_solicitations_are_answered_within_half_a_second() {
    for seed in SEEDS {
        let (mut router, now) = Router::settled(seed);
        for now in [now, now + s(3)] {
            router.hear(now, &solicitation(HOST.eui64_link_local(), &SLLAO), now + MAX_RA_DELAY);
            let (time, frame) = router.sent.pop().unwrap();
            assert!(router.sent.is_empty() && time <= now + MAX_RA_DELAY);
            assert_eq!(frame[..6], HOST.0);
            read(&frame);
        }
    }
}

#[test]
fn v6lc_2_2_9_b_multicast_answers_are_three_seconds_apart() {
    for seed in SEEDS {
        let (mut router, now) = Router::settled(seed);
        let solicitation = solicitation(Ipv6Addr::UNSPECIFIED, &[]);
        router.hear(now, &solicitation, now + s(2));
        assert_eq!(router.sent.len(), 1, "the first is answered");
        assert!(router.sent[0].0 <= now + MAX_RA_DELAY);
        router.hear(now + s(2), &solicitation, now + s(10));
        let gaps = router.gaps();
        assert_eq!(gaps.len(), 1, "and so is the second");
        assert!((MIN_DELAY..=MIN_DELAY + MAX_RA_DELAY).contains(&gaps[0]), "{gaps:?}");
        assert!(router.sent.iter().all(|(_, frame)| frame[38..54] == ALL_NODES.octets()));
    }
}

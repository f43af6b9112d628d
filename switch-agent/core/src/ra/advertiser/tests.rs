use std::net::Ipv6Addr;

use super::super::{AdvPrefix, PrefixVariables, RaConfig};
use super::*;

const MACHINE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn spec(profile: RaProfile) -> AdvertiserSpec {
    AdvertiserSpec {
        port: "Ethernet4".parse().unwrap(),
        ifindex: 7,
        mac: MacAddr([0x22, 0, 0, 0, 0, 9]),
        link_local: "fe80::2000:ff:fe00:9".parse().unwrap(),
        forwarding: true,
        config: RaConfig {
            profile,
            adv_prefix_list: vec![AdvPrefix {
                prefix: "2001:db8:1:4::/64".parse().unwrap(),
                variables: PrefixVariables::default(),
            }],
            rdnss: vec!["2001:db8::53".parse().unwrap()],
            ..RaConfig::default()
        },
        dhcp6: None,
    }
}

pub(super) fn solicit(mac: MacAddr, source: Option<Ipv6Addr>) -> Solicit {
    Solicit { source, mac, sllao: source.map(|_| mac) }
}

fn from_link_local(mac: MacAddr) -> Solicit {
    solicit(mac, Some(mac.eui64_link_local()))
}

/// Runs the advertiser as its driver does, up to and including `until`.
fn run(advertiser: &mut Advertiser, until: Duration) -> Vec<(u64, TransmitKind, Destination)> {
    let mut sent = vec![];
    while let Some(deadline) = advertiser.next_deadline().filter(|deadline| *deadline <= until) {
        let transmit = advertiser.poll_transmit(deadline).expect("due at its own deadline");
        sent.push((u64::try_from(deadline.as_millis()).unwrap(), transmit.kind, transmit.destination));
        assert!(sent.len() < 10_000);
    }
    sent
}

fn times(sent: &[(u64, TransmitKind, Destination)]) -> Vec<u64> {
    sent.iter().map(|(time, ..)| *time).collect()
}

#[test]
fn boot_repeats_after_carrier_until_the_port_is_heard() {
    let mut silent = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    let sent = run(&mut silent, ms(2000));
    assert_eq!(times(&sent), [0, 100, 500, 1500]);
    assert!(sent.iter().all(|sent| (sent.1, sent.2) == (TransmitKind::Initial, Destination::AllNodes)));

    let mut heard = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    assert_eq!(times(&run(&mut heard, ms(50))), [0]);
    assert_eq!(heard.handle_solicit(ms(60), &from_link_local(MACHINE)), Heard::Answering);
    let sent = run(&mut heard, ms(2900));
    let unicast = Destination::Unicast { address: MACHINE.eui64_link_local(), mac: MACHINE };
    assert_eq!(sent, [(60, TransmitKind::Unicast, unicast)]);
}

#[test]
fn boot_answers_the_unspecified_address_at_once_in_a_unicast_frame() {
    let mut advertiser = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    run(&mut advertiser, ms(2000));
    let answer = |time| (time, TransmitKind::Solicited, Destination::AllNodesIn(MACHINE));
    for time in [2100, 2300, 2500, 2700] {
        advertiser.handle_solicit(ms(time), &solicit(MACHINE, None));
        assert_eq!(run(&mut advertiser, ms(time)), [answer(time)]);
    }
    // The bucket is empty: the next answer waits for its token, 3 s after the first was spent.
    assert_eq!(advertiser.handle_solicit(ms(2800), &solicit(MACHINE, None)), Heard::Delayed);
    assert_eq!(advertiser.handle_solicit(ms(2900), &solicit(MACHINE, None)), Heard::Merged);
    let sent = run(&mut advertiser, ms(5200));
    let answered = sent.iter().any(|sent| *sent == answer(5100))
        || sent.iter().any(|sent| sent.2 == Destination::AllNodes);
    assert!(answered, "{sent:?}");
}

#[test]
fn strict_sends_three_initial_ones_at_most_16_s_apart_then_random_intervals() {
    let mut slow = spec(RaProfile::Strict);
    slow.config.max_rtr_adv_interval = ms(600_000);
    slow.config.min_rtr_adv_interval = ms(198_000);
    let mut advertiser = Advertiser::new(slow, true, 3, ms(0));
    let sent = run(&mut advertiser, ms(2_000_000));
    let at = times(&sent);
    assert_eq!(at[..3], [0, 16_000, 32_000]);
    assert!(at[2..].windows(2).all(|pair| (198_000..=600_000).contains(&(pair[1] - pair[0]))), "{at:?}");
    let initial = sent.iter().filter(|sent| sent.1 == TransmitKind::Initial).count();
    assert_eq!(initial, 3);
}

#[test]
fn intervals_are_spread_over_the_whole_range() {
    let mut advertiser = Advertiser::new(spec(RaProfile::Strict), true, 5, ms(0));
    let at = times(&run(&mut advertiser, ms(600_000)));
    let gaps: Vec<u64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (3000..=10_000).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap < 4500) && gaps.iter().any(|gap| *gap > 8500), "{gaps:?}");
}

/// As a process does that wakes up a moment late, and takes a moment to send.
#[test]
fn ports_share_their_wake_ups_however_late_they_are() {
    for (profile, slot) in [(RaProfile::Boot, 1000), (RaProfile::Strict, 250)] {
        let mut wake_ups = std::collections::BTreeSet::new();
        let (mut gaps, mut off) = (Vec::new(), 0);
        for port in 0..16 {
            let mut advertiser = Advertiser::new(spec(profile), true, port, ms(port));
            run(&mut advertiser, ms(30_000));
            let mut last = None;
            while let Some(due) = advertiser.next_deadline().filter(|due| *due < ms(600_000)) {
                let woken = due + ms(1);
                assert!(advertiser.poll_transmit(woken).is_some());
                gaps.extend(last.map(|last| woken - last));
                last = Some(woken);
                off += u32::from(due.as_millis() % slot != 0);
                wake_ups.insert(due);
            }
        }
        assert!(gaps.iter().all(|gap| (ms(3000)..=ms(10_001)).contains(gap)), "{gaps:?}");
        assert_eq!(gaps.iter().filter(|gap| **gap > ms(8500)).count() * 8 / gaps.len(), 1, "spread");
        // Each port joins the grid once, from wherever its last advertisement before was.
        assert!(off <= 16, "{off} of {} by themselves", gaps.len());
        assert!(wake_ups.len() as u128 <= 570_000 / slot + 16, "{}", wake_ups.len());
    }
}

/// v6LC.2.2.9 A and B.
#[test]
fn strict_answers_within_half_a_second_and_multicasts_every_three_seconds_at_most() {
    let mut config = spec(RaProfile::Strict);
    config.config.max_rtr_adv_interval = ms(40_000);
    config.config.min_rtr_adv_interval = ms(30_000);
    let mut advertiser = Advertiser::new(config, true, 9, ms(0));
    run(&mut advertiser, ms(33_000));
    advertiser.handle_solicit(ms(34_000), &from_link_local(MACHINE));
    assert_eq!(times(&run(&mut advertiser, ms(34_000))), [34_000]);

    run(&mut advertiser, ms(50_000));
    let from = advertiser.multicast.last().map_or(ms(50_000), |last| last.max(ms(47_000)) + ms(3000));
    advertiser.handle_solicit(from, &solicit(MACHINE, None));
    advertiser.handle_solicit(from + ms(2000), &solicit(MACHINE, None));
    let sent = run(&mut advertiser, from + ms(7000));
    let at = times(&sent);
    let start = u64::try_from(from.as_millis()).unwrap();
    assert!((start..=start + 500).contains(&at[0]), "{at:?} from {start}");
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 3000));
    assert!(sent.iter().all(|sent| sent.2 == Destination::AllNodes));
}

#[test]
fn a_solicitation_before_carrier_is_answered_when_the_link_comes_up() {
    let mut advertiser = Advertiser::new(spec(RaProfile::Boot), false, 1, ms(0));
    assert_eq!(advertiser.next_deadline(), None);
    advertiser.handle_solicit(ms(1000), &from_link_local(MACHINE));
    assert!(run(&mut advertiser, ms(1500)).is_empty());
    advertiser.handle_link(ms(1500), true);
    let sent = run(&mut advertiser, ms(1550));
    let kinds: Vec<TransmitKind> = sent.iter().map(|sent| sent.1).collect();
    assert_eq!(kinds, [TransmitKind::Unicast, TransmitKind::Initial]);

    // One that is older than the machine's own patience is not.
    advertiser.handle_link(ms(2000), false);
    advertiser.handle_solicit(ms(2000), &from_link_local(MACHINE));
    advertiser.handle_link(ms(9000), true);
    assert!(run(&mut advertiser, ms(9050)).iter().all(|sent| sent.1 == TransmitKind::Initial));
}

#[test]
fn what_could_not_be_sent_is_tried_again_ever_more_slowly() {
    let mut advertiser = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    let mut attempts = vec![];
    while attempts.len() < 7 {
        let deadline = advertiser.next_deadline().unwrap();
        advertiser.poll_transmit(deadline).unwrap();
        advertiser.transmit_failed(deadline);
        attempts.push(deadline.as_millis());
    }
    assert_eq!(attempts, [0, 100, 300, 700, 1500, 3100, 6100]);
    let deadline = advertiser.next_deadline().unwrap();
    assert_eq!(advertiser.poll_transmit(deadline).unwrap().kind, TransmitKind::Initial);

    advertiser.handle_solicit(ms(9200), &from_link_local(MACHINE));
    assert_eq!(advertiser.poll_transmit(ms(9200)).unwrap().kind, TransmitKind::Unicast);
    advertiser.transmit_failed(ms(9200));
    assert_eq!(advertiser.poll_transmit(ms(9299)).map(|transmit| transmit.kind), None);
    assert_eq!(advertiser.poll_transmit(ms(9300)).unwrap().kind, TransmitKind::Unicast);
}

#[test]
fn final_advertisements_have_lifetime_zero_and_an_end() {
    for (profile, expected) in [(RaProfile::Boot, vec![10_000, 10_100, 10_200]), (RaProfile::Strict, vec![])]
    {
        let mut advertiser = Advertiser::new(spec(profile), true, 1, ms(0));
        run(&mut advertiser, ms(9000));
        let earliest = advertiser.multicast.last().unwrap() + MIN_STRICT_GAP;
        advertiser.cease(ms(10_000), Cease::Final);
        assert!(advertiser.is_ceasing() && !advertiser.is_done());
        assert_eq!(advertiser.handle_solicit(ms(10_000), &from_link_local(MACHINE)), Heard::Ignored);
        let mut at = vec![];
        while let Some(deadline) = advertiser.next_deadline() {
            let transmit = advertiser.poll_transmit(deadline).unwrap();
            assert_eq!(transmit.kind, TransmitKind::Final);
            assert_eq!(transmit.messages[0][6..8], [0, 0], "Router Lifetime");
            at.push(deadline.as_millis());
        }
        let strict = vec![earliest.max(ms(10_000)).as_millis()];
        assert_eq!(at, if profile == RaProfile::Boot { expected } else { strict });
        assert!(advertiser.is_done());
    }
}

const MIN_STRICT_GAP: Duration = Duration::from_secs(3);

#[test]
fn a_broken_port_does_not_hold_its_release() {
    let mut advertiser = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    advertiser.cease(ms(0), Cease::Final);
    let mut now = ms(0);
    while let Some(deadline) = advertiser.next_deadline() {
        now = deadline;
        advertiser.poll_transmit(now).unwrap();
        advertiser.transmit_failed(now);
    }
    assert!(advertiser.is_done() && now <= ms(600), "{now:?}");

    let mut unplugged = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    unplugged.cease(ms(0), Cease::Final);
    unplugged.handle_link(ms(1), false);
    assert!(unplugged.is_done());
}

#[test]
fn reconfigure_keeps_the_timers_of_unchanged_variables() {
    let mut advertiser = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    run(&mut advertiser, ms(20_000));
    let deadline = advertiser.next_deadline();
    advertiser.reconfigure(ms(20_000), spec(RaProfile::Boot));
    assert_eq!(advertiser.next_deadline(), deadline);

    // What is none of the advertisements' business goes past them.
    let mut served = spec(RaProfile::Boot);
    let prefix = served.config.adv_prefix_list[0].prefix;
    let options = Arc::new(crate::dhcp6::Dhcp6Options::default());
    let router = prefix.addr();
    let server_mac = MACHINE;
    served.dhcp6 = Some(crate::dhcp6::Dhcp6Config { server_mac, prefix, router, proxy_port: None, options });
    advertiser.reconfigure(ms(20_000), served.clone());
    assert_eq!((advertiser.spec(), advertiser.next_deadline()), (&Arc::new(served), deadline));
}

#[test]
fn whoever_waits_while_the_variables_change_is_answered_with_the_new_ones() {
    let mut advertiser = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    run(&mut advertiser, ms(20_000));
    advertiser.handle_solicit(ms(20_000), &from_link_local(MACHINE));
    let mut changed = spec(RaProfile::Boot);
    changed.config.adv_default_lifetime_s = 60;
    advertiser.reconfigure(ms(20_000), changed);
    let answer = advertiser.poll_transmit(ms(20_000)).unwrap();
    assert_eq!((answer.kind, &answer.messages[0][6..8]), (TransmitKind::Unicast, &[0, 60][..]));
    assert_eq!(advertiser.poll_transmit(ms(20_000)).unwrap().kind, TransmitKind::Initial);
    assert_eq!(advertiser.poll_transmit(ms(20_000)).map(|transmit| transmit.kind), None);
}

#[test]
fn two_machines_on_a_port_are_answered_each() {
    let mut advertiser = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    run(&mut advertiser, ms(2000));
    advertiser.handle_solicit(ms(2500), &from_link_local(MACHINE));
    advertiser.handle_solicit(ms(2501), &from_link_local(OTHER));
    assert_eq!(advertiser.handle_solicit(ms(2502), &from_link_local(OTHER)), Heard::Merged);
    assert_eq!(times(&run(&mut advertiser, ms(2700))), [2500, 2501]);
}

/// RFC 4861 section 6.2.8.
#[test]
fn a_new_link_local_address_takes_leave_from_the_old_one() {
    for (profile, gap) in [(RaProfile::Boot, ms(100)), (RaProfile::Strict, ms(3000))] {
        let mut advertiser = Advertiser::new(spec(profile), true, 1, ms(0));
        run(&mut advertiser, ms(20_000));
        let mut moved = spec(profile);
        moved.link_local = "fe80::77".parse().unwrap();
        advertiser.reconfigure(ms(20_000), moved.clone());

        let first = advertiser.next_deadline().unwrap();
        let farewell = advertiser.poll_transmit(first).unwrap();
        assert_eq!(
            (farewell.kind, farewell.addresses.source),
            (TransmitKind::Final, spec(profile).link_local)
        );
        assert_eq!((farewell.messages[0].len(), &farewell.messages[0][6..8]), (24, &[0, 0][..]));
        let second = advertiser.next_deadline().unwrap();
        assert_eq!(second, first + gap);
        let regular = advertiser.poll_transmit(second).unwrap();
        assert_eq!((regular.kind, regular.addresses.source), (TransmitKind::Initial, moved.link_local));
    }
}

#[test]
fn a_machine_that_shows_itself_gets_an_advertisement_in_a_frame_of_its_own() {
    let greeting = |time| (time, TransmitKind::Triggered, Destination::AllNodesIn(MACHINE));
    for trigger in [Trigger::Probe, Trigger::MldReport, Trigger::Dhcp6Solicit] {
        let mut advertiser = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
        run(&mut advertiser, ms(2000));
        assert_eq!(advertiser.handle_trigger(ms(2500), trigger, MACHINE), Heard::Answering);
        assert_eq!(run(&mut advertiser, ms(2500)), [greeting(2500)]);
        // EDK2 takes in nothing before its Solicit; everybody else has been told.
        let again = match trigger {
            Trigger::Dhcp6Solicit => Heard::Delayed,
            Trigger::Probe | Trigger::MldReport => Heard::Merged,
        };
        assert_eq!(advertiser.handle_trigger(ms(2550), trigger, MACHINE), again);
        let solicited = advertiser.handle_solicit(ms(2700), &from_link_local(MACHINE));
        assert_eq!(solicited, Heard::Answering);
    }
    let mut strict = Advertiser::new(spec(RaProfile::Strict), true, 1, ms(0));
    run(&mut strict, ms(2000));
    assert_eq!(strict.handle_trigger(ms(2500), Trigger::Probe, MACHINE), Heard::Ignored);
    strict.cease(ms(2600), Cease::Silent);
    assert_eq!(strict.handle_trigger(ms(2700), Trigger::Probe, MACHINE), Heard::Ignored);
}

#[test]
fn a_probe_ends_the_burst_after_carrier_and_a_report_does_not() {
    for (trigger, expected) in
        [(Trigger::Probe, vec![0, 250]), (Trigger::MldReport, vec![0, 100, 250, 500, 1500])]
    {
        let mut advertiser = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
        let mut sent = run(&mut advertiser, ms(90));
        assert_eq!(advertiser.handle_trigger(ms(95), trigger, MACHINE), Heard::Merged, "just told");
        if trigger == Trigger::Probe {
            assert_eq!(advertiser.handle_trigger(ms(99), Trigger::Dhcp6Solicit, OTHER), Heard::Answering);
            assert_eq!(times(&run(&mut advertiser, ms(99))), [99]);
        } else {
            sent.extend(run(&mut advertiser, ms(220)));
        }
        assert_eq!(advertiser.handle_trigger(ms(250), trigger, MACHINE), Heard::Answering);
        sent.extend(run(&mut advertiser, ms(2900)));
        assert_eq!(times(&sent), expected, "{trigger:?}");
    }
}

#[test]
fn nothing_is_owed_to_a_sign_of_life_while_the_link_is_down() {
    let mut advertiser = Advertiser::new(spec(RaProfile::Boot), false, 1, ms(0));
    assert_eq!(advertiser.handle_trigger(ms(10), Trigger::Dhcp6Solicit, MACHINE), Heard::Merged);
    advertiser.handle_link(ms(20), true);
    assert_eq!(
        run(&mut advertiser, ms(20)).iter().map(|sent| sent.1).collect::<Vec<_>>(),
        [TransmitKind::Initial]
    );
}

/// RFC 4861 section 6.2.5: nothing but the router itself has lifetime 0 meanwhile.
#[test]
fn a_port_that_does_not_forward_is_no_router() {
    let mut advertiser = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    run(&mut advertiser, ms(20_000));
    let mut told = vec![];
    for (at, forwarding) in [(21_000, false), (22_000, true)] {
        advertiser.reconfigure(ms(at), AdvertiserSpec { forwarding, ..spec(RaProfile::Boot) });
        assert_eq!(advertiser.next_deadline(), Some(ms(at)), "at once");
        let transmit = advertiser.poll_transmit(ms(at)).unwrap();
        assert_eq!(transmit.kind, TransmitKind::Initial);
        let message = &transmit.messages[0];
        let lifetimes = message.windows(10).filter(|w| w[..2] == [3, 4]).map(|w| w[4..8].to_vec());
        told.push((message[6..8].to_vec(), lifetimes.collect::<Vec<_>>()));
    }
    let valid = vec![3600u32.to_be_bytes().to_vec()];
    assert_eq!(told, [(vec![0, 0], valid.clone()), (1800u16.to_be_bytes().to_vec(), valid)]);
}

#[test]
fn a_farewell_that_could_not_be_sent_is_not_forgotten() {
    let moved = |link_local: &str| {
        let link_local = link_local.parse().unwrap();
        AdvertiserSpec { link_local, ..spec(RaProfile::Boot) }
    };
    let first = spec(RaProfile::Boot).link_local;
    let mut advertiser = Advertiser::new(spec(RaProfile::Boot), true, 1, ms(0));
    run(&mut advertiser, ms(20_000));
    advertiser.reconfigure(ms(20_000), moved("fe80::77"));
    assert_eq!(advertiser.poll_transmit(ms(20_000)).unwrap().addresses.source, first);
    advertiser.transmit_failed(ms(20_000));
    // Another change before anybody was told of the second address.
    advertiser.reconfigure(ms(20_050), moved("fe80::78"));
    let mut sources = vec![];
    for _ in 0..3 {
        let deadline = advertiser.next_deadline().unwrap();
        let transmit = advertiser.poll_transmit(deadline).unwrap();
        sources.push((transmit.kind, transmit.addresses.source));
    }
    let last = "fe80::78".parse().unwrap();
    let initial = (TransmitKind::Initial, last);
    assert_eq!(sources, [(TransmitKind::Final, first), initial, initial]);

    // Back to the first address: there is nobody to take leave from.
    advertiser.reconfigure(ms(60_000), moved("fe80::79"));
    advertiser.reconfigure(ms(60_000), moved("fe80::78"));
    let deadline = advertiser.next_deadline().unwrap();
    assert_eq!(advertiser.poll_transmit(deadline).unwrap().addresses.source, last);
}

/// RFC 9096 section 3.5: for the Valid Lifetime that the prefix was told with, and no longer.
#[test]
fn a_withdrawn_prefix_is_told_until_no_machine_can_hold_it() {
    let mut old = spec(RaProfile::Boot);
    old.config.adv_prefix_list[0].variables.adv_valid_lifetime_s = 60;
    let mut moved = old.clone();
    moved.config.adv_prefix_list[0].prefix = "2001:db8:9::/64".parse().unwrap();
    let mut advertiser = Advertiser::new(old, true, 1, ms(0));
    run(&mut advertiser, ms(20_000));
    advertiser.reconfigure(ms(20_000), moved);
    let (mut with, mut without) = (vec![], vec![]);
    while let Some(deadline) = advertiser.next_deadline().filter(|deadline| *deadline < ms(200_000)) {
        let messages = advertiser.poll_transmit(deadline).unwrap().messages;
        let prefixes = messages[0].windows(24).filter(|w| w[..4] == [3, 4, 64, 0xc0]);
        let old: Vec<_> = prefixes.filter(|w| w[16..24] == [0x20, 1, 0xd, 0xb8, 0, 1, 0, 4]).collect();
        assert!(old.iter().all(|option| option[4..12] == [0; 8]), "lifetimes");
        if old.is_empty() { &mut without } else { &mut with }.push(deadline);
    }
    let (last, first) = (*with.last().unwrap(), without[0]);
    assert!(last >= ms(80_000) && last <= ms(90_000), "{last:?}");
    assert!(with.len() > 7 && last < first, "{with:?} {without:?}");
}

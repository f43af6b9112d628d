//! Router Discovery as the IPv6 Ready Logo tests it (Core Protocols, group 2.2: v6LC.2.2.4 to 2.2.9), on
//! ports in profile `strict`, and what profile `boot` promises instead.
//!
//! Not here, because a daemon cannot influence it: 2.2.10 (the kernel's neighbour cache). Not here, because
//! a port has one prefix: 2.2.7 E and F.

use std::time::Duration;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::Lab;
use crate::many_ports::{Plan, SWITCH_MAC};
use crate::wire::Advert;

mod record;

use record::Solicitation::{LinkLocal, Unspecified};
use record::Step::{Down, Leave, Send, Up};
use record::{Port, Solicitation, Step, Track};

pub(crate) fn cases() -> Vec<Case> {
    cases!("conformance",
        // The first of them makes the recording that all of them judge.
        180 s: v6lc_2_2_4_invalid_solicitations_are_ignored;
        180 s: v6lc_2_2_5_advertisements_are_valid,
            v6lc_2_2_6_other_interfaces_do_not_advertise,
            v6lc_2_2_7_a_intervals_are_random_and_in_bounds,
            v6lc_2_2_7_b_initial_advertisements,
            v6lc_2_2_7_c_smallest_values,
            v6lc_2_2_7_d_greatest_values,
            v6lc_2_2_8_ceasing_to_advertise,
            v6lc_2_2_9_a_answers_to_link_local,
            v6lc_2_2_9_b_answers_to_unspecified,
            boot_answers_at_once,
            boot_advertises_at_carrier,
            boot_repeats_until_the_machine_is_heard,
            boot_stops_repeating_when_the_machine_is_heard;
    )
}

/// RFC 4861 section 10.
const MAX_RA_DELAY_TIME: Duration = Duration::from_millis(500);
const MIN_DELAY_BETWEEN_RAS: Duration = Duration::from_secs(3);
const MAX_INITIAL_RTR_ADVERT_INTERVAL: Duration = Duration::from_secs(16);
/// How late a busy machine may make an advertisement that is not late.
const GRACE: Duration = Duration::from_millis(150);
/// How much less may lie between two stamps than between two decisions to send.
const JITTER: Duration = Duration::from_millis(20);
/// "At once" on a machine that does other things as well. Delays of RFC 4861 are 250 ms on average.
const AT_ONCE: Duration = Duration::from_millis(50);

/// Long intervals: what is heard between the initial advertisements is an answer.
const STRICT_RARELY: &[(&str, &str)] =
    &[("ra_profile", "strict"), ("max_rtr_adv_interval", "1800"), ("min_rtr_adv_interval", "1350")];
const BOOT_RARELY: &[(&str, &str)] =
    &[("ra_profile", "boot"), ("max_rtr_adv_interval", "1800"), ("min_rtr_adv_interval", "1350")];
const ASK_TWICE: &[(u64, Step)] = &[(3000, Send(LinkLocal)), (5000, Send(Unspecified))];

const fn advertised(fields: &'static [(&'static str, &'static str)], script: &'static [(u64, Step)]) -> Port {
    Port { fields, advertised: true, silent: false, script }
}

/// Positions in [`PORTS`].
const INVALID: usize = 0;
const RANDOM: usize = 1;
const INITIAL: usize = 2;
const SMALLEST: usize = 3;
const GREATEST: usize = 4;
const ROLE_OFF: usize = 5;
const NO_BOOT_PORT: usize = 6;
const CEASING: usize = 7;
const ASKED: usize = 8;
const ASKED_BY_UNSPECIFIED: usize = 9;
const BOOT_ASKED: usize = 10;
const BOOT_CARRIER: usize = 11;
const BOOT_SILENT: usize = 12;
const BOOT_HEARD: usize = 13;

const PORTS: [Port; 14] = [
    advertised(
        STRICT_RARELY,
        &[
            (2000, Send(Solicitation::HopLimit)),
            (3000, Send(Solicitation::Checksum)),
            (4000, Send(Solicitation::Code)),
            (5000, Send(Solicitation::Short)),
            (6000, Send(Solicitation::OptionOfLengthZero)),
            (7000, Send(Solicitation::UnspecifiedWithOption)),
            (8000, Send(LinkLocal)),
        ],
    ),
    advertised(
        &[("ra_profile", "strict"), ("max_rtr_adv_interval", "4"), ("min_rtr_adv_interval", "3")],
        &[],
    ),
    advertised(
        &[("ra_profile", "strict"), ("max_rtr_adv_interval", "600"), ("min_rtr_adv_interval", "198")],
        &[],
    ),
    advertised(
        &[
            ("ra_profile", "strict"),
            ("max_rtr_adv_interval", "4"),
            ("min_rtr_adv_interval", "3"),
            ("adv_default_lifetime", "0"),
            ("adv_cur_hop_limit", "0"),
            ("adv_reachable_time", "0"),
            ("adv_retrans_timer", "0"),
            ("adv_preferred_lifetime", "0"),
            ("adv_valid_lifetime", "1"),
        ],
        &[],
    ),
    advertised(
        &[
            ("ra_profile", "strict"),
            ("max_rtr_adv_interval", "1800"),
            ("min_rtr_adv_interval", "1350"),
            ("adv_default_lifetime", "9000"),
            ("adv_cur_hop_limit", "255"),
            ("adv_reachable_time", "3600000"),
            ("adv_retrans_timer", "4294967295"),
            ("adv_preferred_lifetime", "4294967295"),
            ("adv_valid_lifetime", "4294967295"),
        ],
        &[],
    ),
    Port {
        fields: &[("ra_profile", "strict"), ("advertise", "disabled")],
        advertised: false,
        silent: false,
        script: ASK_TWICE,
    },
    // No row at all: a port of the switch like any other.
    Port { fields: &[], advertised: false, silent: false, script: ASK_TWICE },
    advertised(&[("ra_profile", "strict")], &[(8000, Leave)]),
    advertised(STRICT_RARELY, &[(5000, Send(LinkLocal)), (8000, Send(LinkLocal))]),
    advertised(
        &[("ra_profile", "strict"), ("max_rtr_adv_interval", "40"), ("min_rtr_adv_interval", "30")],
        &[(5000, Send(Unspecified)), (7000, Send(Unspecified))],
    ),
    advertised(
        BOOT_RARELY,
        &[
            (4000, Send(LinkLocal)),
            (6000, Send(Unspecified)),
            (8000, Send(LinkLocal)),
            (10_000, Send(Unspecified)),
            (12_000, Send(LinkLocal)),
            (14_000, Send(Unspecified)),
        ],
    ),
    advertised(
        BOOT_RARELY,
        &[(4000, Down), (6000, Up), (10_000, Down), (12_000, Up), (16_000, Down), (18_000, Up)],
    ),
    Port { fields: BOOT_RARELY, advertised: true, silent: true, script: &[(4000, Down), (6000, Up)] },
    Port {
        fields: BOOT_RARELY,
        advertised: true,
        silent: true,
        script: &[(4000, Down), (6000, Up), (6250, Send(LinkLocal))],
    },
];

fn track(lab: &Lab, port: usize) -> Result<&'static Track> {
    record::recording(lab, &PORTS)?.tracks.get(port).context(|| "no such port".into())
}

/// Time between neighbours of a list.
fn gaps(times: &[Duration]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn v6lc_2_2_4_invalid_solicitations_are_ignored(lab: &Lab) -> Result<()> {
    let track = track(lab, INVALID)?;
    for solicitation in Solicitation::INVALID {
        let times = track.times_of(Send(solicitation));
        ensure!(times.len() == 1, "{solicitation:?} was sent {} times", times.len());
        let answer = track.answer_to(times[0]).filter(|(after, _)| *after <= MAX_RA_DELAY_TIME);
        ensure!(answer.is_none(), "{solicitation:?} is answered: {answer:?}");
    }
    // The port was listening all the time.
    expect_answers(track, LinkLocal, MAX_RA_DELAY_TIME + GRACE)
}

/// Every such solicitation has an answer in time.
fn expect_answers(track: &Track, solicitation: Solicitation, limit: Duration) -> Result<()> {
    let times = track.times_of(Send(solicitation));
    ensure!(!times.is_empty(), "{solicitation:?} was never sent");
    for at in times {
        let (after, _) = track.answer_to(at).context(|| format!("{solicitation:?} is never answered"))?;
        ensure!(after <= limit, "{solicitation:?} is answered after {after:?}");
    }
    Ok(())
}

fn v6lc_2_2_5_advertisements_are_valid(lab: &Lab) -> Result<()> {
    let recording = record::recording(lab, &PORTS)?;
    let mac = SWITCH_MAC.to_owned();
    for (port, track) in recording.tracks.iter().enumerate() {
        for (_, advert) in &track.heard {
            let what = |failure| crate::failure::Failure(format!("port {port}: {failure}: {advert:?}"));
            advert.check_valid().map_err(what)?;
            let [prefix] = &advert.prefixes[..] else {
                crate::failure::fail!("port {port} advertises {:?}", advert.prefixes)
            };
            let own = Plan::prefix_of(u16::try_from(port).unwrap_or(u16::MAX), PORTS.len() as u16);
            ensure!(prefix.prefix == own && prefix.length == 64, "port {port} advertises {prefix:?}");
            ensure!(prefix.on_link && prefix.autonomous, "port {port}: flags of {prefix:?}");
            let sllao = advert.source_link_layer_address.map(spell);
            ensure!(sllao.as_ref() == Some(&mac), "port {port}: source link-layer address {sllao:?}");
            ensure!(spell(advert.source_mac) == mac, "port {port}: sent by {:?}", advert.source_mac);
        }
    }
    // The defaults of this agent, on a port that sets none of them.
    let (_, advert) = &track(lab, CEASING)?.heard[0];
    ensure!(advert.router_lifetime == 1800 && advert.cur_hop_limit == 64, "defaults: {advert:?}");
    ensure!(advert.flags == 0 && advert.reachable_time == 0 && advert.retrans_timer == 0, "{advert:?}");
    ensure!(advert.prefixes[0].valid == 3600 && advert.prefixes[0].preferred == 1800, "{advert:?}");
    Ok(())
}

fn spell(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn v6lc_2_2_6_other_interfaces_do_not_advertise(lab: &Lab) -> Result<()> {
    for port in [ROLE_OFF, NO_BOOT_PORT] {
        let track = track(lab, port)?;
        ensure!(track.steps.len() == ASK_TWICE.len(), "the port was not asked");
        ensure!(track.heard.is_empty(), "port {port} advertises: {:?}", track.heard[0]);
    }
    Ok(())
}

fn v6lc_2_2_7_a_intervals_are_random_and_in_bounds(lab: &Lab) -> Result<()> {
    let gaps = gaps(&track(lab, RANDOM)?.multicasts());
    ensure!(gaps.len() >= 8, "only {} intervals in {gaps:?}", gaps.len());
    let (min, max) = (Duration::from_secs(3), Duration::from_secs(4));
    let outside = gaps.iter().find(|gap| **gap < min - JITTER || **gap > max + GRACE);
    ensure!(outside.is_none(), "MinRtrAdvInterval {min:?}, MaxRtrAdvInterval {max:?}: {gaps:?}");
    let spread =
        gaps.iter().max().copied().unwrap_or_default() - gaps.iter().min().copied().unwrap_or_default();
    ensure!(spread > GRACE, "the intervals are not random: {gaps:?}");
    Ok(())
}

fn v6lc_2_2_7_b_initial_advertisements(lab: &Lab) -> Result<()> {
    let gaps = gaps(&track(lab, INITIAL)?.multicasts());
    ensure!(gaps.len() == 2, "MAX_INITIAL_RTR_ADVERTISEMENTS are three: {gaps:?}");
    let late = gaps.iter().find(|gap| **gap > MAX_INITIAL_RTR_ADVERT_INTERVAL + GRACE);
    ensure!(late.is_none(), "MAX_INITIAL_RTR_ADVERT_INTERVAL is 16 s: {gaps:?}");
    let early = gaps.iter().find(|gap| **gap < MIN_DELAY_BETWEEN_RAS - JITTER);
    ensure!(early.is_none(), "MIN_DELAY_BETWEEN_RAS is 3 s: {gaps:?}");
    Ok(())
}

fn v6lc_2_2_7_c_smallest_values(lab: &Lab) -> Result<()> {
    let expected = |advert: &Advert| {
        advert.router_lifetime == 0
            && advert.cur_hop_limit == 0
            && advert.flags == 0
            && advert.reachable_time == 0
            && advert.retrans_timer == 0
            && advert.prefixes.iter().all(|prefix| prefix.valid == 1 && prefix.preferred == 0)
    };
    expect_all(track(lab, SMALLEST)?, expected)
}

fn v6lc_2_2_7_d_greatest_values(lab: &Lab) -> Result<()> {
    let expected = |advert: &Advert| {
        advert.router_lifetime == 9000
            && advert.cur_hop_limit == 255
            && advert.reachable_time == 3_600_000
            && advert.retrans_timer == u32::MAX
            && advert.prefixes.iter().all(|prefix| prefix.valid == u32::MAX && prefix.preferred == u32::MAX)
    };
    expect_all(track(lab, GREATEST)?, expected)
}

fn expect_all(track: &Track, expected: impl Fn(&Advert) -> bool) -> Result<()> {
    ensure!(!track.heard.is_empty(), "no advertisement");
    let other = track.heard.iter().find(|(_, advert)| !expected(advert));
    ensure!(other.is_none(), "another one than was configured: {other:?}");
    Ok(())
}

fn v6lc_2_2_8_ceasing_to_advertise(lab: &Lab) -> Result<()> {
    let track = track(lab, CEASING)?;
    let left = track.times_of(Leave).first().copied().context(|| "the port never left".into())?;
    let (before, after): (Vec<_>, Vec<_>) = track.heard.iter().partition(|(at, _)| *at < left);
    ensure!(before.iter().all(|(_, advert)| advert.router_lifetime == 1800), "{before:?}");
    // An advertisement may have been due while the row was on its way to the agent.
    let finals = after.iter().skip_while(|(_, advert)| advert.router_lifetime != 0);
    let finals: Vec<_> = finals.map(|(at, advert)| (*at - left, advert.router_lifetime)).collect();
    ensure!((1..=3).contains(&finals.len()), "1 to 3 final advertisements: {finals:?}");
    ensure!(finals.iter().all(|(_, lifetime)| *lifetime == 0), "after the final one: {finals:?}");
    ensure!(after.len() - finals.len() <= 1, "advertises on: {after:?}");
    Ok(())
}

fn v6lc_2_2_9_a_answers_to_link_local(lab: &Lab) -> Result<()> {
    expect_answers(track(lab, ASKED)?, LinkLocal, MAX_RA_DELAY_TIME + GRACE)
}

fn v6lc_2_2_9_b_answers_to_unspecified(lab: &Lab) -> Result<()> {
    let track = track(lab, ASKED_BY_UNSPECIFIED)?;
    let multicasts = track.multicasts();
    let gaps = gaps(&multicasts);
    let early = gaps.iter().find(|gap| **gap < MIN_DELAY_BETWEEN_RAS - JITTER);
    ensure!(early.is_none(), "more than one in MIN_DELAY_BETWEEN_RAS: {gaps:?}");
    let asked = track.times_of(Send(Unspecified));
    let [first, second] = asked[..] else { crate::failure::fail!("asked at {asked:?}") };
    let answer = |at: Duration| multicasts.iter().find(|heard| **heard >= at).map(|heard| *heard - at);
    let soon = answer(first).context(|| "the first solicitation is not answered".into())?;
    ensure!(soon <= MAX_RA_DELAY_TIME + GRACE, "the first solicitation is answered after {soon:?}");
    let later = answer(second).context(|| "the second solicitation is not answered".into())?;
    let limit = MIN_DELAY_BETWEEN_RAS + MAX_RA_DELAY_TIME + GRACE;
    ensure!(later <= limit, "the second solicitation is answered after {later:?}");
    Ok(())
}

fn boot_answers_at_once(lab: &Lab) -> Result<()> {
    let track = track(lab, BOOT_ASKED)?;
    for solicitation in [LinkLocal, Unspecified] {
        expect_answers(track, solicitation, AT_ONCE * 2)?;
    }
    for at in track.times_of(Send(Unspecified)) {
        let (_, advert) = track.answer_to(at).context(|| "no answer".into())?;
        let [high, low] = u16::try_from(BOOT_ASKED).unwrap_or(0).to_be_bytes();
        ensure!(
            advert.destination_mac == [0x52, 0x54, 0, 1, high, low],
            "not to the one that asked: {advert:?}"
        );
        ensure!(advert.destination.is_multicast(), "`::` is answered to {}", advert.destination);
    }
    Ok(())
}

fn boot_advertises_at_carrier(lab: &Lab) -> Result<()> {
    let track = track(lab, BOOT_CARRIER)?;
    let ups = track.times_of(Up);
    ensure!(ups.len() == 3, "carrier came {} times", ups.len());
    let mut after = Vec::new();
    for up in ups {
        after.push(track.answer_to(up).context(|| "no advertisement at carrier".into())?.0);
    }
    after.sort_unstable();
    ensure!(after[1] <= AT_ONCE, "at carrier, after {after:?}");
    Ok(())
}

/// The repetitions that profile `boot` promises, after carrier.
const REPETITIONS: [u64; 4] = [0, 100, 500, 1500];

fn boot_repeats_until_the_machine_is_heard(lab: &Lab) -> Result<()> {
    let track = track(lab, BOOT_SILENT)?;
    let up = track.times_of(Up)[0];
    let heard: Vec<Duration> =
        track.multicasts().into_iter().filter(|at| *at >= up).map(|at| at - up).collect();
    for (heard, wanted) in heard.iter().zip(REPETITIONS) {
        let wanted = Duration::from_millis(wanted);
        ensure!((wanted..=wanted + GRACE).contains(heard), "{REPETITIONS:?} ms after carrier: {heard:?}");
    }
    ensure!(heard.len() >= REPETITIONS.len(), "{REPETITIONS:?} ms after carrier: {heard:?}");
    Ok(())
}

fn boot_stops_repeating_when_the_machine_is_heard(lab: &Lab) -> Result<()> {
    let track = track(lab, BOOT_HEARD)?;
    let (up, asked) = (track.times_of(Up)[0], track.times_of(Send(LinkLocal))[0]);
    let repeated: Vec<Duration> = track.multicasts().into_iter().filter(|at| *at >= up).collect();
    ensure!(repeated.iter().filter(|at| **at < asked).count() == 2, "before it was heard: {repeated:?}");
    let more = repeated.iter().find(|at| (asked..up + Duration::from_secs(3)).contains(*at));
    ensure!(more.is_none(), "repeats though the machine was heard");
    expect_answers(track, LinkLocal, AT_ONCE * 2)
}

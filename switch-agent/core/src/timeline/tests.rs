//! Boots as they are told from events.

use proptest::prelude::*;

use super::*;
use crate::dhcp6::MessageType;
use crate::name::MacAddr;
use std::net::Ipv6Addr;

const UNIX: i64 = 1_700_000_000_000;
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const ADDR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

fn port() -> PortName {
    "Ethernet0".parse().unwrap()
}
fn up() -> MachineEvent {
    MachineEvent::Carrier { port: port(), up: true }
}
fn down() -> MachineEvent {
    MachineEvent::Carrier { port: port(), up: false }
}
fn rs() -> MachineEvent {
    MachineEvent::Solicit { port: port(), mac: MAC, address: None }
}
fn ra() -> MachineEvent {
    MachineEvent::Advertised { port: port() }
}
fn neighbor() -> MachineEvent {
    MachineEvent::Neighbor { port: port(), mac: MAC, address: ADDR }
}
fn proxy(step: ProxyStep) -> MachineEvent {
    MachineEvent::Proxy { port: port(), mac: Some(MAC), address: ADDR, step }
}
fn token() -> MachineEvent {
    proxy(ProxyStep::Token { machine_id: None })
}
fn posted(stage: &str) -> MachineEvent {
    proxy(ProxyStep::Event { stage: stage.to_owned(), message: None })
}
fn released() -> MachineEvent {
    MachineEvent::Released { port: port() }
}

/// Folds events at their times (milliseconds); each boot as `stage@since_start` words.
fn boots(events: &[(u64, MachineEvent)]) -> Vec<String> {
    let mut timelines = Timelines::default();
    for (now, event) in events {
        timelines.fold(event, Duration::from_millis(*now), UNIX + i64::try_from(*now).unwrap());
    }
    let words = |boot: &Boot| {
        boot.entries.iter().map(|e| format!("{}@{}", e.stage, e.since_start_ms)).collect::<Vec<_>>().join(" ")
    };
    timelines.boots(&port()).map(words).collect()
}

fn dhcp6(request: MessageType, boot_url: Option<&str>) -> MachineEvent {
    MachineEvent::Dhcp6 {
        port: port(),
        mac: MAC,
        address: MAC.eui64_link_local(),
        request,
        architecture: Some(Architecture(16)),
        ipxe: false,
        boot_url: boot_url.map(str::to_owned),
    }
}

#[test]
fn dhcpv6_starts_a_boot_and_its_renewals_do_not() {
    let url = Some("http://h/x64.efi");
    let events = [
        (0, dhcp6(MessageType::Solicit, None)),
        (10, dhcp6(MessageType::Request, url)),
        (20, token()),
        // The system that runs renews its address.
        (900_000, dhcp6(MessageType::Renew, None)),
        // Firmware again, the link was kept up.
        (1_000_000, dhcp6(MessageType::Solicit, None)),
    ];
    assert_eq!(boots(&events), ["dhcp6@0 boot-url@10 token@20", "dhcp6@0"]);
    let mut timelines = Timelines::default();
    let told = |event: &MachineEvent, timelines: &mut Timelines| {
        timelines.fold(event, Duration::ZERO, UNIX).and_then(|(_, entry)| entry.detail)
    };
    assert_eq!(told(&events[0].1, &mut timelines).as_deref(), Some("x64-uefi-http"));
    assert_eq!(told(&events[1].1, &mut timelines).as_deref(), url);
}

#[test]
fn one_boot_from_carrier_to_release() {
    let events = [
        (0, down()),
        (1000, up()),
        (1003, ra()),
        (1200, rs()),
        (1201, ra()),
        (1300, neighbor()),
        (2000, proxy(ProxyStep::Seen)),
        (2100, proxy(ProxyStep::Config)),
        (2200, token()),
        (2300, proxy(ProxyStep::Api { status: 200 })),
        (2400, proxy(ProxyStep::Api { status: 200 })),
        (3000, posted("install")),
        (9000, released()),
    ];
    assert_eq!(
        boots(&events),
        ["carrier@0 ra@3 first-rs@200 neighbor@300 config@1100 token@1200 api@1300 \
         event:install@2000 released@8000"]
    );
}

#[test]
fn when_a_new_boot_starts() {
    let running = [(0, down()), (10, up()), (20, rs()), (30, token())];
    let firmware = [(0, down()), (10, up()), (20, rs()), (30, proxy(ProxyStep::Config))];
    type Events<'a> = &'a [(u64, MachineEvent)];
    let cases: [(&str, Events<'_>, Events<'_>, usize); 12] = [
        ("a bind flaps carrier", &running, &[(1000, down()), (1001, up())], 1),
        ("firmware hands over to the kernel", &firmware, &[(1000, down()), (4000, up()), (4100, rs())], 1),
        ("a running machine restarts", &running, &[(1000, down()), (4000, up()), (4100, rs())], 2),
        ("carrier was lost for long", &firmware, &[(1000, down()), (11_000, up())], 2),
        ("carrier is told twice", &running, &[(1000, up()), (2000, up())], 1),
        ("solicitations repeat", &running, &[(4000, rs()), (8000, rs())], 1),
        ("a quiet machine solicits", &running, &[(60_030, rs())], 2),
        ("our own advertisements keep nobody awake", &running, &[(60_000, ra()), (60_030, rs())], 2),
        ("slow firmware solicits again", &firmware, &[(200_000, rs())], 1),
        ("a released port is taken again", &running, &[(1000, released()), (2000, rs())], 2),
        ("leftovers after a release", &running, &[(1000, released()), (1001, neighbor()), (1002, ra())], 1),
        ("a flap while released", &running, &[(1000, released()), (1100, down()), (1101, up())], 1),
    ];
    for (what, before, after, count) in cases {
        let events: Vec<_> = before.iter().chain(after).cloned().collect();
        assert_eq!(boots(&events).len(), count, "{what}: {:?}", boots(&events));
    }
}

#[test]
fn what_counts_as_a_boot_in_flight() {
    const MINUTE: u64 = 60_000;
    let plugged = [(0, down()), (1000, up()), (1001, ra())];
    let config = || proxy(ProxyStep::Config);
    type Events<'a> = &'a [(u64, MachineEvent)];
    let cases: [(&str, Events<'_>, u64, bool); 14] = [
        ("firmware has not spoken yet", &[], 4 * MINUTE, true),
        ("nobody is there", &[], 6 * MINUTE, false),
        ("a machine speaks", &[(2000, rs())], 29 * MINUTE, true),
        ("and hangs", &[(2000, rs())], 31 * MINUTE, false),
        ("and goes on", &[(2000, rs()), (20 * MINUTE, config())], 40 * MINUTE, true),
        ("our own advertisements are no sign", &[(2000, rs()), (20 * MINUTE, ra())], 31 * MINUTE, false),
        ("it has a token", &[(2000, rs()), (3000, token())], 4000, false),
        ("it posted an event", &[(2000, rs()), (3000, posted("up"))], 4000, false),
        ("the port was released", &[(2000, rs()), (3000, released())], 4000, false),
        ("the cable is out", &[(2000, rs()), (3000, down())], 13_000, false),
        ("the driver takes the card over", &[(2000, rs()), (3000, down())], 12_000, true),
        ("it starts again", &[(2000, token()), (3000, down()), (5000, up())], 6000, true),
        ("the link flaps", &[(2000, token()), (3000, down()), (3001, up())], 6000, false),
        ("a released port is taken again", &[(2000, released()), (3000, config())], 4000, true),
    ];
    let in_flight = |events: &mut dyn Iterator<Item = &(u64, MachineEvent)>, at: u64| {
        let mut timelines = Timelines::default();
        for (now, event) in events {
            timelines.fold(event, Duration::from_millis(*now), UNIX);
        }
        timelines.in_flight(&port(), Duration::from_millis(at))
    };
    for (what, events, at, wanted) in cases {
        assert_eq!(in_flight(&mut plugged.iter().chain(events), at), wanted, "{what}");
    }
    // The agent started beside machines that ran already.
    for event in [neighbor(), proxy(ProxyStep::Api { status: 200 })] {
        assert!(!in_flight(&mut [(0, up()), (10, event)].iter(), 20));
    }
}

#[test]
fn adoption_begins_with_the_first_sign_of_life() {
    assert!(boots(&[(0, up()), (10, ra())]).is_empty());
    assert_eq!(boots(&[(0, up()), (10, neighbor()), (20, token())]), ["neighbor@0 token@10"]);
    assert_eq!(boots(&[(0, proxy(ProxyStep::Seen)), (5, proxy(ProxyStep::Config))]), ["config@0"]);
}

#[test]
fn entries_count_repetitions_and_keep_the_latest_detail() {
    let mut timelines = Timelines::default();
    let mut fold = |now: u64, event: &MachineEvent| timelines.fold(event, Duration::from_millis(now), UNIX);
    assert!(fold(0, &rs()).is_some());
    assert!(fold(500, &proxy(ProxyStep::Api { status: 503 })).is_some());
    assert!(fold(900, &proxy(ProxyStep::Api { status: 200 })).is_none());
    let boot = timelines.boots(&port()).next().unwrap();
    let api = serde_json::to_value(&boot.entries[1]).unwrap();
    assert_eq!(
        api,
        serde_json::json!({
            "stage": "api", "unix_ms": UNIX, "since_start_ms": 500, "since_previous_ms": 500,
            "count": 2, "detail": "200",
        })
    );
}

#[test]
fn what_machines_write_is_cut_to_one_printable_line() {
    let message = Some("a\nb\u{1b}[31m".to_owned() + &"x".repeat(1000));
    let mut timelines = Timelines::default();
    let event = proxy(ProxyStep::Event { stage: "s\n".repeat(100), message });
    let (_, entry) = timelines.fold(&event, Duration::ZERO, UNIX).unwrap();
    assert_eq!(entry.stage.to_string().chars().count(), "event:".len() + STAGE_LEN_MAX);
    assert!(entry.detail.as_deref().unwrap().starts_with("a b [31mxxx"));
    assert!(!format!("{}{:?}", entry.stage, entry.detail).contains(char::is_control));
}

#[test]
fn a_flood_of_events_keeps_the_fixed_stages_and_the_newest() {
    let mut events = vec![(0, rs()), (1, token())];
    events.extend((0..1000).map(|n| (10 + n, posted(&format!("e{n}")))));
    let mut timelines = Timelines::default();
    for (now, event) in &events {
        timelines.fold(event, Duration::from_millis(*now), UNIX);
    }
    let boot = timelines.boots(&port()).next().unwrap();
    assert_eq!((boot.entries.len(), boot.dropped), (64, 1000 - 62));
    assert_eq!(boot.entries[1].stage, Stage::Token);
    assert_eq!(boot.entries[63].stage, Stage::Event("e999".to_owned()));
}

proptest! {
    #[test]
    fn bounded_and_ordered_whatever_happens(
        steps in prop::collection::vec((0..9usize, 0..70_000u64), 0..400),
    ) {
        let kinds = [up(), down(), rs(), ra(), neighbor(), token(), posted("a"), posted("b"), released()];
        let mut timelines = Timelines::default();
        let mut now = 0;
        for (kind, step) in steps {
            now += step;
            timelines.fold(&kinds[kind], Duration::from_millis(now), UNIX);
            let boots: Vec<&Boot> = timelines.boots(&port()).collect();
            prop_assert!(boots.len() <= 4);
            prop_assert!(boots.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));
            for boot in boots {
                prop_assert!(!boot.entries.is_empty() && boot.entries.len() <= 64);
                prop_assert!(boot.entries.windows(2).all(|pair| pair[0].since_start_ms <= pair[1].since_start_ms));
                prop_assert_eq!(boot.ended, boot.entries.iter().any(|e| e.stage == Stage::Released));
            }
        }
    }
}

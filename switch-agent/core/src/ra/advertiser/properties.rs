//! What holds for every sequence of operations.

use proptest::prelude::*;

use super::tests::{ms, solicit, spec};
use super::*;
use crate::ndp::{ChecksumOffload, Message, parse_frame, write_frame};

#[derive(Debug, Clone)]
enum Op {
    Advance(u64),
    Solicit(u8, bool),
    Trigger(u8, Trigger),
    Link(bool),
    Reconfigure(u8),
    CeaseFinal,
    Revive,
    FailNext,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u64..12_000).prop_map(Op::Advance),
        4 => (0u64..50).prop_map(Op::Advance),
        6 => (0u8..20, any::<bool>()).prop_map(|(machine, address)| Op::Solicit(machine, address)),
        3 => (0u8..20, trigger()).prop_map(|(machine, trigger)| Op::Trigger(machine, trigger)),
        2 => any::<bool>().prop_map(Op::Link),
        1 => (0u8..4).prop_map(Op::Reconfigure),
        1 => Just(Op::CeaseFinal),
        1 => Just(Op::Revive),
        1 => Just(Op::FailNext),
    ]
}

fn trigger() -> impl Strategy<Value = Trigger> {
    prop_oneof![Just(Trigger::Probe), Just(Trigger::MldReport), Just(Trigger::Dhcp6Solicit)]
}

/// Plays operations against the advertiser and checks, at every step, what must hold at any time.
struct World {
    advertiser: Advertiser,
    now: Duration,
    up_since: Option<Duration>,
    ceased: bool,
    fail_next: bool,
    multicasts: Vec<Duration>,
    sent: Vec<Duration>,
    triggered: Option<Duration>,
    failed_since_multicast: bool,
}

impl World {
    fn new(profile: RaProfile, seed: u64) -> Self {
        World {
            advertiser: Advertiser::new(spec(profile), true, seed, ms(0)),
            now: ms(0),
            up_since: Some(ms(0)),
            ceased: false,
            fail_next: false,
            multicasts: vec![],
            sent: vec![],
            triggered: None,
            failed_since_multicast: false,
        }
    }

    fn strict(&self) -> bool {
        self.advertiser.spec().config.profile == RaProfile::Strict
    }

    fn flush(&mut self) {
        for count in 0.. {
            assert!(count < 16, "unbounded transmissions at one moment");
            let deadline = self.advertiser.next_deadline();
            let Some(transmit) = self.advertiser.poll_transmit(self.now) else {
                assert!(deadline.is_none_or(|deadline| deadline > self.now), "due, but nothing to send");
                return;
            };
            assert!(deadline.is_some_and(|deadline| deadline <= self.now), "sent before the deadline");
            self.check(&transmit);
        }
    }

    fn check(&mut self, transmit: &Transmit) {
        assert!(self.up_since.is_some(), "sent while down");
        assert_eq!(transmit.kind == TransmitKind::Final, self.ceased, "{:?}", transmit.kind);
        for message in &*transmit.messages {
            let mut frame = vec![];
            write_frame(&mut frame, &transmit.addresses, message);
            let Ok(Message::Advert(advert)) = parse_frame(&frame, ChecksumOffload::Complete) else {
                panic!("not an advertisement")
            };
            assert_eq!(advert.router_lifetime_s == 0, self.ceased);
        }
        if std::mem::take(&mut self.fail_next) {
            self.advertiser.transmit_failed(self.now);
            self.failed_since_multicast = true;
            return;
        }
        if transmit.kind == TransmitKind::Triggered {
            assert!(!self.strict() && matches!(transmit.destination, Destination::AllNodesIn(_)));
            assert!(self.triggered.is_none_or(|last| self.now - last >= ms(100)), "two greetings at once");
            self.triggered = Some(self.now);
        }
        self.sent.push(self.now);
        let lately = self.sent.iter().filter(|sent| **sent + ms(1000) > self.now).count();
        // Both buckets full, their refill, and a multicast every 100 ms.
        assert!(lately <= 20 + 10 + 4 + 1 + 10, "{lately} transmissions in a second");
        if transmit.destination == Destination::AllNodes {
            if let Some(last) = self.multicasts.last() {
                let gap = if self.strict() { ms(3000) } else { ms(100) };
                assert!(self.now - *last >= gap, "multicast after {:?}", self.now - *last);
            }
            self.multicasts.push(self.now);
            self.failed_since_multicast = false;
        }
    }

    /// Time passes as for the driver: every deadline is met.
    fn advance(&mut self, until: Duration) {
        while let Some(deadline) = self.advertiser.next_deadline().filter(|deadline| *deadline <= until) {
            self.now = self.now.max(deadline);
            self.flush();
            self.no_gap();
        }
        self.now = until;
        self.flush();
        self.no_gap();
    }

    /// MaxRtrAdvInterval at most between multicasts while the port is up.
    fn no_gap(&self) {
        if let (Some(up), false, false) = (self.up_since, self.ceased, self.failed_since_multicast) {
            let last = self.multicasts.last().copied().unwrap_or(up).max(up);
            assert!(self.now - last <= ms(10_000), "no multicast since {last:?} at {:?}", self.now);
        }
    }

    fn apply(&mut self, op: &Op) {
        let now = self.now;
        match *op {
            Op::Advance(millis) => self.advance(now + ms(millis)),
            Op::Solicit(machine, with_address) => {
                let mac = MacAddr([0x52, 0x54, 0, 0, 1, machine]);
                let address = with_address.then(|| mac.eui64_link_local());
                self.advertiser.handle_solicit(now, &solicit(mac, address));
            }
            Op::Trigger(machine, trigger) => {
                let mac = MacAddr([0x52, 0x54, 0, 0, 1, machine]);
                self.advertiser.handle_trigger(now, trigger, mac);
            }
            Op::Link(up) => {
                self.advertiser.handle_link(now, up);
                self.up_since = if up { self.up_since.or(Some(now)) } else { None };
            }
            Op::Reconfigure(variant) if !self.ceased => self.reconfigure(variant),
            Op::Reconfigure(_) => {}
            Op::CeaseFinal => {
                self.advertiser.cease(now, Cease::Final);
                self.ceased = true;
            }
            Op::Revive if self.ceased => {
                self.ceased = false;
                self.reconfigure(0);
                self.up_since = self.up_since.map(|_| now);
            }
            Op::Revive => {}
            Op::FailNext => self.fail_next = true,
        }
        self.flush();
    }

    fn reconfigure(&mut self, variant: u8) {
        let mut changed = spec(self.advertiser.spec().config.profile);
        changed.ifindex += u32::from(variant == 3);
        changed.config.adv_prefix_list[0].variables.adv_valid_lifetime_s += u32::from(variant);
        self.advertiser.reconfigure(self.now, changed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn timing_holds_for_any_operations(
        strict in any::<bool>(),
        seed in any::<u64>(),
        ops in proptest::collection::vec(op(), 0..120),
    ) {
        let mut world = World::new(if strict { RaProfile::Strict } else { RaProfile::Boot }, seed);
        world.flush();
        ops.iter().for_each(|op| world.apply(op));
    }

    #[test]
    fn a_flood_changes_little(strict in any::<bool>(), seed in any::<u64>(), machines in 1u8..40, unspecified in any::<bool>()) {
        let mut world = World::new(if strict { RaProfile::Strict } else { RaProfile::Boot }, seed);
        world.flush();
        for step in 0u64..6000 {
            world.apply(&Op::Advance(10));
            let machine = u8::try_from(step % u64::from(machines)).unwrap();
            world.apply(&Op::Solicit(machine, !unspecified));
            world.apply(&Op::Trigger(machine, Trigger::Dhcp6Solicit));
        }
        // A minute: answers to addresses within their bucket, and multicasts within theirs.
        let limit = match (unspecified, strict) {
            (true, true) => 21,
            (true, false) => 60,
            (false, _) => 20 + 600 + 60,
        };
        prop_assert!(world.sent.len() <= limit, "{} sent", world.sent.len());
    }
}

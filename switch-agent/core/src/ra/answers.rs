//! Answers that are sent into the Ethernet frame of one machine: which ones are pending, and when the next
//! may leave.

use std::net::Ipv6Addr;
use std::num::NonZeroU64;
use std::time::Duration;

use super::bucket::TokenBucket;
use crate::name::MacAddr;

/// Machines (host, BMC on a shared port, their virtual functions) waiting for an answer at a time, of each
/// kind of answer: those that wait for the scarce tokens of one do not keep out those of the other.
const PENDING_MAX: usize = 4;
/// RTR_SOLICITATION_INTERVAL (RFC 4861 section 10): a machine that still waits has asked again by then.
const PENDING_AGE_MAX: Duration = Duration::from_secs(4);

/// Answers to a unicast address per port: so many at once, then one per interval. A machine asks a few
/// times within seconds; whoever asks more often is faulty or hostile.
const UNICAST: TokenBucket = TokenBucket::new(20, Duration::from_millis(100));
/// Answers to all nodes per port; the interval is MIN_DELAY_BETWEEN_RAS.
const ALL_NODES: TokenBucket = TokenBucket::new(4, Duration::from_secs(3));
/// Before a greeting and after the last answer to all nodes of a port. Whoever asks does not wait for that.
const GREETING_SPACING: Duration = Duration::from_millis(100);
/// Tokens of [`ALL_NODES`] that a machine which only showed itself leaves to one that asks.
const KEPT_FOR_SOLICITATIONS: u32 = 1;
/// A machine that got an advertisement of its own within this time has been greeted: it shows itself several
/// times while it configures its addresses.
const GREETED: Duration = Duration::from_secs(3);

/// What became of a solicitation or of a first sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// An answer of its own leaves at once.
    Answering,
    /// An answer of its own leaves when the limits of the port allow it.
    Delayed,
    /// An answer that was pending already, or the next multicast, serves it too.
    Merged,
    /// A limit of the port is reached, and as nothing was asked, nothing is owed.
    Suppressed,
    /// The port does not advertise any more, or its profile answers solicitations only.
    Ignored,
}

impl Heard {
    /// No answer of its own left at once: the limits of the port were at work.
    pub fn is_limited(self) -> bool {
        matches!(self, Heard::Delayed | Heard::Merged | Heard::Suppressed)
    }
}

/// First sign of life of a machine, other than a Router Solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// Duplicate address detection (RFC 4862 section 5.4): its stack is up and configures addresses.
    Probe,
    /// Multicast Listener Discovery report (RFC 2710, RFC 3810): its stack comes up.
    MldReport,
    /// DHCPv6 Solicit: EDK2 sends it the moment it begins to accept advertisements, and solicits a router
    /// only a second later.
    Dhcp6Solicit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Unicast {
        address: Ipv6Addr,
        mac: MacAddr,
    },
    /// To all nodes, in a unicast frame (RFC 6085): for a machine without an address of its own yet.
    AllNodesIn {
        mac: MacAddr,
    },
}

impl Target {
    fn is_unicast(self) -> bool {
        matches!(self, Target::Unicast { .. })
    }

    fn mac(self) -> MacAddr {
        match self {
            Target::Unicast { mac, .. } | Target::AllNodesIn { mac } => mac,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) target: Target,
    /// When the machine was heard.
    since: Moment,
    /// When the solicitation arrived; `None` where the machine only showed itself.
    solicited: Option<Moment>,
}

/// A time of the port's clock in half the memory: each port has room for [`PENDING_MAX`] of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment(NonZeroU64);

impl Moment {
    /// To the nanosecond, for five hundred years.
    fn of(time: Duration) -> Moment {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Moment(NonZeroU64::MIN.saturating_add(nanos))
    }

    fn time(self) -> Duration {
        Duration::from_nanos(self.0.get() - 1)
    }
}

impl Pending {
    pub(super) fn solicited_at(&self) -> Option<Duration> {
        self.solicited.map(Moment::time)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Answers {
    /// Has room for all from the start: answering allocates nothing.
    pending: Vec<Pending>,
    /// After a failed transmission.
    not_before: Duration,
    greeting_not_before: Duration,
    unicast: TokenBucket,
    all_nodes: TokenBucket,
    /// Machines that got an answer last, and when.
    greeted: [Option<(MacAddr, Duration)>; PENDING_MAX],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    /// Leaves at this time.
    New(Duration),
    Merged,
    /// No room: a multicast has to answer.
    Full,
}

impl Answers {
    pub(super) fn new() -> Self {
        Answers {
            pending: Vec::with_capacity(2 * PENDING_MAX),
            not_before: Duration::ZERO,
            greeting_not_before: Duration::ZERO,
            unicast: UNICAST,
            all_nodes: ALL_NODES,
            greeted: [None; PENDING_MAX],
        }
    }

    /// A solicitation that arrived at `now` asks for an answer.
    pub(super) fn push(&mut self, target: Target, now: Duration) -> Queued {
        self.queue(Pending { target, since: Moment::of(now), solicited: Some(Moment::of(now)) })
    }

    fn queue(&mut self, new: Pending) -> Queued {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.target == new.target) {
            pending.solicited = pending.solicited.or(new.solicited);
            return Queued::Merged;
        }
        let alike = |pending: &&Pending| pending.target.is_unicast() == new.target.is_unicast();
        if self.pending.iter().filter(alike).count() >= PENDING_MAX {
            return Queued::Full;
        }
        self.pending.push(new);
        Queued::New(self.due_of(&new))
    }

    /// A machine showed itself: it gets an advertisement if that costs no solicitation its answer.
    pub(super) fn greet(&mut self, trigger: Trigger, mac: MacAddr, now: Duration) -> Heard {
        let kept = match trigger {
            Trigger::Probe | Trigger::MldReport if self.was_greeted(mac, now) => return Heard::Merged,
            Trigger::Probe | Trigger::MldReport => KEPT_FOR_SOLICITATIONS,
            // What it was sent before is lost on firmware that listens only from now on.
            Trigger::Dhcp6Solicit => 0,
        };
        if self.pending.iter().any(|pending| pending.target.mac() == mac) {
            return Heard::Merged;
        }
        if self.all_nodes.earliest_keeping(kept) > now {
            return Heard::Suppressed;
        }
        let target = Target::AllNodesIn { mac };
        match self.queue(Pending { target, since: Moment::of(now), solicited: None }) {
            Queued::New(due) if due <= now => Heard::Answering,
            Queued::New(_) => Heard::Delayed,
            Queued::Merged => Heard::Merged,
            Queued::Full => Heard::Suppressed,
        }
    }

    fn was_greeted(&self, mac: MacAddr, now: Duration) -> bool {
        self.greeted.iter().flatten().any(|(greeted, at)| *greeted == mac && *at + GREETED > now)
    }

    /// When the next answer may leave.
    pub(super) fn due(&self) -> Option<Duration> {
        self.pending.iter().map(|pending| self.due_of(pending)).min()
    }

    fn due_of(&self, pending: &Pending) -> Duration {
        let allowed = match pending.target {
            Target::Unicast { .. } => self.unicast.earliest(),
            Target::AllNodesIn { .. } if pending.solicited.is_some() => self.all_nodes.earliest(),
            Target::AllNodesIn { .. } => self.all_nodes.earliest().max(self.greeting_not_before),
        };
        pending.since.time().max(allowed).max(self.not_before)
    }

    /// Takes the answer that has been due longest.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Pending> {
        let (index, due) = self
            .pending
            .iter()
            .enumerate()
            .map(|(index, pending)| (index, self.due_of(pending)))
            .min_by_key(|(_, due)| *due)?;
        if due > now {
            return None;
        }
        let pending = self.pending.remove(index);
        match pending.target {
            Target::Unicast { .. } => self.unicast.take(now),
            Target::AllNodesIn { .. } => {
                self.all_nodes.take(now);
                self.greeting_not_before = now + GREETING_SPACING;
            }
        }
        self.remember(pending.target.mac(), now);
        Some(pending)
    }

    /// In place of what was known of the machine, else of the one whose greeting is longest ago.
    fn remember(&mut self, mac: MacAddr, now: Duration) {
        let age = |entry: &Option<(MacAddr, Duration)>| match entry {
            Some((known, _)) if *known == mac => None,
            entry => Some(entry.map(|(_, at)| at)),
        };
        if let Some(entry) = self.greeted.iter_mut().min_by_key(|entry| age(entry)) {
            *entry = Some((mac, now));
        }
    }

    /// The answer did not leave: once more, not before `at`.
    pub(super) fn postpone(&mut self, pending: Pending, at: Duration) {
        self.queue(pending);
        self.not_before = self.not_before.max(at);
    }

    /// Takes a token for a real multicast answer; the time from which it may be used.
    pub(super) fn reserve_multicast(&mut self, now: Duration) -> Duration {
        let at = self.all_nodes.earliest().max(now);
        self.all_nodes.take(at);
        at
    }

    /// A multicast reached everybody who waits without an address of their own.
    pub(super) fn multicast_sent(&mut self) {
        self.pending.retain(|pending| pending.target.is_unicast());
    }

    pub(super) fn forget_older(&mut self, now: Duration) {
        self.pending.retain(|pending| pending.since.time() + PENDING_AGE_MAX >= now);
    }

    /// Nobody waits and nobody has been greeted: another machine may be at the other end of the link.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.greeted = [None; PENDING_MAX];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Times in milliseconds at which something leaves while `ask` runs every 10 ms.
    fn sent(until: Duration, mut ask: impl FnMut(&mut Answers, Duration)) -> Vec<u128> {
        let mut answers = Answers::new();
        let (mut sent, mut now) = (vec![], Duration::ZERO);
        while now < until {
            ask(&mut answers, now);
            if answers.pop(now).is_some() {
                sent.push(now.as_millis());
            }
            now += ms(10);
        }
        sent
    }

    #[test]
    fn four_answers_to_the_unspecified_address_then_one_per_three_seconds() {
        let sent = sent(Duration::from_secs(12), |answers, now| {
            answers.push(Target::AllNodesIn { mac: MAC }, now);
        });
        assert_eq!(sent, [0, 10, 20, 30, 3000, 6000, 9000]);
    }

    #[test]
    fn twenty_answers_to_an_address_then_ten_per_second() {
        let unicast = Target::Unicast { address: MAC.eui64_link_local(), mac: MAC };
        let sent = sent(Duration::from_secs(4), |answers, now| {
            answers.push(unicast, now);
        });
        // Every 10 ms until the bucket of 20, which meanwhile refilled by two, is empty.
        assert_eq!(sent[..22], (0..22).map(|step| step * 10).collect::<Vec<u128>>()[..]);
        assert_eq!(sent[22..25], [300, 400, 500]);
        assert_eq!(sent.len(), 22 + 37);
    }

    #[test]
    fn a_link_local_solicitor_is_not_held_up_by_an_empty_bucket() {
        let mut answers = Answers::new();
        (0..4).for_each(|_| answers.all_nodes.take(Duration::ZERO));
        let unicast = Target::Unicast { address: MAC.eui64_link_local(), mac: MAC };
        assert_eq!(answers.push(Target::AllNodesIn { mac: MAC }, ms(0)), Queued::New(ms(3000)));
        assert_eq!(answers.push(unicast, ms(5)), Queued::New(ms(5)));
        assert_eq!(answers.push(unicast, ms(6)), Queued::Merged);
        let first = answers.pop(ms(7)).unwrap();
        assert_eq!((first.target, first.solicited_at()), (unicast, Some(ms(5))));
        assert_eq!(answers.due(), Some(ms(3000)));
    }

    #[test]
    fn those_that_wait_for_a_multicast_do_not_keep_out_a_link_local_solicitor() {
        let machine = |number: u8| MacAddr([2, 0, 0, 0, 0, number]);
        let mut answers = Answers::new();
        (0..4).for_each(|_| answers.all_nodes.take(Duration::ZERO));
        let queued: Vec<Queued> =
            (0..5).map(|number| answers.push(Target::AllNodesIn { mac: machine(number) }, ms(0))).collect();
        assert_eq!(queued.last(), Some(&Queued::Full));
        let unicast = Target::Unicast { address: MAC.eui64_link_local(), mac: MAC };
        assert_eq!(answers.push(unicast, ms(0)), Queued::New(ms(0)));
    }

    #[test]
    fn a_machine_that_shows_itself_is_greeted_once() {
        let mut answers = Answers::new();
        assert_eq!(answers.greet(Trigger::MldReport, MAC, ms(0)), Heard::Answering);
        assert_eq!(answers.greet(Trigger::Probe, MAC, ms(0)), Heard::Merged, "pending");
        assert!(answers.pop(ms(0)).is_some_and(|pending| pending.solicited_at().is_none()));
        assert_eq!(answers.greet(Trigger::Probe, MAC, ms(2999)), Heard::Merged, "greeted");
        assert_eq!(answers.greet(Trigger::Dhcp6Solicit, MAC, ms(2999)), Heard::Answering);
        answers.pop(ms(2999)).unwrap();
        assert_eq!(answers.greet(Trigger::Probe, MAC, ms(6000)), Heard::Answering);
    }

    #[test]
    fn greetings_leave_a_token_to_whoever_asks() {
        let machine = |number: u8| MacAddr([2, 0, 0, 0, 0, number]);
        let mut answers = Answers::new();
        let mut now = ms(0);
        for number in 0..3 {
            assert_eq!(answers.greet(Trigger::Probe, machine(number), now), Heard::Answering);
            answers.pop(now).unwrap();
            now += GREETING_SPACING;
        }
        assert_eq!(answers.greet(Trigger::MldReport, machine(3), now), Heard::Suppressed);
        assert_eq!(answers.push(Target::AllNodesIn { mac: machine(4) }, now), Queued::New(now));
        answers.pop(now).unwrap();
        assert_eq!(answers.greet(Trigger::Dhcp6Solicit, machine(5), now), Heard::Suppressed);
        // Not two within the spacing, whoever they are for.
        let mut answers = Answers::new();
        assert_eq!(answers.greet(Trigger::Probe, machine(0), ms(0)), Heard::Answering);
        answers.pop(ms(0)).unwrap();
        assert_eq!(answers.greet(Trigger::Probe, machine(1), ms(1)), Heard::Delayed);
        assert_eq!(answers.due(), Some(GREETING_SPACING));
        // Whoever asks does not wait for that.
        assert_eq!(answers.push(Target::AllNodesIn { mac: machine(2) }, ms(2)), Queued::New(ms(2)));
    }

    #[test]
    fn a_solicitation_joins_a_greeting() {
        let mut answers = Answers::new();
        answers.greet(Trigger::Probe, MAC, ms(0));
        assert_eq!(answers.push(Target::AllNodesIn { mac: MAC }, ms(1)), Queued::Merged);
        assert_eq!(answers.pop(ms(1)).unwrap().solicited_at(), Some(ms(1)));
        // And no longer waits for the spacing of greetings.
        answers.greet(Trigger::Dhcp6Solicit, MAC, ms(50));
        assert_eq!(answers.pop(ms(50)), None);
        assert_eq!(answers.push(Target::AllNodesIn { mac: MAC }, ms(51)), Queued::Merged);
        assert_eq!(answers.pop(ms(51)).unwrap().solicited_at(), Some(ms(51)));
    }
}

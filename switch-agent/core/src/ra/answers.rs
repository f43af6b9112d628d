//! Answers that are sent into the Ethernet frame of one machine: which ones are pending, and when the next
//! may leave.

use std::net::Ipv6Addr;
use std::time::Duration;

use crate::name::MacAddr;

/// At most one answer of this kind per port in this time, whatever the machine sends.
const ANSWER_SPACING: Duration = Duration::from_millis(100);
/// Machines (host, BMC on a shared port, their virtual functions) waiting for an answer at a time.
const PENDING_MAX: usize = 4;
/// RTR_SOLICITATION_INTERVAL (RFC 4861 section 10): a machine that still waits has asked again by then.
const PENDING_AGE_MAX: Duration = Duration::from_secs(4);

/// Answers to `::`: so many at once, then one per [`BUCKET_INTERVAL`].
const BUCKET_BURST: u32 = 4;
/// MIN_DELAY_BETWEEN_RAS, on average.
const BUCKET_INTERVAL: Duration = Duration::from_secs(3);

/// What became of a solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// An answer of its own is on its way.
    Answering,
    /// An answer that was pending already, or the next multicast, serves it too.
    Merged,
    /// The port does not advertise any more.
    Ignored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Unicast {
        address: Ipv6Addr,
        mac: MacAddr,
    },
    /// To all nodes, in a unicast frame (RFC 6085): for a machine that solicits from `::`.
    AllNodesIn {
        mac: MacAddr,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) target: Target,
    /// When the solicitation arrived.
    pub(super) since: Duration,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    pending: Vec<Pending>,
    not_before: Duration,
    bucket: Bucket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    New,
    Merged,
    /// No room: a multicast has to answer.
    Full,
}

impl Answers {
    pub(super) fn push(&mut self, target: Target, since: Duration) -> Queued {
        if self.pending.iter().any(|pending| pending.target == target) {
            Queued::Merged
        } else if self.pending.len() >= PENDING_MAX {
            Queued::Full
        } else {
            self.pending.push(Pending { target, since });
            Queued::New
        }
    }

    /// When the next answer may leave.
    pub(super) fn due(&self) -> Option<Duration> {
        self.pending.iter().map(|pending| self.due_of(pending)).min()
    }

    fn due_of(&self, pending: &Pending) -> Duration {
        let allowed = match pending.target {
            Target::Unicast { .. } => pending.since,
            Target::AllNodesIn { .. } => pending.since.max(self.bucket.earliest()),
        };
        allowed.max(self.not_before)
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
        if matches!(pending.target, Target::AllNodesIn { .. }) {
            self.bucket.take(now);
        }
        self.not_before = now + ANSWER_SPACING;
        Some(pending)
    }

    /// The answer did not leave: once more, not before `at`.
    pub(super) fn postpone(&mut self, pending: Pending, at: Duration) {
        self.push(pending.target, pending.since);
        self.not_before = self.not_before.max(at);
    }

    /// Takes a token for a real multicast answer; the time from which it may be used.
    pub(super) fn reserve_multicast(&mut self, now: Duration) -> Duration {
        let at = self.bucket.earliest().max(now);
        self.bucket.take(at);
        at
    }

    /// A multicast reached everybody who waits without an address of their own.
    pub(super) fn multicast_sent(&mut self) {
        self.pending.retain(|pending| matches!(pending.target, Target::Unicast { .. }));
    }

    pub(super) fn forget_older(&mut self, now: Duration) {
        self.pending.retain(|pending| pending.since + PENDING_AGE_MAX >= now);
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }
}

/// Token bucket as one time: the theoretical arrival time of the generic cell rate algorithm.
#[derive(Debug, Clone, Default)]
struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// When a token is there.
    fn earliest(&self) -> Duration {
        self.full_at.saturating_sub(BUCKET_INTERVAL * (BUCKET_BURST - 1))
    }

    fn take(&mut self, now: Duration) {
        self.full_at = self.full_at.max(now) + BUCKET_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    #[test]
    fn four_answers_to_the_unspecified_address_then_one_per_three_seconds() {
        let mut answers = Answers::default();
        let mut sent = vec![];
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(12) {
            answers.push(Target::AllNodesIn { mac: MAC }, now);
            if answers.pop(now).is_some() {
                sent.push(now.as_millis());
            }
            now += Duration::from_millis(10);
        }
        assert_eq!(sent, [0, 100, 200, 300, 3000, 6000, 9000]);
    }

    #[test]
    fn a_link_local_solicitor_is_not_held_up_by_an_empty_bucket() {
        let mut answers = Answers::default();
        (0..4).for_each(|_| answers.bucket.take(Duration::ZERO));
        let unicast = Target::Unicast { address: MAC.eui64_link_local(), mac: MAC };
        assert_eq!(answers.push(Target::AllNodesIn { mac: MAC }, Duration::ZERO), Queued::New);
        assert_eq!(answers.push(unicast, Duration::from_millis(5)), Queued::New);
        assert_eq!(answers.push(unicast, Duration::from_millis(6)), Queued::Merged);
        let first = answers.pop(Duration::from_millis(7)).unwrap();
        assert_eq!(first, Pending { target: unicast, since: Duration::from_millis(5) });
        assert_eq!(answers.due(), Some(Duration::from_secs(3)));
    }
}

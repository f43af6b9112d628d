//! How much a port may have to say: floods are cut off in the kernel, port by port.
//!
//! Each port has a budget of frames, boot port or not: the socket hears them all. One that exceeds it is
//! muted by the filter of the socket, first for [`MUTE_MIN`] and twice as long each time it exceeds its
//! budget right after, up to [`MUTE_MAX`]. No other port notices. The machine on the muted port still gets
//! the periodic advertisements, and is heard again within [`MUTE_MAX`].

use std::collections::HashMap;
use std::time::Duration;

/// Frames at once. A port has one machine with a handful of functions, which solicit a few times and probe
/// each of their addresses once.
const BURST: u32 = 128;
/// And one per this time, on average.
const INTERVAL: Duration = Duration::from_millis(15);
const BURST_TIME: Duration = INTERVAL.saturating_mul(BURST);

const MUTE_MIN: Duration = Duration::from_millis(250);
const MUTE_MAX: Duration = Duration::from_secs(2);
/// Mutes end on this grid, together, for each end is a wake-up.
const SLOT_MS: u64 = 250;

/// Ports whose budgets are kept; more than that are forgotten while they are quiet.
const PORTS_MAX: usize = 4096;

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Take,
    /// Over budget, or left in the socket from before the port was muted.
    Drop,
    /// Over budget, and the port is to be muted from now on.
    Mute,
}

#[derive(Debug, Clone, Copy, Default)]
struct Budget {
    /// When the budget is whole again, as the theoretical arrival time of the generic cell rate algorithm.
    whole_at: Duration,
    /// Mutes in a row.
    strikes: u32,
    muted_until: Option<Duration>,
}

/// The budgets of all ports.
#[derive(Debug)]
pub(super) struct Guard {
    ports: HashMap<u32, Budget>,
    muted: Vec<u32>,
    muted_max: usize,
    changed: bool,
}

impl Guard {
    /// `muted_max` ports are muted at a time; frames of further floods are dropped one by one.
    pub(super) fn new(muted_max: usize) -> Guard {
        Guard { ports: HashMap::new(), muted: Vec::with_capacity(muted_max), muted_max, changed: false }
    }

    /// Counts a frame that arrived on a port.
    pub(super) fn admit(&mut self, now: Duration, ifindex: u32) -> Admission {
        if self.ports.len() >= PORTS_MAX && !self.ports.contains_key(&ifindex) {
            self.ports.retain(|_, budget| budget.whole_at > now || budget.muted_until.is_some());
        }
        let budget = self.ports.entry(ifindex).or_default();
        if budget.muted_until.is_some() {
            return Admission::Drop;
        }
        if budget.whole_at <= now {
            budget.strikes = 0;
        }
        let whole_at = budget.whole_at.max(now) + INTERVAL;
        if whole_at - now <= BURST_TIME {
            budget.whole_at = whole_at;
            return Admission::Take;
        }
        if self.muted.len() >= self.muted_max {
            return Admission::Drop;
        }
        let pause = MUTE_MIN.saturating_mul(1 << budget.strikes.min(8)).min(MUTE_MAX);
        budget.strikes = budget.strikes.saturating_add(1);
        budget.muted_until = Some(ceil_to_slot(now + pause));
        self.muted.push(ifindex);
        self.changed = true;
        Admission::Mute
    }

    /// When the next mute ends.
    pub(super) fn next(&self) -> Option<Duration> {
        self.muted.iter().filter_map(|ifindex| self.ports.get(ifindex)?.muted_until).min()
    }

    /// Ends the mutes that are over; `heard` is told of each port.
    pub(super) fn expire(&mut self, now: Duration, mut heard: impl FnMut(u32)) {
        let before = self.muted.len();
        self.muted.retain(|ifindex| {
            let Some(budget) = self.ports.get_mut(ifindex) else { return false };
            let muted = budget.muted_until.is_some_and(|until| until > now);
            if !muted {
                budget.muted_until = None;
                // Half a budget, so that it cannot be whole, and the mutes forgiven, before the port was
                // listened to.
                budget.whole_at = budget.whole_at.max(now + BURST_TIME / 2);
                heard(*ifindex);
            }
            muted
        });
        self.changed |= self.muted.len() != before;
    }

    /// The muted ports, where they are others than at the last call.
    pub(super) fn take_change(&mut self) -> Option<&[u32]> {
        std::mem::take(&mut self.changed).then_some(self.muted.as_slice())
    }
}

fn ceil_to_slot(time: Duration) -> Duration {
    let ms = u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX - SLOT_MS);
    Duration::from_millis(ms.next_multiple_of(SLOT_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Feeds a port 100 frames per millisecond for a time, and returns what was taken and when it was muted.
    fn flood(guard: &mut Guard, ifindex: u32, from: u64, to: u64) -> (u32, Vec<u64>) {
        let (mut taken, mut mutes) = (0, vec![]);
        for at in from..to {
            guard.expire(ms(at), |_| ());
            for _ in 0..100 {
                match guard.admit(ms(at), ifindex) {
                    Admission::Take => taken += 1,
                    Admission::Mute => mutes.push(at),
                    Admission::Drop => {}
                }
            }
        }
        (taken, mutes)
    }

    #[test]
    fn a_flood_is_muted_ever_longer_and_forgiven_when_it_is_over() {
        let mut guard = Guard::new(64);
        let (taken, mutes) = flood(&mut guard, 7, 0, 10_000);
        assert_eq!(mutes, [1, 500, 1000, 2000, 4000, 6000, 8000]);
        assert!(taken < 1000, "{taken} of a million");
        assert_eq!(guard.take_change(), Some(&[7][..]));
        assert_eq!(guard.take_change(), None);
        assert_eq!(guard.next(), Some(ms(10_000)));

        guard.expire(ms(10_000), |_| ());
        assert_eq!(guard.take_change(), Some(&[][..]));
        assert_eq!(guard.admit(ms(12_000), 7), Admission::Take, "quiet for two seconds");
        let (_, mutes) = flood(&mut guard, 7, 12_000, 12_600);
        assert_eq!(mutes[0], 12_001);
        assert!(mutes[1] <= 12_500, "back at the shortest");
    }

    #[test]
    fn a_lone_solicitor_elsewhere_is_heard_during_any_number_of_floods() {
        let mut guard = Guard::new(4);
        for ifindex in 1..=40 {
            flood(&mut guard, ifindex, 0, 20);
        }
        assert_eq!(guard.take_change().map(<[u32]>::len), Some(4));
        for at in 0..50 {
            assert_eq!(guard.admit(ms(20 + at * 20), 99), Admission::Take);
        }
        assert_eq!(guard.muted, [1, 2, 3, 4]);
    }

    #[test]
    fn ports_come_and_go_without_growth() {
        let mut guard = Guard::new(4);
        for ifindex in 0..20_000 {
            guard.admit(ms(u64::from(ifindex)), ifindex);
        }
        assert!(guard.ports.len() <= PORTS_MAX);
    }
}

//! Why lines have to be applied again, and how long the next time may take.

use std::collections::BTreeSet;
use std::time::Duration;

use switch_agent_core::frr::FrrDelta;
use tokio::time::Instant;

/// Repairs of what somebody undoes back off from and to.
const UNDONE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));
/// The same for lines that FRR lost: nobody fights, somebody else's session merely ended meanwhile.
const LOST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// After this long the same lines are a new repair.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Lines that a message names.
const NAMED_MAX: usize = 3;

/// What an applied delta was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// Other lines than last time, or long after it.
    New,
    /// FRR could not be read since the same lines went in: it started anew, without them.
    Restarted,
    /// FRR took these of them last time without an error, and did not have them when it was read.
    Lost { lines: Vec<String>, times: u32 },
    /// FRR had them; they are gone for the `times`-th time.
    Undone { times: u32 },
}

impl Cause {
    /// What to say of it; `None` where there is nothing unusual.
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Cause::Lost { lines, .. } => {
                let named = lines.iter().take(NAMED_MAX).map(|line| format!("`{line}`")).collect::<Vec<_>>();
                let more = if lines.len() > NAMED_MAX { ", ..." } else { "" };
                Some(format!(
                    "FRR took lines without an error and did not have them ({} of them: {}{more}): another vtysh ended meanwhile",
                    lines.len(),
                    named.join(", ")
                ))
            }
            Cause::Undone { times: 2.. } => {
                Some("the same lines had to be applied again: somebody else undoes them".to_owned())
            }
            Cause::New | Cause::Restarted | Cause::Undone { .. } => None,
        }
    }

    /// The pause before the next delta. The first repair of either kind is followed by none.
    pub(super) fn pause(&self) -> Option<Duration> {
        let (times, range) = match self {
            Cause::New | Cause::Restarted => return None,
            Cause::Lost { times, .. } => (*times, LOST),
            Cause::Undone { times } => (*times, UNDONE),
        };
        times.checked_sub(2).map(|times| backoff(range, times))
    }
}

/// The pause after `times` earlier ones.
pub(super) fn backoff(range: (Duration, Duration), times: u32) -> Duration {
    range.0.saturating_mul(1 << times.min(6)).min(range.1)
}

#[derive(Debug)]
struct Applied {
    delta: FrrDelta,
    at: Instant,
    /// What the first reading afterwards did not show; `None` before it.
    missing: Option<BTreeSet<String>>,
}

/// Tells what an apply repairs, by the one before it and what was read in between.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    last: Option<Applied>,
    /// FRR could not be read since.
    unread: bool,
    lost: u32,
    undone: u32,
}

impl Repairs {
    /// Notes a running configuration. Only the first one after an apply tells of it.
    pub(super) fn read(&mut self, running_config: &str) {
        if let Some(last) = self.last.as_mut().filter(|last| last.missing.is_none()) {
            last.missing = Some(last.delta.missing(running_config).into_iter().collect());
        }
    }

    /// Notes that FRR did not answer.
    pub(super) fn unreadable(&mut self) {
        self.unread = true;
    }

    /// Notes an apply that FRR took.
    pub(super) fn applied(&mut self, delta: FrrDelta, now: Instant) -> Cause {
        let unread = std::mem::take(&mut self.unread);
        let last = self.last.take().filter(|last| now < last.at + FORGOTTEN);
        let missing = last.as_ref().and_then(|last| last.missing.as_ref());
        let lost: Vec<String> = match missing {
            Some(missing) => delta.in_context().filter(|line| missing.contains(line)).collect(),
            None => Vec::new(),
        };
        let same = last.is_some_and(|last| last.delta == delta);
        let cause = match () {
            () if unread && (same || !lost.is_empty()) => Cause::Restarted,
            () if !lost.is_empty() => {
                self.lost = self.lost.saturating_add(1);
                Cause::Lost { lines: lost, times: self.lost }
            }
            () if same => {
                self.undone = self.undone.saturating_add(1);
                Cause::Undone { times: self.undone }
            }
            () => {
                (self.lost, self.undone) = (0, 0);
                Cause::New
            }
        };
        self.last = Some(Applied { delta, at: now, missing: None });
        cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN: &str = "vrf V\n ipv6 route ::/0 blackhole 254\nexit-vrf\n";

    fn delta() -> FrrDelta {
        FrrDelta { commands: TAKEN.lines().map(str::to_owned).collect() }
    }

    fn other() -> FrrDelta {
        FrrDelta { commands: vec!["no route-map M".to_owned()] }
    }

    #[test]
    fn the_first_repair_is_made_at_once_and_a_fight_slows_down() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        let mut apply = |delta, now| {
            let cause = repairs.applied(delta, now);
            repairs.read(TAKEN);
            repairs.read("");
            cause
        };
        assert_eq!(apply(delta(), now), Cause::New);
        let first = apply(delta(), now);
        assert_eq!((&first, first.reason(), first.pause()), (&Cause::Undone { times: 1 }, None, None));
        let pauses: Vec<_> = (0..8).map(|_| apply(delta(), now).pause().unwrap().as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 120, 120]);
        assert!(apply(delta(), now).reason().unwrap().contains("somebody else undoes them"));
        assert_eq!(apply(other(), now), Cause::New, "another delta");
        assert_eq!(apply(other(), now + FORGOTTEN), Cause::New, "a rest");
    }

    #[test]
    fn nobody_is_to_blame_for_what_frr_forgot_in_a_restart() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        repairs.unreadable();
        assert_eq!(repairs.applied(delta(), now), Cause::New, "before the first");
        for _ in 0..3 {
            repairs.read(TAKEN);
            repairs.unreadable();
            repairs.read("");
            let cause = repairs.applied(delta(), now);
            assert_eq!((&cause, cause.reason(), cause.pause()), (&Cause::Restarted, None, None));
        }
        // It stopped while it was being configured.
        repairs.unreadable();
        repairs.read("");
        assert_eq!(repairs.applied(delta(), now), Cause::Restarted);
        repairs.read(TAKEN);
        assert_eq!(repairs.applied(delta(), now), Cause::Undone { times: 1 }, "without a restart");
    }

    #[test]
    fn lines_that_never_were_in_effect_are_lost_and_tried_again_soon() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        repairs.applied(delta(), now);
        repairs.read("vrf V\nexit-vrf\n");
        repairs.read(TAKEN);
        let cause = repairs.applied(delta(), now);
        let line = "vrf V: ipv6 route ::/0 blackhole 254";
        assert_eq!(cause, Cause::Lost { lines: vec![line.to_owned()], times: 1 });
        assert!(cause.reason().unwrap().contains(line) && cause.pause().is_none());
        let pauses = (0..7).map(|_| {
            repairs.read("");
            repairs.applied(delta(), now).pause().unwrap().as_secs()
        });
        assert_eq!(pauses.collect::<Vec<_>>(), [1, 2, 4, 8, 15, 15, 15]);
        repairs.read(TAKEN);
        assert_eq!(repairs.applied(other(), now), Cause::New);
    }
}

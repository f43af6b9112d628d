//! A circuit breaker for the control API: while it cannot be reached, nobody waits to learn that again.
//!
//! Only what no machine can bring about counts as a failure: connecting and the TLS handshake. An answer of
//! any kind, a slow one, or one that breaks off says that the control API is there.

use std::time::Duration;

/// What a request may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Pass,
    /// Go on: the one request that finds out whether the control API is back.
    Probe,
    /// Answer at once; ask again after this long.
    Refuse { retry_after: Duration },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Duration,
    },
    /// A probe is under way; one that is never heard of again is replaced by another at `until`.
    HalfOpen {
        until: Duration,
    },
}

/// Closed, open, half-open. Time is since an arbitrary origin and monotonic.
#[derive(Debug, Clone)]
pub struct Breaker {
    threshold: u32,
    pause: Duration,
    probe_time: Duration,
    state: State,
}

impl Breaker {
    /// Opens after `threshold` failures in a row, for `pause`; a probe has `probe_time` to come back.
    pub fn new(threshold: u32, pause: Duration, probe_time: Duration) -> Breaker {
        Breaker { threshold: threshold.max(1), pause, probe_time, state: State::Closed { failures: 0 } }
    }

    /// Asks for one request.
    pub fn admit(&mut self, now: Duration) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Pass,
            State::Open { until } | State::HalfOpen { until } if now < until => {
                Admission::Refuse { retry_after: until - now }
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { until: now + self.probe_time };
                Admission::Probe
            }
        }
    }

    /// The control API was reached.
    pub fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// It was not.
    pub fn failed(&mut self, now: Duration) {
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < self.threshold => {
                State::Closed { failures: failures + 1 }
            }
            // One that was sent before says nothing new.
            State::Open { until } if now < until => State::Open { until },
            _ => State::Open { until: now + self.pause },
        };
    }

    /// The probe ended without an outcome, because its machine went away: the next request is one.
    pub fn abandoned(&mut self, now: Duration) {
        if let State::HalfOpen { .. } = self.state {
            self.state = State::Open { until: now };
        }
    }

    /// Whether requests are refused, but for a probe.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new(3, SECOND * 2, SECOND * 4)
    }

    fn opened() -> Breaker {
        let mut breaker = breaker();
        (0..3).for_each(|_| breaker.failed(SECOND));
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let mut breaker = breaker();
        for _ in 0..5 {
            breaker.failed(SECOND);
            breaker.failed(SECOND);
            assert_eq!(breaker.admit(SECOND), Admission::Pass);
            breaker.succeeded();
        }
        let mut breaker = opened();
        assert_eq!(breaker.admit(SECOND * 2), Admission::Refuse { retry_after: SECOND });
        // What was under way meanwhile does not prolong it.
        breaker.failed(SECOND * 2);
        assert_eq!(breaker.admit(SECOND * 3), Admission::Probe);
    }

    #[test]
    fn one_probe_decides() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(SECOND * 3), Admission::Probe);
        assert_eq!(breaker.admit(SECOND * 3), Admission::Refuse { retry_after: SECOND * 4 });
        breaker.failed(SECOND * 4);
        assert_eq!(breaker.admit(SECOND * 5), Admission::Refuse { retry_after: SECOND });
        assert_eq!(breaker.admit(SECOND * 6), Admission::Probe);
        breaker.succeeded();
        assert_eq!(breaker.admit(SECOND * 6), Admission::Pass);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_lost_probe_is_replaced() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(SECOND * 3), Admission::Probe);
        assert_eq!(breaker.admit(SECOND * 7), Admission::Probe);
        breaker.abandoned(SECOND * 7);
        assert_eq!(breaker.admit(SECOND * 7), Admission::Probe);
    }

    proptest! {
        /// Whatever happened, a control API that is back is asked within a pause and a probe's time.
        #[test]
        fn it_never_stays_shut(steps in proptest::collection::vec((0u8..4, 0u64..3), 0..60)) {
            let (mut breaker, mut now) = (breaker(), Duration::ZERO);
            for (step, seconds) in steps {
                now += Duration::from_secs(seconds);
                match step {
                    0 => { breaker.admit(now); }
                    1 => breaker.failed(now),
                    2 => breaker.succeeded(),
                    _ => breaker.abandoned(now),
                }
            }
            let refused = matches!(breaker.admit(now + SECOND * 6), Admission::Refuse { .. });
            prop_assert!(!refused);
        }
    }
}

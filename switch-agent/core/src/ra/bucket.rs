//! Token bucket: what one port may make the agent do.

use std::time::Duration;

/// A token bucket kept as one time: the theoretical arrival time of the generic cell rate algorithm
/// (ITU-T I.371). It is full at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    burst: u32,
    interval: Duration,
    full_at: Duration,
}

impl TokenBucket {
    /// `burst` tokens, and a new one every `interval`.
    pub const fn new(burst: u32, interval: Duration) -> Self {
        TokenBucket { burst, interval, full_at: Duration::ZERO }
    }

    /// From when on a token can be taken.
    pub fn earliest(&self) -> Duration {
        self.earliest_keeping(0)
    }

    /// From when on a token can be taken so that `kept` are left.
    pub fn earliest_keeping(&self, kept: u32) -> Duration {
        let spendable = self.burst.saturating_sub(kept).saturating_sub(1);
        self.full_at.saturating_sub(self.interval.saturating_mul(spendable))
    }

    /// Takes a token at `now`, or one of the future where none is left.
    pub fn take(&mut self, now: Duration) {
        self.full_at = self.full_at.max(now).saturating_add(self.interval);
    }

    /// Takes a token if one is there.
    pub fn try_take(&mut self, now: Duration) -> bool {
        let there = self.earliest() <= now;
        if there {
            self.take(now);
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_its_burst_at_once_and_then_one_token_per_interval() {
        let mut bucket = TokenBucket::new(3, Duration::from_secs(2));
        let taken: Vec<u64> = (0..9).filter(|second| bucket.try_take(Duration::from_secs(*second))).collect();
        assert_eq!(taken, [0, 1, 2, 3, 4, 6, 8]);
        let mut bucket = TokenBucket::new(3, Duration::from_secs(2));
        assert_eq!((0..5).filter(|_| bucket.try_take(Duration::from_secs(1))).count(), 3);
        assert_eq!(bucket.earliest(), Duration::from_secs(3));
        assert_eq!(bucket.earliest_keeping(1), Duration::from_secs(5));
    }
}

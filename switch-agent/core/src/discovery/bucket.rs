//! A token bucket with time as an argument.

use std::time::Duration;

/// Allows `burst` events at once and one more each `interval`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    interval: Duration,
    burst: u32,
    /// The time at which the bucket is full again; each event pushes it by one interval.
    full_at: Duration,
}

impl Bucket {
    /// A full bucket of `burst` (at least one), refilled by one each `interval`.
    pub fn new(burst: u32, interval: Duration) -> Bucket {
        Bucket { interval, burst: burst.max(1), full_at: Duration::ZERO }
    }

    /// Takes one, or says how long until one is there. `now` is since an arbitrary origin, and may not
    /// run backwards.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + self.interval;
        let most = now + self.interval * self.burst;
        if full_at > most {
            return Err(full_at - most);
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_each_interval() {
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::new(3, second);
        let start = second * 100;
        for _ in 0..3 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(second));
        assert_eq!(bucket.take(start + second / 2), Err(second / 2));
        assert_eq!(bucket.take(start + second), Ok(()));
        assert!(bucket.take(start + second).is_err());
        assert_eq!(bucket.take(start + second * 10), Ok(()));
    }
}

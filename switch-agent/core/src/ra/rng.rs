//! The chance of an advertiser: small, seeded by the caller, reproducible. Not for secrets.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) fn seeded(seed: u64) -> Self {
        SplitMix64(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `low..=high`, in microseconds; `low` where the range is empty.
    pub(super) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_micros()).unwrap_or(u64::MAX);
        // The high half of the product maps the draw onto the range without division.
        let offset = (u128::from(self.next()) * (u128::from(span) + 1)) >> 64;
        low + Duration::from_micros(u64::try_from(offset).unwrap_or(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_range_and_reach_both_halves() {
        let mut rng = SplitMix64::seeded(1);
        let (low, high) = (Duration::from_secs(3), Duration::from_secs(10));
        let draws: Vec<Duration> = (0..1000).map(|_| rng.between(low, high)).collect();
        assert!(draws.iter().all(|draw| (low..=high).contains(draw)));
        let mean = draws.iter().sum::<Duration>() / 1000;
        assert!((Duration::from_millis(6200)..Duration::from_millis(6800)).contains(&mean), "{mean:?}");
        assert_eq!(rng.between(high, low), high);
    }

    /// First outputs of the reference implementation for seed 1234567.
    #[test]
    fn matches_the_reference_sequence() {
        let mut rng = SplitMix64::seeded(1_234_567);
        let outputs: Vec<u64> = (0..3).map(|_| rng.next()).collect();
        assert_eq!(
            outputs,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }
}

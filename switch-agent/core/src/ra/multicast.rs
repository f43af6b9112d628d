//! When the next multicast advertisement of a port is due (RFC 4861 sections 6.2.4 and 6.2.6).

use std::time::Duration;

use super::rng::SplitMix64;
use super::{RaConfig, RaProfile};

/// RFC 4861 section 10.
pub(super) const MAX_INITIAL_RTR_ADVERT_INTERVAL: Duration = Duration::from_secs(16);
/// RFC 4861 section 10.
pub(super) const MAX_INITIAL_RTR_ADVERTISEMENTS: u8 = 3;
/// RFC 4861 section 10.
pub(super) const MIN_DELAY_BETWEEN_RAS: Duration = Duration::from_secs(3);
/// RFC 4861 section 10.
pub(super) const MAX_RA_DELAY_TIME: Duration = Duration::from_millis(500);

/// Stands in for MIN_DELAY_BETWEEN_RAS in the boot profile: a port has one machine, and a link that flaps
/// or a machine that floods must not make the port chatter. RFC 6275 section 7.5 allows 30 ms.
pub(super) const BOOT_MIN_DELAY: Duration = Duration::from_millis(100);

/// Boot profile, after carrier: the first advertisement and its repetitions until the port is heard. One
/// alone is lost when the machine's own link layer is not ready yet.
const BURST: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(500), Duration::from_millis(1500)];

/// Periodic deadlines of all ports are rounded to a grid that they share: the first advertisement after a
/// wake-up costs as much as many that follow it. The finer grid is for the strict profile, and for intervals
/// that the coarse one would leave no room to vary in (RFC 4861 section 6.2.4).
const SLOT: Duration = Duration::from_secs(1);
const FINE_SLOT: Duration = Duration::from_millis(250);

#[derive(Debug, Clone)]
pub(super) struct Multicast {
    due: Duration,
    last: Option<Duration>,
    /// Advertisements still to send at initial intervals.
    initial_left: u8,
    /// Start of the burst, and the entry of [`BURST`] that `due` stands for, while it runs.
    burst: Option<(Duration, usize)>,
    /// A solicitation is to be answered by the next advertisement, and arrived then.
    solicited: Option<Duration>,
}

impl Multicast {
    /// Carrier is up and the port advertises from now on.
    pub(super) fn started(now: Duration, last: Option<Duration>, profile: RaProfile) -> Self {
        let mut multicast = Multicast {
            due: now,
            last,
            initial_left: MAX_INITIAL_RTR_ADVERTISEMENTS,
            burst: (profile == RaProfile::Boot).then_some((now, 0)),
            solicited: None,
        };
        multicast.due = multicast.earliest(now, profile);
        multicast
    }

    pub(super) fn due(&self) -> Duration {
        self.due
    }

    pub(super) fn last(&self) -> Option<Duration> {
        self.last
    }

    pub(super) fn solicited(&self) -> Option<Duration> {
        self.solicited
    }

    /// Whether the next advertisement is one of the first after the port began, or its content changed.
    pub(super) fn is_initial(&self) -> bool {
        self.initial_left > 0
    }

    /// The soonest moment for a multicast advertisement.
    pub(super) fn earliest(&self, now: Duration, profile: RaProfile) -> Duration {
        let gap = match profile {
            RaProfile::Boot => BOOT_MIN_DELAY,
            RaProfile::Strict => MIN_DELAY_BETWEEN_RAS,
        };
        self.last.map_or(now, |last| now.max(last + gap))
    }

    /// The content changed: the rules of a port that begins to advertise apply (RFC 4861 section 6.2.4),
    /// without the burst, as the machine is there and listening.
    pub(super) fn changed(&mut self, now: Duration, profile: RaProfile) {
        self.initial_left = MAX_INITIAL_RTR_ADVERTISEMENTS;
        self.due = self.due.min(self.earliest(now, profile));
    }

    /// Answers a solicitation that arrived at `since` by the next advertisement, at `at` or sooner.
    pub(super) fn solicit(&mut self, since: Duration, at: Duration) {
        self.solicited = Some(self.solicited.unwrap_or(since));
        self.due = self.due.min(at);
    }

    /// RFC 4861 section 6.2.6: a random delay, and after a recent multicast the rest of
    /// MIN_DELAY_BETWEEN_RAS plus that delay.
    pub(super) fn strict_answer_time(&self, now: Duration, rng: &mut SplitMix64) -> Duration {
        let delay = rng.between(Duration::ZERO, MAX_RA_DELAY_TIME);
        let spaced = self.last.map_or(Duration::ZERO, |last| last + MIN_DELAY_BETWEEN_RAS + delay);
        spaced.max(now + delay)
    }

    /// The machine was heard after the first advertisement of the burst: the rest is not needed.
    pub(super) fn heard(&mut self, now: Duration, config: &RaConfig, rng: &mut SplitMix64) {
        if let (Some((start, _)), Some(last)) = (self.burst, self.last)
            && last >= start
        {
            self.burst = None;
            if self.solicited.is_none() {
                self.due = self.next_interval(last, config, rng).max(now);
            }
        }
    }

    /// An advertisement left for all nodes: every timer restarts from it (RFC 4861 section 6.2.4).
    pub(super) fn sent(&mut self, now: Duration, config: &RaConfig, rng: &mut SplitMix64) {
        self.last = Some(now);
        self.solicited = None;
        self.burst = self.burst.and_then(|(start, entry)| BURST.get(entry + 1).map(|_| (start, entry + 1)));
        if let Some((start, offset)) =
            self.burst.and_then(|(start, entry)| BURST.get(entry).map(|offset| (start, *offset)))
        {
            self.due = (start + offset).max(now + BOOT_MIN_DELAY);
            return;
        }
        self.initial_left = self.initial_left.saturating_sub(1);
        self.due = self.next_interval(now, config, rng);
    }

    /// The advertisement that was due did not leave: try again at `at`.
    pub(super) fn postpone(&mut self, at: Duration) {
        self.due = at;
    }

    fn next_interval(&self, last: Duration, config: &RaConfig, rng: &mut SplitMix64) -> Duration {
        let (mut min, mut max) = (config.min_rtr_adv_interval, config.max_rtr_adv_interval);
        let interval = rng.between(min, max);
        if self.initial_left > 0 {
            min = min.min(MAX_INITIAL_RTR_ADVERT_INTERVAL);
            max = max.min(MAX_INITIAL_RTR_ADVERT_INTERVAL);
        }
        let due = last + interval.min(max);
        let slot = slot(config);
        let down = floor(due, slot);
        // What would be too soon waits for the next slot: an advertisement leaves a moment after the slot
        // that it was due in, and one that is due by itself wakes the process for itself.
        let up = down + slot;
        match () {
            () if down >= last + min => down,
            () if up <= last + max => up,
            () => due,
        }
    }
}

fn slot(config: &RaConfig) -> Duration {
    let room = config.max_rtr_adv_interval.saturating_sub(config.min_rtr_adv_interval);
    if config.profile == RaProfile::Boot && room >= SLOT * 4 { SLOT } else { FINE_SLOT }
}

fn floor(time: Duration, slot: Duration) -> Duration {
    let millis = u64::try_from(time.as_millis() / slot.as_millis() * slot.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis)
}

//! How long each object has been waited for.
//!
//! When swss starts, every row that is there is taken by itself, one after the other. Only what is still not
//! there after its time is worth writing again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switch_agent_core::map::IntoMap;
use switch_agent_core::status::{ALL_ROWS, Waiting};
use tokio::time::Instant;

/// An object that waits for the same thing for so long is overdue.
const PATIENCE: Duration = Duration::from_secs(5);
/// More for each object that waits: swss works through them one by one.
const PATIENCE_PER_OBJECT: Duration = Duration::from_millis(100);

/// Since when objects wait for what they wait for.
#[derive(Debug, Default)]
pub(super) struct Waits {
    since: BTreeMap<(String, String), Instant>,
}

impl Waits {
    /// Takes over what the last plan waited for. While all rows wait, nothing else has begun to.
    pub(super) fn update(&mut self, waiting: &[Waiting], now: Instant) {
        if waiting.iter().any(|waiting| waiting.object == ALL_ROWS) {
            self.since.clear();
            return;
        }
        let mut before = std::mem::take(&mut self.since);
        self.since = waiting
            .iter()
            .map(|waiting| {
                let entry = (waiting.object.clone(), waiting.on.clone());
                let since = before.remove(&entry).unwrap_or(now);
                (entry, since)
            })
            .into_map();
    }

    fn patience(&self) -> Duration {
        let count = u32::try_from(self.since.len()).unwrap_or(u32::MAX);
        PATIENCE + PATIENCE_PER_OBJECT.saturating_mul(count)
    }

    /// Objects that have been waited for long enough.
    pub(super) fn overdue(&self, now: Instant) -> BTreeSet<String> {
        let patience = self.patience();
        let overdue = self.since.iter().filter(|(_, since)| **since + patience <= now);
        overdue.map(|((object, _), _)| object.clone()).collect()
    }

    /// When the next object becomes overdue.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let patience = self.patience();
        self.since.values().map(|since| *since + patience).filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(object: &str, on: &str) -> Waiting {
        Waiting { object: object.to_owned(), port: None, on: on.to_owned() }
    }

    fn after(milliseconds: u64, origin: Instant) -> Instant {
        origin + Duration::from_millis(milliseconds)
    }

    #[test]
    fn what_waits_for_the_same_thing_is_overdue_after_its_time() {
        let (mut waits, origin) = (Waits::default(), Instant::now());
        let vrf = waiting("VRF|VrfBoot-p1", "vrfmgrd: STATE_DB VRF_TABLE|VrfBoot-p1");
        waits.update(std::slice::from_ref(&vrf), origin);
        assert!(waits.overdue(after(5000, origin)).is_empty());
        assert_eq!(waits.next(origin), Some(after(5100, origin)));
        waits.update(std::slice::from_ref(&vrf), after(3000, origin));
        assert!(waits.overdue(after(5100, origin)).contains("VRF|VrfBoot-p1"));
        assert_eq!(waits.next(after(5100, origin)), None);
        // One step further is a new wait.
        waits.update(&[waiting("VRF|VrfBoot-p1", "orchagent")], after(5200, origin));
        assert!(waits.overdue(after(9000, origin)).is_empty());
        waits.update(&[], after(9000, origin));
        assert!(waits.overdue(after(99_000, origin)).is_empty());
    }

    #[test]
    fn many_objects_get_more_time() {
        let (mut waits, origin) = (Waits::default(), Instant::now());
        let ports: Vec<_> = (0..128).map(|port| waiting(&format!("INTERFACE|Ethernet{port}"), "x")).collect();
        waits.update(&ports, origin);
        assert!(waits.overdue(after(17_000, origin)).is_empty());
        assert_eq!(waits.overdue(after(18_000, origin)).len(), 128);
    }

    #[test]
    fn nothing_becomes_overdue_while_swss_is_not_there() {
        let (mut waits, origin) = (Waits::default(), Instant::now());
        let row = waiting("INTERFACE|Ethernet0", "x");
        waits.update(std::slice::from_ref(&row), origin);
        waits.update(&[waiting(ALL_ROWS, "swss"), row.clone()], after(60_000, origin));
        waits.update(&[row], after(61_000, origin));
        assert!(waits.overdue(after(62_000, origin)).is_empty());
    }
}

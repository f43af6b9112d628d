//! When an object may be acted upon again.
//!
//! A failed action backs off. A row that was written gets time to take effect before it is written again,
//! longer each time it has to be: a row that somebody else keeps taking away is yielded to by ever rarer
//! tries, never fought over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use switch_agent_core::map::IntoMap;

use tokio::time::Instant;

/// First wait after a failure, and the longest.
const FAILURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// First wait after a row was written, and the longest.
const SETTLE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// The same for rows of the leak: FRR has to be read again before anybody can tell.
const SETTLE_LEAK: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));
/// More for each row that is settling already: swss works through them one by one.
const SETTLE_PER_ROW: Duration = Duration::from_millis(100);
/// After this long without a write the count starts anew.
const FORGET: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Entry {
    until: Instant,
    times: u32,
    last: Instant,
    /// `None` while settling.
    failure: Option<String>,
}

impl Entry {
    fn settles_at(&self, now: Instant) -> bool {
        self.until > now && self.failure.is_none()
    }
}

/// Waits by object, as [`switch_agent_core::action::Action::object`] names them.
#[derive(Debug, Default)]
pub struct Pacing {
    entries: BTreeMap<String, Entry>,
}

/// Kinds whose effect shows only later, in other processes' tables.
fn settles(kind: &str) -> bool {
    matches!(
        kind,
        "create-vrf"
            | "repair-vrf"
            | "set-acl"
            | "set-leak-row"
            | "rewrite-leak-row"
            | "bind-interface"
            | "repair-binding"
            | "add-address"
            | "repair-address"
            | "add-unreachable-default"
            | "add-link-local"
            | "remove-link-local"
    )
}

/// Kinds that end an object's life: what follows is a new one.
fn ends(kind: &str) -> bool {
    matches!(
        kind,
        "delete-vrf"
            | "delete-acl"
            | "delete-leak-row"
            | "remove-unreachable-default"
            | "delete-interface"
            | "delete-address"
            | "close-service"
            | "cease-advertiser"
    )
}

impl Pacing {
    /// Notes an action that was carried out.
    pub fn done(&mut self, object: &str, kind: &str, now: Instant) {
        if matches!(kind, "set-acl" | "delete-acl") {
            // Their objects are rows with what they say: what one said before it changed waits for nothing.
            let row = |object: &str| object.split(' ').next().map(str::to_owned);
            let (this, changed) = (row(object), object.to_owned());
            self.entries.retain(|other, _| *other == changed || row(other) != this);
        }
        if ends(kind) {
            self.entries.remove(object);
        } else if kind == "renew-leak-row" {
            self.renewed(object, now);
        } else if settles(kind) {
            let settling = self.entries.iter().filter(|(_, entry)| entry.settles_at(now));
            let ahead = settling.filter(|(other, _)| *other != object).count();
            let queue = SETTLE_PER_ROW.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
            let settle =
                if matches!(kind, "set-leak-row" | "rewrite-leak-row") { SETTLE_LEAK } else { SETTLE };
            self.wait(object, (settle.0 + queue, settle.1), None, now);
        } else if self.entries.get(object).is_some_and(|entry| entry.failure.is_some()) {
            self.entries.remove(object);
        }
    }

    /// Notes an action that failed.
    pub fn failed(&mut self, object: &str, reason: String, now: Instant) {
        self.wait(object, FAILURE, Some(reason), now);
    }

    /// A row that was taken away for a moment, so that its daemon looks at it again, comes back soon: only
    /// what was written has to settle, and only that counts.
    fn renewed(&mut self, object: &str, now: Instant) {
        let times = self.entries.get(object).map_or(0, |entry| entry.times);
        let entry = Entry { until: now + SETTLE.0, times, last: now, failure: None };
        self.entries.insert(object.to_owned(), entry);
    }

    fn wait(&mut self, object: &str, range: (Duration, Duration), failure: Option<String>, now: Instant) {
        let times = match self.entries.get(object) {
            Some(entry) if entry.failure.is_some() == failure.is_some() => entry.times.saturating_add(1),
            _ => 0,
        };
        let wait = range.0.saturating_mul(1 << times.min(10)).min(range.1);
        let entry = Entry { until: now + wait, times, last: now, failure };
        self.entries.insert(object.to_owned(), entry);
    }

    /// Objects that wait because an action failed, with the reason.
    pub fn backing_off(&self, now: Instant) -> BTreeMap<String, String> {
        let waits = self.entries.iter().filter(|(_, entry)| entry.until > now);
        waits.filter_map(|(object, entry)| Some((object.clone(), entry.failure.clone()?))).into_map()
    }

    /// Objects that wait for an earlier write to take effect.
    pub fn cooling(&self, now: Instant) -> BTreeSet<String> {
        let settling = self.entries.iter().filter(|(_, entry)| entry.settles_at(now));
        settling.map(|(object, _)| object.clone()).collect()
    }

    /// When the next object is free again. `settling`: rows that settle count as well; where nothing waits
    /// for them, nobody needs to know. Forgets what is long past.
    pub fn next(&mut self, now: Instant, settling: bool) -> Option<Instant> {
        self.entries.retain(|_, entry| entry.last + FORGET > now);
        let waited_for =
            self.entries.values().filter(|entry| entry.until > now && (settling || entry.failure.is_some()));
        waited_for.map(|entry| entry.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, origin: Instant) -> Instant {
        origin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_row_that_keeps_vanishing_is_rewritten_ever_more_rarely() {
        let (mut pacing, origin) = (Pacing::default(), Instant::now());
        pacing.done("INTERFACE|Ethernet0", "bind-interface", origin);
        assert!(pacing.cooling(at(4, origin)).contains("INTERFACE|Ethernet0"));
        assert!(pacing.cooling(at(6, origin)).is_empty());
        pacing.done("INTERFACE|Ethernet0", "bind-interface", at(6, origin));
        assert!(pacing.cooling(at(15, origin)).contains("INTERFACE|Ethernet0"));
        assert_eq!(pacing.next(at(7, origin), true), Some(at(16, origin)));
        assert_eq!(pacing.next(at(7, origin), false), None);
    }

    /// FRR has to be read again before anybody can tell.
    #[test]
    fn rows_of_the_leak_get_more_time() {
        for kind in ["set-leak-row", "rewrite-leak-row"] {
            let (mut pacing, origin) = (Pacing::default(), Instant::now());
            pacing.done("STATIC_ROUTE|default|2001:db8::/64", kind, origin);
            assert_eq!(pacing.cooling(at(9, origin)).len(), 1, "{kind}");
            assert!(pacing.cooling(at(11, origin)).is_empty(), "{kind}");
        }
    }

    #[test]
    fn the_last_of_many_rows_gets_more_time_than_the_first() {
        let (mut pacing, origin) = (Pacing::default(), Instant::now());
        for port in 0..128 {
            pacing.done(&format!("INTERFACE|Ethernet{port}"), "bind-interface", origin);
        }
        let cooling = pacing.cooling(at(10, origin));
        assert!(!cooling.contains("INTERFACE|Ethernet0") && cooling.contains("INTERFACE|Ethernet127"));
        assert!(pacing.cooling(at(18, origin)).is_empty());
    }

    #[test]
    fn a_release_starts_a_new_life() {
        let (mut pacing, origin) = (Pacing::default(), Instant::now());
        pacing.done("INTERFACE|Ethernet0", "bind-interface", origin);
        pacing.done("INTERFACE|Ethernet0", "delete-interface", at(1, origin));
        assert!(pacing.cooling(at(1, origin)).is_empty());
    }

    #[test]
    fn an_acl_row_that_changes_back_is_written_at_once_and_one_that_is_taken_away_is_not() {
        let (mut pacing, origin) = (Pacing::default(), Instant::now());
        pacing.done("ACL_TABLE|BOOTNET_IPV4 0000000a", "set-acl", origin);
        pacing.done("ACL_TABLE|BOOTNET_IPV4 0000000a", "set-acl", at(6, origin));
        pacing.done("ACL_TABLE|OTHER 0000000c", "set-acl", at(6, origin));
        assert!(pacing.cooling(at(7, origin)).contains("ACL_TABLE|BOOTNET_IPV4 0000000a"));
        pacing.done("ACL_TABLE|BOOTNET_IPV4 0000000b", "set-acl", at(7, origin));
        let cooling = pacing.cooling(at(7, origin));
        let left: Vec<&str> = cooling.iter().map(String::as_str).collect();
        assert_eq!(left, ["ACL_TABLE|BOOTNET_IPV4 0000000b", "ACL_TABLE|OTHER 0000000c"]);
        pacing.done("ACL_TABLE|BOOTNET_IPV4", "delete-acl", at(7, origin));
        assert_eq!(pacing.cooling(at(7, origin)).len(), 1);
    }

    #[test]
    fn a_leak_row_that_frr_lost_comes_back_within_seconds_and_ever_more_rarely() {
        let (mut pacing, origin) = (Pacing::default(), Instant::now());
        let (row, mut now) = ("STATIC_ROUTE|VrfBoot-p1|::/0 0000000a", origin);
        let mut free_after = |kind: &str| {
            pacing.done(row, kind, now);
            let free = pacing.next(now, true).unwrap();
            let wait = free - now;
            now = free;
            wait.as_secs()
        };
        let waits: Vec<u64> =
            (0..6).flat_map(|_| ["set-leak-row", "renew-leak-row"]).map(&mut free_after).collect();
        assert_eq!(waits, [10, 5, 20, 5, 40, 5, 80, 5, 120, 5, 120, 5]);
    }

    #[test]
    fn failures_back_off_and_are_forgotten_by_success() {
        let (mut pacing, origin) = (Pacing::default(), Instant::now());
        pacing.failed("listener Ethernet0", "no such device".to_owned(), origin);
        assert_eq!(pacing.backing_off(origin).len(), 1);
        assert_eq!(pacing.next(origin, false), Some(at(1, origin)));
        assert!(pacing.backing_off(at(2, origin)).is_empty());
        pacing.failed("listener Ethernet0", "no such device".to_owned(), at(2, origin));
        assert_eq!(pacing.backing_off(at(3, origin)).len(), 1);
        pacing.done("listener Ethernet0", "set-service", at(3, origin));
        assert!(pacing.backing_off(at(3, origin)).is_empty());
    }
}

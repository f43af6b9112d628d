//! Drives FRR off the reconciler's path: one read or one apply at a time.
//!
//! A vtysh call takes tens of milliseconds on a switch and seconds on a loaded one, so passes work on the
//! last reading. While an apply or a read runs, FRR counts as busy and no further delta is handed out; when
//! it is done, the reconciler is woken and looks at what FRR then shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::Ipv6Net;
use switch_agent_core::frr::{FrrDelta, FrrObserved};
use switch_agent_core::name::VrfName;
use switch_agent_core::observed::Source;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::backend::frr::Vtysh;
use crate::backend::kernel::RouteEvent;
use crate::observer::chain;
use crate::wake::{Reason, Waker};
use repairs::{Cause, Repairs, backoff};

mod repairs;

/// Reading back while everything is as wanted: catches drift that netlink does not show.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// Reading back while FRR does not answer, or the leak is not there yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Two readings are never closer than this, however many triggers there are.
const SPACING: Duration = Duration::from_millis(500);
/// After news of somebody else's change, reading waits until there were none for so long ...
const QUIET: Duration = Duration::from_secs(1);
/// ... but no longer than this.
const QUIET_MAX: Duration = Duration::from_secs(5);
/// Failures of an apply back off from and to.
const FAILURE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// The same while somebody else is configuring, which takes them a moment.
const OCCUPIED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));

/// What to read back: boot VRFs with their leak VRF, and the /64s that should be exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    pub vrfs: BTreeMap<VrfName, String>,
    pub exported: Vec<Ipv6Net>,
}

#[derive(Debug, Default)]
struct State {
    observed: Option<Source<FrrObserved>>,
    interest: Interest,
    tables: BTreeSet<u32>,
    pending: Option<FrrDelta>,
    busy: bool,
    /// A pass was told that FRR is busy: it wants to know when that ends.
    awaited: bool,
    stale: bool,
    settled: bool,
    /// How many readings in a row showed the same.
    unchanged: u32,
    failure: Option<String>,
    failures: u32,
    repairs: Repairs,
    not_before: Option<Instant>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// FRR changes by somebody else's hand.
    news: Notify,
}

/// The reconciler's handle.
#[derive(Debug, Clone, Default)]
pub struct Leak(Arc<Shared>);

impl Leak {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last reading.
    pub fn observed(&self) -> Source<FrrObserved> {
        let unread = || Source::Unknown("FRR has not been read yet".to_owned());
        self.with(|state| state.observed.clone()).unwrap_or_else(unread)
    }

    /// A read or an apply is running or due; another delta would be computed from an old reading.
    pub fn busy(&self) -> bool {
        self.with(|state| {
            let busy = state.busy || state.pending.is_some() || state.stale;
            state.awaited |= busy;
            busy
        })
    }

    /// Why the last apply failed, while it backs off.
    pub fn backing_off(&self) -> Option<String> {
        let now = Instant::now();
        self.with(|state| {
            let waits = state.not_before.is_some_and(|until| until > now);
            state.failure.clone().filter(|_| waits)
        })
    }

    /// Sets what to read back; a change makes the last reading stale.
    pub fn set_interest(&self, interest: Interest) {
        let changed = self.with(|state| {
            let changed = state.interest != interest;
            if changed {
                state.interest = interest;
                state.stale = true;
            }
            changed
        });
        if changed {
            self.0.changed.notify_one();
        }
    }

    /// Routing tables of the boot VRFs, whose routes tell of drift.
    pub fn set_tables(&self, tables: BTreeSet<u32>) {
        self.with(|state| state.tables = tables);
    }

    /// Tells whether the leak is as wanted: then reading back may take its time.
    pub fn set_settled(&self, settled: bool) {
        let was = self.with(|state| std::mem::replace(&mut state.settled, settled));
        if was && !settled {
            // The task waits as long as it does for a settled leak.
            self.0.changed.notify_one();
        }
    }

    /// A route changed in the kernel (`None`: some did): if it may be of the leak, FRR is read again.
    pub fn route_changed(&self, event: Option<RouteEvent>) {
        let concerned = self.with(|state| {
            event.is_none_or(|event| {
                state.tables.contains(&event.table) || state.interest.exported.contains(&event.destination)
            })
        });
        if concerned {
            self.0.news.notify_one();
        }
    }

    /// FRR is about to change, by rows of CONFIG_DB: it is read when that has come to rest.
    pub fn look(&self) {
        self.0.news.notify_one();
    }

    /// Hands a delta over. The caller made sure that FRR is not busy.
    pub fn apply(&self, delta: FrrDelta) {
        self.with(|state| state.pending = Some(delta));
        self.0.changed.notify_one();
    }

    /// The task.
    pub async fn run(self, vtysh: Vtysh, waker: Waker, stop: CancellationToken) {
        loop {
            let started = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.work(&vtysh, &waker) => {}
            }
            let interval = self.with(|state| match (state.settled, &state.observed) {
                (true, _) => REFRESH_INTERVAL,
                // What is missing may be the fabric's to bring, and its routes come with an event.
                (false, Some(Source::Known(_))) => {
                    RETRY_INTERVAL.saturating_mul(1 << state.unchanged.min(4)).min(REFRESH_INTERVAL)
                }
                (false, _) => RETRY_INTERVAL,
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.changed.notified() => sleep_until(started + SPACING).await,
                () = self.0.news.notified() => self.quiet().await,
                () = sleep_until(started + interval) => {}
            }
        }
    }

    /// Waits until FRR's change has come to rest, or something is to be done. Before FRR 10.4 the end of a
    /// vtysh that only reads takes lines away from one that configures.
    async fn quiet(&self) {
        let limit = Instant::now() + QUIET_MAX;
        loop {
            tokio::select! {
                () = self.0.changed.notified() => return,
                () = self.0.news.notified() => {}
                () = sleep_until(limit.min(Instant::now() + QUIET)) => return,
            }
            if Instant::now() >= limit {
                return;
            }
        }
    }

    /// Applies what is pending, then reads, and wakes the reconciler unless that has seen it all.
    async fn work(&self, vtysh: &Vtysh, waker: &Waker) {
        let (delta, interest) = self.with(|state| {
            state.busy = true;
            state.stale = false;
            (state.pending.take(), state.interest.clone())
        });
        let applied = delta.is_some();
        if let Some(delta) = delta {
            let lines = delta.commands.len();
            let result = vtysh.apply(&delta).await;
            self.with(|state| match result {
                Ok(()) => {
                    info!(lines, "FRR configured");
                    (state.failure, state.failures, state.not_before) = (None, 0, None);
                    let now = Instant::now();
                    let cause = state.repairs.applied(delta, now);
                    if let Some(reason) = cause.reason() {
                        match cause {
                            Cause::Lost { .. } => info!(lines, reason, "FRR configured again"),
                            _ => warn!(lines, reason, "FRR configuration repaired repeatedly"),
                        }
                        state.failure = Some(reason);
                        state.not_before = cause.pause().map(|pause| now + pause);
                    }
                }
                Err(failure) => {
                    let reason = chain(&failure);
                    info!(lines, reason, "FRR not configured; will be tried again");
                    let range = if failure.passes() { OCCUPIED } else { FAILURE };
                    let wait = backoff(range, state.failures);
                    state.failures = state.failures.saturating_add(1);
                    state.failure = Some(reason);
                    state.not_before = Some(Instant::now() + wait);
                }
            });
        }
        let observed = match vtysh.observe(&interest.vrfs, &interest.exported).await {
            Ok(observed) => Source::Known(observed),
            Err(failure) => Source::Unknown(chain(&failure)),
        };
        let news = self.with(|state| {
            state.busy = false;
            match &observed {
                Source::Known(frr) if frr.managed => state.repairs.read(&frr.running_config),
                Source::Known(_) => {}
                Source::Unknown(_) => state.repairs.unreadable(),
            }
            let observed = Some(observed);
            state.unchanged = if state.observed == observed { state.unchanged.saturating_add(1) } else { 0 };
            state.observed = observed;
            let awaited = std::mem::take(&mut state.awaited);
            applied || awaited || state.unchanged == 0 || !state.settled
        });
        if news {
            waker.wake(Reason::Frr);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reading_waits_until_the_news_end_but_not_for_ever() {
        let (leak, begin) = (Leak::default(), Instant::now());
        leak.quiet().await;
        assert_eq!(begin.elapsed(), QUIET);
        let begin = Instant::now();
        let rush = async {
            loop {
                leak.look();
                tokio::time::sleep(QUIET / 2).await;
            }
        };
        tokio::select! {
            () = leak.quiet() => {}
            () = rush => {}
        }
        assert_eq!(begin.elapsed(), QUIET_MAX);
        let begin = Instant::now();
        leak.apply(FrrDelta::default());
        leak.quiet().await;
        assert_eq!(begin.elapsed(), Duration::ZERO, "something is to be done");
    }

    #[tokio::test]
    async fn only_routes_of_the_leak_ask_for_a_reading() {
        let leak = Leak::default();
        let exported = vec!["2001:db8:1:101::/64".parse().unwrap()];
        leak.set_interest(Interest { exported, ..Interest::default() });
        leak.set_tables(BTreeSet::from([1001]));
        leak.0.changed.notified().await;
        let asks = async |table: u32, destination: &str| {
            leak.route_changed(Some(RouteEvent { table, destination: destination.parse().unwrap() }));
            tokio::time::timeout(Duration::from_millis(10), leak.0.news.notified()).await.is_ok()
        };
        assert!(asks(1001, "2001:db8:a91::/64").await, "imported");
        assert!(asks(254, "2001:db8:1:101::/64").await, "exported");
        assert!(!asks(254, "2001:db8:f::1/128").await, "the fabric's");
        assert!(!asks(1002, "::/0").await, "another VRF's");
    }
}

//! Drives FRR off the reconciler's path: one read or one apply at a time.
//!
//! A vtysh call takes tens of milliseconds on a switch and seconds on a loaded one, so passes work on the
//! last reading. While an apply or a read runs, FRR counts as busy and no further delta is handed out; when
//! it is done, the reconciler is woken and looks at what FRR then shows.

use std::collections::BTreeMap;
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
use crate::observer::chain;
use crate::wake::{Reason, Waker};

/// Reading back while everything is as wanted: catches drift that netlink does not show.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// Reading back while FRR does not answer, or the leak is not there yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Two readings are never closer than this, however many triggers there are.
const SPACING: Duration = Duration::from_millis(500);
/// Failures of an apply back off from and to.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));

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
    pending: Option<FrrDelta>,
    busy: bool,
    stale: bool,
    settled: bool,
    failure: Option<String>,
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
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
        self.with(|state| state.busy || state.pending.is_some() || state.stale)
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

    /// Tells whether the leak is as wanted: then reading back may take its time.
    pub fn set_settled(&self, settled: bool) {
        self.with(|state| state.settled = settled);
    }

    /// Asks for a new reading: the kernel's routes changed.
    pub fn refresh(&self) {
        self.0.changed.notify_one();
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
            let interval = match self.with(|state| state.settled) {
                true => REFRESH_INTERVAL,
                false => RETRY_INTERVAL,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.changed.notified() => sleep_until(started + SPACING).await,
                () = sleep_until(started + interval) => {}
            }
        }
    }

    /// Applies what is pending, then reads.
    async fn work(&self, vtysh: &Vtysh, waker: &Waker) {
        let (delta, interest) = self.with(|state| {
            state.busy = true;
            state.stale = false;
            (state.pending.take(), state.interest.clone())
        });
        if let Some(delta) = delta {
            let lines = delta.commands.len();
            let result = vtysh.apply(&delta).await;
            self.with(|state| match &result {
                Ok(()) => {
                    info!(lines, "FRR configured");
                    (state.failure, state.failures, state.not_before) = (None, 0, None);
                }
                Err(failure) => {
                    let reason = chain(failure);
                    warn!(lines, reason, "FRR not configured; will be tried again");
                    let wait = BACKOFF.0.saturating_mul(1 << state.failures.min(6)).min(BACKOFF.1);
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
        self.with(|state| {
            state.busy = false;
            state.observed = Some(observed);
        });
        waker.wake(Reason::Frr);
    }
}

//! Wake-ups of the reconciler: a set of reasons, never a payload. A pass re-reads everything it needs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Why a pass runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Startup,
    ConfigDb,
    StateDb,
    Kernel,
    Frr,
    /// A listener, advertiser or the upstream client changed by itself.
    Service,
    /// The last pass did something; look again.
    Acted,
    Periodic,
    Operator,
}

#[derive(Debug, Default)]
struct Shared {
    notify: Notify,
    reasons: Mutex<BTreeSet<Reason>>,
}

/// Wakes the reconciler. Cheap to clone; waking twice before a pass runs is one pass.
#[derive(Debug, Clone, Default)]
pub struct Waker(Arc<Shared>);

impl Waker {
    pub fn wake(&self, reason: Reason) {
        self.0.reasons.lock().unwrap_or_else(PoisonError::into_inner).insert(reason);
        self.0.notify.notify_one();
    }

    /// Waits for a wake-up and takes its reasons. For the reconciler alone.
    pub async fn woken(&self) -> BTreeSet<Reason> {
        loop {
            let reasons = self.take();
            if !reasons.is_empty() {
                return reasons;
            }
            self.0.notify.notified().await;
        }
    }

    /// Takes the reasons that have gathered, without waiting.
    pub fn take(&self) -> BTreeSet<Reason> {
        std::mem::take(&mut *self.0.reasons.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

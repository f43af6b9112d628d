//! A switch at rest: glances in the place of passes.

use std::time::Duration;

use switch_agent_core::status::Status;
use tokio::time::Instant;
use tracing::debug;

use super::{Reconciler, State, publish, unix_s};
use crate::observer::{Glance, chain};

/// A pass all the same, for what neither events nor a glance tell.
const RESYNC: Duration = Duration::from_secs(300);

/// Nothing was to be done: glances that are equal to this one do for passes, for a while.
#[derive(Debug)]
pub(super) struct Rest {
    glance: Glance,
    until: Instant,
}

impl Rest {
    /// `glance` goes with the pass that found nothing to do.
    pub(super) fn new(glance: Glance, now: Instant) -> Rest {
        Rest { glance, until: now + RESYNC }
    }

    /// Whether glances do at all by now.
    fn lasts(&self, now: Instant) -> bool {
        now < self.until
    }
}

impl Reconciler {
    /// Whether a pass would find what the last one found, which was nothing to do. What machines did meanwhile is
    /// published all the same.
    pub(super) async fn rests(&mut self, state: &State) -> bool {
        let Some(rest) = state.rest.as_ref().filter(|rest| rest.lasts(Instant::now())) else { return false };
        if self.observer.glance().await != Some(rest.glance) || !self.status_rows.intact().await {
            return false;
        }
        debug!("nothing changed");
        self.metrics.reconcile.config_current();
        let snapshot = self.snapshot.borrow().clone();
        self.publish_rows(state, &snapshot.status).await;
        true
    }

    /// Our tables of STATE_DB.
    pub(super) async fn publish_rows(&mut self, state: &State, status: &Status) {
        let mode = self.metrics.advertise.mode();
        let rows =
            publish::status_rows(status, &state.since, &self.hub, state.generation, mode.as_str(), unix_s());
        if let Err(failure) = self.status_rows.publish(rows).await {
            debug!(reason = chain(&failure), "status not written to STATE_DB");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_comes_all_the_same() {
        let now = Instant::now();
        let rest = Rest::new(Glance::default(), now);
        assert!(rest.lasts(now) && rest.lasts(now + RESYNC - Duration::from_millis(1)));
        assert!(!rest.lasts(now + RESYNC));
    }
}

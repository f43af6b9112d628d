//! Keeps the kernel's drop rule equal to the ports that advertise.
//!
//! The rule outlives the process: what it covered at the start stays covered until the ports have come back,
//! or [`ADOPTION`] has passed. Somebody else's flush is noticed by netfilter's own messages, and by reading
//! the rule every [`CHECK_INTERVAL`].

use std::collections::BTreeSet;
use std::time::Duration;

use switch_agent_core::name::PortName;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backend::nftables::{self, Changes, NftError};
use crate::backend::packet::SocketMode;
use crate::metrics::Metrics;
use crate::metrics::advertise::NdMode;
use crate::observer::chain;

/// Ports come and go in batches, and others flush rules in several steps.
const SETTLE: Duration = Duration::from_millis(100);
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Checks after changes in nf_tables are this far apart: containers make such changes all the time.
const CHANGE_SPACING: Duration = Duration::from_secs(1);
/// How long ports of the former process stay covered that this one does not advertise on.
const ADOPTION: Duration = Duration::from_secs(120);

/// Whether the kernel drops the solicitations of advertising ports after the packet socket has seen them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DropRule {
    /// There is no port to cover.
    Idle,
    Active,
    /// The kernel refuses, or the raw socket is in use, which would not hear them either.
    Unavailable(String),
}

/// Runs until `cancel`, which leaves the rule as it is.
pub(super) async fn run(
    mut ports: watch::Receiver<BTreeSet<PortName>>,
    metrics: Metrics,
    cancel: CancellationToken,
) {
    let mut keeper = Keeper { retained: None, retained_until: Instant::now() + ADOPTION };
    let mut changes = None;
    loop {
        if changes.is_none() {
            changes = Changes::subscribe().ok();
        }
        let wanted = ports.borrow_and_update().iter().map(ToString::to_string).collect();
        let now = keeper.settle(wanted).await;
        show(&metrics, SocketMode::Packet, now);
        let checked = Instant::now();
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = ports.changed() => {
                if changed.is_err() {
                    return;
                }
                sleep(SETTLE).await;
            }
            () = changed(changes.as_ref()) => {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = sleep_until((checked + CHANGE_SPACING).max(Instant::now() + SETTLE)) => {}
                }
                // What was said meanwhile is covered by the check that follows.
                changes = None;
            }
            () = sleep(CHECK_INTERVAL) => {}
        }
    }
}

/// Waits for a change, or for the end of the subscription.
async fn changed(changes: Option<&Changes>) {
    match changes {
        Some(changes) => changes.changed().await,
        None => std::future::pending().await,
    }
}

fn show(metrics: &Metrics, socket: SocketMode, rule: DropRule) {
    let (drop_rule, detail) = match rule {
        DropRule::Idle => ("idle", None),
        DropRule::Active => ("active", None),
        DropRule::Unavailable(reason) => ("unavailable", Some(reason)),
    };
    let now = NdMode { socket: socket.as_str(), drop_rule, detail };
    if metrics.advertise.mode() != now {
        tracing::info!(socket = now.socket, drop_rule, reason = now.detail, "router discovery");
        metrics.advertise.set_mode(now);
    }
}

struct Keeper {
    /// What the rule covered when the process started; `None` until it was read.
    retained: Option<BTreeSet<String>>,
    retained_until: Instant,
}

impl Keeper {
    /// Makes the rule cover what is wanted.
    async fn settle(&mut self, wanted: BTreeSet<String>) -> DropRule {
        match self.try_settle(wanted).await {
            Ok(state) => state,
            Err(error) => DropRule::Unavailable(chain(&error)),
        }
    }

    async fn try_settle(&mut self, mut wanted: BTreeSet<String>) -> Result<DropRule, NftError> {
        let covered = nftables::read().await?;
        let retained = self.retained.get_or_insert_with(|| covered.clone().unwrap_or_default());
        // A port that came back is like any other from now on.
        retained.retain(|port| !wanted.contains(port));
        if Instant::now() >= self.retained_until {
            retained.clear();
        }
        wanted.extend(retained.iter().cloned());
        match covered {
            None if wanted.is_empty() => Ok(DropRule::Idle),
            Some(_) if wanted.is_empty() => nftables::remove().await.map(|()| DropRule::Idle),
            Some(covered) if covered == wanted => Ok(DropRule::Active),
            _ => nftables::replace(&wanted).await.map(|()| DropRule::Active),
        }
    }
}

/// Takes the rule away: a raw socket would not hear what it drops.
pub(super) async fn withdraw(metrics: &Metrics) {
    match nftables::remove().await {
        Ok(()) | Err(NftError::NotPermitted | NftError::NotSupported) => {}
        Err(error) => tracing::warn!(error = chain(&error), "a drop rule may be left over"),
    }
    let reason = "a raw socket hears only what the kernel hears".to_owned();
    show(metrics, SocketMode::Raw, DropRule::Unavailable(reason));
}

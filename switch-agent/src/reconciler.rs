//! The only loop: wait, observe, plan, execute, publish.
//!
//! An event only wakes it; a pass re-reads everything it needs and ends in one status value. Passes are at
//! least [`PASS_SPACING`] apart, so that a burst of keyspace events is one pass. A flushed database emits no
//! events at all, so the databases are looked at each [`PERIODIC`]: by a pass while anything is to be done, by a
//! glance while nothing is ([`rest`]).

mod decisions;
mod inspect;
mod pacing;
mod publish;
mod redistribution;
mod rest;
mod waits;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switch_agent_core::action::Action;
use switch_agent_core::desired::{Desired, LeakMethod};
use switch_agent_core::frr::Templates;
use switch_agent_core::map::IntoMap;
use switch_agent_core::name::PortName;
use switch_agent_core::observed::{Observed, Source};
use switch_agent_core::ownership::Ledger;
use switch_agent_core::plan::{Plan, plan};
use switch_agent_core::row::ConfigDb;
use switch_agent_core::status::{LeakStatus, Status, Verdict};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::backend::frr::write_drop_in;
use crate::backend::memory;
use crate::backend::state_db::{FeatureWriter, Readiness, StatusWriter};
use crate::executor::{Executor, Outcome};
use crate::http::admin::{PassInfo, Snapshot};
use crate::hub::Hub;
use crate::leak::Interest;
use crate::logging::Logging;
use crate::metrics::Metrics;
use crate::metrics::reconcile::ActionOutcome;
use crate::observer::{Glance, Memory, Observer, chain};
use crate::wake::{Reason, Waker};
pub use decisions::{DECISIONS_MAX, Decision, DecisionLog};
pub use inspect::{InspectError, Inspections, Inspector, inspection};
pub use pacing::Pacing;
pub use publish::plan_json;
use redistribution::Redistribution;
use rest::Rest;
use waits::Waits;

const PASS_SPACING: Duration = Duration::from_millis(50);
const PERIODIC: Duration = Duration::from_secs(30);
/// While a source cannot be read there is nothing to wake the loop when it can be.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);
/// After a bring-up hundreds of objects become free one after the other; one pass looks at many of them.
const FREE_SPACING: Duration = Duration::from_secs(1);

/// Everything the loop drives.
pub struct Reconciler {
    pub observer: Observer,
    pub executor: Executor,
    pub status_rows: StatusWriter,
    pub feature: FeatureWriter,
    pub waker: Waker,
    pub hub: Hub,
    pub metrics: Metrics,
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    /// Ports of the switch, for parts that read by port (LLDP).
    pub ports: watch::Sender<BTreeSet<PortName>>,
    pub templates: Templates,
    pub decisions: DecisionLog,
    pub inspections: Inspections,
    pub logging: Logging,
}

/// What the loop remembers from pass to pass; everything else is read anew.
#[derive(Debug)]
struct State {
    ledger: Ledger,
    pacing: Pacing,
    waits: Waits,
    redistribution: Redistribution,
    desired: Desired,
    generation: u64,
    /// Digest of the rows that `desired` is of, keyed by chance: the rows themselves are megabytes.
    config: Option<u64>,
    digests: RandomState,
    logged: publish::Logged,
    since: publish::Since,
    /// There was a pass that found everything as wanted.
    converged_once: bool,
    rest: Option<Rest>,
}

/// How a pass ended.
struct Passed {
    /// Traces of what it was made of.
    glance: Option<Glance>,
    /// Something was done that the next pass should look at.
    acted: bool,
    /// A source was unreadable.
    degraded: bool,
    /// Something is not as it should be yet.
    waiting: bool,
}

impl Reconciler {
    /// Runs until cancelled; a pass that is under way is finished.
    pub async fn run(mut self, ledger: Ledger, stop: CancellationToken) {
        let mut state = State {
            ledger,
            pacing: Pacing::default(),
            waits: Waits::default(),
            redistribution: Redistribution::default(),
            desired: Desired::from_config(&ConfigDb::default()),
            generation: 0,
            config: None,
            digests: RandomState::new(),
            logged: publish::Logged::default(),
            since: publish::Since::default(),
            converged_once: false,
            rest: None,
        };
        self.waker.wake(Reason::Startup);
        let mut wait_until = Instant::now();
        loop {
            let reasons = tokio::select! {
                () = stop.cancelled() => return,
                reasons = self.waker.woken() => reasons,
                () = sleep_until(wait_until) => BTreeSet::new(),
            };
            if reasons.is_empty() && self.rests(&state).await {
                // The rows of all ports were made to be compared.
                memory::release();
                wait_until = Instant::now() + PERIODIC;
                continue;
            }
            let started = Instant::now();
            let passed = self.pass(&mut state, reasons, started).await;
            let now = Instant::now();
            let pause = if passed.degraded { RETRY_UNKNOWN } else { PERIODIC };
            let free = [
                state.pacing.next(now, passed.waiting),
                state.waits.next(now),
                state.redistribution.next(now).filter(|_| passed.waiting),
            ];
            let free = free.into_iter().flatten().min();
            let free = free.map(|free| free.max(now + FREE_SPACING));
            let idle = free.is_none() && !passed.acted && !passed.degraded && !passed.waiting;
            state.rest = passed.glance.filter(|_| idle).map(|glance| Rest::new(glance, now));
            wait_until = free.unwrap_or(now + pause).min(now + pause);
            if passed.acted {
                self.waker.wake(Reason::Acted);
            } else {
                memory::release();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PASS_SPACING) => {}
            }
        }
    }

    /// One pass. Without a reason it is a periodic one.
    async fn pass(&mut self, state: &mut State, mut reasons: BTreeSet<Reason>, started: Instant) -> Passed {
        reasons.extend(self.waker.take());
        if reasons.is_empty() {
            reasons.insert(Reason::Periodic);
        }
        let memory = Memory {
            ledger: state.ledger.clone(),
            backing_off: self.backing_off(state, started),
            cooling: self.cooling(state, started),
            overdue: state.waits.overdue(started),
        };
        let (mut observed, glance) = self.observer.observe(memory).await;
        if let Source::Known(config) = &observed.config {
            state.redistribution.update(config, started);
            observed.cooling.extend(state.redistribution.cooling(started));
            state.adopt(config);
            self.logging.follow(&state.desired.logger);
            self.publish_ports(config);
        }
        if let Source::Known(kernel) = &observed.kernel {
            self.hub.set_own_macs(kernel.links.values().filter_map(|link| link.mac).collect());
            let boot_vrfs = state.desired.partitions.values().map(|partition| partition.vrf.as_str());
            let tables = boot_vrfs.filter_map(|vrf| kernel.links.get(vrf)?.vrf_table);
            self.observer.leak.set_tables(tables.collect());
        }
        self.observer.leak.set_interest(interest(&state.desired));
        let Plan { actions, status } = plan(&state.desired, &observed);
        self.inspections.answer(&state.desired, &observed);
        self.render(state, &observed, &status).await;
        let featured = observed.config.known().is_some_and(|config| self.feature.is_wanted(config));
        // Megabytes of small strings: what is made from here on, and stays, is not to lie between them.
        drop(observed);
        let (outcomes, recorded) = self.executor.execute(&actions).await;
        if let Some(ledger) = recorded {
            state.ledger = ledger;
        }
        let now = Instant::now();
        for outcome in &outcomes {
            self.note(state, outcome, now);
        }
        state.waits.update(&status.waiting, now);
        self.observer.leak.set_settled(leaks_settled(&status));
        self.forget_released(&actions);
        let passed = Passed {
            glance,
            acted: outcomes.iter().any(|outcome| outcome.result.is_ok()),
            degraded: status.verdict == Verdict::Degraded,
            waiting: !status.waiting.is_empty(),
        };
        debug!(?reasons, actions = actions.len(), verdict = ?status.verdict, "pass");
        state.converged_once |= status.verdict == Verdict::Converged;
        if featured {
            self.publish_readiness(publish::readiness(state.converged_once, &status)).await;
        }
        self.publish(state, actions, status, reasons, started).await;
        passed
    }

    fn backing_off(&self, state: &State, now: Instant) -> std::collections::BTreeMap<String, String> {
        let mut backing_off = state.pacing.backing_off(now);
        if let Some(reason) = self.observer.leak.backing_off() {
            backing_off.insert("FRR".to_owned(), reason);
        }
        backing_off
    }

    fn cooling(&self, state: &State, now: Instant) -> BTreeSet<String> {
        let mut cooling = state.pacing.cooling(now);
        if self.observer.leak.busy() {
            cooling.insert("FRR".to_owned());
        }
        cooling
    }

    fn note(&self, state: &mut State, outcome: &Outcome, now: Instant) {
        let Outcome { object, kind, result } = outcome;
        let counted = if result.is_ok() { ActionOutcome::Ok } else { ActionOutcome::Failed };
        self.metrics.reconcile.action(kind, counted);
        match result {
            Ok(()) => {
                // It goes with the rows that it announces.
                if *kind != "record-ledger" {
                    self.decisions.record(kind, object, "done", None);
                }
                match told_elsewhere(kind) {
                    true => debug!(object, action = kind, "done"),
                    false => info!(object, action = kind, "done"),
                }
                state.pacing.done(object, kind, now);
            }
            Err(reason) => {
                self.decisions.record(kind, object, "failed", Some(reason));
                info!(object, action = kind, reason, "failed; will be tried again");
                state.pacing.failed(object, reason.clone(), now);
            }
        }
    }

    fn publish_ports(&self, config: &ConfigDb) {
        let tables = ["PORT", "PORTCHANNEL"];
        let rows = tables.iter().flat_map(|table| config.table(table));
        let ports: BTreeSet<PortName> = rows.filter_map(|(key, _)| key.parse().ok()).collect();
        self.ports.send_if_modified(|current| {
            let changed = *current != ports;
            if changed {
                *current = ports;
            }
            changed
        });
    }

    /// `render-only`: the wanted configuration as a file, for whoever owns frr.conf to merge.
    async fn render(&self, state: &State, observed: &Observed, status: &Status) {
        if status.leak_method.as_ref().and_then(|choice| choice.method) != Some(LeakMethod::RenderOnly) {
            return;
        }
        let Some(text) = publish::rendered(&state.desired, observed, &self.templates) else { return };
        match write_drop_in(self.executor.state_dir.path(), &text).await {
            Ok(true) => info!("FRR configuration rendered"),
            Ok(false) => {}
            Err(failure) => warn!(reason = chain(&failure), "FRR configuration not rendered"),
        }
    }

    /// A port that left takes its machines along.
    fn forget_released(&self, actions: &[Action]) {
        for action in actions {
            if let Action::DeleteInterface(owned) = action {
                let port = owned.port().clone();
                self.hub.observe(switch_agent_core::machines::MachineEvent::Released { port });
            }
        }
    }

    async fn publish(
        &mut self,
        state: &mut State,
        actions: Vec<Action>,
        status: Status,
        reasons: BTreeSet<Reason>,
        started: Instant,
    ) {
        let duration = started.elapsed();
        state.since.update(&status, unix_s());
        state.logged.changes(&status, &self.decisions);
        self.count(&status, duration);
        self.publish_rows(state, &status).await;
        let plan_json = plan_json(&actions, &status);
        let pass = PassInfo {
            reason: reasons.iter().map(|reason| format!("{reason:?}")).collect::<Vec<_>>().join(","),
            duration,
            finished_at: jiff::Timestamp::now(),
            actions: actions.len(),
        };
        let snapshot =
            Snapshot { status, plan_json, pass: Some(pass), version: env!("CARGO_PKG_VERSION").to_owned() };
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    async fn publish_readiness(&mut self, readiness: Readiness) {
        let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
        if let Err(failure) = self.feature.publish(&readiness, &now).await {
            debug!(reason = chain(&failure), "readiness not written to STATE_DB");
        }
    }

    fn count(&self, status: &Status, duration: Duration) {
        self.metrics.reconcile.pass_finished(status, duration);
        let leaks = status
            .partitions
            .values()
            .map(|partition| (&partition.partition, &partition.vrf, &partition.leak));
        self.metrics.frr.set_leaks(leaks);
    }
}

impl State {
    /// Takes the configuration over; counts a generation where it differs.
    fn adopt(&mut self, config: &ConfigDb) {
        let digest = Some(self.digests.hash_one(config));
        if self.config != digest {
            self.generation += 1;
            self.desired = Desired::from_config(config);
            self.config = digest;
        }
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Kinds whose own part logs what became of them, and the ledger, which goes with the rows it announces.
fn told_elsewhere(kind: &str) -> bool {
    matches!(
        kind,
        "record-ledger"
            | "withdraw-leak"
            | "apply-leak"
            | "set-advertiser"
            | "cease-advertiser"
            | "set-service"
            | "close-service"
    )
}

fn interest(desired: &Desired) -> Interest {
    let vrfs =
        desired.partitions.values().map(|partition| (partition.vrf.clone(), partition.leak_vrf.clone()));
    let leaks = |port: &&switch_agent_core::desired::DesiredPort| {
        desired
            .partition_of(port)
            .is_some_and(|partition| partition.leak && !partition.leak_prefixes.is_empty())
    };
    let exported = desired.ports.values().filter(leaks).map(|port| port.prefix).collect();
    Interest { vrfs: vrfs.into_map(), exported }
}

fn leaks_settled(status: &Status) -> bool {
    let settled =
        |leak: &LeakStatus| matches!(leak, LeakStatus::Applied | LeakStatus::Off | LeakStatus::Rendered);
    status.partitions.values().all(|partition| settled(&partition.leak))
}

//! Reconcile passes, objects, actions.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use switch_agent_core::status::{Phase, PortStatus, Verdict};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    kind: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

/// How one action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionOutcome {
    Ok,
    Failed,
    /// The action did not end within its time.
    TimedOut,
}

impl ActionOutcome {
    fn as_str(self) -> &'static str {
        match self {
            ActionOutcome::Ok => "ok",
            ActionOutcome::Failed => "failed",
            ActionOutcome::TimedOut => "timed-out",
        }
    }
}

#[derive(Debug)]
pub struct ReconcileMetrics {
    passes: Family<OutcomeLabel, Counter>,
    duration: Histogram,
    objects: Family<ObjectLabels, Gauge>,
    actions: Family<ActionLabels, Counter>,
    ports: Family<PhaseLabel, Gauge>,
}

impl ReconcileMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = ReconcileMetrics {
            passes: Family::default(),
            // 1 ms to 16 s: an idle pass takes milliseconds, one that drives FRR takes seconds.
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            objects: Family::default(),
            actions: Family::default(),
            ports: Family::default(),
        };
        registry.register(
            "reconcile",
            "Reconcile passes, by the verdict they ended in",
            metrics.passes.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Duration of reconcile passes",
            metrics.duration.clone(),
        );
        registry.register("objects", "Objects of the last pass, by kind and status", metrics.objects.clone());
        registry.register("actions", "Actions carried out, by kind and outcome", metrics.actions.clone());
        registry.register("ports", "Boot ports, by phase", metrics.ports.clone());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the agent", build);
        metrics
    }

    /// A pass ended with this verdict, after this long.
    pub fn pass_finished(&self, outcome: Verdict, duration: Duration) {
        let outcome = match outcome {
            Verdict::Converged => "converged",
            Verdict::Converging => "converging",
            Verdict::Degraded => "degraded",
        };
        self.passes.get_or_create(&OutcomeLabel { outcome }).inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// An action of this kind ([`Action::kind`](switch_agent_core::action::Action::kind)) ended.
    pub fn action(&self, action: &'static str, outcome: ActionOutcome) {
        self.actions.get_or_create(&ActionLabels { action, outcome: outcome.as_str() }).inc();
    }

    /// How many objects of a kind (`partition`, `leak`, `row`) have a status now.
    pub fn set_objects(&self, kind: &'static str, status: &'static str, count: usize) {
        self.objects.get_or_create(&ObjectLabels { kind, status }).set(saturate(count));
    }

    /// Counts ports by phase; phases that no port is in read 0.
    pub fn set_ports_by_phase<'a>(&self, ports: impl IntoIterator<Item = &'a PortStatus>) {
        let mut counts: BTreeMap<Phase, usize> = Phase::ALL.iter().map(|phase| (*phase, 0)).collect();
        for port in ports {
            *counts.entry(port.phase).or_default() += 1;
        }
        for (phase, count) in counts {
            self.ports.get_or_create(&PhaseLabel { phase: phase.as_str() }).set(saturate(count));
        }
    }
}

fn saturate(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn exposition_has_the_documented_names() {
        let metrics = Metrics::default();
        metrics.reconcile.pass_finished(Verdict::Converged, Duration::from_millis(3));
        metrics.reconcile.action("bind-interface", ActionOutcome::Failed);
        metrics.reconcile.set_objects("partition", "ready", 2);
        metrics.reconcile.set_ports_by_phase([]);
        let text = metrics.encode();
        for line in [
            "switch_agent_reconcile_total{outcome=\"converged\"} 1",
            "switch_agent_reconcile_duration_seconds_bucket{le=\"0.004\"} 1",
            "switch_agent_actions_total{action=\"bind-interface\",outcome=\"failed\"} 1",
            "switch_agent_objects{kind=\"partition\",status=\"ready\"} 2",
            "switch_agent_ports{phase=\"ready\"} 0",
            concat!("switch_agent_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}

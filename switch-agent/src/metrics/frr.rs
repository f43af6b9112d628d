//! FRR and the leak.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use switch_agent_core::name::{PartitionId, VrfName};
use switch_agent_core::status::LeakStatus;

/// How an application of a delta ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// Somebody else was changing the configuration.
    Deferred,
    Failed,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Deferred => "deferred",
            Outcome::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApplyLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeakLabels {
    partition: String,
    vrf: String,
    state: &'static str,
}

#[derive(Debug)]
pub struct FrrMetrics {
    leak_state: Family<LeakLabels, Gauge>,
    applies: Family<ApplyLabels, Counter>,
    last_applied: Gauge<f64, AtomicU64>,
    drift_repairs: Counter,
}

impl FrrMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = FrrMetrics {
            leak_state: Family::default(),
            applies: Family::default(),
            last_applied: Gauge::default(),
            drift_repairs: Counter::default(),
        };
        registry.register(
            "leak_state",
            "State of a partition's leak; 1 for the state it is in",
            metrics.leak_state.clone(),
        );
        registry.register("frr_applies", "Deltas sent to FRR by outcome", metrics.applies.clone());
        registry.register(
            "frr_last_applied_timestamp_seconds",
            "When FRR last took a delta, Unix time; 0 before the first",
            metrics.last_applied.clone(),
        );
        registry.register(
            "frr_drift_repairs",
            "Deltas that restored lines which somebody else had taken away or changed",
            metrics.drift_repairs.clone(),
        );
        metrics
    }

    pub(crate) fn applied(&self, outcome: Outcome) {
        self.applies.get_or_create(&ApplyLabels { outcome: outcome.as_str() }).inc();
        if outcome == Outcome::Ok {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_applied.set(now.as_secs_f64());
        }
    }

    pub(crate) fn drift_repaired(&self) {
        self.drift_repairs.inc();
    }

    /// The state of every leak; those of partitions that are gone disappear.
    pub fn set_leaks<'a>(
        &self,
        leaks: impl IntoIterator<Item = (&'a PartitionId, &'a VrfName, &'a LeakStatus)>,
    ) {
        self.leak_state.clear();
        for (partition, vrf, status) in leaks {
            for state in STATES {
                let (partition, vrf) = (partition.to_string(), vrf.to_string());
                let labels = LeakLabels { partition, vrf, state };
                self.leak_state.get_or_create(&labels).set(i64::from(state == state_of(status)));
            }
        }
    }
}

const STATES: [&str; 6] = ["off", "applied", "pending", "violation", "rendered", "unknown"];

fn state_of(status: &LeakStatus) -> &'static str {
    match status {
        LeakStatus::Off => "off",
        LeakStatus::Applied => "applied",
        LeakStatus::Pending(_) => "pending",
        LeakStatus::Violation(_) => "violation",
        LeakStatus::Rendered => "rendered",
        LeakStatus::Unknown(_) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_in_one_state_and_leaves_with_its_partition() {
        let mut registry = Registry::default();
        let metrics = FrrMetrics::register(&mut registry);
        let (partition, vrf) = ("p1".parse().unwrap(), "VrfBoot-p1".parse().unwrap());
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        metrics.set_leaks([(&partition, &vrf, &LeakStatus::Pending("x".to_owned()))]);
        metrics.set_leaks([(&partition, &vrf, &LeakStatus::Applied)]);
        assert!(text().contains(r#"leak_state{partition="p1",vrf="VrfBoot-p1",state="applied"} 1"#));
        assert!(text().contains(r#"leak_state{partition="p1",vrf="VrfBoot-p1",state="pending"} 0"#));
        metrics.set_leaks([]);
        assert!(!text().contains("VrfBoot-p1"));
        metrics.applied(Outcome::Deferred);
        assert!(text().contains(r#"frr_applies_total{outcome="deferred"} 1"#));
    }
}

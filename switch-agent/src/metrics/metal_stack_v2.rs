//! The dialect `metal-stack-v2`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use switch_agent_core::name::PartitionId;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    procedure: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutboxLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    partition: String,
}

#[derive(Debug)]
pub struct MetalStackV2Metrics {
    calls: Family<CallLabels, Counter>,
    outbox: Family<OutboxLabels, Counter>,
    config_age: Family<PartitionLabels, Gauge>,
}

impl MetalStackV2Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = MetalStackV2Metrics {
            calls: Family::default(),
            outbox: Family::default(),
            config_age: Family::default(),
        };
        registry.register(
            "metal_stack_v2_calls",
            "Calls of the agent's own to the metal-stack API, by procedure and outcome (ok or an error code)",
            metrics.calls.clone(),
        );
        registry.register(
            "metal_stack_v2_outbox",
            "What the metal-stack API is told about machines (dhcp, event, revoke), by kind and outcome",
            metrics.outbox.clone(),
        );
        registry.register_with_unit(
            "metal_stack_v2_config_age",
            "Time since the metal-stack API last said what a partition boots",
            Unit::Seconds,
            metrics.config_age.clone(),
        );
        metrics
    }

    pub fn called(&self, procedure: &'static str, outcome: &'static str) {
        self.calls.get_or_create(&CallLabels { procedure, outcome }).inc();
    }

    pub fn told(&self, kind: &'static str, outcome: &'static str) {
        self.outbox.get_or_create(&OutboxLabels { kind, outcome }).inc();
    }

    pub fn config_age(&self, partition: &PartitionId, age: Duration) {
        let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        self.config_age.get_or_create(&PartitionLabels { partition: partition.to_string() }).set(seconds);
    }

    /// Forgets the ages of all partitions.
    pub fn forget(&self) {
        self.config_age.clear();
    }
}

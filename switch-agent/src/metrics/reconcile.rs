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
use switch_agent_core::map::IntoMap;
use switch_agent_core::name::PortName;
use switch_agent_core::status::{Phase, PortStatus, SOURCES, Status, Verdict};

use super::boot_port::BootPorts;
use super::unix_ms;

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
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
    boot_ports: BootPorts,
    source_readable: Family<SourceLabel, Gauge>,
    config_read: Gauge,
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
            boot_ports: BootPorts::register(registry),
            source_readable: Family::default(),
            config_read: Gauge::default(),
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
        registry.register(
            "source_readable",
            "Whether the last pass could read the source; nothing is removed while one cannot be read",
            metrics.source_readable.clone(),
        );
        registry.register(
            "config_read_timestamp_seconds",
            "When CONFIG_DB was last read, or found unchanged, Unix time; 0 before the first time",
            metrics.config_read.clone(),
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the agent", build);
        metrics
    }

    /// A pass ended with this status, after this long.
    pub fn pass_finished(&self, status: &Status, duration: Duration) {
        for source in SOURCES {
            let readable = !status.unknown.contains_key(source);
            self.source_readable.get_or_create(&SourceLabel { source }).set(i64::from(readable));
        }
        if !status.unknown.contains_key("CONFIG_DB") {
            self.config_current();
        }
        self.set_ports(&status.ports);
        self.set_objects("row", "rejected", status.rejected.len());
        self.set_objects("object", "waiting", status.waiting.len());
        self.set_objects("object", "conflict", status.conflicts.len());
        let outcome = match status.verdict {
            Verdict::Converged => "converged",
            Verdict::Converging => "converging",
            Verdict::Degraded => "degraded",
        };
        self.passes.get_or_create(&OutcomeLabel { outcome }).inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// What was read of CONFIG_DB is what it is now.
    pub fn config_current(&self) {
        self.config_read.set(i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX));
    }

    /// An action of this kind ([`Action::kind`](switch_agent_core::action::Action::kind)) ended.
    pub fn action(&self, action: &'static str, outcome: ActionOutcome) {
        self.actions.get_or_create(&ActionLabels { action, outcome: outcome.as_str() }).inc();
    }

    /// How many objects of a kind have a status now.
    fn set_objects(&self, kind: &'static str, status: &'static str, count: usize) {
        self.objects.get_or_create(&ObjectLabels { kind, status }).set(saturate(count));
    }

    /// Counts ports by phase; phases that no port is in read 0.
    fn set_ports(&self, ports: &BTreeMap<PortName, PortStatus>) {
        let mut counts: BTreeMap<Phase, usize> = Phase::ALL.iter().map(|phase| (*phase, 0)).into_map();
        for port in ports.values() {
            *counts.entry(port.phase).or_default() += 1;
        }
        self.boot_ports.set(ports.values());
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
    use crate::http::admin::tests::snapshot;
    use crate::metrics::Metrics;

    fn has(metrics: &Metrics, line: &str) -> bool {
        metrics.encode().lines().any(|l| l == line)
    }

    #[test]
    fn exposition_has_the_documented_names() {
        let metrics = Metrics::default();
        let status = Status { verdict: Verdict::Converged, ..snapshot().status };
        metrics.reconcile.pass_finished(&status, Duration::from_millis(3));
        metrics.reconcile.action("bind-interface", ActionOutcome::Failed);
        for line in [
            "switch_agent_reconcile_total{outcome=\"converged\"} 1",
            "switch_agent_reconcile_duration_seconds_bucket{le=\"0.004\"} 1",
            "switch_agent_actions_total{action=\"bind-interface\",outcome=\"failed\"} 1",
            "switch_agent_objects{kind=\"object\",status=\"waiting\"} 1",
            "switch_agent_ports{phase=\"ready\"} 1",
            "switch_agent_ports{phase=\"failed\"} 0",
            concat!("switch_agent_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(has(&metrics, line), "{line} not in\n{}", metrics.encode());
        }
        assert!(metrics.encode().ends_with("# EOF\n"));
    }

    #[test]
    fn a_port_has_one_series_and_it_follows_the_phase() {
        let metrics = Metrics::default();
        let mut status = snapshot().status;
        let line = |phase: &str| {
            format!(
                "switch_agent_boot_port{{port=\"Ethernet0\",alias=\"Eth1/1\",partition=\"p1\",\
                 vrf=\"VrfBoot-p1\",phase=\"{phase}\"}} 1"
            )
        };
        metrics.reconcile.pass_finished(&status, Duration::ZERO);
        assert!(has(&metrics, &line("ready")));
        let port = status.ports.values_mut().next().unwrap();
        port.phase = Phase::Foreign;
        metrics.reconcile.pass_finished(&status, Duration::ZERO);
        assert!(has(&metrics, &line("foreign")) && !has(&metrics, &line("ready")));
        status.ports.clear();
        metrics.reconcile.pass_finished(&status, Duration::ZERO);
        assert!(!metrics.encode().contains("switch_agent_boot_port{"));
    }

    #[test]
    fn an_unreadable_source_is_told_and_the_configuration_ages() {
        let metrics = Metrics::default();
        let mut status = snapshot().status;
        status.unknown.insert("CONFIG_DB".to_owned(), "connection refused".to_owned());
        metrics.reconcile.pass_finished(&status, Duration::ZERO);
        assert!(has(&metrics, "switch_agent_source_readable{source=\"CONFIG_DB\"} 0"));
        assert!(has(&metrics, "switch_agent_source_readable{source=\"FRR\"} 1"));
        assert!(has(&metrics, "switch_agent_config_read_timestamp_seconds 0"));
        status.unknown.clear();
        metrics.reconcile.pass_finished(&status, Duration::ZERO);
        assert!(has(&metrics, "switch_agent_source_readable{source=\"CONFIG_DB\"} 1"));
        assert!(!has(&metrics, "switch_agent_config_read_timestamp_seconds 0"));
    }
}

//! Boots: how many are on their way, and how long their steps take.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use switch_agent_core::name::PortName;
use switch_agent_core::timeline::Stage;

use super::port_gauge::PortGauge;

/// Seconds. Advertisements come within 0.1 s of carrier; firmware takes minutes to the token.
const BUCKETS: [f64; 14] = [0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 90.0, 120.0, 180.0, 300.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

#[derive(Debug)]
pub struct BootMetrics {
    in_flight: PortGauge,
    stages: Family<StageLabel, Histogram, fn() -> Histogram>,
}

impl BootMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = BootMetrics {
            in_flight: PortGauge::default(),
            stages: Family::new_with_constructor(histogram as fn() -> Histogram),
        };
        registry.register(
            "boots_in_flight",
            "Whether a machine on the port is between power-on and its token or first event",
            metrics.in_flight.family(),
        );
        registry.register_with_unit(
            "boot_stage",
            "From carrier to the first time that a boot came to the stage",
            Unit::Seconds,
            metrics.stages.clone(),
        );
        metrics
    }

    /// A boot that began with carrier came to this stage for the first time.
    pub fn reached(&self, stage: &Stage, since_carrier: Duration) {
        // What is measured to is a stage that every boot goes through once, at most.
        if !matches!(stage, Stage::Carrier | Stage::Event(_) | Stage::Released) {
            let label = StageLabel { stage: stage.kind() };
            self.stages.get_or_create(&label).observe(since_carrier.as_secs_f64());
        }
    }

    /// Sets the gauge of every boot port, and drops those that are none any more.
    pub fn set_in_flight(&self, by_port: &BTreeMap<PortName, bool>) {
        self.in_flight.set(by_port.iter().map(|(port, in_flight)| (port, i64::from(*in_flight))));
    }
}

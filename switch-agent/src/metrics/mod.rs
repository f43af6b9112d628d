//! Every metric: name, help, labels, registry. One file per part; nobody else names a metric.
//!
//! Ports are labels (bounded by the switch); MAC addresses and machine ids never are.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;

pub mod advertise;
mod advertise_port;
mod boot_port;
pub mod boots;
pub mod dhcp6;
pub mod frr;
pub mod machines;
pub mod metal_stack_v2;
mod port_gauge;
pub mod proxy;
pub mod reconcile;
#[cfg(test)]
mod series;

/// All metrics of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
pub struct Inner {
    registry: Registry,
    pub advertise: advertise::AdvertiseMetrics,
    pub boots: boots::BootMetrics,
    pub dhcp6: dhcp6::Dhcp6Metrics,
    pub frr: frr::FrrMetrics,
    pub machines: machines::MachineMetrics,
    pub metal_stack_v2: metal_stack_v2::MetalStackV2Metrics,
    pub proxy: proxy::ProxyMetrics,
    pub reconcile: reconcile::ReconcileMetrics,
}

impl std::ops::Deref for Metrics {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("switch_agent");
        Metrics(Arc::new(Inner {
            advertise: advertise::AdvertiseMetrics::register(&mut registry),
            boots: boots::BootMetrics::register(&mut registry),
            dhcp6: dhcp6::Dhcp6Metrics::register(&mut registry),
            frr: frr::FrrMetrics::register(&mut registry),
            machines: machines::MachineMetrics::register(&mut registry),
            metal_stack_v2: metal_stack_v2::MetalStackV2Metrics::register(&mut registry),
            proxy: proxy::ProxyMetrics::register(&mut registry),
            reconcile: reconcile::ReconcileMetrics::register(&mut registry),
            registry,
        }))
    }
}

impl Metrics {
    /// The exposition text (OpenMetrics 1.0).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        prometheus_client::encoding::text::encode(&mut text, &self.registry).ok();
        text
    }
}

/// Unix time in milliseconds.
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

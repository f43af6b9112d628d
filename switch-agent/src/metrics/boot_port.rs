//! What there is to know of each boot port besides its numbers, for queries to join with.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use switch_agent_core::name::{PartitionId, PortName, VrfName};
use switch_agent_core::status::{Phase, PortStatus};

/// One series for each boot port of the last pass. Its labels become text when they are asked for: five strings
/// for each port would be a third of a megabyte that nobody reads.
#[derive(Debug, Clone, Default)]
pub(super) struct BootPorts(Arc<Mutex<Vec<BootPort>>>);

#[derive(Debug)]
struct BootPort {
    port: PortName,
    alias: Arc<str>,
    partition: Option<PartitionId>,
    vrf: Option<VrfName>,
    phase: Phase,
}

impl BootPorts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let ports = BootPorts::default();
        registry.register_collector(Box::new(ports.clone()));
        ports
    }

    pub(super) fn set<'a>(&self, ports: impl Iterator<Item = &'a PortStatus>) {
        let ports = ports.map(|status| BootPort {
            port: status.port.clone(),
            alias: status.alias.clone(),
            partition: status.partition.clone(),
            vrf: status.vrf.clone(),
            phase: status.phase,
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ports.collect();
    }
}

impl Collector for BootPorts {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ports.is_empty() {
            return Ok(());
        }
        let help = "Boot ports with what they belong to and the phase they are in; always 1";
        let mut metric = encoder.encode_descriptor("boot_port", help, None, MetricType::Gauge)?;
        for BootPort { port, alias, partition, vrf, phase } in ports.iter() {
            let labels = [
                ("port", port.as_str()),
                ("alias", alias),
                ("partition", partition.as_ref().map_or("", PartitionId::as_str)),
                ("vrf", vrf.as_ref().map_or("", VrfName::as_str)),
                ("phase", phase.as_str()),
            ];
            metric.encode_family(&labels)?.encode_gauge(&1_i64)?;
        }
        Ok(())
    }
}

//! The discovery proxy's side of one port: where it listens, and what it tells the machine there.

use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::Ipv6Net;
use serde::Serialize;

use crate::desired::{Partition, UpstreamSpec};
use crate::name::{MacAddr, PartitionId, PortName, VrfName};

/// Sockets of one port: bound to the port's device, and accepting only what arrived through its VRF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerSpec {
    pub port: PortName,
    pub ifindex: u32,
    pub vrf: VrfName,
    /// The kernel drops what does not arrive through this device, so that a port that leaves its VRF is
    /// cut off at once.
    pub vrf_ifindex: u32,
    pub tcp_port: u16,
}

/// What a machine on the port is told, and what its requests are stamped with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortContext {
    pub switch_id: String,
    pub chassis_mac: Option<MacAddr>,
    pub partition: PartitionId,
    pub port: PortName,
    pub alias: Arc<str>,
    pub index: u64,
    pub mac: MacAddr,
    pub vrf: VrfName,
    /// The port's /64.
    pub prefix: Ipv6Net,
    /// `::1` of the port's /64.
    pub router: Ipv6Addr,
    pub tcp_port: u16,
    /// Partition settings: path rules, DNS, NTP, boot parameters, files.
    pub settings: Arc<Partition>,
}

impl PortContext {
    /// The settings, this port's own from now on.
    pub fn settings_mut(&mut self) -> &mut Partition {
        Arc::make_mut(&mut self.settings)
    }
}

/// Listener and context of one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortService {
    pub listener: ListenerSpec,
    pub context: Arc<PortContext>,
}

impl PortService {
    /// The context, this service's own from now on.
    pub fn context_mut(&mut self) -> &mut PortContext {
        Arc::make_mut(&mut self.context)
    }
}

/// The upstream client as it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamState {
    pub spec: UpstreamSpec,
    /// Why requests would fail now (a CA file that cannot be read), if they would.
    pub error: Option<String>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::desired::Desired;
    use crate::row::{ConfigDb, fields};

    /// A partition as its row describes it, defaults and all.
    pub(crate) fn partition() -> Arc<Partition> {
        let row =
            [("prefix", "2001:db8::/56"), ("rdnss@", "2001:db8::53"), ("ntp_servers@", "2001:db8::123")];
        let mut config = ConfigDb::default();
        config.insert("BOOT_NETWORK_PARTITION", "p1", fields(row));
        Desired::from_config(&config).partitions.into_values().next().unwrap()
    }

    /// The context of a port of [`partition`].
    pub(crate) fn context(port: &str) -> PortContext {
        PortContext {
            switch_id: "leaf1".to_owned(),
            chassis_mac: Some("02:00:00:00:00:01".parse().unwrap()),
            partition: "p1".parse().unwrap(),
            port: port.parse().unwrap(),
            alias: "Eth2/1".into(),
            index: 2,
            mac: "02:00:00:00:00:01".parse().unwrap(),
            vrf: "VrfBoot-p1".parse().unwrap(),
            prefix: "2001:db8:0:2::/64".parse().unwrap(),
            router: "2001:db8:0:2::1".parse().unwrap(),
            tcp_port: 18090,
            settings: partition(),
        }
    }
}

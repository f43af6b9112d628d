//! What CONFIG_DB asks for: the `BOOT_NETWORK*` tables as one validated value.
//!
//! A bad row rejects itself, never the switch: it lands in [`Desired::rejected`] with a message that names
//! row, field, value and rule, and every other object is unaffected.

mod check;
pub mod control_plane;
mod dhcp6;
mod fields;
mod global;
mod in_use;
mod ip2me;
mod logger;
mod metal_stack_v1;
mod partition;
mod port;
mod profile;
mod router;
#[cfg(test)]
mod tests;
mod url;
mod values;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use crate::dhcp6::Dhcp6Options;
use crate::discovery::PathRule;
use crate::map::IntoMap;
use crate::name::{MacAddr, PartitionId, PortName, VrfName};
use crate::ra::{PrefixVariables, RaConfig};
use crate::row::ConfigDb;

pub use check::{CheckReport, CheckedPartition, CheckedPort, check};
pub(crate) use fields::quoted;
pub use global::PROXY_PORT_DEFAULT;
pub use logger::{LogLevel, LogOutput, LogSetting, Logger};
pub use metal_stack_v1::MetalStackV1Spec;
pub use port::membership;
pub use profile::{BootOnce, Profile};

/// Role switches and modes of the `global` row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Global {
    /// `admin_status`: `false` withdraws everything the agent owns.
    pub admin_up: bool,
    pub switch_id: String,
    /// `DEVICE_METADATA|localhost` `mac`: the chassis MAC told to machines.
    pub chassis_mac: Option<MacAddr>,
    pub upstream: Option<UpstreamSpec>,
    pub proxy_port: u16,
    pub leak_method: LeakMethod,
}

/// Dialect of the control API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    #[default]
    Generic,
    MetalStackV2,
    MetalStackV1,
}

/// What a machine is given to present (`machine_token`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineToken {
    /// A random text that is worth something on its own port only; the token itself stays on the switch.
    #[default]
    Handle,
    /// The token itself.
    Token,
}

/// Kind of a component, as the metal-stack API v2 lists them (`metalstack.api.v2.ComponentType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentType {
    #[default]
    Pixiecore,
    MetalCore,
    MetalBmc,
    MetalImageCacheSync,
    MetalConsole,
    MetalMetricsExporter,
}

/// Where and how the proxy reaches the control API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamSpec {
    /// Host as written in the URL: a DNS name or an address literal without brackets.
    pub host: String,
    pub port: u16,
    /// Path prefix of the URL, without a trailing slash; empty or `/base`.
    pub base: String,
    pub dialect: Dialect,
    pub machine_token: MachineToken,
    /// As what the agent reports to a control API that keeps a list of components.
    pub component_type: ComponentType,
    /// `default`, `mgmt`, or a VRF that upstream sockets are bound to.
    pub vrf: String,
    pub ca_file: Option<String>,
    pub client_cert_file: Option<String>,
    pub client_key_file: Option<String>,
    pub token_file: Option<String>,
    /// Present exactly where the dialect is `metal-stack-v1`.
    pub metal_stack_v1: Option<Box<MetalStackV1Spec>>,
}

/// How the FRR configuration gets applied (`leak_method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeakMethod {
    #[default]
    Auto,
    Vtysh,
    StaticRoute,
    FrrMgmt,
    RenderOnly,
}

impl LeakMethod {
    /// As `leak_method` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            LeakMethod::Auto => "auto",
            LeakMethod::Vtysh => "vtysh",
            LeakMethod::StaticRoute => "static-route",
            LeakMethod::FrrMgmt => "frr-mgmt",
            LeakMethod::RenderOnly => "render-only",
        }
    }
}

/// One `BOOT_NETWORK_PARTITION` row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    pub id: PartitionId,
    pub prefix: Ipv6Net,
    pub vrf: VrfName,
    pub manage_vrf: bool,
    pub advertise: bool,
    pub proxy: bool,
    pub leak: bool,
    pub isolate: bool,
    /// What DHCPv6 tells, where the role is on.
    pub dhcp6: Option<Arc<Dhcp6Options>>,
    pub service_addresses: Vec<Ipv6Addr>,
    /// Router variables; `adv_prefix_list` is empty here, each port adds its own /64 with `adv_prefix`.
    pub ra: RaConfig,
    pub adv_prefix: PrefixVariables,
    pub ntp_servers: Vec<String>,
    /// `default` or a VRF name.
    pub leak_vrf: String,
    /// Exactly what machines may reach through the leak; empty means no leak.
    pub leak_prefixes: Vec<Ipv6Net>,
    /// Path rules of the proxy, in order; empty means the dialect's own list.
    pub api_allow: Vec<PathRule>,
    /// The profile that the `boot_*` values below are of, if any.
    pub boot_profile: Option<String>,
    pub boot_kernel_url: Option<String>,
    pub boot_initrd_urls: Vec<String>,
    pub boot_cmdline: Option<String>,
    pub boot_template_file: Option<String>,
    /// SAN targets that boot scripts may use.
    pub boot_root_paths: Vec<String>,
    /// What the port's next machine boots instead, once. Set by a port's row only.
    pub boot_once: Option<Box<BootOnce>>,
    pub machine_config_file: Option<String>,
}

/// One `BOOT_NETWORK_PORT` row that holds, joined with its `PORT` row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DesiredPort {
    pub name: PortName,
    pub partition: PartitionId,
    /// The port's own /64.
    pub prefix: Ipv6Net,
    pub alias: Arc<str>,
    /// `PORT.index`, or the port's number where SONiC gives no index (port channels).
    pub index: u64,
    /// `BOOT_NETWORK_PORT` `admin_status`.
    pub admin_up: bool,
    /// The partition as this port sees it, where its row has router variables or boot profiles of its own.
    pub own: Option<Arc<Partition>>,
}

/// A row (or the whole of an object) that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rejected {
    /// `BOOT_NETWORK_PARTITION|p1`.
    pub row: String,
    /// The field at fault; `None` when the row as a whole is.
    pub field: Option<String>,
    /// The offending value, shortened where it is long.
    pub value: Option<String>,
    /// What is allowed, for people.
    pub rule: String,
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.row)?;
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        if let Some(value) = &self.value {
            write!(f, " = {value:?}")?;
        }
        write!(f, ": {}", self.rule)
    }
}

/// Everything CONFIG_DB asks of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Desired {
    pub global: Global,
    /// Shared with everything that serves a port of the partition.
    pub partitions: BTreeMap<PartitionId, Arc<Partition>>,
    pub ports: BTreeMap<PortName, DesiredPort>,
    pub logger: Logger,
    pub rejected: Vec<Rejected>,
    /// Legal but risky settings (`leak_prefix` of `::/0`), worded like [`Rejected`].
    pub warnings: Vec<Rejected>,
}

/// What reading the tables turned up besides values.
#[derive(Debug, Default)]
struct Findings {
    rejected: Vec<Rejected>,
    warnings: Vec<Rejected>,
}

impl Desired {
    /// Reads and validates the agent's tables. Total: every input yields a value.
    ///
    /// A missing `BOOT_NETWORK|global` means its defaults; a bad one leaves every field that is not valid
    /// by itself at a safe value (up, `render-only`, no upstream).
    pub fn from_config(config: &ConfigDb) -> Desired {
        let mut findings = Findings::default();
        let global = global::global(config, &mut findings);
        let profiles = profile::profiles(config, &mut findings);
        let partitions = partition::partitions(config, &profiles, &mut findings);
        let ports = port::ports(config, &partitions, &profiles, &mut findings);
        let logger = logger::logger(config, &mut findings);
        let partitions = partitions.into_iter().map(|(id, partition)| (id, Arc::new(partition))).into_map();
        let Findings { rejected, warnings } = findings;
        let mut desired = Desired { global, partitions, ports, logger, rejected, warnings };
        desired.warnings.extend(ip2me::warnings(config, &desired));
        desired
    }

    /// The partition of a desired port, as the port sees it. Present for every port in [`Desired::ports`].
    pub fn partition_of<'a>(&'a self, port: &'a DesiredPort) -> Option<&'a Arc<Partition>> {
        port.own.as_ref().or_else(|| self.partitions.get(&port.partition))
    }
}

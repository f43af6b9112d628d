//! FRR: the wanted leak, its rendered configuration, the delta to the running one, and the proof.
//!
//! Per boot VRF the wanted configuration is: a `::/0` blackhole in the VRF, always; a prefix-list and a
//! route-map of the VRF's own; an `import vrf` of the leak VRF under that route-map; and in the leak VRF,
//! per port, a static route on the port with `nexthop-vrf` and the BGP `network` that announces it.
//!
//! Three rules hold at every moment, whatever is interrupted:
//! `import vrf` never stands without its route-map (FRR would import everything); the blackhole comes
//! before the first return route and leaves after the last (a VRF without a default route falls through to
//! the main table in Linux); a prefix-list never becomes empty (an empty one permits everything).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv6Net;
use serde::Serialize;

use crate::name::{PortName, VrfName};
use crate::status::LeakStatus;

mod delta;
mod effect;
mod method;
mod render;
pub mod rows;
mod running;
mod script;
mod verify;
mod wanted;

pub(crate) use wanted::route_map_sound;

pub use delta::{leftovers, plan};
pub use method::{Choice, choose};
pub use render::{MAIN_TEMPLATE, RenderError, Templates, render};
pub use running::{BgpInstance, RouteMapEntry, Running};

/// The leak VRF that stands for no VRF: the global routing table.
pub const DEFAULT_VRF: &str = "default";
/// Names of route-maps and prefix-lists that start so are the agent's own.
pub const OBJECT_PREFIX: &str = "BOOTNET-";

/// The route-map under which `vrf` imports. At most 26 bytes; FRR takes 63.
pub fn route_map_name(vrf: &VrfName) -> String {
    format!("{OBJECT_PREFIX}{vrf}-IN")
}

/// The prefix-list of what machines of `vrf` may reach. At most 27 bytes; FRR takes 128.
pub fn prefix_list_name(vrf: &VrfName) -> String {
    format!("{OBJECT_PREFIX}{vrf}-API")
}

/// The VRF that an object name of ours belongs to.
fn object_vrf(name: &str) -> Option<VrfName> {
    let rest = name.strip_prefix(OBJECT_PREFIX)?;
    rest.strip_suffix("-IN").or_else(|| rest.strip_suffix("-API"))?.parse().ok()
}

/// The wanted state of FRR: one entry per boot VRF of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FrrSpec {
    pub vrfs: BTreeMap<VrfName, BootVrfSpec>,
}

/// One boot VRF in FRR. Its `::/0` blackhole is always wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootVrfSpec {
    /// `default` or the VRF that the leak goes to.
    pub leak_vrf: String,
    /// What machines may reach; empty means deny only, no leak in either direction.
    pub leak_prefixes: Vec<Ipv6Net>,
    /// Ports whose /64 goes out: bound, addressed, and the binding observed.
    pub ports: BTreeMap<PortName, Ipv6Net>,
}

impl BootVrfSpec {
    /// Whether a leak is wanted that BGP can carry.
    fn leaks(&self, vrf: &VrfName) -> bool {
        !self.leak_prefixes.is_empty() && self.unsupported(vrf).is_none()
    }

    /// Why the leak VRF cannot be one, if so.
    fn unsupported(&self, vrf: &VrfName) -> Option<String> {
        if self.leak_prefixes.is_empty() {
            None
        } else if self.leak_vrf == "mgmt" {
            Some("leak_vrf mgmt is not supported: VRF mgmt has no BGP to import from".to_owned())
        } else if self.leak_vrf == vrf.as_str() {
            Some(format!("leak_vrf {vrf} is the boot VRF itself"))
        } else {
            None
        }
    }
}

/// Commands for `vtysh -f`, in order; empty when there is nothing to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FrrDelta {
    /// Configuration lines. A line of [`FrrDelta::BARRIER`] alone ends a stage.
    pub commands: Vec<String>,
}

impl FrrDelta {
    /// A comment to FRR. Everything before it must be in effect before anything after it is sent: since
    /// FRR 10 one `vtysh -f` feeds the daemons side by side, and bgpd may see an import before its policy.
    pub const BARRIER: &'static str = "!";

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The stages, each for one `vtysh -f` of its own.
    pub fn stages(&self) -> impl Iterator<Item = &[String]> {
        self.commands.split(|line| line == Self::BARRIER).filter(|stage| !stage.is_empty())
    }
}

/// FRR as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FrrObserved {
    /// `false` with `--vtysh none`, and where there is no client: nothing is read or applied by vtysh.
    pub managed: bool,
    /// Daemon version, as the running configuration says it.
    pub version: Option<String>,
    /// `show running-config`, whole. Not serialized: it may have passwords of neighbours.
    #[serde(skip)]
    pub running_config: String,
    /// AS number of the default BGP instance, if there is one.
    pub local_asn: Option<u32>,
    pub router_id: Option<Ipv4Addr>,
    /// Per boot VRF: the routes FRR and the kernel show, for the proof.
    pub routes: BTreeMap<VrfName, VrfRoutes>,
    /// Boot /64s that FRR has as selected and installed routes in the leak VRF, with their egress device.
    pub exported: BTreeMap<Ipv6Net, ExportedRoute>,
    /// Prefixes that are connected in each leak VRF.
    pub connected: BTreeMap<String, BTreeSet<Ipv6Net>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportedRoute {
    pub interface: String,
    pub installed: bool,
    /// `show bgp ipv6 unicast <p> json` lists peers under `advertisedTo`.
    pub advertised: bool,
}

/// What one boot VRF's table holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VrfRoutes {
    /// Prefixes imported by BGP from another VRF, with whether they are installed.
    pub imported: BTreeMap<Ipv6Net, bool>,
    /// Prefixes with a static route that is no blackhole, with whether it is installed.
    pub statics: BTreeMap<Ipv6Net, bool>,
    /// The `::/0` blackhole is installed.
    pub deny_installed: bool,
    /// Connected prefixes: a port's /64 is here while the port has its address and carrier.
    pub connected: BTreeSet<Ipv6Net>,
    /// Prefixes of the VRF's prefix-list that are not imported though the leak VRF's BGP table has them.
    pub importable: BTreeSet<Ipv6Net>,
}

/// What has to change in FRR, in two halves: what leaves, and what comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrrPlan {
    pub withdraw: FrrDelta,
    /// Assumes that `withdraw` has been carried out.
    pub apply: FrrDelta,
    pub leak: BTreeMap<VrfName, LeakStatus>,
    /// Why nothing can be applied now (no `router bgp`), if so.
    pub waiting: Option<String>,
    /// VRFs that FRR's running configuration still mentions in lines of ours though they are not wanted.
    pub lingering: Vec<VrfName>,
}

#[cfg(test)]
mod tests;

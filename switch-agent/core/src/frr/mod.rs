//! FRR: the wanted leak, its rendered configuration, the delta to the running one, and the proof.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv6Net;
use serde::Serialize;

use crate::name::{PortName, VrfName};
use crate::status::LeakStatus;

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

/// Commands for `vtysh -f`, in order; empty when there is nothing to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FrrDelta {
    pub commands: Vec<String>,
}

/// FRR as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrrObserved {
    /// `false` with `--vtysh none`: nothing is read or applied.
    pub managed: bool,
    /// Daemon version, as `show version` says it.
    pub version: Option<String>,
    /// `show running-config`, whole.
    pub running_config: String,
    /// AS number of the default BGP instance, if there is one.
    pub local_asn: Option<u32>,
    pub router_id: Option<Ipv4Addr>,
    /// Per boot VRF: the routes FRR and the kernel show, for the proof.
    pub routes: BTreeMap<VrfName, VrfRoutes>,
    /// Boot /64s that FRR has as selected and installed routes in the leak VRF, with their egress device.
    pub exported: BTreeMap<Ipv6Net, ExportedRoute>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedRoute {
    pub interface: String,
    pub installed: bool,
    /// `show bgp ipv6 unicast <p> json` lists peers under `advertisedTo`.
    pub advertised: bool,
}

/// What one boot VRF's table holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VrfRoutes {
    /// Prefixes imported by BGP from the leak VRF, with whether they are installed.
    pub imported: BTreeMap<Ipv6Net, bool>,
    /// The `::/0` blackhole is installed.
    pub deny_installed: bool,
}

/// What has to change in FRR, in two halves: what leaves, and what comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrrPlan {
    pub withdraw: FrrDelta,
    pub apply: FrrDelta,
    pub leak: BTreeMap<VrfName, LeakStatus>,
    /// Why nothing can be applied now (no `router bgp`), if so.
    pub waiting: Option<String>,
    /// VRFs that FRR's running configuration still mentions in lines of ours though they are not wanted.
    pub lingering: Vec<VrfName>,
}

/// Placeholder until the delta lands.
pub fn plan(
    _spec: &FrrSpec,
    _observed: &FrrObserved,
    _method: crate::desired::LeakMethod,
    _owned: &dyn Fn(&VrfName) -> bool,
) -> FrrPlan {
    FrrPlan::default()
}

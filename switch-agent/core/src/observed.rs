//! What the switch looks like now, as one snapshot.
//!
//! Every source is [`Source::Known`] or [`Source::Unknown`] with the reason. Absent is only ever a `Known`
//! without the entry; nothing is removed because a source could not be read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::Ipv6Net;
use serde::Serialize;

use crate::frr::FrrObserved;
use crate::name::{MacAddr, PortName};
use crate::ownership::Ledger;
use crate::ra::AdvertiserSpec;
use crate::row::ConfigDb;
use crate::service::{PortService, UpstreamState};

/// A source of observation: read, or not readable now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source<T> {
    Known(T),
    Unknown(String),
}

impl<T> Source<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Source::Known(value) => Some(value),
            Source::Unknown(_) => None,
        }
    }
}

/// One pass's view of the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observed {
    pub config: Source<ConfigDb>,
    pub state: Source<StateDb>,
    pub appl: Source<ApplDb>,
    pub kernel: Source<Kernel>,
    /// `Unknown` while FRR does not answer; see [`FrrObserved`] for "not managed".
    pub frr: Source<FrrObserved>,
    pub ledger: Source<Ledger>,
    /// The agent's own running parts; always known.
    pub runtime: Runtime,
    /// Objects whose last action failed, and are to be left alone for now: object to reason.
    pub backing_off: BTreeMap<String, String>,
    /// Objects acted upon a moment ago: the other side gets time to react before anything is repeated.
    pub cooling: BTreeSet<String>,
    /// Objects that have been waited for long enough to do something about it. A row that is there takes
    /// effect by itself when swss starts; writing it again would be more work for swss, not less.
    pub overdue: BTreeSet<String>,
}

/// STATE_DB, as far as the agent needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StateDb {
    /// `VRF_TABLE|<vrf>` exists: vrfmgrd made the kernel device.
    pub vrf_table: BTreeSet<String>,
    /// `VRF_OBJECT_TABLE|<vrf>` exists: orchagent made the virtual router.
    pub vrf_object_table: BTreeSet<String>,
    /// `INTERFACE_TABLE|<port>` field `vrf`; empty for the default VRF.
    pub interface_table: BTreeMap<PortName, String>,
    /// `INTERFACE_TABLE|<port>|<prefix>` exists.
    pub interface_prefixes: BTreeSet<(PortName, Ipv6Net)>,
    /// `PORT_TABLE|<port>` (or `LAG_TABLE`): field `state` is `ok`, and `netdev_oper_status`.
    pub port_table: BTreeMap<PortName, PortState>,
    /// `VLAN_MEMBER_TABLE|<vlan>|<port>` exists: ports that vlanmgrd still holds.
    pub vlan_members: BTreeSet<PortName>,
    /// A warm or fast reboot that is under way.
    pub reboot: Option<Reboot>,
    /// What orchagent made of data-plane ACLs.
    pub acl: AclState,
}

/// A reboot that keeps the data plane. Its flag is set before anything stops, is carried over to the new
/// system, and is taken back when every daemon has reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reboot {
    /// `WARM_RESTART_ENABLE_TABLE|system` field `enable` is `true`.
    Warm,
    /// `FAST_RESTART_ENABLE_TABLE|system` field `enable` is `true`, or, up to release 202211,
    /// `FAST_REBOOT|system` exists.
    Fast,
}

/// `ACL_TABLE_TABLE` and `ACL_RULE_TABLE`, field `status`: `Active`, `Inactive`, `Pending creation` or
/// `Pending removal`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AclState {
    /// Whether orchagent tells at all: there is a row of any table. Older releases have none.
    pub told: bool,
    /// Of our tables, by name.
    pub tables: BTreeMap<String, String>,
    /// Of our rules, by `table|rule`.
    pub rules: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PortState {
    pub state_ok: bool,
    pub oper_up: bool,
}

/// APPL_DB: the barrier of a rebind (see the reference of orchagent's consumer tables).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ApplDb {
    /// `INTF_TABLE:<port>` hashes that exist.
    pub intf_table: BTreeSet<PortName>,
    /// Members of the set `INTF_TABLE_KEY_SET`: ports whose change orchagent has not popped yet.
    pub intf_key_set: BTreeSet<PortName>,
    /// `PORT_TABLE:PortInitDone` exists.
    pub port_init_done: bool,
}

/// The kernel's links and addresses, from rtnetlink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// By interface name; ports, VRF devices and everything else.
    pub links: BTreeMap<String, Link>,
    /// VRF devices (by name) whose table has an `unreachable` default route.
    pub unreachable_defaults: BTreeSet<String>,
    /// Whether the process may change links and routes (CAP_NET_ADMIN).
    pub net_admin: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    pub ifindex: u32,
    /// Name of the device this one is enslaved to (a VRF or a bridge).
    pub master: Option<String>,
    pub is_vrf: bool,
    /// Routing table of a VRF device.
    pub vrf_table: Option<u32>,
    /// IFF_UP.
    pub admin_up: bool,
    /// IFF_LOWER_UP: carrier.
    pub carrier: bool,
    pub mac: Option<MacAddr>,
    pub addresses: BTreeSet<Ipv6Net>,
    /// Addresses in `addresses` that are still tentative (DAD running) or failed DAD.
    pub tentative: BTreeSet<Ipv6Net>,
    /// `net.ipv6.conf.<link>.forwarding`, where netconf told.
    pub forwarding: Option<bool>,
}

/// The router link-local address that machines may use where it could be configured.
pub const CONVENIENCE_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl Link {
    /// The address that advertisements are sent from: a link-local that passed DAD, and of those the one
    /// made of the MAC rather than the convenience address `fe80::1`, so that adding or losing the latter
    /// never changes the router's identity.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        let mut candidates = self
            .addresses
            .iter()
            .filter(|net| !self.tentative.contains(*net))
            .map(Ipv6Net::addr)
            .filter(Ipv6Addr::is_unicast_link_local)
            .filter(|address| *address != CONVENIENCE_LINK_LOCAL);
        let eui64 = self.mac.map(MacAddr::eui64_link_local);
        candidates.clone().find(|address| Some(*address) == eui64).or_else(|| candidates.next())
    }
}

/// The agent's own parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Runtime {
    pub advertisers: BTreeMap<PortName, AdvertiserState>,
    pub services: BTreeMap<PortName, PortService>,
    /// Ports whose listener could not be opened, and why.
    pub service_errors: BTreeMap<PortName, String>,
    pub upstream: Option<UpstreamState>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdvertiserState {
    Running(Arc<AdvertiserSpec>),
    /// Final advertisements are on their way; the port may be released when this entry is gone.
    Ceasing,
}

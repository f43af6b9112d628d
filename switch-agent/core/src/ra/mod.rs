//! Router Advertisements: configuration, and the sans-I/O advertiser of one port.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use serde::Serialize;

use crate::dhcp6::Dhcp6Config;
use crate::name::{MacAddr, PortName};

mod advertiser;
mod answers;
mod bucket;
mod content;
mod multicast;
mod rng;

pub use advertiser::{Advertiser, Destination, Transmit, TransmitKind};
pub use answers::{Heard, Trigger};
pub use bucket::TokenBucket;

/// How an advertiser treats the letter of RFC 4861.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RaProfile {
    /// One machine per port, fastest safe address; deviations are listed in the README.
    #[default]
    Boot,
    /// RFC 4861 to the letter.
    Strict,
}

/// Default Router Preference (RFC 4191 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    Low,
    #[default]
    Medium,
    High,
}

/// One route of a Route Information Option (RFC 4191 section 2.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteInfo {
    pub prefix: Ipv6Net,
    pub preference: Preference,
    /// Route Lifetime in seconds.
    pub lifetime_s: u32,
}

/// One entry of AdvPrefixList (RFC 4861 section 6.2.1). L and A are always set on a boot port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdvPrefix {
    pub prefix: Ipv6Net,
    pub adv_valid_lifetime_s: u32,
    pub adv_preferred_lifetime_s: u32,
}

/// The router variables of one port (RFC 4861 section 6.2.1), already checked against their bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RaConfig {
    pub profile: RaProfile,
    pub max_rtr_adv_interval: Duration,
    pub min_rtr_adv_interval: Duration,
    pub adv_managed_flag: bool,
    pub adv_other_config_flag: bool,
    pub adv_link_mtu: Option<u32>,
    /// Milliseconds; 0 is "unspecified".
    pub adv_reachable_time_ms: u32,
    /// Milliseconds; 0 is "unspecified".
    pub adv_retrans_timer_ms: u32,
    pub adv_cur_hop_limit: u8,
    pub adv_default_lifetime_s: u16,
    pub prf: Preference,
    pub adv_prefix_list: Vec<AdvPrefix>,
    pub rdnss: Vec<Ipv6Addr>,
    pub dnssl: Vec<String>,
    pub route_info: Vec<RouteInfo>,
    /// NAT64 prefix (RFC 8781); its length is one of 32, 40, 48, 56, 64, 96.
    pub pref64: Option<Ipv6Net>,
    /// Captive-portal URI (RFC 8910).
    pub captive_portal: Option<String>,
}

impl RaConfig {
    /// Equality of everything but `adv_prefix_list`, which is each port's own.
    pub(crate) fn equals_but_for_prefixes(&self, other: &RaConfig) -> bool {
        // Taken apart, so that a new field cannot be forgotten here.
        let RaConfig {
            profile,
            max_rtr_adv_interval,
            min_rtr_adv_interval,
            adv_managed_flag,
            adv_other_config_flag,
            adv_link_mtu,
            adv_reachable_time_ms,
            adv_retrans_timer_ms,
            adv_cur_hop_limit,
            adv_default_lifetime_s,
            prf,
            adv_prefix_list: _,
            rdnss,
            dnssl,
            route_info,
            pref64,
            captive_portal,
        } = self;
        *profile == other.profile
            && *max_rtr_adv_interval == other.max_rtr_adv_interval
            && *min_rtr_adv_interval == other.min_rtr_adv_interval
            && *adv_managed_flag == other.adv_managed_flag
            && *adv_other_config_flag == other.adv_other_config_flag
            && *adv_link_mtu == other.adv_link_mtu
            && *adv_reachable_time_ms == other.adv_reachable_time_ms
            && *adv_retrans_timer_ms == other.adv_retrans_timer_ms
            && *adv_cur_hop_limit == other.adv_cur_hop_limit
            && *adv_default_lifetime_s == other.adv_default_lifetime_s
            && *prf == other.prf
            && *rdnss == other.rdnss
            && *dnssl == other.dnssl
            && *route_info == other.route_info
            && *pref64 == other.pref64
            && *captive_portal == other.captive_portal
    }
}

/// Everything an advertiser needs to run on one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdvertiserSpec {
    pub port: PortName,
    pub ifindex: u32,
    /// MAC of the port's netdev: Source Link-Layer Address option, and source of the frames.
    pub mac: MacAddr,
    /// Link-local address of the port: source of the advertisements.
    pub link_local: Ipv6Addr,
    pub config: RaConfig,
    /// DHCPv6 beside the advertisements: one process owns both, as a client's first message is answered by
    /// both at once.
    pub dhcp6: Option<Dhcp6Config>,
}

/// How a port stops advertising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cease {
    /// The port really leaves: final advertisements with Router Lifetime 0 (RFC 4861 section 6.2.5).
    Final,
    /// The process stops or restarts: nothing is sent, machines keep their router.
    Silent,
}

/// A change of a link as the kernel reported it, on the fast path past the reconciler: an advertisement
/// leaves within milliseconds of carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEvent {
    pub ifindex: u32,
    pub name: String,
    /// IFF_UP and IFF_LOWER_UP.
    pub carrier: bool,
    /// Interface index of the device that the link is enslaved to: its VRF, or a bridge.
    pub master: Option<u32>,
    /// The port's usable link-local address, where it has one.
    pub link_local: Option<Ipv6Addr>,
    /// The link was deleted.
    pub gone: bool,
}

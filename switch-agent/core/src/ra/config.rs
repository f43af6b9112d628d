//! The router variables of a port, as values that hold.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use serde::Serialize;

use super::content;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RouteInfo {
    pub prefix: Ipv6Net,
    pub preference: Preference,
    /// Route Lifetime in seconds.
    pub lifetime_s: u32,
}

/// Variables of an entry of AdvPrefixList (RFC 4861 section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PrefixVariables {
    /// [`u32::MAX`] is infinity.
    pub adv_valid_lifetime_s: u32,
    /// [`u32::MAX`] is infinity.
    pub adv_preferred_lifetime_s: u32,
    /// L.
    pub adv_on_link_flag: bool,
    /// A.
    pub adv_autonomous_flag: bool,
    /// P: machines ask for a prefix of their own by DHCPv6 (RFC 9762).
    pub adv_pd_preferred_flag: bool,
}

impl Default for PrefixVariables {
    fn default() -> Self {
        PrefixVariables {
            adv_valid_lifetime_s: 3600,
            adv_preferred_lifetime_s: 1800,
            adv_on_link_flag: true,
            adv_autonomous_flag: true,
            adv_pd_preferred_flag: false,
        }
    }
}

/// One entry of AdvPrefixList (RFC 4861 section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AdvPrefix {
    pub prefix: Ipv6Net,
    #[serde(flatten)]
    pub variables: PrefixVariables,
}

/// One encrypted DNS resolver (RFC 9463).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EncryptedDns {
    /// Not 0, which would be AliasMode (RFC 9463 section 6.1).
    pub service_priority: u16,
    /// Authentication Domain Name, without a trailing dot.
    pub adn: String,
    /// None is the ADN-only mode: the machine resolves the name, and no service parameters are sent.
    pub addresses: Vec<Ipv6Addr>,
    pub svc_params: SvcParams,
}

/// Service parameters (RFC 9460 section 7, RFC 9461).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SvcParams {
    /// `dot`, `doq`, `h2`, `h3`.
    pub alpn: Vec<String>,
    pub port: Option<u16>,
    /// URI template, relative: `/dns-query{?dns}`.
    pub dohpath: Option<String>,
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
    /// RFC 9463.
    pub dnr: Vec<EncryptedDns>,
    pub route_info: Vec<RouteInfo>,
    /// NAT64 prefix (RFC 8781); its length is one of 32, 40, 48, 56, 64, 96.
    pub pref64: Option<Ipv6Net>,
    /// Captive-portal URI (RFC 8910).
    pub captive_portal: Option<String>,
}

/// Retrans Timer of the boot profile: duplicate address detection ends 0.9 s sooner than with the default
/// of one second.
const BOOT_RETRANS_TIMER_MS: u32 = 100;

impl RaProfile {
    /// Default of AdvRetransTimer in milliseconds; 0 is "unspecified".
    pub(crate) fn default_retrans_timer_ms(self) -> u32 {
        match self {
            RaProfile::Boot => BOOT_RETRANS_TIMER_MS,
            RaProfile::Strict => 0,
        }
    }
}

/// What a row without router variables means.
impl Default for RaConfig {
    fn default() -> Self {
        RaConfig {
            profile: RaProfile::Boot,
            max_rtr_adv_interval: Duration::from_secs(10),
            min_rtr_adv_interval: Duration::from_secs(3),
            adv_managed_flag: false,
            adv_other_config_flag: false,
            adv_link_mtu: None,
            adv_reachable_time_ms: 0,
            adv_retrans_timer_ms: BOOT_RETRANS_TIMER_MS,
            adv_cur_hop_limit: 64,
            adv_default_lifetime_s: 1800,
            prf: Preference::Medium,
            adv_prefix_list: Vec::new(),
            rdnss: Vec::new(),
            dnssl: Vec::new(),
            dnr: Vec::new(),
            route_info: Vec::new(),
            pref64: None,
            captive_portal: None,
        }
    }
}

impl RaConfig {
    /// Lifetime of what has no variable of its own (RDNSS, DNSSL, DNR, PREF64), in seconds: as long as the
    /// router itself, and at least the 3 * MaxRtrAdvInterval of RFC 8106 section 5.1, so that an outage of
    /// the agent does not take name resolution from a machine that still has its route.
    pub(crate) fn shared_lifetime_s(&self) -> u32 {
        let minimum = self.max_rtr_adv_interval.saturating_mul(3).as_secs();
        u32::try_from(minimum).unwrap_or(u32::MAX).max(u32::from(self.adv_default_lifetime_s))
    }

    /// Into how many messages of at most 1280 bytes an advertisement with one prefix is split.
    pub(crate) fn message_count(&self) -> usize {
        let prefix = AdvPrefix { prefix: Ipv6Net::default(), variables: PrefixVariables::default() };
        content::message_count(self, &[prefix])
    }

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
            dnr,
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
            && *dnr == other.dnr
            && *route_info == other.route_info
            && *pref64 == other.pref64
            && *captive_portal == other.captive_portal
    }
}

//! Router variables of a partition or of a port, within the bounds of RFC 4861 section 6.2.1.

use std::time::Duration;

use super::fields::{Reader, choice, number};
use super::url::captive_portal;
use super::values::{dns_name, dns_server, encrypted_dns, nat64_prefix, preference, route_info};
use crate::desired::{Partition, Rejected};
use crate::ra::{Preference, PrefixVariables, RaConfig, RaProfile};

/// Fields that partitions and ports have alike.
pub(super) const FIELDS: [&str; 20] = [
    "ra_profile",
    "max_rtr_adv_interval",
    "min_rtr_adv_interval",
    "adv_default_lifetime",
    "adv_valid_lifetime",
    "adv_preferred_lifetime",
    "adv_on_link_flag",
    "adv_autonomous_flag",
    "adv_pd_preferred_flag",
    "adv_link_mtu",
    "adv_cur_hop_limit",
    "adv_reachable_time",
    "adv_retrans_timer",
    "prf",
    "rdnss@",
    "dnssl@",
    "dnr@",
    "route_info@",
    "pref64",
    "captive_portal",
];

/// RFC 4861 section 6.2.1: one hour.
const REACHABLE_TIME_MS_MAX: u32 = 3_600_000;
/// Most messages that one advertisement is split into.
const MESSAGES_MAX: usize = 4;
const RDNSS_MAX: usize = 8;
const DNSSL_MAX: usize = 8;
const DNR_MAX: usize = 4;
const ROUTE_INFO_MAX: usize = 16;

/// The router variables, and those of the prefix that each port has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouterVariables {
    pub(super) config: RaConfig,
    pub(super) prefix: PrefixVariables,
}

/// Reads the router variables. M and O say what DHCPv6 really has to say (RFC 4861 section 4.2): with the role
/// `dhcp6`, an address and the rest.
pub(super) fn router_variables(reader: &mut Reader, dhcp6: bool) -> RouterVariables {
    let default = RaConfig::default();
    let profile = reader.or(
        "ra_profile",
        default.profile,
        choice([("boot", RaProfile::Boot), ("strict", RaProfile::Strict)]),
    );
    let (max, min) = intervals(reader);
    let adv_default_lifetime_s = default_lifetime(reader, max);
    let prefix = prefix_variables(reader);
    let route_lifetime_s = u32::from(adv_default_lifetime_s);
    let config = RaConfig {
        profile,
        max_rtr_adv_interval: Duration::from_secs(max),
        min_rtr_adv_interval: Duration::from_secs(min),
        adv_managed_flag: dhcp6,
        adv_other_config_flag: dhcp6,
        adv_link_mtu: reader.optional("adv_link_mtu", number(1280..=9216)),
        adv_reachable_time_ms: reader.or("adv_reachable_time", 0, number(0..=REACHABLE_TIME_MS_MAX)),
        adv_retrans_timer_ms: reader.or(
            "adv_retrans_timer",
            profile.default_retrans_timer_ms(),
            number(0..=u32::MAX),
        ),
        adv_cur_hop_limit: reader.or("adv_cur_hop_limit", default.adv_cur_hop_limit, number(0..=u8::MAX)),
        adv_default_lifetime_s,
        prf: reader.or("prf", Preference::Medium, preference),
        adv_prefix_list: Vec::new(),
        rdnss: reader.list("rdnss@", RDNSS_MAX, dns_server),
        dnssl: reader.list("dnssl@", DNSSL_MAX, dns_name),
        dnr: reader.list("dnr@", DNR_MAX, encrypted_dns),
        route_info: reader.list("route_info@", ROUTE_INFO_MAX, |item| route_info(item, route_lifetime_s)),
        pref64: reader.optional("pref64", nat64_prefix),
        captive_portal: reader.optional("captive_portal", captive_portal),
    };
    reject_repetitions(reader, &config);
    let count = config.message_count();
    if count > MESSAGES_MAX {
        reader.reject_row(format!(
            "its Router Advertisement would need {count} messages of 1280 bytes; at most {MESSAGES_MAX} are \
             allowed: shorten rdnss@, dnssl@, dnr@, route_info@ or captive_portal"
        ));
    }
    RouterVariables { config, prefix }
}

/// MaxRtrAdvInterval and MinRtrAdvInterval in seconds. 3 is a legal minimum for every legal maximum, so
/// the default does not depend on it.
fn intervals(reader: &mut Reader) -> (u64, u64) {
    const MAX: &str = "max_rtr_adv_interval";
    const MIN: &str = "min_rtr_adv_interval";
    let max: u64 = reader.or(MAX, 10, number(4..=1800));
    let min: u64 = reader.or(MIN, 3, number(3..=1350));
    if !reader.is_bad(MAX) && !reader.is_bad(MIN) && min * 4 > max * 3 {
        if reader.has(MIN) {
            reader.reject(MIN, format!("must be at most 0.75 of {MAX} ({max}): {}", max * 3 / 4));
        } else {
            let origin = reader.origin(MIN);
            let least = (min * 4).div_ceil(3);
            reader.reject(MAX, format!("must be at least 4/3 of {MIN} ({min} {origin}): {least}"));
        }
    }
    (max, min)
}

/// AdvDefaultLifetime in seconds: 0 (not a default router) or MaxRtrAdvInterval..9000.
fn default_lifetime(reader: &mut Reader, max_interval: u64) -> u16 {
    const MAX: &str = "max_rtr_adv_interval";
    const LIFETIME: &str = "adv_default_lifetime";
    let lifetime = reader.or(LIFETIME, 1800, number(0..=9000));
    let both_hold = !reader.is_bad(MAX) && !reader.is_bad(LIFETIME);
    if both_hold && lifetime != 0 && u64::from(lifetime) < max_interval {
        if reader.has(LIFETIME) {
            reader.reject(LIFETIME, format!("must be 0 or {max_interval} ({MAX}) to 9000"));
        } else {
            let origin = reader.origin(LIFETIME);
            reader.reject(MAX, format!("must be at most {LIFETIME} ({lifetime} {origin})"));
        }
    }
    lifetime
}

/// AdvValidLifetime and AdvPreferredLifetime in seconds, 4294967295 being infinity; L, A and P.
fn prefix_variables(reader: &mut Reader) -> PrefixVariables {
    const VALID: &str = "adv_valid_lifetime";
    const PREFERRED: &str = "adv_preferred_lifetime";
    let default = PrefixVariables::default();
    let valid = reader.or(VALID, default.adv_valid_lifetime_s, number(1..=u32::MAX));
    let preferred = reader.or(PREFERRED, default.adv_preferred_lifetime_s, number(0..=u32::MAX));
    if !reader.is_bad(VALID) && !reader.is_bad(PREFERRED) && preferred > valid {
        if reader.has(PREFERRED) {
            reader.reject(PREFERRED, format!("must be at most {VALID} ({valid})"));
        } else {
            let origin = reader.origin(PREFERRED);
            reader.reject(VALID, format!("must be at least {PREFERRED} ({preferred} {origin})"));
        }
    }
    PrefixVariables {
        adv_valid_lifetime_s: valid,
        adv_preferred_lifetime_s: preferred,
        adv_on_link_flag: reader.flag("adv_on_link_flag", default.adv_on_link_flag),
        adv_autonomous_flag: reader.flag("adv_autonomous_flag", default.adv_autonomous_flag),
        adv_pd_preferred_flag: reader.flag("adv_pd_preferred_flag", default.adv_pd_preferred_flag),
    }
}

/// A machine keeps one entry for each prefix and each name: a second one would replace the first.
fn reject_repetitions(reader: &mut Reader, config: &RaConfig) {
    for (at, route) in config.route_info.iter().enumerate() {
        if config.route_info[..at].iter().any(|earlier| earlier.prefix == route.prefix) {
            reader.reject_item("route_info@", &route.prefix.to_string(), "names this prefix twice");
        }
    }
    for (at, resolver) in config.dnr.iter().enumerate() {
        let earlier = &config.dnr[..at];
        if earlier.iter().any(|earlier| earlier.adn.eq_ignore_ascii_case(&resolver.adn)) {
            reader.reject_item("dnr@", &resolver.adn, "names this resolver twice");
        }
    }
}

/// Legal settings of the row `row` that an operator should know about. `has` says which fields it has
/// itself.
pub(super) fn warnings(row: &str, partition: &Partition, has: impl Fn(&str) -> bool) -> Vec<Rejected> {
    let (config, prefix) = (&partition.ra, &partition.adv_prefix);
    let mut warnings = Vec::new();
    let mut warn = |fields: &[&str], value: &str, rule: String| {
        if partition.advertise && fields.iter().any(|field| has(field)) {
            warnings.push(Rejected::of_field(row, fields[0], Some(value), rule));
        }
    };
    let max_interval_s = config.max_rtr_adv_interval.as_secs();
    if u64::from(prefix.adv_valid_lifetime_s) < max_interval_s {
        let rule =
            format!("lets addresses expire between advertisements (max_rtr_adv_interval {max_interval_s})");
        warn(&["adv_valid_lifetime", "max_rtr_adv_interval"], &prefix.adv_valid_lifetime_s.to_string(), rule);
    }
    if !prefix.adv_autonomous_flag && partition.dhcp6.is_none() {
        let rule = "leaves machines without an address: neither autoconfiguration nor DHCPv6 gives them one";
        warn(&["adv_autonomous_flag"], "disabled", rule.to_owned());
    }
    if prefix.adv_pd_preferred_flag {
        let rule = "makes machines that know RFC 9762 ask for a prefix by DHCPv6; the agent delegates none";
        warn(&["adv_pd_preferred_flag"], "enabled", rule.to_owned());
    }
    warnings
}

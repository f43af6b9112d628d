//! Router variables of a partition, within the bounds of RFC 4861 section 6.2.1.

use std::time::Duration;

use super::fields::{Reader, choice, number};
use super::url::captive_portal;
use super::values::{dns_name, dns_server, nat64_prefix, preference, route_info};
use crate::ra::{Preference, RaConfig, RaProfile};

/// Retrans Timer of the boot profile: duplicate address detection ends 0.9 s sooner than with the
/// default of one second.
const BOOT_RETRANS_TIMER_MS: u32 = 100;
/// RFC 4861 section 6.2.1: one hour.
const REACHABLE_TIME_MS_MAX: u32 = 3_600_000;
/// Largest Router Advertisement, IPv6 header included: the minimum MTU, since firmware assumes it.
const ADVERTISEMENT_LEN_MAX: usize = 1280;
const RDNSS_MAX: usize = 8;
const DNSSL_MAX: usize = 8;
const ROUTE_INFO_MAX: usize = 16;

/// A partition's router variables and the lifetimes of its prefixes.
pub(super) struct RouterVariables {
    pub(super) config: RaConfig,
    pub(super) adv_valid_lifetime_s: u32,
    pub(super) adv_preferred_lifetime_s: u32,
}

/// Reads the router variables; M and O are left to the role `dhcp6`.
pub(super) fn router_variables(reader: &mut Reader) -> RouterVariables {
    let profile = reader.or(
        "ra_profile",
        RaProfile::Boot,
        choice([("boot", RaProfile::Boot), ("strict", RaProfile::Strict)]),
    );
    let (max, min) = intervals(reader);
    let adv_default_lifetime_s = default_lifetime(reader, max);
    let (adv_valid_lifetime_s, adv_preferred_lifetime_s) = prefix_lifetimes(reader);
    let retrans_default_ms = match profile {
        RaProfile::Boot => BOOT_RETRANS_TIMER_MS,
        RaProfile::Strict => 0,
    };
    let route_lifetime_s = u32::from(adv_default_lifetime_s);
    let config = RaConfig {
        profile,
        max_rtr_adv_interval: Duration::from_secs(max),
        min_rtr_adv_interval: Duration::from_secs(min),
        adv_managed_flag: false,
        adv_other_config_flag: false,
        adv_link_mtu: reader.optional("adv_link_mtu", number(1280..=9216)),
        adv_reachable_time_ms: reader.or("adv_reachable_time", 0, number(0..=REACHABLE_TIME_MS_MAX)),
        adv_retrans_timer_ms: reader.or("adv_retrans_timer", retrans_default_ms, number(0..=u32::MAX)),
        adv_cur_hop_limit: reader.or("adv_cur_hop_limit", 64, number(0..=u8::MAX)),
        adv_default_lifetime_s,
        prf: reader.or("prf", Preference::Medium, preference),
        adv_prefix_list: Vec::new(),
        rdnss: reader.list("rdnss@", RDNSS_MAX, dns_server),
        dnssl: reader.list("dnssl@", DNSSL_MAX, dns_name),
        route_info: reader.list("route_info@", ROUTE_INFO_MAX, |item| route_info(item, route_lifetime_s)),
        pref64: reader.optional("pref64", nat64_prefix),
        captive_portal: reader.optional("captive_portal", captive_portal),
    };
    reject_repeated_routes(reader, &config);
    let len = advertisement_len(&config);
    if len > ADVERTISEMENT_LEN_MAX {
        reader.reject_row(format!(
            "its Router Advertisement would have {len} bytes; at most {ADVERTISEMENT_LEN_MAX} are allowed: shorten \
             rdnss@, dnssl@, route_info@ or captive_portal"
        ));
    }
    RouterVariables { config, adv_valid_lifetime_s, adv_preferred_lifetime_s }
}

/// MaxRtrAdvInterval and MinRtrAdvInterval in seconds. 3 is a legal minimum for every legal maximum, so
/// the default does not depend on it.
fn intervals(reader: &mut Reader) -> (u64, u64) {
    let max = reader.or("max_rtr_adv_interval", 10, number(4..=1800));
    let min = reader.or("min_rtr_adv_interval", 3, number(3..=1350));
    let both_hold = !reader.is_bad("max_rtr_adv_interval") && !reader.is_bad("min_rtr_adv_interval");
    if both_hold && min * 4 > max * 3 {
        let rule = format!("must be at most 0.75 of max_rtr_adv_interval ({max}): {}", max * 3 / 4);
        reader.reject("min_rtr_adv_interval", rule);
    }
    (max, min)
}

/// AdvDefaultLifetime in seconds: 0 (not a default router) or MaxRtrAdvInterval..9000.
fn default_lifetime(reader: &mut Reader, max_interval: u64) -> u16 {
    let lifetime = reader.or("adv_default_lifetime", 1800, number(0..=9000));
    let both_hold = !reader.is_bad("max_rtr_adv_interval") && !reader.is_bad("adv_default_lifetime");
    if both_hold && lifetime != 0 && u64::from(lifetime) < max_interval {
        let rule = format!("must be 0 or {max_interval} (max_rtr_adv_interval) to 9000");
        reader.reject("adv_default_lifetime", rule);
    }
    lifetime
}

/// AdvValidLifetime and AdvPreferredLifetime in seconds; 4294967295 is infinity.
fn prefix_lifetimes(reader: &mut Reader) -> (u32, u32) {
    const VALID: &str = "adv_valid_lifetime";
    const PREFERRED: &str = "adv_preferred_lifetime";
    let valid = reader.or(VALID, 3600, number(1..=u32::MAX));
    let preferred = reader.or(PREFERRED, 1800, number(0..=u32::MAX));
    if !reader.is_bad(VALID) && !reader.is_bad(PREFERRED) && preferred > valid {
        match reader.text(PREFERRED) {
            Some(_) => reader.reject(PREFERRED, format!("must be at most {VALID} ({valid})")),
            None => reader.reject(VALID, format!("must be at least {PREFERRED} ({preferred} by default)")),
        }
    }
    (valid, preferred)
}

fn reject_repeated_routes(reader: &mut Reader, config: &RaConfig) {
    for (at, route) in config.route_info.iter().enumerate() {
        if config.route_info[..at].iter().any(|earlier| earlier.prefix == route.prefix) {
            reader.reject_item("route_info@", &route.prefix.to_string(), "names this prefix twice");
        }
    }
}

/// Length of the advertisement with the port's one prefix: IPv6 header, fixed part, options (RFC 4861
/// section 4.6, RFC 4191 section 2.3, RFC 8106, RFC 8781, RFC 8910).
fn advertisement_len(config: &RaConfig) -> usize {
    const FIXED: usize = 40 + 16;
    const LINK_LAYER_AND_PREFIX: usize = 8 + 32;
    let list = |bytes: usize| {
        if bytes == 0 { 0 } else { 8 + bytes.next_multiple_of(8) }
    };
    let route = |prefix_len: u8| match prefix_len {
        0 => 8,
        1..=64 => 16,
        _ => 24,
    };
    FIXED
        + LINK_LAYER_AND_PREFIX
        + config.adv_link_mtu.map_or(0, |_| 8)
        + list(16 * config.rdnss.len())
        + list(config.dnssl.iter().map(|name| name.len() + 2).sum())
        + config.route_info.iter().map(|info| route(info.prefix.prefix_len())).sum::<usize>()
        + config.pref64.map_or(0, |_| 16)
        + config.captive_portal.as_ref().map_or(0, |uri| (uri.len() + 2).next_multiple_of(8))
}

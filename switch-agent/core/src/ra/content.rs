//! What the advertisements of a port say: from its variables to ICMPv6 messages.

use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::Ipv6Net;

use super::{AdvertiserSpec, RaConfig, RouteInfo};
use crate::ndp::{self, Header, NdpOption};

/// ICMPv6 messages that make up one advertisement; more than one where options do not fit into one.
pub(super) type Messages = Arc<[Vec<u8>]>;

/// Most withdrawn things remembered at a time.
const WITHDRAWN_MAX: usize = 16;

/// What earlier advertisements told machines and the current ones do not repeat: said once more with
/// lifetime 0, so that machines do not keep it until it times out (RFC 9096 section 3.5 for prefixes).
#[derive(Debug, Clone, Default)]
pub(super) struct Withdrawn {
    prefixes: Vec<Ipv6Net>,
    rdnss: Vec<Ipv6Addr>,
    routes: Vec<RouteInfo>,
    pref64: Vec<Ipv6Net>,
}

impl Withdrawn {
    pub(super) fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.rdnss.is_empty() && self.routes.is_empty() && self.pref64.is_empty()
    }

    /// Remembers what `old` told and `new` does not, and forgets what `new` tells again.
    pub(super) fn update(&mut self, old: &RaConfig, new: &RaConfig) {
        let told = |config: &RaConfig| -> Vec<Ipv6Net> {
            config.adv_prefix_list.iter().map(|entry| entry.prefix).collect()
        };
        withdraw(&mut self.prefixes, told(old), &told(new));
        withdraw(&mut self.rdnss, old.rdnss.clone(), &new.rdnss);
        withdraw(&mut self.pref64, old.pref64.into_iter().collect(), new.pref64.as_slice());
        self.routes.extend(old.route_info.iter().cloned());
        self.routes.retain(|route| new.route_info.iter().all(|kept| kept.prefix != route.prefix));
        self.routes.truncate(WITHDRAWN_MAX);
    }
}

fn withdraw<T: PartialEq>(withdrawn: &mut Vec<T>, old: Vec<T>, new: &[T]) {
    withdrawn.extend(old);
    withdrawn.retain(|value| !new.contains(value));
    withdrawn.truncate(WITHDRAWN_MAX);
}

/// Lifetime of what has no variable of its own (RDNSS, DNSSL, PREF64), in seconds: as long as the router
/// itself, and at least the 3 * MaxRtrAdvInterval of RFC 8106 section 5.1, so that an outage of the agent
/// does not take name resolution from a machine that still has its route.
fn shared_lifetime_s(config: &RaConfig) -> u32 {
    let minimum = config.max_rtr_adv_interval.saturating_mul(3).as_secs();
    u32::try_from(minimum).unwrap_or(u32::MAX).max(u32::from(config.adv_default_lifetime_s))
}

/// A regular advertisement.
pub(super) fn regular(spec: &AdvertiserSpec, withdrawn: &Withdrawn) -> Messages {
    encode(spec, withdrawn, false)
}

/// A final advertisement (RFC 4861 section 6.2.5): the router and everything it told have lifetime 0.
pub(super) fn last(spec: &AdvertiserSpec, withdrawn: &Withdrawn) -> Messages {
    encode(spec, withdrawn, true)
}

/// Takes leave from an address that is no longer the port's (RFC 4861 section 6.2.8): the router there has
/// lifetime 0, and nothing else is withdrawn, as the new address keeps telling it.
pub(super) fn farewell(former: &AdvertiserSpec) -> Messages {
    ndp::messages(&Header { router_lifetime_s: 0, ..header(&former.config) }, former.mac, &[]).into()
}

fn header(config: &RaConfig) -> Header {
    Header {
        cur_hop_limit: config.adv_cur_hop_limit,
        managed: config.adv_managed_flag,
        other_config: config.adv_other_config_flag,
        preference: config.prf,
        router_lifetime_s: config.adv_default_lifetime_s,
        reachable_time_ms: config.adv_reachable_time_ms,
        retrans_timer_ms: config.adv_retrans_timer_ms,
    }
}

fn encode(spec: &AdvertiserSpec, withdrawn: &Withdrawn, ceasing: bool) -> Messages {
    let config = &spec.config;
    let unless_ceasing = |lifetime_s: u32| if ceasing { 0 } else { lifetime_s };
    let mut header = header(config);
    if ceasing {
        header.router_lifetime_s = 0;
    }
    let lifetime_s = unless_ceasing(shared_lifetime_s(config));
    let prefix = |prefix, valid_s, preferred_s| NdpOption::PrefixInformation { prefix, valid_s, preferred_s };
    let route = |route: &RouteInfo, lifetime_s| NdpOption::RouteInformation {
        prefix: route.prefix,
        preference: route.preference,
        lifetime_s,
    };
    // Clients that take only the first message (iPXE) must find what a boot needs in it.
    let mut options: Vec<NdpOption<'_>> = vec![];
    options.extend(config.adv_prefix_list.iter().map(|entry| {
        let valid_s = unless_ceasing(entry.adv_valid_lifetime_s);
        prefix(entry.prefix, valid_s, unless_ceasing(entry.adv_preferred_lifetime_s))
    }));
    options.extend(config.adv_link_mtu.map(NdpOption::Mtu));
    options.push(NdpOption::Rdnss { servers: &config.rdnss, lifetime_s });
    options.push(NdpOption::Dnssl { domains: &config.dnssl, lifetime_s });
    options.extend(config.route_info.iter().map(|entry| route(entry, unless_ceasing(entry.lifetime_s))));
    options.extend(config.pref64.map(|prefix| NdpOption::Pref64 { prefix, lifetime_s }));
    options.extend(config.captive_portal.as_deref().map(NdpOption::CaptivePortal));

    options.extend(withdrawn.prefixes.iter().map(|gone| prefix(*gone, 0, 0)));
    options.push(NdpOption::Rdnss { servers: &withdrawn.rdnss, lifetime_s: 0 });
    options.extend(withdrawn.routes.iter().map(|gone| route(gone, 0)));
    options.extend(withdrawn.pref64.iter().map(|gone| NdpOption::Pref64 { prefix: *gone, lifetime_s: 0 }));
    ndp::messages(&header, spec.mac, &options).into()
}

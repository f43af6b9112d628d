//! What the advertisements of a port say: from its variables to ICMPv6 messages.

use std::sync::Arc;

use super::withdrawn::Withdrawn;
use super::{AdvPrefix, AdvertiserSpec, RaConfig, RouteInfo};
use crate::name::MacAddr;
use crate::ndp::{self, Header, NdpOption};

/// ICMPv6 messages that make up one advertisement; more than one where options do not fit into one.
pub(super) type Messages = Arc<[Vec<u8>]>;

/// A regular advertisement. Where the port does not forward, the router has lifetime 0 and everything else
/// holds (RFC 4861 section 6.2.5).
pub(super) fn regular(spec: &AdvertiserSpec, withdrawn: &Withdrawn) -> Messages {
    let mut header = header(&spec.config);
    if !spec.forwarding {
        header.router_lifetime_s = 0;
    }
    encode(&header, spec.mac, &spec.config, &spec.config.adv_prefix_list, withdrawn, |lifetime_s| lifetime_s)
}

/// A final advertisement (RFC 4861 section 6.2.5): the router and everything it told have lifetime 0.
pub(super) fn last(spec: &AdvertiserSpec, withdrawn: &Withdrawn) -> Messages {
    let header = Header { router_lifetime_s: 0, ..header(&spec.config) };
    encode(&header, spec.mac, &spec.config, &spec.config.adv_prefix_list, withdrawn, |_| 0)
}

/// Takes leave from an address that is no longer the port's (RFC 4861 section 6.2.8): the router there has
/// lifetime 0, and nothing else is withdrawn, as the new address keeps telling it.
pub(super) fn farewell(former: &AdvertiserSpec) -> Messages {
    ndp::messages(&Header { router_lifetime_s: 0, ..header(&former.config) }, former.mac, &[]).into()
}

/// How many messages an advertisement of `config` with these prefixes has.
pub(super) fn message_count(config: &RaConfig, prefixes: &[AdvPrefix]) -> usize {
    let nothing = Withdrawn::default();
    encode(&header(config), MacAddr([0; 6]), config, prefixes, &nothing, |lifetime_s| lifetime_s).len()
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

/// `lifetime` maps each configured lifetime, in seconds, to the one that is told.
fn encode(
    header: &Header,
    mac: MacAddr,
    config: &RaConfig,
    prefixes: &[AdvPrefix],
    withdrawn: &Withdrawn,
    lifetime: impl Fn(u32) -> u32,
) -> Messages {
    let lifetime_s = lifetime(config.shared_lifetime_s());
    let prefix = |entry: &AdvPrefix, lifetime: &dyn Fn(u32) -> u32| {
        let mut told = *entry;
        told.variables.adv_valid_lifetime_s = lifetime(entry.variables.adv_valid_lifetime_s);
        told.variables.adv_preferred_lifetime_s = lifetime(entry.variables.adv_preferred_lifetime_s);
        NdpOption::PrefixInformation(told)
    };
    let route = |route: &RouteInfo, lifetime_s| NdpOption::RouteInformation {
        prefix: route.prefix,
        preference: route.preference,
        lifetime_s,
    };
    // Clients that take only the first message (iPXE) must find what a boot needs in it.
    let mut options: Vec<NdpOption<'_>> = vec![];
    options.extend(prefixes.iter().map(|entry| prefix(entry, &lifetime)));
    options.extend(config.adv_link_mtu.map(NdpOption::Mtu));
    options.push(NdpOption::Rdnss { servers: &config.rdnss, lifetime_s });
    options.push(NdpOption::Dnssl { domains: &config.dnssl, lifetime_s });
    options.extend(config.route_info.iter().map(|entry| route(entry, lifetime(entry.lifetime_s))));
    options.extend(config.pref64.map(|prefix| NdpOption::Pref64 { prefix, lifetime_s }));
    options.extend(config.dnr.iter().map(|resolver| NdpOption::EncryptedDns { resolver, lifetime_s }));
    options.extend(config.captive_portal.as_deref().map(NdpOption::CaptivePortal));

    let (rdnss, dnssl) = (withdrawn.rdnss(), withdrawn.dnssl());
    options.extend(withdrawn.prefixes().map(|gone| prefix(gone, &|_| 0)));
    options.push(NdpOption::Rdnss { servers: &rdnss, lifetime_s: 0 });
    options.push(NdpOption::Dnssl { domains: &dnssl, lifetime_s: 0 });
    options.extend(withdrawn.routes().map(|gone| route(gone, 0)));
    options.extend(withdrawn.pref64().map(|prefix| NdpOption::Pref64 { prefix, lifetime_s: 0 }));
    options.extend(withdrawn.dnr().map(|resolver| NdpOption::EncryptedDns { resolver, lifetime_s: 0 }));
    ndp::messages(header, mac, &options).into()
}

//! What earlier advertisements told machines and the current ones do not repeat.
//!
//! It is told with lifetime 0 for as long as a machine could still hold it from before: at least the lifetime
//! that it was told with (RFC 9096 section 3.5 for prefixes; the same for what RFC 8106, 4191, 8781 and 9463
//! give a lifetime). A machine that was away when it changed hears of it when it is back.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;

use super::{AdvPrefix, EncryptedDns, RaConfig, RouteInfo};

/// Most withdrawn values of a kind that are remembered; of more, those that time out last are.
const WITHDRAWN_MAX: usize = 16;
/// The same for values of up to a kilobyte.
const WITHDRAWN_LARGE_MAX: usize = 4;

/// A value, and until when some machine may hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gone<T> {
    value: T,
    until: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Withdrawn {
    prefixes: Vec<Gone<AdvPrefix>>,
    rdnss: Vec<Gone<Ipv6Addr>>,
    dnssl: Vec<Gone<String>>,
    dnr: Vec<Gone<EncryptedDns>>,
    routes: Vec<Gone<RouteInfo>>,
    pref64: Vec<Gone<Ipv6Net>>,
}

impl Withdrawn {
    /// Nothing, as at most ports.
    pub(super) const NONE: &'static Withdrawn = &Withdrawn {
        prefixes: Vec::new(),
        rdnss: Vec::new(),
        dnssl: Vec::new(),
        dnr: Vec::new(),
        routes: Vec::new(),
        pref64: Vec::new(),
    };

    pub(super) fn is_none(&self) -> bool {
        self == Withdrawn::NONE
    }

    /// Remembers what `old` told until `now` and `new` does not, and forgets what `new` tells again.
    pub(super) fn update(&mut self, now: Duration, old: &RaConfig, new: &RaConfig) {
        let shared = old.shared_lifetime_s();
        let prefixes = old.adv_prefix_list.iter().map(|entry| (*entry, entry.variables.adv_valid_lifetime_s));
        withdraw(&mut self.prefixes, now, prefixes, WITHDRAWN_MAX, |gone| {
            new.adv_prefix_list.iter().any(|entry| entry.prefix == gone.prefix)
        });
        let rdnss = old.rdnss.iter().map(|server| (*server, shared));
        withdraw(&mut self.rdnss, now, rdnss, WITHDRAWN_MAX, |gone| new.rdnss.contains(gone));
        let dnssl = old.dnssl.iter().map(|domain| (domain.clone(), shared));
        withdraw(&mut self.dnssl, now, dnssl, WITHDRAWN_LARGE_MAX, |gone| new.dnssl.contains(gone));
        let dnr = old.dnr.iter().map(|resolver| (resolver.clone(), shared));
        withdraw(&mut self.dnr, now, dnr, WITHDRAWN_LARGE_MAX, |gone| {
            new.dnr.iter().any(|resolver| resolver.adn == gone.adn)
        });
        let routes = old.route_info.iter().map(|route| (*route, route.lifetime_s));
        withdraw(&mut self.routes, now, routes, WITHDRAWN_MAX, |gone| {
            new.route_info.iter().any(|route| route.prefix == gone.prefix)
        });
        let pref64 = old.pref64.iter().map(|prefix| (*prefix, shared));
        withdraw(&mut self.pref64, now, pref64, WITHDRAWN_MAX, |gone| new.pref64 == Some(*gone));
    }

    /// Forgets what no machine holds any more at `now`; whether there was any.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let Withdrawn { prefixes, rdnss, dnssl, dnr, routes, pref64 } = self;
        // Each of them, so without short circuit.
        expire(prefixes, now)
            | expire(rdnss, now)
            | expire(dnssl, now)
            | expire(dnr, now)
            | expire(routes, now)
            | expire(pref64, now)
    }

    /// Prefixes with the flags that they were told with, as RFC 9096 demands.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &AdvPrefix> {
        self.prefixes.iter().map(|gone| &gone.value)
    }

    pub(super) fn rdnss(&self) -> Vec<Ipv6Addr> {
        self.rdnss.iter().map(|gone| gone.value).collect()
    }

    pub(super) fn dnssl(&self) -> Vec<String> {
        self.dnssl.iter().map(|gone| gone.value.clone()).collect()
    }

    pub(super) fn dnr(&self) -> impl Iterator<Item = &EncryptedDns> {
        self.dnr.iter().map(|gone| &gone.value)
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = &RouteInfo> {
        self.routes.iter().map(|gone| &gone.value)
    }

    pub(super) fn pref64(&self) -> impl Iterator<Item = Ipv6Net> {
        self.pref64.iter().map(|gone| gone.value)
    }
}

/// `told` are the old values with their lifetimes in seconds, [`u32::MAX`] being infinity.
fn withdraw<T: PartialEq>(
    gone: &mut Vec<Gone<T>>,
    now: Duration,
    told: impl Iterator<Item = (T, u32)>,
    max: usize,
    kept: impl Fn(&T) -> bool,
) {
    for (value, lifetime_s) in told.filter(|(_, lifetime_s)| *lifetime_s > 0) {
        let lifetime = match lifetime_s {
            u32::MAX => Duration::MAX,
            seconds => Duration::from_secs(seconds.into()),
        };
        let until = now.saturating_add(lifetime);
        match gone.iter_mut().find(|gone| gone.value == value) {
            Some(gone) => gone.until = gone.until.max(until),
            None => gone.push(Gone { value, until }),
        }
    }
    gone.retain(|gone| !kept(&gone.value));
    while gone.len() > max
        && let Some(first) = (0..gone.len()).min_by_key(|at| gone[*at].until)
    {
        gone.remove(first);
    }
}

fn expire<T>(gone: &mut Vec<Gone<T>>, now: Duration) -> bool {
    let before = gone.len();
    gone.retain(|gone| gone.until > now);
    gone.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ra::PrefixVariables;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn with_prefix(number: u16, adv_valid_lifetime_s: u32) -> RaConfig {
        let variables = PrefixVariables { adv_valid_lifetime_s, ..PrefixVariables::default() };
        let prefix = format!("2001:db8:{number:x}::/64").parse().unwrap();
        RaConfig { adv_prefix_list: vec![AdvPrefix { prefix, variables }], ..RaConfig::default() }
    }

    #[test]
    fn a_prefix_is_withdrawn_for_the_valid_lifetime_it_was_told_with() {
        let mut withdrawn = Withdrawn::default();
        withdrawn.update(s(100), &with_prefix(1, 3600), &with_prefix(2, 60));
        assert!(!withdrawn.expire(s(3699)));
        assert_eq!(withdrawn.prefixes().count(), 1);
        assert!(withdrawn.expire(s(3700)));
        assert_eq!(withdrawn.prefixes().count(), 0);

        withdrawn.update(s(0), &with_prefix(1, u32::MAX), &with_prefix(2, 60));
        assert!(!withdrawn.expire(s(1 << 40)), "infinity");
        withdrawn.update(s(9), &with_prefix(2, 60), &with_prefix(1, 60));
        let told: Vec<_> = withdrawn.prefixes().map(|entry| entry.prefix.to_string()).collect();
        assert_eq!(told, ["2001:db8:2::/64"], "what is told again is not withdrawn");
    }

    #[test]
    fn what_times_out_first_goes_where_there_is_too_much() {
        let mut withdrawn = Withdrawn::default();
        for number in 0..100 {
            let lifetime_s = 1000 - u32::from(number);
            withdrawn.update(s(0), &with_prefix(number, lifetime_s), &RaConfig::default());
        }
        let told: Vec<_> = withdrawn.prefixes().map(|entry| entry.variables.adv_valid_lifetime_s).collect();
        assert_eq!(told, (985..=1000).rev().collect::<Vec<u32>>());
    }

    #[test]
    fn everything_with_a_lifetime_is_withdrawn() {
        let resolver = |adn: &str| EncryptedDns {
            service_priority: 1,
            adn: adn.to_owned(),
            addresses: vec![],
            svc_params: crate::ra::SvcParams::default(),
        };
        let route = |prefix: &str, lifetime_s| RouteInfo {
            prefix: prefix.parse().unwrap(),
            preference: crate::ra::Preference::Medium,
            lifetime_s,
        };
        let old = RaConfig {
            rdnss: vec!["2001:db8::53".parse().unwrap()],
            dnssl: vec!["a.example".to_owned()],
            dnr: vec![resolver("dns.example")],
            route_info: vec![route("2001:db8:1::/48", 60), route("2001:db8:2::/48", 0)],
            pref64: Some("64:ff9b::/96".parse().unwrap()),
            ..RaConfig::default()
        };
        let mut withdrawn = Withdrawn::default();
        withdrawn.update(s(0), &old, &RaConfig::default());
        let counts = |withdrawn: &Withdrawn| {
            [
                withdrawn.rdnss().len(),
                withdrawn.dnssl().len(),
                withdrawn.dnr().count(),
                withdrawn.routes().count(),
                withdrawn.pref64().count(),
            ]
        };
        assert_eq!(counts(&withdrawn), [1; 5]);
        assert!(withdrawn.expire(s(60)));
        assert_eq!(counts(&withdrawn), [1, 1, 1, 0, 1]);
        assert!(withdrawn.expire(s(1800)));
        assert_eq!(counts(&withdrawn), [0; 5]);
    }
}

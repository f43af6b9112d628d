//! Advertisements of other routers on the link against our own (RFC 4861 section 6.2.7).

use std::fmt::Display;

use super::{AdvertiserSpec, PrefixVariables};
use crate::ndp::{Advert, AdvertOption, encode_domain};

/// Most inconsistencies of one advertisement that are told.
const INCONSISTENCIES_MAX: usize = 32;

/// What two routers tell machines differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inconsistency {
    /// The variable, as its field in CONFIG_DB is called (`adv_managed_flag` and `adv_other_config_flag`
    /// have none): one of some fifteen names, so that it can be a label.
    pub field: &'static str,
    /// Our value; for a variable of a prefix, server, domain or route, with that in front.
    pub ours: String,
    pub theirs: String,
}

impl Display for Inconsistency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ours {}, theirs {}", self.field, self.ours, self.theirs)
    }
}

/// Compares what RFC 4861 section 6.2.7 demands, and what else must not differ for machines to have one view:
/// the flags of a prefix, and the lifetimes of the same DNS server, domain, route and NAT64 prefix (RFC 8106,
/// 4191, 8781). What only one of both tells is no inconsistency, nor is a value that one leaves unspecified.
pub fn compare(ours: &AdvertiserSpec, theirs: &Advert<'_>) -> Vec<Inconsistency> {
    let config = &ours.config;
    let mut found = Found(Vec::new());
    // 0 is "unspecified" in these.
    found.specified("adv_cur_hop_limit", config.adv_cur_hop_limit.into(), theirs.cur_hop_limit.into());
    found.specified("adv_reachable_time", config.adv_reachable_time_ms, theirs.reachable_time_ms);
    found.specified("adv_retrans_timer", config.adv_retrans_timer_ms, theirs.retrans_timer_ms);
    found.unequal("adv_managed_flag", None, config.adv_managed_flag, theirs.managed);
    found.unequal("adv_other_config_flag", None, config.adv_other_config_flag, theirs.other_config);
    for option in theirs.options {
        found.option(ours, option);
    }
    found.0
}

struct Found(Vec<Inconsistency>);

impl Found {
    fn specified(&mut self, field: &'static str, ours: u32, theirs: u32) {
        if ours != 0 && theirs != 0 {
            self.unequal(field, None, ours, theirs);
        }
    }

    fn unequal<T: PartialEq + Display>(
        &mut self,
        field: &'static str,
        of: Option<&dyn Display>,
        ours: T,
        theirs: T,
    ) {
        if ours != theirs && self.0.len() < INCONSISTENCIES_MAX {
            let text = |value: T| of.map_or_else(|| value.to_string(), |of| format!("{of} {value}"));
            self.0.push(Inconsistency { field, ours: text(ours), theirs: text(theirs) });
        }
    }

    fn option(&mut self, ours: &AdvertiserSpec, theirs: AdvertOption<'_>) {
        let config = &ours.config;
        let shared_s = config.shared_lifetime_s();
        match theirs {
            AdvertOption::Mtu(mtu) => {
                if let Some(ours) = config.adv_link_mtu {
                    self.unequal("adv_link_mtu", None, ours, mtu);
                }
            }
            AdvertOption::PrefixInformation(theirs) => {
                for ours in config.adv_prefix_list.iter().filter(|ours| ours.prefix == theirs.prefix) {
                    self.prefix(&ours.prefix, &ours.variables, &theirs.variables);
                }
            }
            AdvertOption::RouteInformation(theirs) => {
                for ours in config.route_info.iter().filter(|ours| ours.prefix == theirs.prefix) {
                    self.unequal("route_info", Some(&ours.prefix), ours.lifetime_s, theirs.lifetime_s);
                }
            }
            AdvertOption::Rdnss { lifetime_s, servers } => {
                for server in config.rdnss.iter().filter(|server| servers.contains(**server)) {
                    self.unequal("rdnss", Some(server), shared_s, lifetime_s);
                }
            }
            AdvertOption::Dnssl { lifetime_s, names } => {
                for domain in &config.dnssl {
                    let told = |wire: Vec<u8>| { names }.any(|name| name.eq_ignore_ascii_case(&wire));
                    if encode_domain(domain).is_some_and(told) {
                        self.unequal("dnssl", Some(domain), shared_s, lifetime_s);
                    }
                }
            }
            AdvertOption::Pref64 { prefix, lifetime_s } => {
                // On the wire in units of 8 s.
                let shared_s = shared_s.div_ceil(8).min(0x1fff) * 8;
                if config.pref64 == Some(prefix) {
                    self.unequal("pref64", Some(&prefix), shared_s, lifetime_s);
                }
            }
        }
    }

    fn prefix(&mut self, prefix: &dyn Display, ours: &PrefixVariables, theirs: &PrefixVariables) {
        let of = Some(prefix);
        self.unequal("adv_valid_lifetime", of, ours.adv_valid_lifetime_s, theirs.adv_valid_lifetime_s);
        self.unequal(
            "adv_preferred_lifetime",
            of,
            ours.adv_preferred_lifetime_s,
            theirs.adv_preferred_lifetime_s,
        );
        self.unequal("adv_on_link_flag", of, ours.adv_on_link_flag, theirs.adv_on_link_flag);
        self.unequal("adv_autonomous_flag", of, ours.adv_autonomous_flag, theirs.adv_autonomous_flag);
        self.unequal("adv_pd_preferred_flag", of, ours.adv_pd_preferred_flag, theirs.adv_pd_preferred_flag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::MacAddr;
    use crate::ndp::{ChecksumOffload, FrameAddresses, Message, parse_frame, write_frame};
    use crate::ra::{AdvPrefix, Preference, RaConfig, RouteInfo, content, withdrawn::Withdrawn};

    fn spec() -> AdvertiserSpec {
        AdvertiserSpec {
            port: "Ethernet4".parse().unwrap(),
            ifindex: 7,
            mac: MacAddr([0x22, 0, 0, 0, 0, 9]),
            link_local: "fe80::9".parse().unwrap(),
            forwarding: true,
            dhcp6: None,
            config: RaConfig {
                adv_link_mtu: Some(1500),
                adv_prefix_list: vec![AdvPrefix {
                    prefix: "2001:db8:1:4::/64".parse().unwrap(),
                    variables: PrefixVariables::default(),
                }],
                rdnss: vec!["2001:db8::53".parse().unwrap(), "2001:db8::54".parse().unwrap()],
                dnssl: vec!["a.example".to_owned(), "b.example".to_owned()],
                route_info: vec![RouteInfo {
                    prefix: "2001:db8:f::/48".parse().unwrap(),
                    preference: Preference::High,
                    lifetime_s: 600,
                }],
                pref64: Some("64:ff9b::/96".parse().unwrap()),
                ..RaConfig::default()
            },
        }
    }

    /// What `ours` finds of an advertisement of `theirs` that went over the wire.
    fn found(ours: &AdvertiserSpec, theirs: &AdvertiserSpec) -> Vec<Inconsistency> {
        let addresses = FrameAddresses {
            source_mac: theirs.mac,
            destination_mac: crate::ndp::ALL_NODES_MAC,
            source: theirs.link_local,
            destination: crate::ndp::ALL_NODES,
        };
        let mut found = vec![];
        for message in &*content::regular(theirs, &Withdrawn::default()) {
            let mut frame = vec![];
            write_frame(&mut frame, &addresses, message);
            let Ok(Message::Advert(advert)) = parse_frame(&frame, ChecksumOffload::Complete) else {
                panic!("own advertisement")
            };
            found.extend(compare(ours, &advert));
        }
        found
    }

    #[test]
    fn equal_advertisements_are_consistent_whatever_they_leave_out() {
        assert_eq!(found(&spec(), &spec()), []);
        let mut silent = spec();
        silent.config = RaConfig {
            adv_cur_hop_limit: 0,
            adv_reachable_time_ms: 0,
            adv_retrans_timer_ms: 0,
            ..RaConfig::default()
        };
        assert_eq!(found(&spec(), &silent), []);
        assert_eq!(found(&silent, &spec()), []);
        let mut elsewhere = spec();
        elsewhere.config.adv_prefix_list[0].prefix = "2001:db8:1:5::/64".parse().unwrap();
        elsewhere.config.adv_prefix_list[0].variables.adv_valid_lifetime_s = 1;
        assert_eq!(found(&spec(), &elsewhere), []);
    }

    #[test]
    fn every_variable_of_section_6_2_7_is_compared() {
        let mut theirs = spec();
        let config = &mut theirs.config;
        config.adv_cur_hop_limit = 32;
        config.adv_managed_flag = true;
        config.adv_other_config_flag = true;
        config.adv_retrans_timer_ms = 1000;
        config.adv_link_mtu = Some(9000);
        config.adv_default_lifetime_s = 60;
        config.route_info[0].lifetime_s = 60;
        config.dnssl = vec!["B.Example".to_owned()];
        config.adv_prefix_list[0].variables = PrefixVariables {
            adv_valid_lifetime_s: 60,
            adv_preferred_lifetime_s: 30,
            adv_on_link_flag: false,
            adv_autonomous_flag: false,
            adv_pd_preferred_flag: true,
        };
        let mut ours = spec();
        ours.config.adv_reachable_time_ms = 5000;
        theirs.config.adv_reachable_time_ms = 6000;
        let told: Vec<String> = found(&ours, &theirs).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "adv_cur_hop_limit: ours 64, theirs 32",
                "adv_reachable_time: ours 5000, theirs 6000",
                "adv_retrans_timer: ours 100, theirs 1000",
                "adv_managed_flag: ours false, theirs true",
                "adv_other_config_flag: ours false, theirs true",
                "adv_valid_lifetime: ours 2001:db8:1:4::/64 3600, theirs 2001:db8:1:4::/64 60",
                "adv_preferred_lifetime: ours 2001:db8:1:4::/64 1800, theirs 2001:db8:1:4::/64 30",
                "adv_on_link_flag: ours 2001:db8:1:4::/64 true, theirs 2001:db8:1:4::/64 false",
                "adv_autonomous_flag: ours 2001:db8:1:4::/64 true, theirs 2001:db8:1:4::/64 false",
                "adv_pd_preferred_flag: ours 2001:db8:1:4::/64 false, theirs 2001:db8:1:4::/64 true",
                "adv_link_mtu: ours 1500, theirs 9000",
                "rdnss: ours 2001:db8::53 1800, theirs 2001:db8::53 60",
                "rdnss: ours 2001:db8::54 1800, theirs 2001:db8::54 60",
                "dnssl: ours b.example 1800, theirs b.example 60",
                "route_info: ours 2001:db8:f::/48 600, theirs 2001:db8:f::/48 60",
                "pref64: ours 64:ff9b::/96 1800, theirs 64:ff9b::/96 64",
            ]
        );
    }

    #[test]
    fn a_long_hostile_advertisement_yields_a_short_list() {
        let mut theirs = spec();
        let entry = theirs.config.adv_prefix_list[0];
        let hostile = PrefixVariables { adv_valid_lifetime_s: 1, ..entry.variables };
        theirs.config.adv_prefix_list = vec![AdvPrefix { variables: hostile, ..entry }; 37];
        let found = found(&spec(), &theirs);
        assert_eq!(found.len(), INCONSISTENCIES_MAX);
    }
}

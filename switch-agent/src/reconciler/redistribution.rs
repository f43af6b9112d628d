//! How long ago the last static route of a VRF went: [`REDISTRIBUTION`] says what that is good for.

use std::collections::BTreeSet;
use std::time::Duration;

use switch_agent_core::frr::rows::{REDISTRIBUTION, static_route_vrfs};
use switch_agent_core::row::ConfigDb;
use tokio::time::Instant;

/// FRR's `bgp route-map delay-timer` of 5 s, and what bgpcfgd takes to get there.
const REST: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Redistribution {
    /// VRFs with a static route in CONFIG_DB.
    vrfs: BTreeSet<String>,
    until: Option<Instant>,
}

impl Redistribution {
    /// Looks at CONFIG_DB as it is now.
    pub(super) fn update(&mut self, config: &ConfigDb, now: Instant) {
        let vrfs = static_route_vrfs(config);
        if self.vrfs.iter().any(|vrf| !vrfs.contains(vrf.as_str())) {
            self.until = Some(now + REST);
        }
        self.vrfs = vrfs.into_iter().map(str::to_owned).collect();
    }

    /// The object that cools down, while it does.
    pub(super) fn cooling(&self, now: Instant) -> Option<String> {
        self.next(now).map(|_| REDISTRIBUTION.to_owned())
    }

    /// When it has come to rest.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use switch_agent_core::row::Fields;

    use super::*;

    #[test]
    fn it_rests_after_the_last_route_of_any_vrf() {
        let config = |keys: &[&str]| {
            let mut config = ConfigDb::default();
            keys.iter().for_each(|key| config.insert("STATIC_ROUTE", key, Fields::new()));
            config
        };
        let (mut redistribution, begin) = (Redistribution::default(), Instant::now());
        let mut after = |keys: &[&str], seconds: u64| {
            let now = begin + Duration::from_secs(seconds);
            redistribution.update(&config(keys), now);
            redistribution.cooling(now).is_some()
        };
        let all = ["2001:db8:1::/64", "default|2001:db8:2::/64", "VrfBoot-p1|::/0"];
        assert!(!after(&all, 0) && !after(&all[1..], 1), "the default VRF has one more");
        assert!(after(&all[2..], 2) && after(&all, 3) && after(&all, 11));
        assert!(!after(&all, 12));
        assert!(after(&all[..2], 13));
    }
}

//! Which method carries the leak out, and why.
//!
//! `auto` goes by facts that do not change while the switch runs: who rules FRR, whether a client reaches it,
//! whether metal-core renders its configuration. A reading that fails, or that shows a configuration half
//! loaded, decides nothing: the method that ran before goes on. So `auto` moves at most from "no client" to
//! `vtysh` and from there to `render-only`, never back and forth.

use serde::Serialize;

use super::{DEFAULT_VRF, FrrObserved, Running};
use crate::desired::LeakMethod;
use crate::observed::Source;
use crate::row::Fields;

/// The method in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// As `leak_method` has it.
    pub configured: LeakMethod,
    /// `None` while nothing may be applied; never `auto`.
    pub method: Option<LeakMethod>,
    /// Why it is this one, or none.
    pub reason: String,
    /// What does not go together with this method on this switch.
    #[serde(skip)]
    pub warning: Option<String>,
    #[serde(skip)]
    pub metal_core: bool,
}

/// What is known of the switch.
struct Facts<'a> {
    /// `docker_routing_config_mode`.
    mode: &'a str,
    /// `frr_mgmt_framework_config`: frrcfgd rules FRR, not bgpcfgd.
    frrcfgd: bool,
    /// `None`: not read now.
    client: Option<bool>,
    /// FRR answers, and has a BGP instance: its configuration is loaded.
    loaded: bool,
    metal_core: bool,
}

impl Facts<'_> {
    fn read<'a>(metadata: Option<&'a Fields>, frr: &Source<FrrObserved>) -> Facts<'a> {
        let field = |name: &str| metadata.and_then(|row| row.get(name)).map(String::as_str);
        let known = frr.known();
        let text = known.map_or("", |frr| frr.running_config.as_str());
        Facts {
            mode: field("docker_routing_config_mode").unwrap_or("separated"),
            frrcfgd: field("frr_mgmt_framework_config") == Some("true"),
            client: known.map(|frr| frr.managed),
            loaded: Running::parse(text).bgp.contains_key(DEFAULT_VRF),
            metal_core: renders(text),
        }
    }

    /// Whether SONiC leaves frr.conf to somebody else.
    fn split(&self) -> bool {
        self.mode.starts_with("split")
    }
}

/// Whether this running configuration was rendered by metal-core: its peer groups and its route-map.
fn renders(running_config: &str) -> bool {
    let has = |wanted: &str| running_config.lines().any(|line| line.trim().starts_with(wanted));
    has("route-map DENY_MGMT ") && has("neighbor FABRIC peer-group") && has("neighbor FIREWALL peer-group")
}

/// Chooses. `before` is the method that ran last.
pub fn choose(
    configured: LeakMethod,
    metadata: Option<&Fields>,
    frr: &Source<FrrObserved>,
    before: Option<LeakMethod>,
) -> Choice {
    let facts = Facts::read(metadata, frr);
    let metal_core = facts.metal_core && facts.split();
    let (method, reason) = match configured {
        LeakMethod::Auto => automatic(&facts, frr, before),
        LeakMethod::FrrMgmt if !facts.frrcfgd => {
            let lacks = "DEVICE_METADATA|localhost frr_mgmt_framework_config is not true: \
                         frrcfgd, which would read the rows, does not run";
            (None, format!("leak_method frr-mgmt cannot be used: {lacks}"))
        }
        LeakMethod::Vtysh if facts.client == Some(false) => {
            (None, "leak_method vtysh cannot be used: no vtysh reaches FRR".to_owned())
        }
        method => (Some(method), "configured".to_owned()),
    };
    let warning = method.and_then(|method| unsupported(method, &facts, metal_core));
    Choice { configured, method, reason, warning, metal_core }
}

fn automatic(
    facts: &Facts<'_>,
    frr: &Source<FrrObserved>,
    before: Option<LeakMethod>,
) -> (Option<LeakMethod>, String) {
    if facts.frrcfgd {
        let reason = "frrcfgd configures FRR (DEVICE_METADATA frr_mgmt_framework_config)";
        return (Some(LeakMethod::FrrMgmt), reason.to_owned());
    }
    // frrcfgd no longer rules: what ran under it says nothing.
    let before = before.filter(|before| *before != LeakMethod::FrrMgmt);
    if let Source::Unknown(why) = frr {
        return match before {
            Some(before) => (Some(before), format!("as before; FRR is not read now: {why}")),
            None => (None, format!("FRR has not been read yet: {why}")),
        };
    }
    let mode = facts.mode;
    if facts.client == Some(false) {
        let reason = "no vtysh reaches FRR; bgpcfgd reads STATIC_ROUTE";
        return (Some(LeakMethod::StaticRoute), reason.to_owned());
    }
    let rendered = || {
        let reason = format!(
            "metal-core renders frr.conf (docker_routing_config_mode {mode}) and has to merge the snippet"
        );
        (Some(LeakMethod::RenderOnly), reason)
    };
    if facts.split() && facts.metal_core {
        return rendered();
    }
    // Half a configuration, as after a restart of FRR.
    if facts.split() && !facts.loaded && before == Some(LeakMethod::RenderOnly) {
        return rendered();
    }
    (Some(LeakMethod::Vtysh), format!("vtysh reaches FRR (docker_routing_config_mode {mode})"))
}

/// What `method` does not go together with.
fn unsupported(method: LeakMethod, facts: &Facts<'_>, metal_core: bool) -> Option<String> {
    let what = match method {
        LeakMethod::Vtysh | LeakMethod::StaticRoute if metal_core => {
            "is lost at each reload of frr.conf by metal-core, which renders it: use render-only (or auto) and \
             let its template include the snippet"
        }
        LeakMethod::StaticRoute if facts.frrcfgd => {
            "announces no prefix where frrcfgd configures FRR (frr_mgmt_framework_config): use frr-mgmt"
        }
        _ => return None,
    };
    Some(what.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::row::fields;

    const METAL_CORE: &str = "frr version 10.3\nrouter bgp 65000\n neighbor FABRIC peer-group\n \
        neighbor FIREWALL peer-group\nexit\nroute-map DENY_MGMT deny 10\n match interface eth0\nexit\n";
    const PLAIN: &str = "frr version 10.3\nrouter bgp 65000\nexit\n";
    const EMPTY: &str = "frr version 10.3\n";

    fn read(text: &str) -> Source<FrrObserved> {
        let running_config = text.to_owned();
        Source::Known(FrrObserved { managed: true, running_config, ..FrrObserved::default() })
    }

    fn metadata(mode: &str, frrcfgd: bool) -> Fields {
        let framework = if frrcfgd { "true" } else { "false" };
        fields([("docker_routing_config_mode", mode), ("frr_mgmt_framework_config", framework)])
    }

    #[test]
    fn auto_goes_by_who_rules_frr() {
        use LeakMethod::{Auto, FrrMgmt, RenderOnly, StaticRoute, Vtysh};
        let away = Source::Unknown("no vtysh answers".to_owned());
        let no_client = Source::Known(FrrObserved::default());
        let auto = |mode, frrcfgd, frr: &Source<FrrObserved>, before| {
            let choice = choose(Auto, Some(&metadata(mode, frrcfgd)), frr, before);
            assert!(!choice.reason.is_empty() && choice.configured == Auto);
            choice.method
        };
        assert_eq!(auto("unified", true, &away, None), Some(FrrMgmt));
        assert_eq!(auto("split-unified", false, &read(PLAIN), None), Some(Vtysh));
        assert_eq!(auto("separated", false, &read(EMPTY), None), Some(Vtysh));
        assert_eq!(auto("split-unified", false, &read(METAL_CORE), None), Some(RenderOnly));
        assert_eq!(auto("split-unified", false, &no_client, None), Some(StaticRoute));
        // Its names in a configuration that SONiC renders are somebody's own.
        assert_eq!(auto("unified", false, &read(METAL_CORE), None), Some(Vtysh));
        assert_eq!(auto("split", false, &away, None), None);
        assert_eq!(auto("split", false, &away, Some(Vtysh)), Some(Vtysh));
        assert_eq!(auto("split", false, &read(EMPTY), Some(RenderOnly)), Some(RenderOnly));
        assert_eq!(auto("split", false, &read(PLAIN), Some(RenderOnly)), Some(Vtysh));
        assert_eq!(auto("split", false, &away, Some(FrrMgmt)), None);
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let of = |method, metadata: &Fields, frr: &Source<FrrObserved>| {
            choose(method, Some(metadata), frr, Some(method))
        };
        let split = metadata("split-unified", false);
        for method in [LeakMethod::Vtysh, LeakMethod::StaticRoute] {
            let choice = of(method, &split, &read(METAL_CORE));
            assert!(choice.warning.unwrap().contains("metal-core"));
            assert_eq!(of(method, &split, &read(PLAIN)).warning, None);
        }
        assert_eq!(of(LeakMethod::RenderOnly, &split, &read(METAL_CORE)).warning, None);
        let unused = of(LeakMethod::FrrMgmt, &split, &read(PLAIN));
        assert_eq!(unused.method, None);
        assert!(unused.reason.contains("frr_mgmt_framework_config"), "{}", unused.reason);
        let framework = metadata("unified", true);
        assert_eq!(of(LeakMethod::FrrMgmt, &framework, &read(PLAIN)).method, Some(LeakMethod::FrrMgmt));
        assert!(of(LeakMethod::StaticRoute, &framework, &read(PLAIN)).warning.is_some());
        let unmanaged = of(LeakMethod::Vtysh, &split, &Source::Known(FrrObserved::default()));
        assert_eq!(unmanaged.method, None);
    }

    proptest! {
        /// Whatever readings come in which order, on a switch whose facts stay: no method comes back.
        #[test]
        fn auto_never_goes_back_and_forth(
            metal_core: bool,
            client: bool,
            mode in prop::sample::select(vec!["split", "split-unified", "separated", "unified"]),
            readings in prop::collection::vec(0..3u8, 1..40),
        ) {
            let metadata = metadata(mode, false);
            let mut seen: Vec<LeakMethod> = Vec::new();
            for reading in readings {
                let frr = match (reading, client) {
                    (0, _) => Source::Unknown("vtysh did not end".to_owned()),
                    (_, false) => Source::Known(FrrObserved::default()),
                    (1, true) => read(EMPTY),
                    (_, true) => read(if metal_core { METAL_CORE } else { PLAIN }),
                };
                let choice = choose(LeakMethod::Auto, Some(&metadata), &frr, seen.last().copied());
                match choice.method {
                    Some(method) if seen.last() != Some(&method) => {
                        prop_assert!(!seen.contains(&method), "{method:?} after {seen:?}");
                        seen.push(method);
                    }
                    Some(_) => {}
                    None => prop_assert!(seen.is_empty(), "nothing after {seen:?}"),
                }
            }
        }
    }
}

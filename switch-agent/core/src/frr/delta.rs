//! From the running configuration to the wanted one, in an order that is safe at every step.
//!
//! Withdrawal: `network`, then the routes out, then `import vrf` before its route-map, then the instance,
//! then the deny route, then the policy objects. Application: policy and deny route first, then the routes
//! out, the import under its route-map, and the announcement. Only lines that are present are removed
//! (FRR answers errors otherwise, and `no import vrf <x>` of an unknown VRF even creates its instance), and
//! `no vrf <name>` is never sent: it fails while the device exists and wedges mgmtd of FRR 10.
//!
//! bgpd keeps a pointer to the import's route-map and looks it up anew only seconds after the map was
//! deleted (`bgp route-map delay-timer`), or when `import vrf route-map` is entered. An `import vrf` in
//! between reads freed memory and takes the daemon down (8.4.4). So `import vrf` is only sent right after
//! `import vrf route-map`, and the reference to a broken map goes before the map is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::script::Script;
use super::verify::{LeaksBy, Verification, leak_status};
use super::wanted::{DENY_ROUTE, ExportRoute, Wanted, route_map_match, route_map_sound};
use super::{
    BgpInstance, BootVrfSpec, DEFAULT_VRF, FrrDelta, FrrObserved, FrrPlan, FrrSpec, OBJECT_PREFIX, Running,
    object_vrf, prefix_list_name, route_map_name,
};
use crate::desired::LeakMethod;
use crate::map::IntoMap;
use crate::name::VrfName;
use crate::status::LeakStatus;

/// Compares FRR with what is wanted.
///
/// `owned` says whether a VRF is (or was) one of the agent's boot VRFs, adopted ones included; it decides
/// about lines that name VRFs no longer in `spec`. Lines in other VRFs are never touched.
pub fn plan(
    spec: &FrrSpec,
    observed: &FrrObserved,
    method: LeakMethod,
    owned: &dyn Fn(&VrfName) -> bool,
) -> FrrPlan {
    let running = Running::parse(&observed.running_config);
    let unapplied = |status: &dyn Fn() -> LeakStatus| FrrPlan {
        leak: spec.vrfs.keys().map(|vrf| (vrf.clone(), status())).into_map(),
        ..FrrPlan::default()
    };
    match method {
        LeakMethod::Vtysh if observed.managed => {}
        LeakMethod::RenderOnly if !observed.managed => return unapplied(&|| LeakStatus::Rendered),
        LeakMethod::RenderOnly => {
            let verified = spec.vrfs.iter().map(|(vrf, boot)| {
                let status = leak_status(vrf, boot, observed, &running, &Verification::default());
                let pending = matches!(status, LeakStatus::Pending(_));
                (vrf.clone(), if pending { LeakStatus::Rendered } else { status })
            });
            return FrrPlan { leak: verified.into_map(), ..FrrPlan::default() };
        }
        LeakMethod::StaticRoute | LeakMethod::FrrMgmt if observed.managed => {
            let leaks_by = if method == LeakMethod::StaticRoute { LeaksBy::Static } else { LeaksBy::Import };
            let verification = Verification { leaks_by, ..Verification::default() };
            let verified = spec
                .vrfs
                .iter()
                .map(|(vrf, boot)| (vrf.clone(), leak_status(vrf, boot, observed, &running, &verification)));
            return FrrPlan { leak: verified.into_map(), ..FrrPlan::default() };
        }
        _ => {
            let reason = "no vtysh reaches FRR: what it made of the leak is not known";
            return unapplied(&|| LeakStatus::Unknown(reason.to_owned()));
        }
    }
    let keep = |_: &VrfName| false;
    Planner {
        spec,
        running: &running,
        wanted: Wanted::of(spec),
        router_id: observed.router_id,
        owned,
        keep: &keep,
    }
    .plan(observed)
}

/// The withdrawal of every line of ours, for a method that has none in FRR. Lines about VRFs that `keep`
/// tells are another method's doing.
pub fn leftovers(
    observed: &FrrObserved,
    owned: &dyn Fn(&VrfName) -> bool,
    keep: &dyn Fn(&VrfName) -> bool,
) -> FrrDelta {
    let running = Running::parse(&observed.running_config);
    let spec = FrrSpec::default();
    let wanted = Wanted::default();
    let planner =
        Planner { spec: &spec, running: &running, wanted, router_id: observed.router_id, owned, keep };
    planner.plan(observed).withdraw
}

struct Planner<'a> {
    spec: &'a FrrSpec,
    running: &'a Running,
    wanted: Wanted,
    router_id: Option<Ipv4Addr>,
    owned: &'a dyn Fn(&VrfName) -> bool,
    /// VRFs whose lines stay whatever is wanted.
    keep: &'a dyn Fn(&VrfName) -> bool,
}

/// The half-built delta: commands, and which VRFs they are about.
#[derive(Default)]
struct Half {
    script: Script,
    touched: BTreeSet<VrfName>,
}

impl Planner<'_> {
    fn plan(&self, observed: &FrrObserved) -> FrrPlan {
        let mut leaving = Half::default();
        self.withdraw_routes(&mut leaving);
        self.withdraw_imports(&mut leaving);
        self.withdraw_rest(&mut leaving);

        let blocked: BTreeMap<&VrfName, String> = (self.spec.vrfs.iter())
            .filter_map(|(vrf, boot)| Some((vrf, self.blocked(vrf, boot)?)))
            .into_map();
        let mut policy = Half::default();
        let mut rest = Half::default();
        let appliable = |vrf: &VrfName| self.wanted.imports.contains_key(vrf) && !blocked.contains_key(vrf);
        for vrf in self.spec.vrfs.keys().filter(|vrf| appliable(vrf)) {
            self.apply_policy(vrf, &mut policy);
        }
        self.apply_deny(&mut policy);
        self.apply_routes(&appliable, &mut rest);
        for vrf in self.spec.vrfs.keys().filter(|vrf| appliable(vrf)) {
            self.apply_import(vrf, &mut rest);
        }
        self.apply_networks(&appliable, &mut rest);

        let leak = self.spec.vrfs.iter().map(|(vrf, boot)| {
            let changing = [&leaving, &policy, &rest].iter().any(|half| half.touched.contains(vrf));
            let verification =
                Verification { blocked: blocked.get(vrf).cloned(), changing, leaks_by: LeaksBy::Import };
            (vrf.clone(), leak_status(vrf, boot, observed, self.running, &verification))
        });
        let lingering = leaving.touched.iter().filter(|vrf| !self.spec.vrfs.contains_key(*vrf));
        FrrPlan {
            leak: leak.into_map(),
            waiting: blocked.values().next().cloned(),
            lingering: lingering.cloned().collect(),
            apply: policy.script.then(rest.script),
            withdraw: leaving.script.finish(),
        }
    }

    /// Whether lines about `vrf` are ours to remove.
    fn ours(&self, vrf: &VrfName) -> bool {
        !(self.keep)(vrf) && (self.spec.vrfs.contains_key(vrf) || (self.owned)(vrf) || self.marked(vrf))
    }

    /// Whether objects with the VRF's name in theirs stand in FRR: the agent was here.
    fn marked(&self, vrf: &VrfName) -> bool {
        let object = |name: &String| object_vrf(name).as_ref() == Some(vrf);
        self.running.route_maps.keys().chain(self.running.prefix_lists.keys()).any(object)
    }

    /// Whether the imports of `instance` are ours to change: the VRF is ours alone, or they stand under a
    /// route-map of ours, or there are none yet in a VRF that we were told to use.
    fn controls(&self, vrf: &VrfName, instance: &BgpInstance) -> bool {
        (self.owned)(vrf)
            || match instance.import_route_map() {
                Some(route_map) => route_map.starts_with(OBJECT_PREFIX),
                None => self.spec.vrfs.contains_key(vrf) && instance.imports().next().is_none(),
            }
    }

    /// The running export routes of ours in `leak_vrf` that are not wanted.
    fn obsolete_routes(&self, leak_vrf: &str) -> Vec<ExportRoute> {
        let wanted = self.wanted.routes.get(leak_vrf);
        let running = self.running.routes.get(leak_vrf).into_iter().flatten();
        running
            .filter_map(|text| ExportRoute::parse(text))
            .filter(|route| self.ours(&route.vrf) && !wanted.is_some_and(|wanted| wanted.contains(route)))
            .collect()
    }

    fn withdraw_routes(&self, half: &mut Half) {
        let obsolete = self.running.routes.keys().map(|vrf| (vrf, self.obsolete_routes(vrf)));
        let obsolete: Vec<_> = obsolete.filter(|(_, routes)| !routes.is_empty()).collect();
        for (leak_vrf, routes) in &obsolete {
            let Some(instance) = self.running.bgp.get(*leak_vrf) else {
                continue;
            };
            let wanted = self.wanted.networks.get(*leak_vrf);
            let gone = routes
                .iter()
                .filter(|route| route.prefix.prefix_len() == 64)
                .filter(|route| !wanted.is_some_and(|wanted| wanted.contains(&route.prefix)))
                .filter(|route| instance.has_network(route.prefix));
            let lines = gone.map(|route| format!("no network {}", route.prefix)).collect();
            half.script.bgp_ipv6(&instance.asn, leak_vrf, &[], lines);
        }
        for (leak_vrf, routes) in &obsolete {
            half.touched.extend(routes.iter().map(|route| route.vrf.clone()));
            half.script.in_vrf(leak_vrf, routes.iter().map(|route| format!("no {route}")).collect());
        }
    }

    /// Whether the running import of `vrf` is filtered exactly as wanted.
    fn import_sound(&self, vrf: &VrfName, instance: &BgpInstance) -> bool {
        instance.import_route_map() == Some(&route_map_name(vrf)) && route_map_sound(self.running, vrf)
    }

    /// Imports of `instance` that must go (perhaps to come back under a sound route-map).
    fn obsolete_imports(&self, vrf: &VrfName, instance: &BgpInstance) -> Vec<String> {
        let wanted = self.wanted.imports.get(vrf).filter(|_| self.import_sound(vrf, instance));
        instance
            .imports()
            .filter(|from| Some(*from) != wanted.map(String::as_str))
            .map(str::to_owned)
            .collect()
    }

    fn withdraw_imports(&self, half: &mut Half) {
        for (name, instance) in &self.running.bgp {
            let Ok(vrf) = name.parse::<VrfName>() else {
                continue;
            };
            if (self.keep)(&vrf) || !self.controls(&vrf, instance) {
                continue;
            }
            let imports = self.obsolete_imports(&vrf, instance);
            let mut lines: Vec<String> = imports.iter().map(|from| format!("no import vrf {from}")).collect();
            let route_map = instance.import_route_map().filter(|name| name.starts_with(OBJECT_PREFIX));
            let wanted = self.wanted.imports.contains_key(&vrf);
            if let Some(route_map) = route_map.filter(|_| !wanted || !self.import_sound(&vrf, instance)) {
                lines.push(format!("no import vrf route-map {route_map}"));
            }
            let ours = (self.owned)(&vrf) || route_map.is_some();
            let remove = !wanted && ours && removable(instance);
            if !lines.is_empty() || remove {
                half.touched.insert(vrf);
            }
            half.script.bgp_ipv6(&instance.asn, name, &[], lines);
            if remove {
                half.script.line(format!("no router bgp {} vrf {name}", instance.asn));
            }
        }
    }

    fn withdraw_rest(&self, half: &mut Half) {
        for (name, routes) in &self.running.routes {
            let Ok(vrf) = name.parse::<VrfName>() else {
                continue;
            };
            let gone = !self.spec.vrfs.contains_key(&vrf) && self.ours(&vrf);
            if gone && routes.contains(DENY_ROUTE) {
                half.script.in_vrf(name, vec![format!("no ipv6 route {DENY_ROUTE}")]);
                half.touched.insert(vrf);
            }
        }
        let kept = |name: &str| object_vrf(name).is_some_and(|vrf| (self.keep)(&vrf));
        let unwanted = |name: &&String| !self.wanted.objects.contains(*name) && !kept(name);
        for name in self.running.route_maps.keys().filter(unwanted) {
            half.script.line(format!("no route-map {name}"));
            half.touched.extend(object_vrf(name));
        }
        for name in self.running.prefix_lists.keys().filter(unwanted) {
            half.script.line(format!("no ipv6 prefix-list {name}"));
            half.touched.extend(object_vrf(name));
        }
    }

    /// Why the leak of `vrf` cannot be applied now.
    fn blocked(&self, vrf: &VrfName, boot: &BootVrfSpec) -> Option<String> {
        if let Some(reason) = boot.unsupported(vrf) {
            return Some(reason);
        }
        if boot.leak_prefixes.is_empty() {
            return None;
        }
        if !self.running.bgp.contains_key(&boot.leak_vrf) {
            return Some(format!("FRR has no `router bgp` for VRF {}", boot.leak_vrf));
        }
        let instance = self.running.bgp.get(vrf.as_str())?;
        let reason = || format!("`router bgp {} vrf {vrf}` has imports of somebody else", instance.asn);
        (!self.controls(vrf, instance)).then(reason)
    }

    /// Prefix-list: additions, then removals, so that it neither empties nor misses a wanted prefix.
    /// Route-map: made anew unless exact; its import has been withdrawn then.
    fn apply_policy(&self, vrf: &VrfName, half: &mut Half) {
        let Some(boot) = self.spec.vrfs.get(vrf) else {
            return;
        };
        let (list, map) = (prefix_list_name(vrf), route_map_name(vrf));
        let empty = BTreeMap::new();
        let running = self.running.prefix_lists.get(&list).unwrap_or(&empty);
        let wanted: BTreeSet<String> =
            boot.leak_prefixes.iter().map(|prefix| format!("permit {prefix}")).collect();
        let mut lines = Vec::new();
        let mut sequence = (1..).map(|n| n * 10).filter(|seq| !running.contains_key(seq));
        for prefix in &boot.leak_prefixes {
            let entry = format!("permit {prefix}");
            if running.values().any(|rest| *rest == entry) {
                continue;
            }
            let line = format!("ipv6 prefix-list {list} seq {} {entry}", sequence.next().unwrap_or(u32::MAX));
            if !lines.iter().any(|other: &String| other.ends_with(&format!(" {entry}"))) {
                lines.push(line);
            }
        }
        let gone = running.iter().filter(|(_, rest)| !wanted.contains(*rest));
        lines.extend(gone.map(|(seq, rest)| format!("no ipv6 prefix-list {list} seq {seq} {rest}")));
        if !route_map_sound(self.running, vrf) {
            if self.running.route_maps.contains_key(&map) {
                lines.push(format!("no route-map {map}"));
            }
            lines.extend([
                format!("route-map {map} permit 10"),
                format!(" {}", route_map_match(vrf)),
                "exit".to_owned(),
            ]);
        }
        if !lines.is_empty() {
            half.touched.insert(vrf.clone());
        }
        lines.into_iter().for_each(|line| half.script.line(line));
    }

    fn apply_deny(&self, half: &mut Half) {
        for vrf in self.spec.vrfs.keys() {
            if !self.running.routes.get(vrf.as_str()).is_some_and(|routes| routes.contains(DENY_ROUTE)) {
                half.script.in_vrf(vrf.as_str(), vec![format!("ipv6 route {DENY_ROUTE}")]);
                half.touched.insert(vrf.clone());
            }
        }
    }

    fn apply_routes(&self, appliable: &dyn Fn(&VrfName) -> bool, half: &mut Half) {
        for (leak_vrf, wanted) in &self.wanted.routes {
            let running: BTreeSet<ExportRoute> = (self.running.routes.get(leak_vrf).into_iter().flatten())
                .filter_map(|text| ExportRoute::parse(text))
                .collect();
            let missing = wanted.iter().filter(|route| appliable(&route.vrf) && !running.contains(route));
            let missing: Vec<&ExportRoute> = missing.collect();
            half.touched.extend(missing.iter().map(|route| route.vrf.clone()));
            half.script.in_vrf(leak_vrf, missing.iter().map(ToString::to_string).collect());
        }
    }

    fn apply_import(&self, vrf: &VrfName, half: &mut Half) {
        let Some(leak_vrf) = self.wanted.imports.get(vrf) else {
            return;
        };
        let instance = self.running.bgp.get(vrf.as_str());
        let own_default = self.running.bgp.get(DEFAULT_VRF).or_else(|| self.running.bgp.get(leak_vrf));
        let Some(asn) = instance.or(own_default).map(|instance| instance.asn.as_str()) else {
            return;
        };
        let mut head = Vec::new();
        if instance.is_none() {
            // Where the default instance has none configured, the one it chose.
            let configured = own_default.and_then(BgpInstance::router_id).map(str::to_owned);
            let router_id = configured.or_else(|| self.router_id.map(|id| id.to_string()));
            head.extend(router_id.map(|id| format!(" bgp router-id {id}")));
            head.push(" no bgp default ipv4-unicast".to_owned());
        }
        let stays = instance.is_some_and(|instance| {
            self.import_sound(vrf, instance) && instance.imports().any(|from| from == leak_vrf)
        });
        let mut lines = Vec::new();
        if !stays {
            lines.push(format!("import vrf route-map {}", route_map_name(vrf)));
            lines.push(format!("import vrf {leak_vrf}"));
        }
        if !lines.is_empty() {
            half.touched.insert(vrf.clone());
        }
        half.script.bgp_ipv6(asn, vrf.as_str(), &head, lines);
    }

    fn apply_networks(&self, appliable: &dyn Fn(&VrfName) -> bool, half: &mut Half) {
        for (leak_vrf, boot_routes) in &self.wanted.routes {
            let Some(instance) = self.running.bgp.get(leak_vrf) else {
                continue;
            };
            let own = boot_routes.iter().filter(|route| route.prefix.prefix_len() == 64);
            let missing: Vec<&ExportRoute> =
                own.filter(|route| appliable(&route.vrf) && !instance.has_network(route.prefix)).collect();
            half.touched.extend(missing.iter().map(|route| route.vrf.clone()));
            let lines = missing.iter().map(|route| format!("network {}", route.prefix)).collect();
            half.script.bgp_ipv6(&instance.asn, leak_vrf, &[], lines);
        }
    }
}

/// Whether an instance holds nothing but what the agent writes and defaults that releases print.
fn removable(instance: &BgpInstance) -> bool {
    const OWN: [&str; 3] =
        ["no bgp default ipv4-unicast", "bgp deterministic-med", "use-underlays-nexthop-weight"];
    let plain = |line: &String| line.starts_with("bgp router-id ") || OWN.contains(&line.as_str());
    !instance.other_families
        && instance.lines.iter().all(plain)
        && instance.ipv6.iter().all(|line| line.starts_with("import vrf ") || OWN.contains(&line.as_str()))
}

//! A model of FRR's configuration that checks every command.

use std::collections::{BTreeMap, BTreeSet};

use super::owned;
use crate::desired::LeakMethod;
use crate::frr::{FrrObserved, FrrPlan, FrrSpec, Running, plan};

/// A leaf with a fabric, a tenant, an API VRF, and policy of its own.
pub(super) const FOREIGN: &str = "\
frr version 10.3
frr defaults datacenter
ipv6 route 2001:db8:f00::/64 Ethernet64 nexthop-vrf Vrf64
ipv6 route ::/0 fe80::1 Ethernet120
ipv6 prefix-list API seq 5 permit any
route-map DENY_MGMT deny 10
 match interface eth0
exit
vrf Vrf64
 ipv6 route ::/0 blackhole 254
 vni 64
exit-vrf
vrf VrfApi
 ipv6 route 2001:db8:1::/64 Ethernet12
exit-vrf
router bgp 65000
 bgp router-id 10.0.0.1
 neighbor FABRIC peer-group
 address-family ipv6 unicast
  network 2001:db8:f00::/64
  neighbor FABRIC activate
 exit-address-family
exit
router bgp 65000 vrf VrfApi
 neighbor Ethernet16 interface remote-as external
 address-family ipv6 unicast
  import vrf Vrf64
 exit-address-family
exit
";

/// A configuration as FRR keeps it: lines per context. Unlike FRR it takes no line twice and removes none
/// that is not there, for a delta must do neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) contexts: BTreeMap<Vec<String>, Vec<String>>,
    at: Vec<String>,
}

impl Model {
    pub(super) fn new(text: &str) -> Model {
        let mut model = Model { contexts: BTreeMap::new(), at: Vec::new() };
        text.lines().for_each(|line| model.command(line));
        model
    }

    pub(super) fn command(&mut self, line: &str) {
        let line = line.trim();
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["!"] => {}
            ["exit" | "exit-vrf" | "exit-address-family"] => assert!(self.at.pop().is_some(), "{line}"),
            ["vrf" | "router" | "route-map" | "address-family", ..] => {
                self.at.push(line.to_owned());
                self.contexts.entry(self.at.clone()).or_default();
            }
            ["no", "route-map", ..] => self.drop_contexts(&format!("{} ", &line[3..])),
            ["no", "router", ..] => self.drop_contexts(&line[3..]),
            ["no", "ipv6", "prefix-list", _] => self.drop_lines(&format!("{} ", &line[3..])),
            ["no", "bgp", ..] => self.add(line),
            ["no", ..] => {
                let lines = self.contexts.get_mut(&self.at).unwrap();
                let position = lines.iter().position(|l| l == &line[3..]);
                lines.remove(position.unwrap_or_else(|| panic!("{line} at {:?}", self.at)));
            }
            ["import", "vrf", "route-map", ..] => {
                let lines = self.contexts.get_mut(&self.at).unwrap();
                lines.retain(|line| !line.starts_with("import vrf route-map "));
                self.add(line);
            }
            _ => self.add(line),
        }
    }

    pub(super) fn add(&mut self, line: &str) {
        let lines = self.contexts.entry(self.at.clone()).or_default();
        assert!(!lines.iter().any(|l| l == line), "{line} twice");
        lines.push(line.to_owned());
    }

    pub(super) fn drop_contexts(&mut self, start: &str) {
        let before = self.contexts.len();
        self.contexts
            .retain(|path, _| !path.first().is_some_and(|head| format!("{head} ").starts_with(start)));
        assert!(self.contexts.len() < before, "nothing to remove: {start}");
    }

    pub(super) fn drop_lines(&mut self, start: &str) {
        let lines = self.contexts.get_mut(&Vec::new()).unwrap();
        let before = lines.len();
        lines.retain(|line| !line.starts_with(start));
        assert!(lines.len() < before, "nothing to remove: {start}");
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (path, lines) in &self.contexts {
            // Families follow their instance, as the map is ordered.
            match path.as_slice() {
                [] => {}
                [head] => text.push_str(&format!("{head}\n")),
                [.., family] => text.push_str(&format!(" {family}\n")),
            }
            let indent = " ".repeat(path.len());
            lines.iter().for_each(|line| text.push_str(&format!("{indent}{line}\n")));
            if path.len() == 2 {
                text.push_str(" exit-address-family\n");
            }
        }
        text
    }

    /// Contexts with lines, sorted: what is left when order and empty stanzas are set aside.
    pub(super) fn facts(&self) -> BTreeMap<Vec<String>, BTreeSet<String>> {
        let filled = self.contexts.iter().filter(|(_, lines)| !lines.is_empty());
        filled.map(|(path, lines)| (path.clone(), lines.iter().cloned().collect())).collect()
    }

    /// Ways in which machines could reach more than any partition wants.
    pub(super) fn open(&self) -> BTreeSet<String> {
        let running = Running::parse(&self.text());
        let mut open = BTreeSet::new();
        for (vrf, instance) in running.bgp.iter().filter(|(vrf, _)| vrf.starts_with("VrfBoot")) {
            if instance.imports().next().is_none() {
                continue;
            }
            let name = instance.import_route_map().unwrap_or_default();
            if name.is_empty() {
                open.insert(format!("{vrf} imports without a route-map"));
            }
            let entries = running.route_maps.get(name).into_iter().flatten();
            if entries.filter(|entry| entry.head.starts_with("permit")).any(|entry| entry.lines.is_empty()) {
                open.insert(format!("{vrf} imports under an entry that matches everything"));
            }
        }
        for text in running.routes.values().flatten() {
            let Some(vrf) = text.split("nexthop-vrf ").nth(1).filter(|vrf| vrf.starts_with("VrfBoot")) else {
                continue;
            };
            if !running.routes.get(vrf).is_some_and(|routes| routes.contains("::/0 blackhole 254")) {
                open.insert(format!("{vrf} has a way back and no deny route"));
            }
        }
        open
    }

    /// Plans and carries out both halves; at no step may anything open that was not.
    pub(super) fn converge(&mut self, spec: &FrrSpec) -> FrrPlan {
        let plan = plan(spec, &self.observed(), LeakMethod::Vtysh, &owned);
        let mut before = self.open();
        let mut last = String::new();
        for command in plan.withdraw.commands.iter().chain(&plan.apply.commands) {
            assert!(!command.trim().starts_with("no vrf "), "{command}");
            let import = command.trim().starts_with("import vrf ") && !command.contains("route-map");
            assert!(!import || last.trim().starts_with("import vrf route-map "), "{command} after {last}");
            last.clone_from(command);
            self.command(command);
            let now = self.open();
            assert!(now.is_subset(&before), "after {command:?}: {now:?}\n{plan:#?}");
            before = now;
        }
        assert!(self.at.is_empty(), "{:?}", self.at);
        assert!(before.is_empty(), "{before:?}");
        plan
    }

    pub(super) fn observed(&self) -> FrrObserved {
        FrrObserved { managed: true, running_config: self.text(), ..FrrObserved::default() }
    }

    /// Loses the lines (of ours) that `choose` picks, as a reload of somebody else's file would.
    pub(super) fn lose(&mut self, choose: impl Fn(usize) -> bool) {
        let mut index = 0;
        let foreign = Model::new(FOREIGN);
        for (path, lines) in &mut self.contexts {
            // Routes and announcements go together: an announcement alone bears no mark of ours.
            let kept = foreign.contexts.get(path).cloned().unwrap_or_default();
            lines.retain(|line| {
                index += 1;
                kept.contains(line) || line.contains("network ") || line.contains("/64 ") || !choose(index)
            });
        }
    }
}

//! Configuration lines in their contexts.

use super::{DEFAULT_VRF, FrrDelta};

/// Builds a delta: every block opens and closes its own context.
#[derive(Debug, Default)]
pub(super) struct Script {
    lines: Vec<String>,
}

impl Script {
    pub(super) fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Static routes of a VRF: at the top for the default VRF, else in its block.
    pub(super) fn in_vrf(&mut self, vrf: &str, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        if vrf == DEFAULT_VRF {
            self.lines.extend(lines);
            return;
        }
        self.lines.push(format!("vrf {vrf}"));
        self.lines.extend(lines.into_iter().map(|line| format!(" {line}")));
        self.lines.push("exit-vrf".to_owned());
    }

    /// Lines of `address-family ipv6 unicast` of a BGP instance, with `head` before the family.
    pub(super) fn bgp_ipv6(&mut self, asn: &str, vrf: &str, head: &[String], lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let suffix = if vrf == DEFAULT_VRF { String::new() } else { format!(" vrf {vrf}") };
        self.lines.push(format!("router bgp {asn}{suffix}"));
        self.lines.extend(head.iter().cloned());
        self.lines.push(" address-family ipv6 unicast".to_owned());
        self.lines.extend(lines.into_iter().map(|line| format!("  {line}")));
        self.lines.push(" exit-address-family".to_owned());
        self.lines.push("exit".to_owned());
    }

    pub(super) fn finish(self) -> FrrDelta {
        FrrDelta { commands: self.lines }
    }

    /// This script, then the other once this one is in effect.
    pub(super) fn then(self, other: Script) -> FrrDelta {
        let mut commands = self.lines;
        if !commands.is_empty() && !other.lines.is_empty() {
            commands.push(FrrDelta::BARRIER.to_owned());
        }
        commands.extend(other.lines);
        FrrDelta { commands }
    }
}

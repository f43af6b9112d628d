//! Lines of a delta against a running configuration: what of it is in effect.
//!
//! FRR says nothing when lines are lost: before 10.4 the end of any other vtysh, even of one that only shows
//! something, takes away what a session has entered and mgmtd has not committed yet.

use std::collections::BTreeSet;

use super::FrrDelta;

/// Lines with the contexts they stand in, `vrf VrfBoot-p1: ipv6 route ::/0 blackhole 254`. Contexts are told
/// by indentation; what closes one is no line.
fn in_context<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    let mut path: Vec<&str> = Vec::new();
    lines.filter_map(move |line| {
        let text = line.trim();
        if text.is_empty() || text == FrrDelta::BARRIER || text.starts_with("exit") || text == "end" {
            return None;
        }
        path.truncate(line.len() - line.trim_start().len());
        path.push(text);
        Some(path.join(": "))
    })
}

/// `line` without its `no `, its context kept; `None` where it takes nothing away.
fn taken_away(line: &str) -> Option<String> {
    let (context, last) = line.rsplit_once(": ").unwrap_or(("", line));
    let rest = last.strip_prefix("no ")?;
    Some(if context.is_empty() { rest.to_owned() } else { format!("{context}: {rest}") })
}

impl FrrDelta {
    /// The lines of [`FrrDelta::in_context`] that `running_config` (of `show running-config`) does not show the
    /// effect of, in order.
    pub fn missing(&self, running_config: &str) -> Vec<String> {
        let running: BTreeSet<String> = in_context(running_config.lines()).collect();
        let wanted: Vec<String> = self.in_context().collect();
        let begins = |line: &String, start: &str| {
            line == start || line.starts_with(start) && line[start.len()..].starts_with([' ', ':'])
        };
        let missing = wanted.iter().filter(|line| match taken_away(line) {
            // Taken away and made anew, or printed with its `no`.
            Some(gone) if wanted.iter().any(|other| begins(other, &gone)) || running.contains(*line) => false,
            Some(gone) => running.iter().any(|other| begins(other, &gone)),
            None => !running.contains(*line),
        });
        missing.cloned().collect()
    }

    /// The lines, each with its context; those that only open one are left out.
    pub fn in_context(&self) -> impl Iterator<Item = String> {
        let mut lines = in_context(self.commands.iter().map(String::as_str)).peekable();
        std::iter::from_fn(move || {
            loop {
                let line = lines.next()?;
                let opens =
                    |next: &String| next.strip_prefix(&line).is_some_and(|rest| rest.starts_with(": "));
                if !lines.peek().is_some_and(opens) {
                    return Some(line);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "\
frr version 10.3
!
ipv6 route 2001:db8:1:101::/64 Ethernet0 nexthop-vrf VrfBoot-p1
!
vrf VrfBoot-p1
 ipv6 route ::/0 blackhole 254
exit-vrf
!
vrf VrfBoot-p2
exit-vrf
!
route-map BOOTNET-VrfBoot-p1-IN permit 10
 match ipv6 address prefix-list BOOTNET-VrfBoot-p1-API
exit
!
router bgp 65000 vrf VrfBoot-p1
 bgp router-id 10.0.0.1
 no bgp default ipv4-unicast
 !
 address-family ipv6 unicast
  import vrf route-map BOOTNET-VrfBoot-p1-IN
 exit-address-family
exit
!
end
";

    fn missing(lines: &[&str]) -> Vec<String> {
        FrrDelta { commands: lines.iter().map(|line| (*line).to_owned()).collect() }.missing(RUNNING)
    }

    #[test]
    fn lines_count_in_their_own_context() {
        assert_eq!(
            missing(&["vrf VrfBoot-p1", " ipv6 route ::/0 blackhole 254", "exit-vrf", "!"]),
            Vec::<String>::new()
        );
        assert_eq!(
            missing(&["vrf VrfBoot-p2", " ipv6 route ::/0 blackhole 254", "exit-vrf"]),
            ["vrf VrfBoot-p2: ipv6 route ::/0 blackhole 254"]
        );
        assert_eq!(
            missing(&[
                "router bgp 65000 vrf VrfBoot-p1",
                " no bgp default ipv4-unicast",
                " address-family ipv6 unicast",
                "  import vrf route-map BOOTNET-VrfBoot-p1-IN",
                "  import vrf default",
                " exit-address-family",
                "exit",
            ]),
            ["router bgp 65000 vrf VrfBoot-p1: address-family ipv6 unicast: import vrf default"]
        );
    }

    #[test]
    fn what_was_taken_away_is_missing_while_it_is_there() {
        assert_eq!(
            missing(&["no ipv6 route 2001:db8:1:101::/64 Ethernet0 nexthop-vrf VrfBoot-p1"]),
            ["no ipv6 route 2001:db8:1:101::/64 Ethernet0 nexthop-vrf VrfBoot-p1"]
        );
        assert_eq!(missing(&["no router bgp 65000 vrf VrfBoot-p1"]), ["no router bgp 65000 vrf VrfBoot-p1"]);
        assert_eq!(missing(&["no route-map BOOTNET-VrfBoot-p1-IN"]), ["no route-map BOOTNET-VrfBoot-p1-IN"]);
        assert!(missing(&["no route-map BOOTNET-VrfBoot-p1", "no ipv6 route ::/0 blackhole 254"]).is_empty());
        // What only opened the context of something that is gone is not missing.
        assert!(
            missing(&[
                "router bgp 65000 vrf VrfBoot-p2",
                " address-family ipv6 unicast",
                "  no import vrf default"
            ])
            .is_empty()
        );
        // Made anew by the same delta.
        assert!(
            missing(&[
                "no route-map BOOTNET-VrfBoot-p1-IN",
                "route-map BOOTNET-VrfBoot-p1-IN permit 10",
                " match ipv6 address prefix-list BOOTNET-VrfBoot-p1-API",
                "exit",
            ])
            .is_empty()
        );
    }
}

//! Which one-shot boot profiles are used up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::PortName;

/// The `boot_profile_once` that a machine on each port got last. It stays for as long as the field has that
/// value; where the field went away or changed, the next value counts anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UsedProfiles(BTreeMap<PortName, String>);

impl UsedProfiles {
    /// Whether a machine on the port still has to get the profile.
    pub fn is_due(&self, port: &PortName, value: &str) -> bool {
        self.0.get(port).is_none_or(|used| used != value)
    }

    /// Notes that a machine on the port got the profile.
    pub fn used(&mut self, port: &PortName, value: &str) {
        self.0.insert(port.clone(), value.to_owned());
    }

    /// Takes note of what the port's row says now. Returns whether something was forgotten.
    pub fn wanted(&mut self, port: &PortName, value: Option<&str>) -> bool {
        let stale = self.0.get(port).is_some_and(|used| Some(used.as_str()) != value);
        if stale {
            self.0.remove(port);
        }
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_good_for_one_boot() {
        let (port, other): (PortName, PortName) =
            ("Ethernet0".parse().unwrap(), "Ethernet4".parse().unwrap());
        let mut used = UsedProfiles::default();
        assert!(used.is_due(&port, "rescue"));
        used.used(&port, "rescue");
        assert!(!used.is_due(&port, "rescue"));
        assert!(used.is_due(&other, "rescue"));
        assert!(used.is_due(&port, "rescue@2"), "another value counts anew");
        assert!(!used.wanted(&port, Some("rescue")));
        assert!(!used.is_due(&port, "rescue"), "the row still says so");
        assert!(used.wanted(&port, None));
        assert!(used.is_due(&port, "rescue"), "the row was without it");
        used.used(&port, "rescue");
        let text = serde_json::to_string(&used).unwrap();
        assert_eq!(serde_json::from_str::<UsedProfiles>(&text).unwrap(), used);
    }
}

//! Isolation: which rows, and what is claimed of them.

use std::collections::BTreeSet;

use super::rig::Rig;
use crate::desired::Desired;
use crate::observed::{Observed, Source, StateDb};
use crate::plan::plan;
use crate::row::fields;
use crate::status::{IsolationStatus, Status, Verdict};

const VRF_TABLE: &str = "BOOTNET_VrfBoot-p1";

fn converged() -> Rig {
    let mut rig = Rig::new(&["Ethernet0", "Ethernet4", "Ethernet8"]);
    rig.partition("p1", "2001:db8::/56", &[]);
    rig.boot_port("Ethernet0", "p1");
    rig.converge();
    rig
}

fn ipv4_ports(rig: &Rig) -> Option<String> {
    Some(rig.config().row("ACL_TABLE", "BOOTNET_IPV4")?["ports@"].clone())
}

/// The status where orchagent says something else of the ACLs.
fn told(rig: &Rig, tell: impl Fn(&mut StateDb)) -> Status {
    let mut observed: Observed = rig.observe();
    if let Source::Known(state) = &mut observed.state {
        tell(state);
    }
    plan(&Desired::from_config(&rig.config()), &observed).status
}

fn isolation(status: &Status) -> &IsolationStatus {
    &status.partitions.values().next().unwrap().isolation
}

#[test]
fn one_table_drops_ipv4_on_the_isolated_ports_of_all_partitions() {
    let mut rig = converged();
    assert_eq!(ipv4_ports(&rig).as_deref(), Some("Ethernet0"));
    rig.partition("p2", "2001:db8:0:100::/56", &[]);
    rig.boot_port("Ethernet4", "p2");
    rig.partition("p3", "2001:db8:0:200::/56", &[("isolate", "disabled")]);
    rig.boot_port("Ethernet8", "p3");
    rig.converge();
    assert_eq!(ipv4_ports(&rig).as_deref(), Some("Ethernet0,Ethernet4"));
    assert_eq!(rig.config().table("ACL_TABLE").count(), 3);
    // A partition that is removed keeps its ports fenced until they are out, and takes them along.
    rig.switch.config_del("BOOT_NETWORK_PARTITION", "p1");
    rig.pass(None);
    assert_eq!(ipv4_ports(&rig).as_deref(), Some("Ethernet0,Ethernet4"));
    rig.converge();
    assert_eq!(ipv4_ports(&rig).as_deref(), Some("Ethernet4"));
    rig.switch.config_del("BOOT_NETWORK_PORT", "Ethernet4");
    rig.converge();
    assert_eq!(rig.config().table("ACL_TABLE").chain(rig.config().table("ACL_RULE")).count(), 0);
}

#[test]
fn isolation_is_claimed_when_orchagent_says_so() {
    let rig = converged();
    let status = rig.plan().status;
    assert_eq!((isolation(&status), status.verdict), (&IsolationStatus::Active, Verdict::Converged));
    for (table, key) in [(true, VRF_TABLE), (true, "BOOTNET_IPV4"), (false, "BOOTNET_IPV4|DEFAULT_RULE")] {
        for says in [Some("Inactive"), Some("Pending creation"), None] {
            let status = told(&rig, |state| {
                let rows = if table { &mut state.acl.tables } else { &mut state.acl.rules };
                match says {
                    Some(says) => _ = rows.insert(key.to_owned(), says.to_owned()),
                    None => _ = rows.remove(key),
                }
            });
            assert_eq!(status.verdict, Verdict::Converging, "{key} {says:?}");
            let IsolationStatus::Pending(on) = isolation(&status) else { panic!("{:?}", isolation(&status)) };
            assert!(on.contains(key) && says.is_none_or(|says| on.contains(says)), "{on}");
            assert!(status.waiting.iter().any(|waiting| waiting.on == *on), "{:?}", status.waiting);
        }
    }
}

#[test]
fn a_release_that_does_not_tell_is_not_waited_for() {
    let rig = converged();
    let status = told(&rig, |state| state.acl = crate::observed::AclState::default());
    assert!(matches!(isolation(&status), IsolationStatus::Unknown(_)), "{:?}", isolation(&status));
    assert_eq!(status.verdict, Verdict::Converged);
}

/// Somebody took a rule away: neither is the partition isolated, nor is it merely not known.
#[test]
fn a_rule_that_is_missing_in_config_db_is_named() {
    let mut rig = converged();
    rig.switch.config_del("ACL_RULE", "BOOTNET_IPV4|DEFAULT_RULE");
    let status = told(&rig, |state| state.acl = crate::observed::AclState::default());
    let missing = IsolationStatus::Pending("CONFIG_DB ACL_RULE|BOOTNET_IPV4|DEFAULT_RULE".to_owned());
    assert_eq!(isolation(&status), &missing);
}

#[test]
fn a_partition_without_ports_or_without_the_role_claims_nothing() {
    let mut rig = converged();
    rig.switch.config_del("BOOT_NETWORK_PORT", "Ethernet0");
    rig.converge();
    let status = rig.plan().status;
    assert!(matches!(isolation(&status), IsolationStatus::Pending(_)));
    assert_eq!(status.verdict, Verdict::Converged);
    rig.switch.config_set("BOOT_NETWORK_PARTITION", "p1", fields([("isolate", "disabled")]));
    rig.converge();
    assert_eq!(isolation(&rig.plan().status), &IsolationStatus::Off);
}

#[test]
fn tables_of_others_on_a_boot_port_are_told_and_left_alone() {
    let mut rig = converged();
    let table = |kind: &'static str, stage: &'static str, ports: &'static str| {
        fields([("type", kind), ("stage", stage), ("ports@", ports)])
    };
    rig.foreign_set("ACL_TABLE", "DATAACLV6", table("l3v6", "ingress", "Ethernet0,Ethernet8"));
    rig.foreign_set("ACL_TABLE", "OUT", table("L3", "egress", "Ethernet0"));
    rig.foreign_set("ACL_TABLE", "EVERFLOW", table("MIRROR", "ingress", "Ethernet0"));
    rig.foreign_set("ACL_TABLE", "SSH_ONLY", fields([("type", "CTRLPLANE"), ("services@", "SSH")]));
    rig.foreign_set("ACL_TABLE", "ELSEWHERE", table("L3", "ingress", "Ethernet8"));
    rig.converge();
    let conflicts = rig.plan().status.conflicts;
    let objects: Vec<&str> = conflicts.iter().map(|conflict| conflict.object.as_str()).collect();
    assert_eq!(objects, ["ACL_TABLE|DATAACLV6"]);
    assert!(conflicts[0].reason.contains("Ethernet0 "), "{}", conflicts[0].reason);
    rig.assert_foreign_untouched();
}

/// The tenant that gets the port next must not find our ACL in front of it.
#[test]
fn a_port_that_left_is_in_no_table_whatever_else_is_in_the_vrf() {
    for broken in [false, true] {
        let mut rig = converged();
        rig.switch.config_set(
            "BOOT_NETWORK_PARTITION",
            "p1",
            fields([("service_address@", "2001:db8:f::53")]),
        );
        rig.boot_port("Ethernet4", "p1");
        rig.converge();
        if broken {
            rig.switch.config_set("BOOT_NETWORK_PARTITION", "p1", fields([("advertise", "perhaps")]));
            rig.converge();
            assert_eq!(ipv4_ports(&rig).as_deref(), Some("Ethernet0,Ethernet4"), "held");
        }
        // Taken away by another writer: the agent's row is gone.
        for key in ["Ethernet0|2001:db8:0:1::1/64", "Ethernet0"] {
            rig.foreign_del("INTERFACE", key);
            rig.switch.settle(10_000);
        }
        rig.foreign_set("INTERFACE", "Ethernet0", fields([("vrf_name", "VrfTenant")]));
        if !broken {
            rig.switch.config_del("BOOT_NETWORK_PORT", "Ethernet0");
        }
        for _ in 0..8 {
            rig.pass(None);
            rig.switch.settle(10_000);
        }
        let bound = |table: &str| rig.config().row("ACL_TABLE", table).unwrap()["ports@"].clone();
        assert_eq!(
            (bound(VRF_TABLE), bound("BOOTNET_IPV4")),
            ("Ethernet4".to_owned(), "Ethernet4".to_owned()),
            "{broken}"
        );
    }
}

#[test]
fn service_addresses_alone_keep_no_table() {
    let mut rig = converged();
    rig.switch.config_set("BOOT_NETWORK_PARTITION", "p1", fields([("service_address@", "2001:db8:f::53")]));
    rig.converge();
    rig.switch.config_del("BOOT_NETWORK_PORT", "Ethernet0");
    rig.converge();
    assert_eq!(rig.config().table("ACL_TABLE").count(), 0, "{:?}", rig.config().tables.get("ACL_TABLE"));
}

/// IPv4 of its machine would go anywhere.
#[test]
fn no_port_is_bound_before_the_ipv4_table_is_there() {
    let mut rig = Rig::new(&["Ethernet0"]);
    rig.partition("p1", "2001:db8::/56", &[]);
    rig.boot_port("Ethernet0", "p1");
    let mut own_table = false;
    let mut held = BTreeSet::new();
    for _ in 0..40 {
        rig.switch.settle(10_000);
        let objects = rig.plan().actions.into_iter().map(|action| action.object());
        held.extend(objects.filter(|object| object.contains("BOOTNET_IPV4")));
        held.iter().for_each(|object| rig.cool(object));
        let kinds = rig.pass(None);
        assert!(!kinds.contains(&"bind-interface"), "{kinds:?}");
        own_table |= rig.config().row("ACL_TABLE", VRF_TABLE).is_some();
    }
    assert!(own_table && !held.is_empty() && ipv4_ports(&rig).is_none());
    rig.converge();
    assert_eq!(ipv4_ports(&rig).as_deref(), Some("Ethernet0"));
    assert!(rig.config().row("INTERFACE", "Ethernet0").is_some());
}

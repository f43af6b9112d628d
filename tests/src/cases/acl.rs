//! ACLs of the switch: IPv4 on boot ports, what orchagent says of ours, and those of the control plane.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use redis::Commands;
use serde_json::Value;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::{Lab, run};
use crate::leaf::{CONFIG_DB, Leaf, STATE_DB};
use crate::machine::{Machine, NIC};
use crate::wait;

/// An address of the switch, in its default VRF, and a port of it.
const SWITCH: &str = "192.0.2.1";
const PORT: u16 = 9;
const DATAGRAMS: u32 = 50;
/// What a machine gives itself, and a neighbour that it makes up for its port.
const OWN: &str = "198.51.100.2/24";
const NEXT_HOP: &str = "198.51.100.1";
const PATIENCE: Duration = Duration::from_millis(300);

pub(crate) fn cases() -> Vec<Case> {
    cases!("acl", 60 s:
        ipv4_of_a_machine_gets_nowhere,
        isolation_is_claimed_when_orchagent_says_so,
        control_plane_acls_are_told_with_the_rows_that_are_missing,
    )
}

fn ip(ns: &str, arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(["-n", ns]).args(arguments)).map(drop)
}

fn partition(lab: &Lab) -> String {
    format!("BOOT_NETWORK_PARTITION|{}", lab.machines[0].home.partition)
}

/// IPv4 packets that the switch's kernel has taken in (RFC 4293, `ipSystemStatsInReceives`).
fn taken_in(leaf: &Leaf) -> Result<u32> {
    let path = "/proc/thread-self/net/snmp";
    let text = leaf.ns.run(|| std::fs::read_to_string(path).context(|| path.into()))?;
    let mut rows = text.lines().filter(|line| line.starts_with("Ip: "));
    let (names, values) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
    let at = names.split(' ').position(|name| name == "InReceives");
    let value = at.and_then(|at| values.split(' ').nth(at)?.parse().ok());
    value.context(|| format!("no InReceives in {text}"))
}

/// Whether the switch's kernel takes in what the machine sends: what its ASIC drops it never sees.
fn heard(machine: &Machine, leaf: &Leaf) -> Result<bool> {
    let before = taken_in(leaf)?;
    machine.ns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").context(|| "an IPv4 socket".into())?;
        for _ in 0..DATAGRAMS {
            socket.send_to(b"hello", (SWITCH, PORT)).context(|| format!("send to {SWITCH}"))?;
        }
        Ok(())
    })?;
    std::thread::sleep(PATIENCE);
    Ok(taken_in(leaf)? - before >= DATAGRAMS)
}

fn ipv4_of_a_machine_gets_nowhere(lab: &Lab) -> Result<()> {
    let (leaf, machine) = (&lab.leaves[0], &lab.machines[0]);
    let before = leaf.rows(CONFIG_DB)?;
    let document = machine.boot_document()?;
    let mac = document["port"]["mac"].as_str().context(|| format!("no MAC of the port: {document}"))?;
    ip(leaf.ns.0, &["address", "add", &format!("{SWITCH}/32"), "dev", "lo"])?;
    let set_up: [&[&str]; 3] = [
        &["address", "add", OWN, "dev", NIC],
        &["neighbor", "replace", NEXT_HOP, "lladdr", mac, "dev", NIC, "nud", "permanent"],
        &["route", "add", SWITCH, "via", NEXT_HOP, "dev", NIC],
    ];
    set_up.iter().try_for_each(|arguments| ip(machine.ns.0, arguments))?;
    let result = ipv4_with_and_without(lab, leaf, machine);
    leaf.restore(&before, &["BOOT_NETWORK_PARTITION"])?;
    ip(machine.ns.0, &["neighbor", "del", NEXT_HOP, "dev", NIC])?;
    // The route goes with the address.
    ip(machine.ns.0, &["address", "del", OWN, "dev", NIC])?;
    ip(leaf.ns.0, &["address", "del", &format!("{SWITCH}/32"), "dev", "lo"])?;
    result?;
    wait::until(wait::seconds(20), || leaf.converged())
}

fn ipv4_with_and_without(lab: &Lab, leaf: &Leaf, machine: &Machine) -> Result<()> {
    ensure!(!heard(machine, leaf)?, "the switch takes in IPv4 of {}", machine.ns.0);
    // Without the role the same datagrams arrive.
    leaf.configure(&partition(lab), &[("isolate", "disabled")])?;
    wait::until(wait::seconds(15), || {
        ensure!(heard(machine, leaf)?, "not heard without isolation either");
        Ok(())
    })?;
    leaf.configure(&partition(lab), &[("isolate", "enabled")])?;
    wait::until(wait::seconds(15), || {
        ensure!(!heard(machine, leaf)?, "still heard");
        Ok(())
    })
}

fn isolation(lab: &Lab, leaf: &Leaf) -> Result<(String, String)> {
    let row =
        leaf.row(STATE_DB, &format!("BOOT_NETWORK_PARTITION_TABLE|{}", lab.machines[0].home.partition))?;
    let field = |name: &str| row.get(name).cloned().unwrap_or_default();
    Ok((field("isolation"), field("isolation_detail")))
}

fn isolation_is_claimed_when_orchagent_says_so(lab: &Lab) -> Result<()> {
    const RULE: &str = "ACL_RULE_TABLE|BOOTNET_IPV4|DEFAULT_RULE";
    let leaf = &lab.leaves[0];
    let says = |status: &str| -> Result<()> {
        leaf.redis(STATE_DB)?.hset(RULE, "status", status).context(|| RULE.into())
    };
    let claims = |state: &str, detail: &str| {
        wait::until(wait::seconds(10), || {
            let claimed = isolation(lab, leaf)?;
            ensure!(claimed.0 == state && claimed.1.contains(detail), "{claimed:?}");
            Ok(())
        })
    };
    claims("active", "")?;
    leaf.converged()?;
    says("Inactive")?;
    let claimed = claims("pending", "Inactive").and_then(|()| {
        ensure!(leaf.converged().is_err(), "converged without its ACL");
        Ok(())
    });
    says("Active")?;
    claimed?;
    claims("active", "")?;
    wait::until(wait::seconds(10), || leaf.converged())
}

fn control_plane_acls_are_told_with_the_rows_that_are_missing(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let before = leaf.rows(CONFIG_DB)?;
    let result = control_plane(leaf);
    leaf.restore(&before, &["ACL_TABLE", "ACL_RULE"])?;
    result?;
    wait::until(wait::seconds(10), || {
        let row = leaf.row(STATE_DB, "BOOT_NETWORK_STATE|global")?;
        ensure!(!row.contains_key("control_plane_acl"), "{row:?}");
        Ok(())
    })
}

fn control_plane(leaf: &Leaf) -> Result<()> {
    let says = |word: &str| {
        wait::until(wait::seconds(10), || {
            let row = leaf.row(STATE_DB, "BOOT_NETWORK_STATE|global")?;
            let found = row.get("control_plane_acl").map_or("", String::as_str);
            ensure!(found == word, "{found:?} instead of {word:?}");
            Ok(row.get("control_plane_acl_rows").cloned().unwrap_or_default())
        })
    };
    says("")?;
    leaf.configure(
        "ACL_TABLE|SSH_ONLY",
        &[("type", "CTRLPLANE"), ("services@", "SSH"), ("stage", "ingress")],
    )?;
    leaf.configure(
        "ACL_RULE|SSH_ONLY|RULE_1",
        &[("PRIORITY", "9999"), ("PACKET_ACTION", "ACCEPT"), ("SRC_IP", "10.0.0.0/8")],
    )?;
    let text = says("denies")?;
    let shown = leaf.admin_json("/v1/status")?;
    let rows: Value = serde_json::from_str(&text).context(|| text.clone())?;
    ensure!(shown["control_plane"]["rows"] == rows, "{shown}");
    // What an operator does with them.
    for (table, rows) in rows.as_object().into_iter().flatten() {
        for (key, row) in rows.as_object().into_iter().flatten() {
            let fields: Vec<(String, String)> =
                row.as_object().into_iter().flatten().map(in_config_db).collect();
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            leaf.configure(&format!("{table}|{key}"), &fields)?;
        }
    }
    says("permits")?;
    wait::until(wait::seconds(10), || leaf.converged())
}

/// A field as SONiC's loader writes it.
fn in_config_db((name, value): (&String, &Value)) -> (String, String) {
    match value.as_array() {
        Some(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            (format!("{name}@"), items.join(","))
        }
        None => (name.clone(), value.as_str().unwrap_or_default().to_owned()),
    }
}

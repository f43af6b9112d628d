//! The package is replaced by another version: what the one before left is taken over, or kept.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use redis::Commands;
use serde_json::{Value, json};

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::{API, API_PORT, CONVERGENCE, Lab, run};
use crate::leaf::{CONFIG_DB, Leaf, STATE_DB};
use crate::machine::Reach;
use crate::ndp::Watch;
use crate::sonic::RowEvents;
use crate::wait;

/// MaxRtrAdvInterval, and what a busy one-CPU kernel may add.
const RA_GAP_MAX: std::time::Duration = wait::seconds(13);

pub(crate) fn cases() -> Vec<Case> {
    cases!("restart_upgrade", 120 s:
        what_an_older_version_left_is_taken_over,
        what_a_newer_version_left_is_kept_and_does_not_matter;
    )
}

fn state_file(leaf: &Leaf, name: &str) -> PathBuf {
    leaf.run_dir().join("state").join(name)
}

fn read(path: &PathBuf) -> Result<Value> {
    let text = fs::read_to_string(path).context(|| path.display().to_string())?;
    serde_json::from_str(&text).context(|| path.display().to_string())
}

fn write(path: &PathBuf, value: &Value) -> Result<()> {
    fs::write(path, value.to_string()).context(|| path.display().to_string())
}

/// Rows, rules, lines and fields that this version does not make.
fn what_an_older_version_left_is_taken_over(lab: &Lab) -> Result<()> {
    let (leaf, machine) = (&lab.leaves[0], &lab.machines[0]);
    leaf.converged()?;
    let rows = leaf.rows(CONFIG_DB)?;
    let frr = leaf.vtysh(&["show running-config"])?;
    let watch = Watch::start(machine)?;
    leaf.end_agent(Signal::SIGTERM)?;
    leave_traces(leaf)?;
    leaf.start_agent()?;
    let clean = wait::until(CONVERGENCE, || {
        // Asking FRR is dear, and in the agent's way.
        leaf.converged()?;
        let left = traces(leaf)?;
        ensure!(left.is_empty(), "still there: {left:?}");
        Ok(())
    });
    leaf.restore(&rows, &["ACL_RULE"])?;
    wait::until(CONVERGENCE, || leaf.converged())?;
    clean?;
    ensure!(leaf.rows(CONFIG_DB)? == rows, "CONFIG_DB is not what it was");
    let after = leaf.vtysh(&["show running-config"])?;
    ensure!(after == frr, "FRR is not what it was:\n{frr}\n{after}");
    let version = run(&mut lab.agent_command(leaf, &["--version"]))?;
    let state = leaf.row(STATE_DB, "BOOT_NETWORK_STATE|global")?;
    let told = state.get("version").map_or("", String::as_str);
    ensure!(version.trim() == format!("switch-agent {told}"), "{version:?} tells STATE_DB {told:?}");
    machine.get("/v1/boot")?.expect(200)?;
    ensure!(machine.reach(API, API_PORT)? == Reach::Connected, "the leak is gone");
    watch.check_unbroken(RA_GAP_MAX)
}

const OLD_RULE: &str = "ACL_RULE|BOOTNET_VrfBoot-p1|OLD_RULE";
const CHANGED_RULE: &str = "ACL_RULE|BOOTNET_VrfBoot-p1|DEFAULT_RULE";
const OLD_STATE: [(&str, &str); 4] = [
    ("BOOT_NETWORK_STATE|global", "old_field"),
    ("BOOT_NETWORK_PORT_TABLE|Ethernet0", "old_field"),
    ("BOOT_NETWORK_PORT_TABLE|Ethernet96", "phase"),
    ("BOOT_NETWORK_PARTITION_TABLE|gone", "vrf_name"),
];

fn leave_traces(leaf: &Leaf) -> Result<()> {
    let path = state_file(leaf, "ledger.json");
    let mut ledger = read(&path)?;
    ensure!(ledger["ports"]["Ethernet0"].is_object(), "an odd ledger: {ledger}");
    ledger["ports"]["Ethernet0"]["old_field"] = json!(1);
    ledger["old_field"] = json!("0.0.9");
    if let Some(ledger) = ledger.as_object_mut() {
        ledger.remove("vrfs");
    }
    write(&path, &ledger)?;
    let mut state = leaf.redis(STATE_DB)?;
    for (key, field) in OLD_STATE {
        let () = state.hset(key, field, "old").context(|| key.into())?;
    }
    let () = state.hset(OLD_STATE[0].0, "version", "0.0.9").context(|| "version".into())?;
    leaf.configure(OLD_RULE, &[("PRIORITY", "5"), ("PACKET_ACTION", "DROP"), ("IP_PROTOCOL", "17")])?;
    leaf.configure(CHANGED_RULE, &[("PRIORITY", "3")])?;
    leaf.vtysh(&[
        "configure terminal",
        "ipv6 prefix-list BOOTNET-VrfBoot-p1-API seq 77 permit 2001:db8:dead::/48",
        "route-map BOOTNET-VrfBoot-p1-OLD permit 10",
    ])
    .map(drop)
}

/// What is left of them.
fn traces(leaf: &Leaf) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (key, field) in OLD_STATE {
        if leaf.row(STATE_DB, key)?.get(field).is_some_and(|value| value == "old") {
            left.push(format!("STATE_DB {key} {field}"));
        }
    }
    let rows = leaf.rows(CONFIG_DB)?;
    let priority = rows.get(CHANGED_RULE).and_then(|row| row.get("PRIORITY"));
    if rows.contains_key(OLD_RULE) || priority.is_some_and(|priority| priority == "3") {
        left.push(format!("CONFIG_DB {OLD_RULE}, {CHANGED_RULE} {priority:?}"));
    }
    let frr = leaf.vtysh(&["show running-config"])?;
    left.extend(frr.lines().filter(|line| line.contains("dead") || line.contains("-OLD")).map(str::to_owned));
    Ok(left)
}

/// After a downgrade. Names tell whose the rows are.
fn what_a_newer_version_left_is_kept_and_does_not_matter(lab: &Lab) -> Result<()> {
    let (leaf, machine) = (&lab.leaves[0], &lab.machines[0]);
    leaf.converged()?;
    let path = state_file(leaf, "ledger.json");
    let before = read(&path)?;
    let newer = json!({"format": 7, "vrfs": ["VrfBoot-p1"], "interfaces": {"Ethernet0": {}}});
    let watch = Watch::start(machine)?;
    let events = RowEvents::start(leaf)?;
    leaf.end_agent(Signal::SIGTERM)?;
    write(&path, &newer)?;
    write(&state_file(leaf, "boot-once.json"), &newer)?;
    write(&state_file(leaf, "later.json"), &newer)?;
    leaf.start_agent()?;
    wait::until(CONVERGENCE, || {
        machine.get("/v1/boot")?.expect(200)?;
        leaf.converged()
    })?;
    machine.get("/boot.ipxe")?.expect(200)?;
    events.expect_none()?;
    for name in ["ledger.json.broken", "boot-once.json.broken", "later.json"] {
        ensure!(read(&state_file(leaf, name))? == newer, "{name} was not kept");
    }
    let after = read(&path)?;
    ensure!(after == before, "the ledger was {before} and is {after}");
    watch.check_unbroken(RA_GAP_MAX)
}

//! Bad rows: each is refused by itself, with a message that says what is wrong where.

use serde_json::Value;

use crate::cases::{Case, cases};
use crate::failure::{Context, Failure, Result, ensure};
use crate::lab::Lab;
use crate::leaf::{CONFIG_DB, STATE_DB};
use crate::wait;

pub(crate) fn cases() -> Vec<Case> {
    cases!("bad_rows",
        150 s: each_is_refused_by_name_while_all_ports_work;
        60 s: a_repaired_row_is_taken_up;
    )
}

/// A row that must be refused, and the words its message must hold besides the row's key.
struct BadRow {
    key: &'static str,
    /// The row that messages name: `key`, or the one of somebody else who has the port.
    named: &'static str,
    fields: &'static [(&'static str, &'static str)],
    words: &'static [&'static str],
}

const fn bad(
    key: &'static str,
    fields: &'static [(&'static str, &'static str)],
    words: &'static [&'static str],
) -> BadRow {
    BadRow { key, named: key, fields, words }
}

/// A row that holds, for a port that `named` makes somebody else's.
const fn foreign(key: &'static str, named: &'static str, words: &'static [&'static str]) -> BadRow {
    BadRow { key, named, fields: &[("partition", "p1")], words }
}

const PREFIX: (&str, &str) = ("prefix", "2001:db8:ff:a00::/56");

const BAD_ROWS: &[BadRow] = &[
    bad(
        "BOOT_NETWORK_PARTITION|longname",
        &[PREFIX, ("vrf_name", "VrfBoot-far-too-long")],
        &["vrf_name", "VrfBoot-far-too-long", "15"],
    ),
    bad("BOOT_NETWORK_PARTITION|badname", &[PREFIX, ("vrf_name", "boot")], &["vrf_name", "boot", "Vrf"]),
    bad(
        "BOOT_NETWORK_PARTITION|badprefix",
        &[("prefix", "2001:db8:zz::/56")],
        &["prefix", "2001:db8:zz::/56"],
    ),
    bad("BOOT_NETWORK_PARTITION|toolong", &[("prefix", "2001:db8:ff:b00::/65")], &["prefix", "/65", "64"]),
    bad(
        "BOOT_NETWORK_PARTITION|overlap",
        &[("prefix", "2001:db8:1:180::/57")],
        &["prefix", "2001:db8:1:180::/57", "p1"],
    ),
    bad("BOOT_NETWORK_PARTITION|nothing", &[("NULL", "NULL")], &["prefix"]),
    bad("BOOT_NETWORK_PARTITION|unknown", &[PREFIX, ("colour", "blue")], &["colour"]),
    bad("BOOT_NETWORK_PARTITION|switch", &[PREFIX, ("proxy", "yes")], &["proxy", "yes", "enabled"]),
    bad("BOOT_NETWORK_PORT|Ethernet512", &[("partition", "p1")], &["Ethernet512"]),
    foreign("BOOT_NETWORK_PORT|Ethernet16", "VLAN_MEMBER|Vlan100|Ethernet16", &["VLAN member"]),
    bad("BOOT_NETWORK_PORT|Ethernet20", &[("partition", "p9")], &["partition", "p9"]),
    bad(
        "BOOT_NETWORK_PORT|Ethernet24",
        &[("partition", "p1"), ("prefix_offset", "256")],
        &["prefix_offset", "256"],
    ),
    bad(
        "BOOT_NETWORK_PORT|Ethernet28",
        &[("partition", "p1"), ("prefix_offset", "1")],
        &["prefix_offset", "Ethernet0"],
    ),
];

/// Rows that the bad ones refer to: ports of the switch and a VLAN with a member.
const AROUND: &[(&str, &[(&str, &str)])] = &[
    ("PORT|Ethernet16", &[("alias", "Eth1/5"), ("index", "5"), ("lanes", "17"), ("speed", "100000")]),
    ("PORT|Ethernet20", &[("alias", "Eth1/6"), ("index", "6"), ("lanes", "21"), ("speed", "100000")]),
    ("PORT|Ethernet24", &[("alias", "Eth1/7"), ("index", "7"), ("lanes", "25"), ("speed", "100000")]),
    ("PORT|Ethernet28", &[("alias", "Eth1/8"), ("index", "8"), ("lanes", "29"), ("speed", "100000")]),
    ("VLAN|Vlan100", &[("vlanid", "100")]),
    ("VLAN_MEMBER|Vlan100|Ethernet16", &[("tagging_mode", "untagged")]),
];

const TABLES: &[&str] =
    &["BOOT_NETWORK", "BOOT_NETWORK_PARTITION", "BOOT_NETWORK_PORT", "PORT", "VLAN", "VLAN_MEMBER"];

fn each_is_refused_by_name_while_all_ports_work(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let before = leaf.rows(CONFIG_DB)?;
    let result = plant_and_check(lab);
    leaf.restore(&before, TABLES)?;
    wait::until(wait::seconds(30), || {
        leaf.converged()?;
        let status = leaf.admin_json("/v1/status")?;
        let left = rejected(&status);
        ensure!(left.is_empty(), "still refused after the rows are gone: {left:?}");
        Ok(())
    })?;
    result
}

fn plant_and_check(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    for (key, fields) in AROUND {
        leaf.configure(key, fields)?;
    }
    for row in BAD_ROWS {
        leaf.configure(row.key, row.fields)?;
    }
    wait::until(wait::seconds(20), || {
        let status = leaf.admin_json("/v1/status")?;
        let text = status.to_string();
        for row in BAD_ROWS {
            ensure!(text.contains(row.named), "show status does not name {}: {text}", row.named);
        }
        Ok(())
    })?;
    let mut failures = Vec::new();
    let status = leaf.admin_json("/v1/status")?;
    let check = check_output(lab)?;
    for row in BAD_ROWS {
        for (place, messages) in
            [("status", messages_of(&status, row.named)), ("check", lines_of(&check, row.named))]
        {
            ensure!(!messages.is_empty(), "{place} does not name {}", row.named);
            for word in row.words.iter().filter(|word| !messages.contains(**word)) {
                failures.push(format!("{place}: {} does not say {word:?}: {messages}", row.key));
            }
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    check_state_db(lab)?;
    for machine in lab.machines.iter().filter(|machine| machine.home.leaf == 1) {
        machine.get("/v1/boot")?.expect(200)?;
        leaf.expect_phase(machine.home.port, "ready")?;
    }
    Ok(())
}

/// The entries of `rejected`, wherever the status carries them.
fn rejected(status: &Value) -> Vec<Value> {
    let list = status.pointer("/rejected").or_else(|| status.pointer("/status/rejected"));
    list.and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Every object of the status that names the row, as text.
fn messages_of(status: &Value, row: &str) -> String {
    let mut found = String::new();
    collect(status, &|text| text.contains(row), &mut found);
    found
}

fn collect(value: &Value, names_row: &dyn Fn(&str) -> bool, found: &mut String) {
    match value {
        Value::Object(fields) => {
            let own: Vec<&str> = fields.values().filter_map(Value::as_str).collect();
            if own.iter().any(|text| names_row(text)) {
                *found += &value.to_string();
                found.push('\n');
            } else {
                fields.values().for_each(|inner| collect(inner, names_row, found));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, names_row, found)),
        Value::String(text) if names_row(text) => {
            *found += text;
            found.push('\n');
        }
        _ => {}
    }
}

fn check_output(lab: &Lab) -> Result<String> {
    let output = lab.agent_command(&lab.leaves[0], &["check"]).output().context(|| "check".into())?;
    ensure!(output.status.code() == Some(2), "check of bad rows ends with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

fn lines_of(text: &str, key: &str) -> String {
    text.lines().filter(|line| line.contains(key)).collect::<Vec<_>>().join("\n")
}

fn check_state_db(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    for row in BAD_ROWS {
        let Some(port) = row.key.strip_prefix("BOOT_NETWORK_PORT|") else {
            continue;
        };
        let state = leaf.row(STATE_DB, &format!("BOOT_NETWORK_PORT_TABLE|{port}"))?;
        let phase = state.get("phase").map(String::as_str);
        ensure!(matches!(phase, Some("rejected" | "foreign")), "{port} in STATE_DB is {state:?}");
        ensure!(
            state.get("error").is_some_and(|text| !text.is_empty()),
            "{port} in STATE_DB has no error: {state:?}"
        );
    }
    let global = leaf.row(STATE_DB, "BOOT_NETWORK_STATE|global")?;
    let rejected = global.get("rejected").cloned().unwrap_or_default();
    for row in BAD_ROWS.iter().filter(|row| row.named == row.key) {
        let message = rejected.split("; ").find(|message| message.contains(row.key)).unwrap_or_default();
        for word in row.words {
            ensure!(message.contains(word), "STATE_DB does not say {word:?} of {}: {rejected}", row.key);
        }
    }
    Ok(())
}

/// Ethernet8's row is broken, its port leaves; mended, the port comes back.
fn a_repaired_row_is_taken_up(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let key = "BOOT_NETWORK_PORT|Ethernet8";
    leaf.configure(key, &[("partition", "p9")])?;
    let broken = wait::until(wait::seconds(20), || leaf.expect_phase("Ethernet8", "rejected"));
    leaf.configure(key, &[("partition", "p1")])?;
    wait::until(wait::seconds(40), || {
        let entry = leaf.port("Ethernet8")?;
        if entry["phase"] == "ready" || entry["phase"] == "waiting" {
            return Ok(());
        }
        Err(Failure(format!("Ethernet8 does not come back: {entry}")))
    })?;
    broken
}

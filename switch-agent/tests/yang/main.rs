//! The YANG module against the agent's own validation: what one accepts, the other accepts.
//!
//! Rows are generated, valid ones and such with one field changed, from a fixed seed. Where the agent is
//! stricter because YANG cannot say it, [`differences`] says so by name. Needs yanglint and SONiC's models
//! (`sonic-package/yang/check --help`), so `cargo test` leaves it out; `tests/run` does not.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod differences;
mod rows;
mod values;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use switch_agent_core::desired::Desired;
use switch_agent_core::row::ConfigDb;

use differences::{AGENT_STRICTER, Difference, YANG_STRICTER};
use rows::{Case, TABLES, generate};

/// Rows of each table by chance.
const ROWS: usize = 600;

/// What yanglint says of each configuration; `None` for one that holds.
fn yang_verdicts(cases: &[Case]) -> Vec<Option<String>> {
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sonic-package/yang/check");
    let mut child = Command::new(check)
        .arg("--verdicts")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sonic-package/yang/check runs");
    let configurations: Vec<_> = cases.iter().map(|case| &case.config.tables).collect();
    // It answers after it has read everything: no pipe fills up meanwhile.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&serde_json::to_vec(&configurations).unwrap()).expect("sonic-package/yang/check reads");
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "sonic-package/yang/check --verdicts: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the agent says of each row that it rejects.
fn agent_verdict(config: &ConfigDb) -> Vec<String> {
    Desired::from_config(config).rejected.iter().map(ToString::to_string).collect()
}

/// The difference that accounts for what one side says.
fn known<'a>(differences: &'a [Difference], said: &str) -> Option<&'a Difference> {
    differences.iter().find(|difference| difference.says.iter().all(|words| said.contains(words)))
}

#[test]
#[ignore = "needs yanglint and SONiC's YANG models"]
fn the_module_and_the_agent_agree() {
    let mut disagreements = Vec::new();
    let mut seen = BTreeSet::new();
    for table in &TABLES {
        let cases = generate(table, ROWS);
        let verdicts = yang_verdicts(&cases);
        assert_eq!(verdicts.len(), cases.len());
        let mut accepted = 0;
        for (case, yang) in cases.iter().zip(&verdicts) {
            let agent = agent_verdict(&case.config);
            match yang {
                None if agent.is_empty() => accepted += 1,
                Some(_) if !agent.is_empty() => {}
                None => {
                    for said in &agent {
                        match known(AGENT_STRICTER, said) {
                            Some(difference) => _ = seen.insert(difference.name),
                            None => disagreements.push(format!("{}\n    agent alone: {said}", case.name)),
                        }
                    }
                }
                Some(said) => match known(YANG_STRICTER, said) {
                    Some(difference) => _ = seen.insert(difference.name),
                    None => disagreements.push(format!("{}\n    YANG alone: {said}", case.name)),
                },
            }
        }
        println!("{}: {} rows, {accepted} accepted by both", table.name, cases.len());
        // Else the test would compare little but one kind of answer.
        let share = accepted * 100 / cases.len();
        assert!((20..=80).contains(&share), "{}: {share} % of the rows are accepted", table.name);
    }
    assert!(disagreements.is_empty(), "{} disagreements:\n{}", disagreements.len(), disagreements.join("\n"));
    for difference in AGENT_STRICTER.iter().chain(YANG_STRICTER) {
        let (name, reason) = (difference.name, difference.reason);
        assert!(seen.contains(name), "no row shows the difference {name:?} ({reason})");
    }
}

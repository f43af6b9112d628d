//! What the documentation tells people to type on a switch or a machine, typed there.
//!
//! Blocks fenced as `sh lab NODE` run on that node, and those fenced as `console lab NODE` print what stands
//! there, but for numbers; those that need no lab are run by the test `docs` of the package switch-agent.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::{CONVERGENCE, Lab, run};

const DOCUMENTS: [&str; 4] =
    ["README.md", "switch-agent/README.md", "labs/README.md", "frr-templates/README.md"];

pub(crate) fn cases() -> Vec<Case> {
    cases!("docs",
        180 s: commands_work_as_documented,
            sessions_print_what_is_documented;
        30 s: metrics_have_the_documented_types;
    )
}

fn read(lab: &Lab, document: &str) -> Result<String> {
    fs::read_to_string(lab.root.join(document)).context(|| document.into())
}

/// Node and text of every block of this language that belongs into the lab.
fn blocks(text: &str, language: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let fence = format!("```{language} lab ");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(node) = line.strip_prefix(&fence) {
            let commands: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            blocks.push((node.to_owned(), commands.join("\n")));
        }
    }
    blocks
}

fn on_node(lab: &Lab, node: &str, commands: &str) -> Result<String> {
    // Every command has to succeed, not only the last one.
    let script = format!("set -euo pipefail\n{commands}");
    let mut shell = Command::new(lab.root.join("labs/local/shell"));
    shell.args([node, "-c", &script]).env("LAB_INSIDE", "1");
    run(&mut shell)
}

/// A line without what one run has and another has not: numbers, and widths of columns.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.trim_end().chars().peekable();
    while let Some(c) = chars.next() {
        let repeats = match c {
            '0'..='9' => {
                while chars.peek().is_some_and(|c| c.is_ascii_digit() || *c == '.') {
                    chars.next();
                }
                text.push('N');
                continue;
            }
            ' ' | '-' => c,
            c => {
                text.push(c);
                continue;
            }
        };
        while chars.next_if_eq(&repeats).is_some() {}
        text.push(repeats);
    }
    text
}

/// Every line that is shown is printed, in this order; `...` stands for others.
fn sessions_print_what_is_documented(lab: &Lab) -> Result<()> {
    lab.settle(CONVERGENCE)?;
    let mut count = 0;
    for document in DOCUMENTS {
        for (node, session) in blocks(&read(lab, document)?, "console") {
            for part in session.split("$ ").filter(|part| !part.trim().is_empty()) {
                let (command, shown) = part.split_once('\n').unwrap_or((part, ""));
                let output = on_node(lab, &node, command)?;
                let mut printed = output.lines().map(plain);
                for line in shown.lines().filter(|line| *line != "..." && !line.is_empty()) {
                    let there = printed.any(|printed| printed == plain(line));
                    ensure!(there, "{document}: {command} on {node} does not print {line:?}: {output}");
                }
                count += 1;
            }
        }
    }
    ensure!(count >= 3, "only {count} sessions");
    Ok(())
}

fn commands_work_as_documented(lab: &Lab) -> Result<()> {
    lab.settle(CONVERGENCE)?;
    let mut count = 0;
    for document in DOCUMENTS {
        for (node, commands) in blocks(&read(lab, document)?, "sh") {
            let output = on_node(lab, &node, &commands)?;
            ensure!(!output.trim().is_empty(), "{document}: the commands on {node} print nothing");
            count += 1;
        }
    }
    ensure!(count >= 3, "only {count} blocks of commands for the lab");
    Ok(())
}

/// Families that have no value yet are not encoded, so this compares what is there.
fn metrics_have_the_documented_types(lab: &Lab) -> Result<()> {
    let reference = read(lab, "switch-agent/README.md")?;
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `switch_agent_"));
    let mut documented = BTreeMap::new();
    for row in rows {
        let mut cells = row.split('|').map(str::trim);
        let (name, kind) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        let labels = cells.next().unwrap_or_default().to_owned();
        documented.insert(name.trim_end_matches('`').to_owned(), (kind.to_owned(), labels));
    }
    for leaf in &lab.leaves {
        let text = leaf.admin("/metrics")?.expect(200)?.body;
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE switch_agent_")) {
            let (family, kind) = line.split_once(' ').context(|| line.into())?;
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let name = format!("{family}{suffix}");
            let (told, labels) = documented.get(&name).context(|| format!("{name} is not documented"))?;
            ensure!(told == kind, "{name} is a {kind}, documented as {told}");
            let sample = text.lines().find_map(|line| {
                let rest = line.strip_prefix("switch_agent_")?.strip_prefix(name.as_str())?;
                rest.starts_with(['{', ' ']).then_some(rest)
            });
            for label in labels.split(", ").filter(|label| !label.is_empty()) {
                let has = sample.is_none_or(|sample| sample.contains(&format!("{label}=\"")));
                ensure!(has, "{name} has no label {label}: {sample:?}");
            }
        }
    }
    Ok(())
}

//! Commands and links.

use std::path::Path;
use std::process::Command;

use super::markdown::{Block, DOCUMENTS, anchors, blocks, links, read, root};

/// Runs a line as a person would at the top of the repository. Returns the exit code and what was printed.
fn shell(line: &str) -> (Option<i32>, String) {
    let binary = Path::new(env!("CARGO_BIN_EXE_switch-agent"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output =
        Command::new("sh").args(["-c", line]).current_dir(root()).env("PATH", path).output().unwrap();
    assert!(output.stderr.is_empty(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_commands(block: &Block) -> bool {
    block.info.first().is_some_and(|language| language == "sh" || language == "console")
}

/// `$ command` lines with the output that follows each.
fn sessions(text: &str) -> Vec<(String, String)> {
    let mut sessions: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), sessions.last_mut()) {
            (Some(command), _) => sessions.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => {
                output.push_str(line);
                output.push('\n');
            }
            (None, None) => panic!("output before a command: {line}"),
        }
    }
    sessions
}

#[test]
fn every_block_of_commands_is_run_by_somebody() {
    let places = ["leaf1", "leaf2", "m1", "m2", "m3", "m4"];
    for document in DOCUMENTS {
        for block in blocks(&read(document)).iter().filter(|block| is_commands(block)) {
            let info: Vec<&str> = block.info.iter().map(String::as_str).collect();
            match info[1..] {
                ["check" | "check=2"] => {}
                ["lab", node] => assert!(places.contains(&node), "{document}: no node {node}"),
                ["ci"] => {
                    let ci = read("tests/run") + &read(".ci/run");
                    for line in block.text.lines() {
                        let command = line.split(' ').next().unwrap();
                        assert!(root().join(command).is_file(), "{document}: no {command}");
                        assert!(ci.contains(command), "{document}: CI does not run {command}");
                    }
                }
                _ => panic!("{document}: nobody runs the block {info:?}:\n{}", block.text),
            }
        }
    }
}

#[test]
fn commands_that_need_no_lab_do_what_is_said() {
    let mut count = 0;
    for document in DOCUMENTS {
        for block in blocks(&read(document)).iter().filter(|block| is_commands(block)) {
            let wanted = match block.info.get(1).map(String::as_str) {
                Some("check") => 0,
                Some("check=2") => 2,
                _ => continue,
            };
            if block.info[0] == "console" {
                for (command, output) in sessions(&block.text) {
                    assert_eq!(shell(&command), (Some(wanted), output), "{document}: {command}");
                    count += 1;
                }
            } else {
                for command in block.text.lines() {
                    let (code, output) = shell(command);
                    assert_eq!(code, Some(wanted), "{document}: {command}");
                    assert!(!output.is_empty(), "{document}: {command} prints nothing");
                    count += 1;
                }
            }
        }
    }
    assert!(count >= 5, "{count} commands");
}

#[test]
fn links_lead_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        let folder = Path::new(document).parent().unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { Path::new(document).to_owned() } else { folder.join(file) };
            assert!(root().join(&target).exists(), "{document}: {link}");
            if !anchor.is_empty() {
                let there = read(target.to_str().unwrap());
                assert!(anchors(&there).iter().any(|known| known == anchor), "{document}: {link}");
            }
        }
    }
    let top = links(&read("README.md"));
    for document in &DOCUMENTS[1..] {
        assert!(
            top.iter().any(|link| link.starts_with(document)
                || format!("{link}README.md") == *document
                || link == document),
            "README.md does not link {document}"
        );
    }
}

/// Paths that the architecture's table names.
#[test]
fn the_module_map_names_what_exists() {
    let text = read("README.md");
    let bases = ["", "switch-agent/core/src/", "switch-agent/src/"];
    for row in super::markdown::table(&text, &["to change", "look at"]) {
        for path in super::markdown::codes(&row[1]) {
            let exists = bases.iter().any(|base| root().join(base).join(path).exists());
            assert!(exists, "there is no {path}");
        }
    }
}

//! Command line, metrics, HTTP and signed claims.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::CommandFactory;
use serde_json::json;
use switch_agent::args::Cli;
use switch_agent_core::discovery::Limits;
use switch_agent_core::discovery::limits::FIELDS;
use switch_agent_core::identity::{IdentityClaims, MachineClaims};

use super::markdown::{code, codes, read, root, table};

const REFERENCE: &str = "switch-agent/README.md";

/// Full names of the subcommands that do something, with their arguments.
fn subcommands() -> BTreeMap<String, clap::Command> {
    let mut commands = BTreeMap::new();
    let mut open = vec![(String::new(), Cli::command())];
    while let Some((name, command)) = open.pop() {
        let inner: Vec<_> = command.get_subcommands().filter(|inner| inner.get_name() != "help").collect();
        if inner.is_empty() {
            commands.insert(name.trim().to_owned(), command);
        } else {
            open.extend(inner.into_iter().map(|i| (format!("{name} {}", i.get_name()), i.clone())));
        }
    }
    commands
}

#[test]
fn commands_are_those_of_the_binary() {
    let commands = subcommands();
    let documented: BTreeMap<String, String> = table(&read(REFERENCE), &["command", "what it does"])
        .iter()
        .map(|cells| {
            let usage = code(&cells[0]).unwrap();
            let words = usage.split(' ').take_while(|w| w.starts_with(|c: char| c.is_ascii_lowercase()));
            (words.collect::<Vec<_>>().join(" "), usage.to_owned())
        })
        .collect();
    assert_eq!(documented.keys().collect::<Vec<_>>(), commands.keys().collect::<Vec<_>>());
    // Those that several commands share, and those of `run`, are told elsewhere.
    let shared = ["help", "version", "json", "admin-socket", "database-config"];
    for (name, usage) in documented.iter().filter(|(name, _)| *name != "run") {
        let told: BTreeSet<&str> =
            usage.split([' ', '[', ']']).filter_map(|w| w.strip_prefix("--")).collect();
        let known: BTreeSet<&str> = commands[name]
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .filter(|long| !shared.contains(long))
            .collect();
        assert_eq!(told, known, "{name}");
    }
}

#[test]
fn flags_of_run_are_those_of_the_binary() {
    let run = &subcommands()["run"];
    let flags = table(&read(REFERENCE), &["flag", "environment", "default"]);
    let told: BTreeSet<&str> =
        flags.iter().map(|cells| code(&cells[0]).unwrap().split(' ').next().unwrap()).collect();
    let known: BTreeSet<String> =
        run.get_arguments().filter_map(clap::Arg::get_long).map(|long| format!("--{long}")).collect();
    let known: BTreeSet<&str> = known.iter().map(String::as_str).filter(|flag| *flag != "--help").collect();
    assert_eq!(told, known);
    for cells in &flags {
        let long = code(&cells[0]).unwrap().split(' ').next().unwrap().trim_start_matches('-');
        let argument = run.get_arguments().find(|argument| argument.get_long() == Some(long)).unwrap();
        assert_eq!(code(&cells[1]), argument.get_env().and_then(std::ffi::OsStr::to_str), "--{long}");
        let default = argument.get_default_values().first().and_then(|value| value.to_str());
        assert_eq!(code(&cells[2]), default, "--{long}");
    }
}

#[test]
fn help_of_every_command_is_printed() {
    for name in subcommands().keys() {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_switch-agent"))
            .args(name.split(' '))
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success() && output.stdout.len() > 100, "{name}");
    }
}

/// Names under which the sources register metrics; a family without a value is not encoded.
fn registered() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("switch-agent/src/metrics")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        let calls = [
            (".register(", ""),
            (".register_with_unit(", "_seconds"),
            (".counter(", ""),
            (".gauge(", ""),
            (".info(", ""),
        ];
        for (call, suffix) in calls {
            for after in text.split(call).skip(1) {
                let name = after.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                names.insert(format!("switch_agent_{}{suffix}", name.unwrap()));
            }
        }
        // A collector of one family names it there.
        let described = text.split("encode_descriptor(\"").skip(1);
        names.extend(described.map(|after| format!("switch_agent_{}", after.split('"').next().unwrap())));
    }
    names
}

#[test]
fn metrics_are_those_that_are_registered() {
    let rows = table(&read(REFERENCE), &["metric", "type", "labels", "meaning"]);
    let families: BTreeMap<String, String> = rows
        .iter()
        .map(|cells| {
            let suffix = match cells[1].as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let name = code(&cells[0]).unwrap();
            let family = name.strip_suffix(suffix).unwrap_or_else(|| panic!("{name} is no {}", cells[1]));
            (family.to_owned(), cells[1].clone())
        })
        .collect();
    assert_eq!(families.len(), rows.len(), "a metric twice");
    assert_eq!(families.keys().cloned().collect::<BTreeSet<_>>(), registered());
    // What is encoded without any event has its type as documented; the lab compares the rest.
    let text = switch_agent::metrics::Metrics::default().encode();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (family, kind) = line.split_once(' ').unwrap();
        assert_eq!(families.get(family).map(String::as_str), Some(kind), "{family}");
    }
}

#[test]
fn paths_of_the_admin_api_are_those_of_its_description() {
    let description: serde_json::Value =
        serde_json::from_str(&read("switch-agent/src/http/openapi.json")).unwrap();
    let told: BTreeSet<String> = table(&read(REFERENCE), &["path", "answer"])
        .iter()
        .map(|cells| code(&cells[0]).unwrap().to_owned())
        .collect();
    let known: BTreeSet<String> = description["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(told, known);
    let phases = &description["components"]["schemas"]["Port"]["properties"]["phase"]["enum"];
    let told: Vec<String> = table(&read(REFERENCE), &["phase of a port", "meaning"])
        .iter()
        .map(|cells| code(&cells[0]).unwrap().to_owned())
        .collect();
    assert_eq!(json!(told), *phases);
}

fn claims(text: &str, header: &str) -> BTreeSet<String> {
    let rows = table(text, &[header, "meaning"]);
    rows.iter().flat_map(|cells| codes(&cells[0])).map(str::to_owned).collect()
}

#[test]
fn claims_are_those_that_are_signed() {
    let keys = |value: serde_json::Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let mac = "52:54:00:00:00:01";
    let identity: IdentityClaims = serde_json::from_value(json!({
        "iss": "leaf1", "sub": "Ethernet0", "aud": "https://api", "iat": 0, "exp": 60, "jti": "1",
        "partition": "p1", "vrf": "VrfBoot-p1", "alias": "Eth1/1", "index": 1, "mac": mac
    }))
    .unwrap();
    let machine: MachineClaims = serde_json::from_value(json!({
        "iss": "leaf1", "sub": "Ethernet0", "iat": 0, "exp": 60, "jti": "1", "partition": "p1", "mac": mac,
        "machine_id": "4f2b"
    }))
    .unwrap();
    let text = read(REFERENCE);
    assert_eq!(claims(&text, "identity claim"), keys(serde_json::to_value(identity).unwrap()));
    assert_eq!(claims(&text, "token claim"), keys(serde_json::to_value(machine).unwrap()));
}

/// What is written in the Rust files of a folder and of those in it, but for tests.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
    text
}

/// Every code of an error is a word of the proxy's sources.
#[test]
fn error_codes_exist() {
    let folders = ["switch-agent/src/http", "switch-agent/core/src/discovery"];
    let source: String = folders.iter().map(|folder| sources(&root().join(folder))).collect();
    let mut count = 0;
    for cells in table(&read(REFERENCE), &["status", "codes"]) {
        for code in codes(&cells[1]) {
            assert!(source.contains(&format!("\"{code}\"")), "{code}");
            count += 1;
        }
    }
    assert!(count > 30, "{count} codes");
}

#[test]
fn limits_of_the_proxy_are_the_built_in_ones() {
    let table = table(&read(REFERENCE), &["limit", "value", "names"]);
    let named: Vec<&str> = table.iter().flat_map(|cells| codes(&cells[2])).collect();
    let mut sorted = named.clone();
    sorted.sort_unstable();
    let mut known: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
    known.sort_unstable();
    assert_eq!(sorted, known);
    let rows: BTreeMap<String, String> =
        table.into_iter().map(|mut cells| (cells.remove(0), cells.remove(0))).collect();
    let l = Limits::default();
    let hours = |time: std::time::Duration| format!("{} h", time.as_secs() / 3600);
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    let wanted = [
        ("header block of a request", format!("{} KiB, {} fields", l.header_bytes >> 10, l.header_fields)),
        ("request target", format!("{} KiB", l.target_bytes >> 10)),
        (
            "request body",
            format!("{} MiB; 4 KiB for `/v1/token`, 16 KiB for `/v1/events`", l.request_body_bytes >> 20),
        ),
        (
            "response body",
            format!(
                "{} MiB; `text/event-stream`, gRPC and Connect streams are exempt",
                l.response_body_bytes >> 20
            ),
        ),
        ("from the first byte of a request to the end of its header block", seconds(l.header_timeout)),
        ("between two requests on a connection", seconds(l.idle_timeout)),
        ("between two pieces of a request body", seconds(l.body_stall_timeout)),
        ("average speed of a request body after that", format!("{} KiB/s", l.body_rate >> 10)),
        ("a machine that takes no bytes of a response", seconds(l.write_stall_timeout)),
        ("age at which a connection is closed after its current request", hours(l.connection_lifetime)),
        ("age at which a connection is closed whatever it does", hours(l.stream_lifetime)),
        ("connections", format!("{} for each port, {} for the switch", l.port_connections, l.connections)),
        (
            "connections of one port that are taken",
            format!("{}/s, {} at once", l.connection_rate, l.connection_burst),
        ),
        ("streams of one HTTP/2 connection", l.streams.to_string()),
        (
            "HTTP/2 frames of one connection that carry no data",
            format!(
                "{}/s, {} at once; 16 times that of window updates",
                l.control_frame_rate, l.control_frame_burst
            ),
        ),
        ("requests of one port", format!("{}/s, {} at once", l.request_rate, l.request_burst)),
        ("tokens of one port", format!("{}/min", l.mints_per_minute)),
        ("life of a token", hours(l.token_ttl)),
        ("least hop limit of a machine's packets (RFC 5082)", format!("{}: any", l.min_hop_limit)),
        ("connecting to the control API", seconds(l.connect_timeout)),
        (
            "response header of the control API, from the last movement of the request",
            seconds(l.upstream_header_timeout),
        ),
        (
            "attempts of a request that certainly did nothing yet",
            format!("{}, begun within {}", l.upstream_attempts, seconds(l.retry_budget)),
        ),
        (
            "failures to connect in a row that suspend the control API",
            format!("{}, for {}", l.breaker_failures, seconds(l.breaker_pause)),
        ),
    ];
    let wanted = wanted.map(|(limit, value)| (limit.to_owned(), value));
    assert_eq!(rows, BTreeMap::from(wanted));
}

//! Tables for people and JSON for programs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::utsname::uname;
use serde_json::{Map, Value, json};

use super::load::Outcome;
use super::proxies::Kind;
use super::{ACTIVE_CONNECTIONS, CONNECTIONS, Figures, IDLE_CONNECTIONS, PACE, PACE_CLOSING};

/// Prints under which conditions everything below was measured.
pub(super) fn conditions(kinds: &[Kind], bin: &Path) {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    println!("# kernel {release}, {cpus} CPU ({})", model.map_or("", |(_, model)| model));
    for kind in kinds {
        println!("# {}: {}", kind.name(), kind.version(bin));
    }
    println!(
        "# machine, leaf and control API are network namespaces; the leaf's port is in no VRF. HTTP/1.1 to the \
         machine, HTTP/1.1 over verified TLS to nginx as the control API. Of switch-agent its discovery proxy \
         alone, without databases, advertisers and reconciler"
    );
    println!(
        "# {CONNECTIONS} connections; latency at {PACE} requests/s ({PACE_CLOSING} with a connection for each); \
         memory by {IDLE_CONNECTIONS} idle and {ACTIVE_CONNECTIONS} active connections"
    );
}

struct Row {
    name: &'static str,
    /// Key in the JSON.
    key: &'static str,
    unit: Unit,
    value: fn(&Figures) -> Option<f64>,
}

#[derive(Clone, Copy)]
enum Unit {
    Micros,
    Millis,
    Rate,
    MibPerSecond,
    Kib,
    Mib,
    Count,
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Unit::Micros => format!("{value:.0} us"),
            Unit::Millis => format!("{value:.2} ms"),
            Unit::Rate => format!("{value:.0}/s"),
            Unit::MibPerSecond => format!("{value:.0} MiB/s"),
            Unit::Kib => format!("{value:.1} KiB"),
            Unit::Count => format!("{value:.0}"),
            Unit::Mib => format!("{:.1} MiB", value / 1024.0),
        }
    }
}

fn micros_each(cpu: Duration, outcome: &Outcome) -> Option<f64> {
    let requests = u32::try_from(outcome.requests()).ok()?;
    Some(cpu.checked_div(requests)?.as_secs_f64() * 1e6)
}

fn millis(value: Option<Duration>) -> Option<f64> {
    value.map(|value| value.as_secs_f64() * 1e3)
}

#[expect(clippy::cast_precision_loss, reason = "kibibytes of a process are far below 2^52")]
fn kib(value: u64) -> f64 {
    value as f64
}

fn count(value: usize) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

const ROWS: [Row; 16] = [
    Row {
        name: "CPU per request",
        key: "cpu_us_per_request",
        unit: Unit::Micros,
        value: |f| micros_each(f.kept_cpu, &f.kept),
    },
    Row {
        name: "  at the pace of the latency",
        key: "paced_cpu_us_per_request",
        unit: Unit::Micros,
        value: |f| micros_each(f.paced_cpu, &f.paced),
    },
    Row {
        name: "  a connection for each",
        key: "closed_cpu_us_per_request",
        unit: Unit::Micros,
        value: |f| micros_each(f.closed_cpu, &f.closed),
    },
    Row {
        name: "requests, connections kept",
        key: "requests_per_s",
        unit: Unit::Rate,
        value: |f| Some(f.kept.per_second()),
    },
    Row {
        name: "  a connection for each",
        key: "closed_requests_per_s",
        unit: Unit::Rate,
        value: |f| Some(f.closed.per_second()),
    },
    Row {
        name: "latency p50, connections kept",
        key: "p50_ms",
        unit: Unit::Millis,
        value: |f| millis(f.paced.percentile(500)),
    },
    Row {
        name: "latency p99",
        key: "p99_ms",
        unit: Unit::Millis,
        value: |f| millis(f.paced.percentile(990)),
    },
    Row {
        name: "latency p50, a connection for each",
        key: "closed_p50_ms",
        unit: Unit::Millis,
        value: |f| millis(f.paced_closed.percentile(500)),
    },
    Row {
        name: "latency p99",
        key: "closed_p99_ms",
        unit: Unit::Millis,
        value: |f| millis(f.paced_closed.percentile(990)),
    },
    Row {
        name: "latency p99 under full load",
        key: "loaded_p99_ms",
        unit: Unit::Millis,
        value: |f| millis(f.kept.percentile(990)),
    },
    Row {
        name: "download",
        key: "stream_mib_per_s",
        unit: Unit::MibPerSecond,
        value: |f| Some(f.stream_mib_per_s),
    },
    Row {
        name: "  CPU per MiB",
        key: "stream_cpu_us_per_mib",
        unit: Unit::Micros,
        value: |f| Some(f.stream_cpu_per_mib.as_secs_f64() * 1e6),
    },
    Row {
        name: "exchanges that broke",
        key: "broken_exchanges",
        unit: Unit::Count,
        value: |f| {
            Some([&f.kept, &f.closed, &f.paced, &f.paced_closed].map(|load| count(load.broken)).iter().sum())
        },
    },
    Row { name: "resident memory", key: "rss_kib", unit: Unit::Mib, value: |f| Some(kib(f.rss_kib)) },
    Row {
        name: "  per idle connection",
        key: "kib_per_idle_connection",
        unit: Unit::Kib,
        value: |f| Some(f.kib_per_idle),
    },
    Row {
        name: "  per active connection",
        key: "kib_per_active_connection",
        unit: Unit::Kib,
        value: |f| Some(f.kib_per_active),
    },
];

/// Median of the rounds.
fn median(row: &Row, rounds: &[Figures]) -> Option<f64> {
    let mut values: Vec<f64> = rounds.iter().filter_map(row.value).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// One column for each proxy, and what the others are in relation to the first.
pub(super) fn table(figures: &[(Kind, Vec<Figures>)]) {
    let own = figures.iter().find(|(kind, _)| *kind == Kind::SwitchAgent);
    print!("{:36}", "");
    for (kind, _) in figures {
        print!("{:>15}", kind.name());
    }
    if own.is_some() {
        for (kind, _) in figures.iter().filter(|(kind, _)| *kind != Kind::SwitchAgent) {
            print!("{:>16}", format!("{}/ours", kind.name()));
        }
    }
    println!();
    for row in &ROWS {
        print!("{:36}", row.name);
        for (_, rounds) in figures {
            print!("{:>15}", median(row, rounds).map_or("-".to_owned(), |value| row.unit.write(value)));
        }
        let ours = own.and_then(|(_, rounds)| median(row, rounds)).filter(|ours| *ours > 0.0);
        if own.is_some() {
            for (_, rounds) in figures.iter().filter(|(kind, _)| *kind != Kind::SwitchAgent) {
                let ratio = median(row, rounds).zip(ours).map(|(peer, ours)| peer / ours);
                print!("{:>16}", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
            }
        }
        println!();
    }
}

pub(super) fn json(figures: &[(Kind, Vec<Figures>)]) -> Value {
    let proxies = figures.iter().map(|(kind, rounds)| {
        let values = ROWS.iter().map(|row| (row.key.to_owned(), json!(median(row, rounds))));
        (kind.name().to_owned(), Value::Object(values.collect()))
    });
    Value::Object(proxies.collect::<Map<_, _>>())
}

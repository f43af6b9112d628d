//! Tables for people and JSON for programs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::utsname::uname;
use serde_json::{Map, Value, json};

use super::{Arguments, Figures};
use crate::bench::daemon::Kind;
use crate::bench::measure::Samples;
use crate::failure::{Context, Result};

/// Prints under which conditions everything below was measured.
pub(super) fn conditions(kinds: &[Kind], bin: &Path, arguments: &Arguments) {
    let kernel = uname().map(|name| {
        let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
        (text(name.release()), text(name.machine()))
    });
    let (release, machine) = kernel.unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let user_mode = cpuinfo.contains("User Mode Linux");
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    println!(
        "# kernel {release} {machine}, {}, {cpus} CPU ({})",
        if user_mode { "user-mode Linux" } else { "native" },
        if user_mode { field("host") } else { field("model name") }
    );
    for kind in kinds {
        println!("# {}: {}", kind.name(), kind.version(bin));
    }
    if user_mode {
        println!(
            "# idle CPU is what the daemon adds to the whole lab kernel, by the host's scheduler; other CPU \
             figures are the lab kernel's, in ticks of 10 ms"
        );
    }
    let place = if arguments.no_vrf {
        "no VRF; of switch-agent its advertisers alone, without databases, proxy and reconciler".to_owned()
    } else {
        format!("{} VRFs", super::PARTITIONS)
    };
    println!(
        "# ports are veths in {place}; 3/10 s, one /64 for each port; flood {}/s from {} sources",
        arguments.flood_rate,
        super::flood::SOURCES
    );
}

/// One figure of a daemon, and how it is written.
struct Row {
    name: &'static str,
    /// Key in the JSON.
    key: Option<&'static str>,
    unit: Unit,
    value: fn(&Figures) -> Option<f64>,
}

#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Millis,
    Micros,
    Kib,
    Count,
    Ratio,
    Percent,
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Unit::Seconds => format!("{value:.3} s"),
            Unit::Millis if value >= 100.0 => format!("{value:.0} ms"),
            Unit::Millis => format!("{value:.2} ms"),
            Unit::Micros => format!("{value:.0} us"),
            Unit::Kib => format!("{:.1} MiB", value / 1024.0),
            Unit::Count => format!("{value:.0}"),
            Unit::Ratio => format!("{value:.2}"),
            Unit::Percent => format!("{value:.1} %"),
        }
    }
}

fn seconds(value: Option<Duration>) -> Option<f64> {
    value.map(|value| value.as_secs_f64())
}

fn millis(value: Option<Duration>) -> Option<f64> {
    seconds(value).map(|value| value * 1e3)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
fn count(value: usize) -> f64 {
    value as f64
}

impl Figures {
    fn cpu_per_minute(&self) -> f64 {
        self.idle.cpu.as_secs_f64() * 1e3 * 60.0 / self.idle.span.as_secs_f64()
    }

    /// Multicast advertisements of one port in a second of rest.
    fn rate(&self) -> f64 {
        count(self.idle.sent) / self.idle.span.as_secs_f64() / count(self.first.asked)
    }

    /// Of the burst whose last answer was the median one. `None` where one burst had no last answer.
    fn burst(&self) -> Samples {
        let last = self.bursts.iter().map(|burst| burst.answers.all()).collect::<Option<Vec<_>>>();
        Samples::of(last.unwrap_or_default(), self.bursts.len())
    }

    /// Advertisements of the other ports during the flood, as a part of what they send at rest.
    fn flood_ratio(&self) -> Option<f64> {
        let expected = self.rate() * self.flood.span.as_secs_f64() * count(self.flood.counted_ports);
        (expected > 0.0).then(|| count(self.flood.advertisements) / expected)
    }
}

const ROWS: [Row; 27] = [
    row("first RA on all ports", Some("first_ra_all_s"), Unit::Seconds, |f| seconds(f.first.all())),
    row("  on half of them", None, Unit::Seconds, |f| seconds(f.first.median())),
    row("  CPU until then", None, Unit::Millis, |f| millis(Some(f.start_cpu))),
    row("idle CPU per minute", Some("idle_cpu_ms_per_min"), Unit::Millis, |f| Some(f.cpu_per_minute())),
    row("  RAs per minute", None, Unit::Count, |f| Some(f.rate() * 60.0 * count(f.first.asked))),
    row("  CPU per RA", Some("cpu_us_per_ra"), Unit::Micros, |f| {
        (f.idle.sent > 0).then(|| f.idle.cpu.as_secs_f64() * 1e6 / count(f.idle.sent))
    }),
    row("resident memory", Some("rss_kib"), Unit::Kib, |f| usize::try_from(f.idle.rss_kib).ok().map(count)),
    row("RS from link-local to RA, p50", None, Unit::Millis, |f| millis(f.link_local.median())),
    row("  p99", Some("rs_linklocal_p99_ms"), Unit::Millis, |f| millis(f.link_local.percentile(99))),
    row("RS from :: to RA, p50", None, Unit::Millis, |f| millis(f.unspecified.median())),
    row("  p99", Some("rs_unspecified_p99_ms"), Unit::Millis, |f| millis(f.unspecified.percentile(99))),
    row("all ports solicit, last answer", Some("burst_last_ms"), Unit::Millis, |f| {
        millis(f.burst().median())
    }),
    row("  half of the answers", None, Unit::Millis, |f| millis(f.bursts.first()?.answers.median())),
    row("  sending alone", None, Unit::Millis, |f| millis(Some(f.bursts.first()?.sending))),
    row("  from ::, last answer", None, Unit::Millis, |f| {
        millis(f.unspecified_burst.as_ref()?.answers.all())
    }),
    row("carrier to first RA, median", Some("carrier_to_ra_ms"), Unit::Millis, |f| {
        millis(f.carrier.median())
    }),
    row("  slowest", None, Unit::Millis, |f| millis(f.carrier.all())),
    row("carrier to global address", Some("carrier_to_global_s"), Unit::Seconds, |f| {
        seconds(f.client.median())
    }),
    row("  slowest", None, Unit::Seconds, |f| seconds(f.client.all())),
    row("  client without DAD", None, Unit::Seconds, |f| seconds(f.client_without_dad.median())),
    row("flood: other ports' RAs", Some("flood_other_ra_ratio"), Unit::Ratio, Figures::flood_ratio),
    row("  RS to RA on them, p50", None, Unit::Millis, |f| millis(f.flood.answers.median())),
    row("  p99", None, Unit::Millis, |f| millis(f.flood.answers.percentile(99))),
    row("  CPU", None, Unit::Percent, |f| {
        Some(f.flood.cpu.as_secs_f64() * 100.0 / f.flood.span.as_secs_f64())
    }),
    row("  neighbours before", None, Unit::Count, |f| Some(count(f.flood.neighbors_before))),
    row("  neighbours after", None, Unit::Count, |f| Some(count(f.flood.neighbors_after))),
    row("  solicitations per second", None, Unit::Count, |f| {
        usize::try_from(f.flood.sent).ok().map(|sent| count(sent) / f.flood.span.as_secs_f64())
    }),
];

const fn row(
    name: &'static str,
    key: Option<&'static str>,
    unit: Unit,
    value: fn(&Figures) -> Option<f64>,
) -> Row {
    Row { name, key, unit, value }
}

/// One size: a row for each figure, a column for each daemon, and how many times as much the peers take.
pub(super) fn table(ports: u16, figures: &[Figures], arguments: &Arguments) {
    let width = 16;
    let ours = figures.iter().find(|figures| figures.kind == Kind::SwitchAgent);
    let peers: Vec<&Figures> = figures.iter().filter(|figures| figures.kind != Kind::SwitchAgent).collect();
    println!();
    print!("{:<32}", format!("{ports} ports"));
    for figures in figures {
        print!("{:>width$}", figures.kind.name());
    }
    if ours.is_some() {
        for peer in &peers {
            print!("{:>width$}", format!("{} / ours", peer.kind.name()));
        }
    }
    println!();
    for row in &ROWS {
        print!("{:<32}", row.name);
        for figures in figures {
            let cell = (row.value)(figures).map_or("-".to_owned(), |value| row.unit.write(value));
            print!("{cell:>width$}");
        }
        if let Some(own) = ours.and_then(|ours| (row.value)(ours)) {
            for peer in &peers {
                let ratio = (row.value)(peer).filter(|_| own > 0.0).map(|value| value / own);
                print!("{:>width$}", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
            }
        }
        println!();
    }
    for figures in figures {
        if let Some((first, later)) = &figures.small_limits {
            let time = first.sorted.last().map_or(Duration::ZERO, |last| *last);
            println!(
                "# {} with optmem_max 20480 and gc_thresh3 1024: RAs on {} of {ports} ports, the last after \
                 {:.3} s; later on {later}",
                figures.kind.name(),
                first.sorted.len(),
                time.as_secs_f64(),
            );
        }
        for (what, samples) in figures.samples() {
            if samples.missing() > 0 {
                println!(
                    "# {}: {what}: {} of {} missing",
                    figures.kind.name(),
                    samples.missing(),
                    samples.asked
                );
            }
        }
    }
    if arguments.smoke {
        println!("# a smoke test: these windows are too short to compare anything");
    }
    println!();
}

impl Figures {
    fn samples(&self) -> Vec<(&'static str, &Samples)> {
        let mut all = vec![
            ("first RA", &self.first),
            ("RS from link-local", &self.link_local),
            ("RS from ::", &self.unspecified),
            ("carrier", &self.carrier),
            ("client", &self.client),
            ("client without DAD", &self.client_without_dad),
            ("answers during the flood", &self.flood.answers),
        ];
        all.extend(self.unspecified_burst.iter().map(|burst| ("all solicit from ::", &burst.answers)));
        all.extend(self.bursts.iter().map(|burst| ("all solicit", &burst.answers)));
        all
    }

    fn json(&self) -> Value {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        let fields = ROWS.iter().filter_map(|row| {
            row.key.map(|key| (key.to_owned(), (row.value)(self).map_or(Value::Null, |v| json!(round(v)))))
        });
        Value::Object(fields.collect())
    }
}

/// `{"ports": N, "daemons": {...}}`; with several sizes that of 256 ports (else the last one), and the
/// others as `sizes`.
pub(super) fn write_json(file: &Path, sizes: &[(u16, Vec<Figures>)]) -> Result<()> {
    let mut all: Vec<Value> = sizes
        .iter()
        .map(|(ports, figures)| {
            let daemons: Map<String, Value> =
                figures.iter().map(|figures| (figures.kind.name().to_owned(), figures.json())).collect();
            json!({"ports": ports, "daemons": daemons})
        })
        .collect();
    let main = sizes.iter().position(|(ports, _)| *ports == 256).unwrap_or(sizes.len().saturating_sub(1));
    let mut value = all.swap_remove(main);
    if !all.is_empty() {
        value["sizes"] = Value::Array(all);
    }
    fs::write(file, format!("{value:#}\n")).context(|| file.display().to_string())
}

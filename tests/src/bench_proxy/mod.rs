//! The discovery proxy, nginx and HAProxy side by side: the same machine, the same control API, the same run.
//!
//! `tests/bench/README.md` says how to read what it prints.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::failure::{Context, Result, ensure};

mod load;
mod proxies;
mod report;
mod world;

use load::{Load, Outcome, Target, answer};
use proxies::{Kind, Running};
use world::{BULK_MIB, MACHINE, World};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also write the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only these proxies.
    #[arg(long, value_delimiter = ',')]
    proxy: Vec<Kind>,
    /// Rounds of everything; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    rounds: u8,
    /// Windows of a second: a test of the bench, not of the proxies.
    #[arg(long)]
    smoke: bool,
}

/// Requests per second where latency is measured: far from what any of the proxies can do.
const PACE: u32 = 400;
const PACE_CLOSING: u32 = 100;
/// Connections of a load. A boot port has one machine, with a handful of them.
const CONNECTIONS: u32 = 16;
const IDLE_CONNECTIONS: u32 = 512;
/// Each of them has the control API's kernel hold up to some MiB; there is a limit for all of TCP.
const ACTIVE_CONNECTIONS: u32 = 64;
/// Least time from opening connections to reading memory.
const SETTLE: Duration = Duration::from_millis(500);

/// Sizes of everything.
#[derive(Debug, Clone, Copy)]
struct Windows {
    span: Duration,
    downloads: u32,
    idle_connections: u32,
}

/// What one round measured of one proxy.
#[derive(Debug, Clone)]
struct Figures {
    /// Requests as fast as they are answered, over connections that are kept.
    kept: Outcome,
    kept_cpu: Duration,
    /// The same with one request for each connection.
    closed: Outcome,
    closed_cpu: Duration,
    /// At a rate that leaves the proxy idle most of the time.
    paced: Outcome,
    paced_cpu: Duration,
    paced_closed: Outcome,
    /// Download of a large body.
    stream_mib_per_s: f64,
    stream_cpu_per_mib: Duration,
    rss_kib: u64,
    kib_per_idle: f64,
    kib_per_active: f64,
}

/// Runs everything and prints the tables.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let variable =
        |name: &str| std::env::var_os(name).map(PathBuf::from).context(|| format!("{name} is not set"));
    let (out, bin) = (variable("LAB_OUT")?, variable("LAB_BIN")?);
    let kinds = if arguments.proxy.is_empty() { Kind::ALL.to_vec() } else { arguments.proxy.clone() };
    let second = Duration::from_secs(1);
    let windows = if arguments.smoke {
        Windows { span: second, downloads: 1, idle_connections: 64 }
    } else {
        Windows { span: second * 5, downloads: 4, idle_connections: IDLE_CONNECTIONS }
    };
    report::conditions(&kinds, &bin);
    let world = World::build(&bin, &out.join("world"))?;
    let mut figures: Vec<(Kind, Vec<Figures>)> = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    // All proxies in every round: what disturbs the machine for a while disturbs all of them.
    for round in 1..=arguments.rounds {
        for (kind, rounds) in &mut figures {
            eprintln!("round {round} of {}: {}", arguments.rounds, kind.name());
            let measured = measure(*kind, &world, &bin, windows);
            rounds.push(measured.context(|| kind.name().to_owned())?);
        }
    }
    report::table(&figures);
    if let Some(file) = &arguments.json {
        fs::write(file, format!("{:#}\n", report::json(&figures))).context(|| file.display().to_string())?;
    }
    Ok(())
}

fn measure(kind: Kind, world: &World, bin: &std::path::Path, windows: Windows) -> Result<Figures> {
    let mut running = Running::start(kind, world, bin)?;
    let load = |keep_alive, rate| Load { connections: CONNECTIONS, span: windows.span, keep_alive, rate };
    // The first requests make the connections to the control API.
    MACHINE.run(|| running.small.run(Load { span: windows.span / 5, ..load(true, None) }))?;
    let timed = |load: Load| {
        let before = running.family.cpu()?;
        let outcome = MACHINE.run(|| running.small.run(load))?;
        Ok::<_, crate::failure::Failure>((outcome, running.family.cpu()? - before))
    };
    let (kept, kept_cpu) = timed(load(true, None))?;
    let (closed, closed_cpu) = timed(load(false, None))?;
    let (paced, paced_cpu) = timed(load(true, Some(PACE)))?;
    let (paced_closed, _) = timed(load(false, Some(PACE_CLOSING)))?;
    let before = running.family.cpu()?;
    let stream_mib_per_s = MACHINE.run(|| download(&running.bulk, windows.downloads))?;
    let streamed_mib = windows.downloads * u32::try_from(BULK_MIB).unwrap_or(u32::MAX);
    let stream_cpu_per_mib = (running.family.cpu()? - before) / streamed_mib;
    running.family.check_alive()?;
    running.family.kill()?;
    // Memory is that of a fresh process: what loads left behind would hide what connections take.
    let running = Running::start(kind, world, bin)?;
    MACHINE.run(|| running.small.run(Load { connections: 1, span: windows.span / 5, ..load(true, None) }))?;
    let rss_kib = running.family.rss_kib()?;
    let per = |target: &Target, connections, done| {
        let before = running.family.rss_kib()?;
        let held = MACHINE.run(|| hold(target, connections, done))?;
        thread::sleep(SETTLE);
        let after = running.family.rss_kib()?;
        drop(held);
        thread::sleep(SETTLE);
        let grown = u32::try_from(after.saturating_sub(before)).unwrap_or(u32::MAX);
        Ok::<_, crate::failure::Failure>(f64::from(grown) / f64::from(connections))
    };
    let kib_per_idle = per(&running.small, windows.idle_connections, true)?;
    let kib_per_active = per(&running.bulk, ACTIVE_CONNECTIONS, false)?;
    running.family.kill()?;
    Ok(Figures {
        kept,
        kept_cpu,
        closed,
        closed_cpu,
        paced,
        paced_cpu,
        paced_closed,
        stream_mib_per_s,
        stream_cpu_per_mib,
        rss_kib,
        kib_per_idle,
        kib_per_active,
    })
}

/// Mebibytes per second of one download after the other. For use in the machine's namespace.
fn download(target: &Target, times: u32) -> Result<f64> {
    let mut buffer = vec![0; 256 << 10];
    let began = Instant::now();
    for _ in 0..times {
        let mut stream = target.connect()?;
        stream.write_all(&target.request(false)).context(|| "send a request".into())?;
        let length = answer(&mut stream, &mut buffer).context(|| "download".into())?;
        ensure!(length == BULK_MIB << 20, "{length} bytes instead of {BULK_MIB} MiB");
    }
    let mib = f64::from(times) * f64::from(u32::try_from(BULK_MIB).unwrap_or(u32::MAX));
    Ok(mib / began.elapsed().as_secs_f64())
}

/// Opens connections that have been served once and wait (`done`), or that are in the middle of a large
/// answer nobody reads.
fn hold(target: &Target, count: u32, done: bool) -> Result<Vec<TcpStream>> {
    let mut buffer = vec![0; 64 << 10];
    (0..count)
        .map(|_| {
            let mut stream = target.connect_narrow()?;
            stream.write_all(&target.request(true)).context(|| "send a request".into())?;
            if done {
                answer(&mut stream, &mut buffer).context(|| "read an answer".into())?;
            } else {
                stream.read_exact(&mut buffer[..1024]).context(|| "read the start of an answer".into())?;
            }
            Ok(stream)
        })
        .collect()
}

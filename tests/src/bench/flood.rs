//! One port floods solicitations from thousands of sources; how do the others fare?

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::bench::daemon::Running;
use crate::bench::measure::{Chance, Samples};
use crate::bench::world::{Source, World};
use crate::failure::{Context, Result};
use crate::ns::Ns;
use crate::wire::{self, Injector, RsFrame};

/// As many as a machine can own MACs of without being noticed, and more than a neighbour table holds.
pub(crate) const SOURCES: u16 = 4095;
/// Frames between two looks at the clock.
const CHUNK: usize = 32;
/// Ports whose answers are measured meanwhile; their advertisements are not counted.
pub(crate) const PROBED: usize = 6;
const PROBE_SPACING: Duration = Duration::from_millis(150);

#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub span: Duration,
    /// Solicitations that the flood sent.
    pub sent: u64,
    /// Multicast advertisements on the counted ports.
    pub advertisements: usize,
    pub counted_ports: usize,
    pub cpu: Duration,
    pub neighbors_before: usize,
    pub neighbors_after: usize,
    /// Answers on other ports, to solicitations from link-local addresses.
    pub answers: Samples,
}

/// Frames of the flood: each from a MAC and a link-local address of its own, with the option that makes a
/// router remember it.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    (0..SOURCES)
        .map(|source| {
            let [high, low] = source.to_be_bytes();
            RsFrame::link_local([2, 0xbe, 0xef, 0, high, low]).bytes()
        })
        .collect()
}

/// Sends the flood's frames in turn at a steady rate until it is told to stop; how many it sent.
pub(crate) fn send(injector: &Injector, ifindex: u32, rate: u32, stop: &AtomicBool, sent: &AtomicU64) {
    let frames = frames();
    let frames: Vec<(u32, &[u8])> = frames.iter().map(|frame| (ifindex, frame.as_slice())).collect();
    let begin = wire::now();
    for chunk in frames.chunks(CHUNK).cycle() {
        if stop.load(Ordering::Relaxed) || injector.send_all(chunk).is_err() {
            return;
        }
        let count = sent.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
        let due = begin + Duration::from_secs(1) * u32::try_from(count).unwrap_or(u32::MAX) / rate.max(1);
        thread::sleep(due.saturating_sub(wire::now()));
    }
}

/// Floods the last port for `span`.
pub(crate) fn run(
    world: &World,
    daemon: &Running,
    chance: &mut Chance,
    leaf: Ns,
    machines: usize,
    span: Duration,
    rate: u32,
) -> Result<Outcome> {
    let ports = world.nics.len();
    let flooded = ports - 1;
    let probed: Vec<usize> = (machines..flooded).take(PROBED).collect();
    let counts = |port: usize| port != flooded && !probed.contains(&port);
    let neighbors_before = neighbors(leaf)?;
    let (injector, ifindex) = world.injector(flooded)?;
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    world.forget();
    let cpu_before = daemon.cpu()?;
    let begin = wire::now();
    let flood = thread::spawn({
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        move || send(&injector, ifindex, rate, &stop, &sent)
    });
    let mut advertisements = 0;
    let mut pending = vec![None; ports];
    let mut answers = Vec::new();
    let mut asked = 0;
    let mut take = |heard: crate::bench::world::Heard, pending: &mut Vec<Option<Duration>>| {
        if counts(heard.port) {
            advertisements += usize::from(heard.multicast);
        } else if let Some(at) = pending[heard.port].take_if(|at| *at <= heard.at) {
            answers.push(heard.at - at);
        }
        true
    };
    let end = begin + span;
    while wire::now() + PROBE_SPACING < end && !probed.is_empty() {
        world.listen(wire::now() + PROBE_SPACING, |heard| take(heard, &mut pending))?;
        let port = probed[chance.below(probed.len())];
        if pending[port].is_none() {
            asked += 1;
            pending[port] = Some(world.send(port, &world.solicitation(port, Source::LinkLocal))?);
        }
    }
    world.listen(end, |heard| take(heard, &mut pending))?;
    let span = wire::now() - begin;
    let cpu = daemon.cpu()? - cpu_before;
    stop.store(true, Ordering::Relaxed);
    let neighbors_after = neighbors(leaf)?;
    // The thread only ends; there is nothing to learn from how.
    let _ = flood.join();
    Ok(Outcome {
        span,
        sent: sent.load(Ordering::Relaxed),
        advertisements,
        counted_ports: (0..ports).filter(|port| counts(*port)).count(),
        cpu,
        neighbors_before,
        neighbors_after,
        answers: Samples::of(answers, asked),
    })
}

/// Entries of the neighbour table (IPv6) in a namespace.
pub(crate) fn neighbors(leaf: Ns) -> Result<usize> {
    let arguments = ["-6", "neigh", "show", "nud", "all"];
    let output = leaf.run(|| Command::new("ip").args(arguments).output().context(|| "ip neigh".into()))?;
    Ok(output.stdout.iter().filter(|byte| **byte == b'\n').count())
}

/// Empties the neighbour table for the next daemon.
pub(crate) fn flush_neighbors(leaf: Ns) -> Result<()> {
    leaf.run(|| {
        Command::new("ip").args(["-6", "neigh", "flush", "all"]).output().context(|| "ip neigh".into())
    })
    .map(drop)
}

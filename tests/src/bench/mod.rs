//! Router Advertisements of several daemons side by side: the same ports, the same kernel, the same run.
//!
//! `tests/bench/README.md` says how to read what it prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::failure::{Context, Result, ensure};
use crate::leaf::Leaf;
use crate::many_ports::Plan;
use crate::ns::Ns;
use crate::wait;

mod clients;
mod daemon;
pub(crate) mod flood;
mod host_cpu;
mod measure;
mod report;
mod world;

use clients::Client;
use daemon::{Kind, Running};
use measure::{Burst, Chance, CpuMeter, Idle, Samples};
use world::{Source, World};

pub(crate) use host_cpu::serve as serve_host_cpu;

const PARTITIONS: u16 = 16;
const MACHINES: [Ns; 8] = [Ns("c0"), Ns("c1"), Ns("c2"), Ns("c3"), Ns("c4"), Ns("c5"), Ns("c6"), Ns("c7")];
/// Ports whose carrier is cut, besides those of the machines.
const CARRIER_PORTS: usize = 12;
/// Router Advertisements at a start: MAX_INITIAL_RTR_ADVERTISEMENTS at intervals of at most 10 s.
const INITIAL_BURST: Duration = Duration::from_secs(22);
/// No daemon pauses longer between two advertisements on a port: MaxRtrAdvInterval, and some time to wake up.
const LONGEST_INTERVAL: Duration = Duration::from_millis(10_500);
const CONVERGENCE: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Number of ports; several runs one after the other when given several times.
    #[arg(long, value_delimiter = ',', default_value = "64,256,512")]
    ports: Vec<u16>,
    /// Also write the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Idle windows of 60 s, more samples of everything.
    #[arg(long)]
    thorough: bool,
    /// Windows of a few seconds: a test of the bench, not of the daemons.
    #[arg(long, conflicts_with = "thorough")]
    smoke: bool,
    /// Only these daemons.
    #[arg(long, value_delimiter = ',')]
    daemon: Vec<Kind>,
    /// Ports in no VRF, and of the agent its advertisers alone: for kernels without VRF.
    #[arg(long)]
    no_vrf: bool,
    /// Solicitations per second of the flood.
    #[arg(long, default_value_t = 10_000)]
    flood_rate: u32,
}

/// How long each part lasts.
#[derive(Debug, Clone, Copy)]
struct Windows {
    link_local: (usize, Duration),
    unspecified: (usize, Duration),
    bursts: usize,
    settled: Duration,
    idle: Duration,
    flood: Duration,
    client_rounds: usize,
}

impl Windows {
    fn of(arguments: &Arguments, ports: usize) -> Self {
        let seconds = Duration::from_secs;
        // Per port at most one solicitation from `::` in 10 s.
        let unspecified = ports.min(200);
        if arguments.smoke {
            return Self {
                link_local: (16, seconds(1)),
                unspecified: (4, seconds(1)),
                bursts: 1,
                settled: seconds(1),
                idle: seconds(2),
                flood: seconds(1),
                client_rounds: 1,
            };
        }
        let factor = if arguments.thorough { 3 } else { 1 };
        Self {
            link_local: (200 * factor, seconds(5) * factor as u32),
            unspecified: (unspecified * factor, seconds(10) * factor as u32),
            bursts: 3,
            settled: INITIAL_BURST,
            idle: seconds(20) * factor as u32,
            flood: seconds(if arguments.thorough { 20 } else { 10 }),
            client_rounds: factor,
        }
    }
}

/// Everything measured of one daemon.
#[derive(Debug)]
struct Figures {
    kind: Kind,
    first: Samples,
    start_cpu: Duration,
    link_local: Samples,
    unspecified: Samples,
    bursts: Vec<Burst>,
    /// `None` in a smoke test.
    unspecified_burst: Option<Burst>,
    idle: Idle,
    carrier: Samples,
    client: Samples,
    client_without_dad: Samples,
    flood: flood::Outcome,
    /// With the limits of an old kernel: the first advertisements, and ports that advertised later.
    small_limits: Option<(Samples, usize)>,
}

/// Runs everything and prints the tables.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let variable =
        |name: &str| std::env::var_os(name).map(PathBuf::from).context(|| format!("{name} is not set"));
    let (root, bin) = (variable("LAB_REPO")?, variable("LAB_BIN")?);
    let logs = variable("LAB_OUT")?.join("logs");
    if arguments.no_vrf {
        // A session of its own is a group of its own for the scheduler, which may then prefer it. Where it
        // cannot be had, the rest of the machine disturbs the figures more.
        let _ = nix::unistd::setsid();
        let _ = fs::write("/proc/self/autogroup", "-15");
    }
    let kinds = if arguments.daemon.is_empty() { Kind::ALL.to_vec() } else { arguments.daemon.clone() };
    report::conditions(&kinds, &bin, arguments);
    let mut sizes = Vec::new();
    for (round, ports) in arguments.ports.iter().copied().enumerate() {
        ensure!((4..=512).contains(&ports), "{ports} ports: 4 to 512 are possible");
        let vrfs = !arguments.no_vrf;
        let size = Size { ports, round, vrfs, root: &root, bin: &bin, logs: &logs };
        let figures = size.run(arguments, &kinds)?;
        report::table(ports, &figures, arguments);
        sizes.push((ports, figures));
        if let Some(file) = &arguments.json {
            report::write_json(file, &sizes)?;
        }
    }
    Ok(())
}

struct Size<'a> {
    ports: u16,
    round: usize,
    vrfs: bool,
    root: &'a Path,
    bin: &'a Path,
    logs: &'a Path,
}

/// Names of the namespaces of each round; a leaf's name has one digit.
const LEAVES: [&str; 6] = ["leaf4", "leaf5", "leaf6", "leaf7", "leaf8", "leaf9"];

impl Size<'_> {
    fn run(&self, arguments: &Arguments, kinds: &[Kind]) -> Result<Vec<Figures>> {
        let machines = &MACHINES[..usize::from(self.ports / 4).clamp(1, MACHINES.len())];
        let leaf = LEAVES.get(self.round).context(|| "too many sizes for one run".into())?;
        let plan = Plan {
            leaf: Ns(leaf),
            ports: self.ports,
            partitions: PARTITIONS,
            rack: Ns("rack"),
            machines,
            partition_fields: &|_| &[("isolate", "disabled")],
            global_fields: &[("leak_method", "render-only")],
        };
        let leaf = Leaf::new(plan.leaf, self.root, self.bin);
        let begin = Instant::now();
        plan.create_links()?;
        if self.vrfs {
            plan.start_redis(&leaf)?;
            leaf.service("swss", "start")?;
            self.converge(&plan, &leaf)?;
        } else {
            plan.bind_without_vrf(&leaf)?;
        }
        println!("# {} ports are bound after {:.1} s", self.ports, begin.elapsed().as_secs_f32());
        // Let the machines give up soliciting first.
        std::thread::sleep(Windows::of(arguments, usize::from(self.ports)).settled / 2);
        let meter = CpuMeter::new(Windows::of(arguments, usize::from(self.ports)).idle / 2)?;
        println!("# without any daemon {:.2} % of the CPU is in use", meter.base_percent());
        let mut figures = Vec::new();
        for kind in kinds {
            let begin = Instant::now();
            figures.push(self.measure(*kind, arguments, &plan, &leaf, &meter)?);
            println!("# {}: {:.1} s", kind.name(), begin.elapsed().as_secs_f32());
        }
        for part in ["swss", "redis"].into_iter().filter(|_| self.vrfs) {
            leaf.service(part, "kill")?;
        }
        for ns in plan.machines.iter().chain([&plan.leaf, &plan.rack]) {
            crate::many_ports::batch(&[], &format!("netns delete {}\n", ns.0))?;
        }
        Ok(figures)
    }

    /// The agent binds the ports, and is gone again: VRFs, addresses and rows stay, for all daemons.
    fn converge(&self, plan: &Plan<'_>, leaf: &Leaf) -> Result<()> {
        let agent = Running::start(Kind::SwitchAgent, plan, leaf, self.vrfs, self.logs)?;
        wait::until(CONVERGENCE, || leaf.converged())?;
        agent.kill()
    }

    fn measure(
        &self,
        kind: Kind,
        arguments: &Arguments,
        plan: &Plan<'_>,
        leaf: &Leaf,
        meter: &CpuMeter,
    ) -> Result<Figures> {
        let ports = usize::from(self.ports);
        let windows = Windows::of(arguments, ports);
        // The same moments and ports for every daemon.
        let mut chance = Chance(u64::from(self.ports));
        let all: Vec<usize> = (0..ports).collect();
        let world = World::open(plan)?;
        set_limits(&LARGE_LIMITS)?;
        flood::flush_neighbors(plan.leaf)?;

        if !arguments.smoke {
            meter.settle()?;
            world.forget();
        }
        let mut daemon = Running::start(kind, plan, leaf, self.vrfs, self.logs)?;
        let first = measure::first_advertisements(&world, daemon.started)?;
        let start_cpu = daemon.cpu()?;
        world.rest(windows.settled / 8)?;
        let begun = Instant::now();
        let (count, window) = windows.link_local;
        let link_local = measure::answers(&world, &mut chance, Source::LinkLocal, &all, count, window)?;
        let mut bursts = Vec::new();
        for _ in 0..windows.bursts {
            bursts.push(measure::burst(&world, Source::LinkLocal)?);
            world.rest(windows.settled / 16)?;
        }
        let (count, window) = windows.unspecified;
        let unspecified = measure::answers(&world, &mut chance, Source::Unspecified, &all, count, window)?;
        let unspecified_burst = if arguments.smoke {
            None
        } else {
            // MIN_DELAY_BETWEEN_RAS is over, and nothing is left to answer.
            world.rest(windows.settled / 6)?;
            Some(measure::burst(&world, Source::Unspecified)?)
        };
        world.rest(windows.settled.saturating_sub(begun.elapsed()))?;
        daemon.check_alive()?;
        drop(world);
        let idle = measure::idle(plan, &daemon, meter, windows.idle)?;
        let world = World::open(plan)?;

        let machines = plan.machines.len();
        let cut: Vec<usize> = (machines..ports - 1).take(CARRIER_PORTS).collect();
        let carrier = measure::carrier(&world, &mut chance, &cut)?;
        let clients = |kind| -> Result<Samples> {
            let mut found = Vec::new();
            for _ in 0..windows.client_rounds {
                found.extend(clients::carrier_to_address(&world, plan.machines, kind)?.sorted);
            }
            Ok(Samples::of(found, machines * windows.client_rounds))
        };
        let client = clients(Client::Default)?;
        let client_without_dad = clients(Client::WithoutDad)?;
        world.rest(windows.settled / 8)?;
        daemon.check_alive()?;
        let flood = flood::run(
            &world,
            &daemon,
            &mut chance,
            plan.leaf,
            machines,
            windows.flood,
            arguments.flood_rate,
        )?;
        if let Err(reason) = daemon.check_alive() {
            println!("# {}: {reason}", kind.name());
        }
        daemon.kill()?;
        let small_limits = self.with_small_limits(kind, plan, leaf, &world)?;
        Ok(Figures {
            kind,
            first,
            start_cpu,
            link_local,
            unspecified,
            bursts,
            unspecified_burst,
            idle,
            carrier,
            client,
            client_without_dad,
            flood,
            small_limits,
        })
    }

    /// Where the kernel's limits are those of Debian 12 and older, and the ports are more than these allow.
    fn with_small_limits(
        &self,
        kind: Kind,
        plan: &Plan<'_>,
        leaf: &Leaf,
        world: &World,
    ) -> Result<Option<(Samples, usize)>> {
        // A socket joins 365 groups with optmem_max 20480.
        if self.ports < 400 || !set_limits(&SMALL_LIMITS)? {
            return Ok(None);
        }
        flood::flush_neighbors(plan.leaf)?;
        world.forget();
        let daemon = Running::start(kind, plan, leaf, self.vrfs, self.logs)?;
        let first = measure::first_advertisements(world, daemon.started)?;
        world.rest(LONGEST_INTERVAL)?;
        let mut seen = vec![false; world.nics.len()];
        world.listen(crate::wire::now() + LONGEST_INTERVAL, |heard| {
            seen[heard.port] = true;
            true
        })?;
        let later = seen.into_iter().filter(|seen| *seen).count();
        daemon.kill()?;
        set_limits(&LARGE_LIMITS)?;
        Ok(Some((first, later)))
    }
}

/// Kernel settings that belong to the first network namespace.
type Limits = [(&'static str, &'static str); 4];
const LARGE_LIMITS: Limits = [
    ("core/optmem_max", "131072"),
    ("ipv6/neigh/default/gc_thresh1", "1024"),
    ("ipv6/neigh/default/gc_thresh2", "2048"),
    ("ipv6/neigh/default/gc_thresh3", "4096"),
];
const SMALL_LIMITS: Limits = [
    ("core/optmem_max", "20480"),
    ("ipv6/neigh/default/gc_thresh1", "128"),
    ("ipv6/neigh/default/gc_thresh2", "512"),
    ("ipv6/neigh/default/gc_thresh3", "1024"),
];

/// `false` where this is not the first network namespace: there they cannot be set.
fn set_limits(limits: &Limits) -> Result<bool> {
    for (path, value) in limits {
        let path = format!("/proc/sys/net/{path}");
        if !Path::new(&path).exists() {
            return Ok(false);
        }
        fs::write(&path, value).context(|| path.clone())?;
    }
    Ok(true)
}

//! Attack tools of the field on one boot port (thc-ipv6, ipv6toolkit): the other ports do not notice.
//!
//! The tools send as fast as they can. User-mode Linux has one CPU, which they share with the agent and with
//! the machine on the other port, and no netfilter for IPv6, which would keep spoofed sources out of the
//! kernel's neighbour table.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bench::flood;
use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::Lab;
use crate::leaf::{CONFIG_DB, Leaf};
use crate::machine::{Machine, NIC};
use crate::ndp::Watch;
use crate::wait;
use crate::wire::{self, Injector};

/// How long each tool runs.
const SPAN: Duration = Duration::from_secs(7);
/// MaxRtrAdvInterval of the other port meanwhile, and how late a starved machine may see it.
const GAP_MAX: Duration = Duration::from_millis(4000 + 1000);
/// A machine on the other port asks as often.
const PULSE: Duration = Duration::from_millis(500);
const MEMORY_GROWTH_MAX_KIB: u64 = 1024;
const SOLICITATIONS_PER_SECOND: u32 = 10_000;
const TABLE: &str = "BOOT_NETWORK_PARTITION";

pub(crate) fn cases() -> Vec<Case> {
    cases!("floods", 90 s:
        thc_flood_rs6,
        thc_flood_router26,
        thc_fake_router26,
        thc_flood_solicitate6,
        thc_flood_mld26,
        thc_flood_dhcpc6,
        toolkit_ra6,
        solicitations_from_4095_addresses;
    )
}

/// Solicitations from random addresses and MACs.
fn thc_flood_rs6(lab: &Lab) -> Result<()> {
    survive(lab, &["atk6-flood_rs6", "-S", NIC], 1000)
}

fn thc_flood_router26(lab: &Lab) -> Result<()> {
    survive(lab, &["atk6-flood_router26", NIC], 1000)
}

/// A steady second router, with a prefix of its own: it is counted, and where it contradicts ours by variable.
fn thc_fake_router26(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let port = lab.machines[0].home.port;
    let counters = ["switch_agent_foreign_ra_total", "switch_agent_foreign_ra_inconsistent_total"]
        .map(|name| format!("{name}{{port=\"{port}\""));
    let counted = || counters.iter().map(|counter| leaf.counter(counter)).collect::<Result<Vec<f64>>>();
    let before = counted()?;
    let tool = ["atk6-fake_router26", "-A", "2001:db8:bad::/64", "-i", "1", NIC];
    survive(lab, &tool, 5)?;
    let after = counted()?;
    let grown = before.iter().zip(&after).all(|(before, after)| after > before);
    ensure!(grown, "{counters:?}: {before:?}, then {after:?}");
    Ok(())
}

fn thc_flood_solicitate6(lab: &Lab) -> Result<()> {
    survive(lab, &["atk6-flood_solicitate6", NIC], 1000)
}

fn thc_flood_mld26(lab: &Lab) -> Result<()> {
    survive(lab, &["atk6-flood_mld26", NIC], 1000)
}

fn thc_flood_dhcpc6(lab: &Lab) -> Result<()> {
    survive(lab, &["atk6-flood_dhcpc6", "-1", NIC], 1000)
}

fn toolkit_ra6(lab: &Lab) -> Result<()> {
    let tool = [
        "ra6",
        "-i",
        NIC,
        "-s",
        "fe80::/64",
        "-d",
        "ff02::1",
        "-F",
        "1000",
        "-t",
        "1800",
        "-P",
        "2001:db8:bad::/64#LA",
        "-e",
        "-l",
        "-z",
        "1",
    ];
    survive(lab, &tool, 1000)
}

/// Each with its link-layer address, again and again. Not by rs6 of ipv6toolkit 2.0, which resolves its
/// destination from one of the forged addresses first, and waits for an answer in vain.
fn solicitations_from_4095_addresses(lab: &Lab) -> Result<()> {
    survive_flood(lab, Generator::start, 10_000)
}

/// Floods from a machine for so long, for people to look at.
pub(crate) fn flood_for(machine: &Machine, span: Duration) -> Result<()> {
    let _running = Generator::start(machine)?;
    thread::sleep(span);
    Ok(())
}

/// A generator of solicitations that runs; it ends with this.
struct Generator {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Generator {
    fn start(machine: &Machine) -> Result<Self> {
        let injector = Injector::open(machine.ns)?;
        let ifindex = wire::ifindex(machine.ns, NIC)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || flood::send(&injector, ifindex, SOLICITATIONS_PER_SECOND, &stop, &AtomicU64::new(0))
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread only ends; there is nothing to learn from how.
            let _ = thread.join();
        }
    }
}

/// A tool that runs; it ends with this.
pub(super) struct Tool(Child);

impl Tool {
    pub(super) fn start(machine: &Machine, command: &[&str]) -> Result<Self> {
        let (program, arguments) = command.split_first().context(|| "no command".into())?;
        let start = || {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().context(|| format!("{program} (thc-ipv6 and ipv6toolkit have to be installed)"))
        };
        machine.ns.run(start).map(Self)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn survive(lab: &Lab, tool: &[&str], packets: u64) -> Result<()> {
    survive_flood(lab, |machine: &Machine| Tool::start(machine, tool), packets)
}

/// The machine on Ethernet0 attacks; that on Ethernet4 lives on. At least `packets` have to arrive.
fn survive_flood<F>(lab: &Lab, start: impl FnOnce(&Machine) -> Result<F>, packets: u64) -> Result<()> {
    let leaf = &lab.leaves[0];
    let [attacker, other, ..] = &lab.machines;
    let before = leaf.rows(CONFIG_DB)?;
    leaf.configure(
        &format!("{TABLE}|{}", other.home.partition),
        &[("max_rtr_adv_interval", "4"), ("min_rtr_adv_interval", "3")],
    )?;
    // The new intervals are announced.
    let announced = Watch::start(other)?;
    let result = wait::until(wait::seconds(20), || {
        ensure!(!announced.advertisements().is_empty(), "no advertisement with the new intervals");
        leaf.expect_phase(other.home.port, "ready")
    })
    .and_then(|()| attack(leaf, attacker, other, start, packets));
    leaf.restore(&before, &[TABLE])?;
    result?;
    // The attacked port is served again when the attack is over.
    wait::until(wait::seconds(40), || attacker.get("/healthz")?.expect(200).map(drop))
}

fn attack<F>(
    leaf: &Leaf,
    attacker: &Machine,
    other: &Machine,
    start: impl FnOnce(&Machine) -> Result<F>,
    packets: u64,
) -> Result<()> {
    let received_before = received(leaf, attacker.home.port)?;
    let memory_before = leaf.agent_keeps_kib()?;
    let watch = Watch::start(other)?;
    let flood = start(attacker)?;
    let begin = Instant::now();
    while begin.elapsed() < SPAN {
        let pulse = Instant::now();
        other.get("/healthz")?.expect(200)?;
        leaf.expect_phase(other.home.port, "ready")?;
        thread::sleep(PULSE.saturating_sub(pulse.elapsed()));
    }
    watch.check_unbroken(GAP_MAX)?;
    drop(flood);
    let flooded = received(leaf, attacker.home.port)? - received_before;
    ensure!(flooded >= packets, "only {flooded} packets were sent");
    let memory = leaf.agent_keeps_kib()?;
    let grown = memory.saturating_sub(memory_before);
    ensure!(
        grown <= MEMORY_GROWTH_MAX_KIB,
        "the agent grew from {memory_before} to {memory} KiB of anonymous memory"
    );
    Ok(())
}

/// Packets that have come in by a port (`/proc/net/dev`).
fn received(leaf: &Leaf, port: &str) -> Result<u64> {
    let text = leaf
        .ns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/dev").context(|| "/proc/net/dev".into()))?;
    let counters = text.lines().find_map(|line| line.trim().strip_prefix(port)?.strip_prefix(':'));
    let packets = counters.and_then(|counters| counters.split_whitespace().nth(1)?.parse().ok());
    packets.context(|| format!("no counters of {port}"))
}

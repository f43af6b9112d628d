//! Many ports on one switch: 128 in 4 partitions, with an agent, Redis, swss and FRR of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::Lab;
use crate::leaf::Leaf;
use crate::many_ports::Plan;
use crate::ns::Ns;
use crate::wait;

const PORTS: u16 = 128;
const PARTITIONS: u16 = 4;
/// How long the agent is watched doing nothing.
const REST: Duration = Duration::from_secs(10);
/// USER_HZ, which is 100 on every architecture that SONiC runs on.
const TICKS_PER_SECOND: u64 = 100;
/// Anonymous memory between two passes, half as much again as it takes: how much of the program is resident is up to
/// the page cache.
const MEMORY_MAX_KIB: u64 = 8 * 1024;

pub(crate) fn cases() -> Vec<Case> {
    cases!("scale", 420 s:
        a_hundred_and_twenty_eight_ports_come_up,
        they_come_up_though_swss_restarts_half_way;
    )
}

fn a_hundred_and_twenty_eight_ports_come_up(lab: &Lab) -> Result<()> {
    let leaf = Leaf::new(Ns("leaf3"), &lab.root, &lab.bin);
    create_switch(&leaf, "rack3")?;
    let started = Instant::now();
    start(&leaf, &["swss", "frr", "agent"])?;
    let result = ready(&leaf, usize::from(PORTS)).and_then(|()| {
        let ready = started.elapsed();
        // Without a fabric nothing comes in through the leak; every port's /64 goes out.
        wait::until(wait::seconds(60), || {
            let frr = leaf.vtysh(&["show running-config"])?;
            let routes = frr
                .lines()
                .filter(|line| line.contains("/64 Ethernet") && line.contains(" nexthop-vrf VrfBoot-s"));
            let prefixes: BTreeSet<_> = routes.filter_map(|line| line.split_whitespace().nth(2)).collect();
            let exported = prefixes.len();
            ensure!(exported == usize::from(PORTS), "FRR exports {exported} of {PORTS} ports");
            Ok(())
        })?;
        report(&leaf, ready, started.elapsed())
    });
    kill(&leaf, &["agent", "frr", "swss", "redis"])?;
    let memory = result?;
    ensure!(memory < MEMORY_MAX_KIB, "the agent keeps {memory} KiB of anonymous memory at {PORTS} ports");
    Ok(())
}

/// swss dies when some ports are ready and others are on their way, and everything is built once more.
fn they_come_up_though_swss_restarts_half_way(lab: &Lab) -> Result<()> {
    let leaf = Leaf::new(Ns("leaf4"), &lab.root, &lab.bin);
    create_switch(&leaf, "rack4")?;
    start(&leaf, &["swss", "agent"])?;
    let result = [PORTS / 8, PORTS / 2]
        .into_iter()
        .try_for_each(|some| {
            ready(&leaf, usize::from(some))?;
            leaf.service("swss", "kill")?;
            leaf.service("swss", "start")
        })
        .and_then(|()| ready(&leaf, usize::from(PORTS)));
    kill(&leaf, &["agent", "swss", "redis"])?;
    result
}

fn start(leaf: &Leaf, parts: &[&str]) -> Result<()> {
    parts.iter().try_for_each(|part| leaf.service(part, "start"))
}

fn kill(leaf: &Leaf, parts: &[&str]) -> Result<()> {
    parts.iter().try_for_each(|part| leaf.service(part, "kill"))
}

/// Waits until at least so many ports are ready.
fn ready(leaf: &Leaf, wanted: usize) -> Result<()> {
    wait::until(wait::seconds(300), || {
        let ports = leaf.list("/v1/ports", "ports")?;
        let ready = ports.iter().filter(|port| port["phase"] == "ready").count();
        ensure!(ready >= wanted, "{ready} of {wanted} ports are ready");
        Ok(())
    })
}

/// Prints how the agent did, and returns its anonymous memory between two passes, in KiB.
fn report(leaf: &Leaf, ready: Duration, configured: Duration) -> Result<u64> {
    let before = cpu_ticks(leaf)?;
    let memory = leaf.agent_memory_over(REST)?;
    let ticks = cpu_ticks(leaf)? - before;
    println!(
        "# {PORTS} ports ready after {:.1} s, FRR configured after {:.1} s; agent {} KiB resident \
         ({} KiB of it anonymous), {} KiB in a pass, {} ms of CPU in {REST:?} of rest",
        ready.as_secs_f32(),
        configured.as_secs_f32(),
        memory.resident,
        memory.anonymous,
        memory.most_resident,
        ticks * 1000 / TICKS_PER_SECOND
    );
    Ok(memory.anonymous)
}

/// CPU time of the agent, user and system, in clock ticks (proc(5), `/proc/pid/stat`).
fn cpu_ticks(leaf: &Leaf) -> Result<u64> {
    let path = format!("/proc/{}/stat", leaf.agent_pid()?);
    let text = std::fs::read_to_string(&path).context(|| path.clone())?;
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| -> Result<u64> {
        fields.get(index).copied().unwrap_or_default().parse().context(|| text.clone())
    };
    Ok(ticks(11)? + ticks(12)?)
}

/// One more leaf, with the far ends of its cables in a namespace called `rack`.
fn create_switch(leaf: &Leaf, rack: &'static str) -> Result<()> {
    let plan = Plan {
        leaf: leaf.ns,
        ports: PORTS,
        partitions: PARTITIONS,
        rack: Ns(rack),
        machines: &[],
        partition_fields: &|_| &[("leak_prefix@", "2001:db8:a91::/64")],
        global_fields: &[("leak_method", "vtysh")],
    };
    plan.create_links()?;
    plan.start_redis(leaf)
}

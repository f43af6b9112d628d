//! Many ports on one switch: 128 in 4 partitions, with an agent, Redis, swss and FRR of its own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::Lab;
use crate::leaf::{CONFIG_DB, Leaf};
use crate::ns::Ns;
use crate::wait;

const PORTS: u16 = 128;
const PARTITIONS: u16 = 4;
/// How long the agent is watched doing nothing.
const REST: Duration = Duration::from_secs(10);
/// USER_HZ, which is 100 on every architecture that SONiC runs on.
const TICKS_PER_SECOND: u64 = 100;
const MEMORY_MAX_KIB: u64 = 16 * 1024;

pub(crate) fn cases() -> Vec<Case> {
    cases!("scale", 420 s:
        a_hundred_and_twenty_eight_ports_come_up,
        they_come_up_though_swss_restarts_half_way;
    )
}

fn a_hundred_and_twenty_eight_ports_come_up(lab: &Lab) -> Result<()> {
    let leaf = Leaf::new(Ns("leaf3"), &lab.root, &lab.bin);
    create_switch(lab, &leaf, "rack3")?;
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
    ensure!(memory < MEMORY_MAX_KIB, "the agent takes {memory} KiB at {PORTS} ports");
    Ok(())
}

/// swss dies when some ports are ready and others are on their way, and everything is built once more.
fn they_come_up_though_swss_restarts_half_way(lab: &Lab) -> Result<()> {
    let leaf = Leaf::new(Ns("leaf4"), &lab.root, &lab.bin);
    create_switch(lab, &leaf, "rack4")?;
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

/// Prints how the agent did, and returns its resident memory in KiB.
fn report(leaf: &Leaf, ready: Duration, configured: Duration) -> Result<u64> {
    let before = cpu_ticks(leaf)?;
    std::thread::sleep(REST);
    let ticks = cpu_ticks(leaf)? - before;
    let (memory, anonymous) = leaf.agent_memory_kib()?;
    println!(
        "# {PORTS} ports ready after {:.1} s, FRR configured after {:.1} s; agent {memory} KiB resident \
         ({anonymous} KiB of it anonymous), {} ms of CPU in {REST:?} of rest",
        ready.as_secs_f32(),
        configured.as_secs_f32(),
        ticks * 1000 / TICKS_PER_SECOND
    );
    Ok(memory)
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

/// Namespaces, veths, Redis and rows of one more leaf. Its far ends are up in the namespace `rack`.
fn create_switch(lab: &Lab, leaf: &Leaf, rack: &str) -> Result<()> {
    let name = leaf.ns.0;
    std::fs::create_dir_all(leaf.run_dir()).context(|| "run directory".into())?;
    batch(&[], &format!("netns add {name}\nnetns add {rack}\n"))?;
    for (path, value) in [("ipv6/conf/default/accept_dad", "0"), ("ipv6/conf/all/forwarding", "1")] {
        leaf.ns.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value).context(|| path.into()))?;
    }
    let mut links = String::new();
    for port in 0..PORTS {
        let number = port * 4;
        // Writing to a String cannot fail.
        let _ = writeln!(
            links,
            "link add Ethernet{number} netns {name} address 52:54:00:0f:00:03 up \
             type veth peer name r{port} netns {rack}"
        );
    }
    batch(&[], &links)?;
    let mut peers = String::new();
    for port in 0..PORTS {
        let _ = writeln!(peers, "link set r{port} up");
    }
    batch(&["-n", rack], &peers)?;
    leaf.ns.run(|| crate::sys::set_link_up("lo", true).context(|| "lo".into()))?;
    for port in 0..PORTS {
        let name = format!("Ethernet{}", port * 4);
        leaf.ns.run(|| crate::sys::set_link_up(&name, true).context(|| name.clone()))?;
    }

    let config = lab.leaves[0].run_dir().join("database_config.json");
    let text = std::fs::read_to_string(&config).context(|| config.display().to_string())?;
    std::fs::write(
        leaf.run_dir().join("database_config.json"),
        text.replace("/leaf1/", &format!("/{name}/")),
    )
    .context(|| "database_config.json".into())?;
    leaf.service("redis", "start")?;
    wait::until(wait::seconds(10), || leaf.redis(CONFIG_DB).map(drop))?;
    write_rows(leaf)
}

fn write_rows(leaf: &Leaf) -> Result<()> {
    let mut pipe = redis::pipe();
    pipe.atomic();
    pipe.hset_multiple(
        "DEVICE_METADATA|localhost",
        &[
            ("hostname", leaf.ns.0),
            ("mac", "52:54:00:0f:00:03"),
            ("bgp_asn", "4200000013"),
            ("type", "LeafRouter"),
        ],
    );
    for partition in 0..PARTITIONS {
        pipe.hset_multiple(
            format!("BOOT_NETWORK_PARTITION|s{partition}"),
            &[
                ("prefix", format!("2001:db8:3:{:x}::/56", partition << 8)),
                ("leak_prefix@", "2001:db8:a91::/64".to_owned()),
            ],
        );
    }
    for port in 0..PORTS {
        let name = format!("Ethernet{}", port * 4);
        pipe.hset_multiple(
            format!("PORT|{name}"),
            &[
                ("alias", format!("Eth1/{}", port + 1)),
                ("index", (port + 1).to_string()),
                ("lanes", (port * 4 + 1).to_string()),
                ("speed", "25000".to_owned()),
                ("admin_status", "up".to_owned()),
            ],
        );
        pipe.hset(format!("BOOT_NETWORK_PORT|{name}"), "partition", format!("s{}", port % PARTITIONS));
    }
    pipe.hset("BOOT_NETWORK|global", "leak_method", "vtysh");
    pipe.set("CONFIG_DB_INITIALIZED", "1");
    pipe.exec(&mut leaf.redis(CONFIG_DB)?).context(|| "rows".into())
}

fn batch(options: &[&str], lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context(|| "ip -batch".into())?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes()).context(|| "ip -batch".into())?;
    }
    let status = child.wait().context(|| "ip -batch".into())?;
    ensure!(status.success(), "ip -batch: {status}");
    Ok(())
}

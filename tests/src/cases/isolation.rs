//! What a machine reaches: the leaked prefix, its own port's proxy, and nothing else.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener};
use std::thread;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure, fail};
use crate::http;
use crate::lab::{API, API_PORT, Lab, PROXY_PORT, SPINE_LOOPBACK, TENANT, WITNESS_PORT};
use crate::machine::{Machine, Reach, reach};
use crate::ns::Ns;

pub(crate) fn cases() -> Vec<Case> {
    cases!("isolation",
        60 s: machines_reach_the_leaked_prefix_directly,
            machines_do_not_reach_the_tenant_service,
            machines_do_not_reach_the_underlay,
            machines_do_not_reach_machines,
            machines_do_not_reach_another_partitions_router,
            listeners_of_the_default_vrf_are_out_of_reach,
            operators_ports_are_not_served_to_machines,
            nothing_but_the_proxy_is_open_to_machines,
            proxy_is_not_served_to_the_underlay,
            the_proxy_does_not_rest_on_l3mdev_accept,
            every_boot_vrf_denies_by_default;
    )
}

/// An attempt that must fail.
struct Probe<'a> {
    machine: &'a Machine,
    what: &'a str,
    address: Ipv6Addr,
    port: u16,
}

/// Makes all attempts at once: most of them end by timeout. Not even a refusal may come back.
fn expect_unreached(probes: &[Probe<'_>]) -> Result<()> {
    expect_all(probes, |outcome| matches!(outcome, Reach::Unreachable | Reach::TimedOut))
}

/// Makes all attempts at once: the places are the switch's own, which may refuse.
fn expect_not_connected(probes: &[Probe<'_>]) -> Result<()> {
    expect_all(probes, |outcome| outcome != Reach::Connected)
}

fn expect_all(probes: &[Probe<'_>], good: fn(Reach) -> bool) -> Result<()> {
    thread::scope(|scope| {
        let attempts: Vec<_> = probes
            .iter()
            .map(|probe| scope.spawn(|| probe.machine.reach(probe.address, probe.port)))
            .collect();
        let mut broken = Vec::new();
        for (probe, attempt) in probes.iter().zip(attempts) {
            let Ok(outcome) = attempt.join() else { fail!("an attempt panicked") };
            let outcome = outcome?;
            if !good(outcome) {
                let Probe { machine, what, address, port } = probe;
                broken.push(format!("{} and {what} at [{address}]:{port}: {outcome:?}", machine.ns.0));
            }
        }
        ensure!(broken.is_empty(), "{}", broken.join("; "));
        Ok(())
    })
}

/// That a place would answer others.
pub(crate) fn expect_witness(from: Ns, address: Ipv6Addr, port: u16) -> Result<()> {
    let outcome = from.run(|| {
        http::connect(http::address(address, port, 0)).map(drop).context(|| format!("[{address}]:{port}"))
    });
    outcome.context(|| format!("the witness does not answer {} either", from.0))
}

fn machines_reach_the_leaked_prefix_directly(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        let outcome = machine.reach(API, API_PORT)?;
        ensure!(outcome == Reach::Connected, "{} and the control API: {outcome:?}", machine.ns.0);
    }
    Ok(())
}

fn machines_do_not_reach_the_tenant_service(lab: &Lab) -> Result<()> {
    expect_witness(Ns("leaf1"), TENANT, WITNESS_PORT)?;
    expect_witness(Ns("leaf2"), TENANT, WITNESS_PORT)?;
    let what = "the tenant service";
    let probe = |machine| Probe { machine, what, address: TENANT, port: WITNESS_PORT };
    expect_unreached(&lab.machines.each_ref().map(probe))
}

pub(crate) fn leaf_loopback(leaf: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x10 + leaf)
}

fn machines_do_not_reach_the_underlay(lab: &Lab) -> Result<()> {
    expect_witness(Ns("leaf1"), SPINE_LOOPBACK, WITNESS_PORT)?;
    expect_witness(Ns("leaf1"), leaf_loopback(2), WITNESS_PORT)?;
    expect_witness(Ns("leaf2"), leaf_loopback(1), WITNESS_PORT)?;
    let mut probes = Vec::new();
    for machine in &lab.machines {
        for address in [SPINE_LOOPBACK, leaf_loopback(1), leaf_loopback(2)] {
            probes.push(Probe { machine, what: "the underlay", address, port: WITNESS_PORT });
        }
        // bgpd listens on every address of the spine.
        probes.push(Probe { machine, what: "the spine's BGP", address: SPINE_LOOPBACK, port: 179 });
    }
    expect_unreached(&probes)
}

/// Neither in the other partition, nor in their own partition on the other leaf.
fn machines_do_not_reach_machines(lab: &Lab) -> Result<()> {
    let mut listeners = Vec::new();
    let mut probes = Vec::new();
    for target in &lab.machines {
        let address = target.address()?;
        listeners.push(target.ns.run(|| {
            TcpListener::bind(SocketAddrV6::new(address, WITNESS_PORT, 0, 0)).context(|| "listen".into())
        })?);
        ensure!(
            target.reach(address, WITNESS_PORT)? == Reach::Connected,
            "{} is deaf to itself",
            target.ns.0
        );
        for machine in lab.machines.iter().filter(|machine| machine.ns != target.ns) {
            probes.push(Probe { machine, what: target.ns.0, address, port: WITNESS_PORT });
        }
    }
    expect_unreached(&probes)
}

fn machines_do_not_reach_another_partitions_router(lab: &Lab) -> Result<()> {
    let mut probes = Vec::new();
    for machine in &lab.machines {
        for other in lab.machines.iter().filter(|other| other.home.partition != machine.home.partition) {
            let what = "another partition's router";
            for address in [other.home.router(), other.home.service_address()] {
                probes.push(Probe { machine, what, address, port: PROXY_PORT });
            }
        }
    }
    expect_unreached(&probes)
}

/// SONiC lets every wildcard listener of the switch answer in every VRF; the boot network must not.
fn listeners_of_the_default_vrf_are_out_of_reach(lab: &Lab) -> Result<()> {
    let mut probes = Vec::new();
    for machine in &lab.machines {
        let own = Ns(if machine.home.leaf == 1 { "leaf1" } else { "leaf2" });
        expect_witness(own, leaf_loopback(machine.home.leaf), WITNESS_PORT)?;
        for address in [machine.router()?, machine.home.router(), machine.home.service_address()] {
            probes.push(Probe { machine, what: "a listener of its switch", address, port: WITNESS_PORT });
        }
    }
    expect_not_connected(&probes)
}

/// Admin API, Redis, zebra's and bgpd's ports.
fn operators_ports_are_not_served_to_machines(lab: &Lab) -> Result<()> {
    let mut probes = Vec::new();
    for machine in &lab.machines {
        for address in [machine.router()?, machine.home.router()] {
            for port in [18091, 6379, 2601, 179] {
                probes.push(Probe { machine, what: "an operators' port", address, port });
            }
        }
    }
    expect_not_connected(&probes)
}

/// TCP ports that somebody on the leaf listens on (`/proc/net/tcp`, `tcp6`; state 0A is LISTEN).
fn listening(leaf: Ns) -> Result<BTreeSet<u16>> {
    leaf.run(|| {
        let mut ports = BTreeSet::new();
        for table in ["tcp", "tcp6"] {
            let path = format!("/proc/thread-self/net/{table}");
            let text = std::fs::read_to_string(&path).context(|| path.clone())?;
            for line in text.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (local, state) = (fields.get(1), fields.get(3));
                let port = local.and_then(|local| u16::from_str_radix(local.rsplit(':').next()?, 16).ok());
                if let (Some(port), Some(&"0A")) = (port, state) {
                    ports.insert(port);
                }
            }
        }
        Ok(ports)
    })
}

/// Everything that listens on the leaf, at every address of it that a machine could name.
fn nothing_but_the_proxy_is_open_to_machines(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    let mut ports = listening(Ns("leaf1"))?;
    ensure!(ports.remove(&PROXY_PORT) && ports.len() > 3, "on leaf1 listen {ports:?}");
    let router = machine.router()?;
    ensure!(machine.reach(router, PROXY_PORT)? == Reach::Connected, "the proxy is out of reach");
    let addresses = [
        router,
        "fe80::1".parse().context(|| "fe80::1".into())?,
        machine.home.router(),
        machine.home.service_address(),
        leaf_loopback(1),
    ];
    let mut probes = Vec::new();
    for address in addresses {
        for port in &ports {
            probes.push(Probe { machine, what: "a listener of its switch", address, port: *port });
        }
    }
    expect_not_connected(&probes)
}

/// The sysctl that lets wildcard listeners answer in every VRF, both ways.
fn the_proxy_does_not_rest_on_l3mdev_accept(lab: &Lab) -> Result<()> {
    let set = |value: &str| {
        let path = "/proc/sys/net/ipv4/tcp_l3mdev_accept";
        Ns("leaf1").run(|| std::fs::write(path, value).context(|| path.into()))
    };
    let machine = &lab.machines[0];
    let check = || {
        machine.get("/healthz")?.expect(200)?;
        for outsider in ["spine", "api", "tenant"] {
            let outcome = Ns(outsider).run(|| reach(machine.home.router(), PROXY_PORT))?;
            ensure!(outcome != Reach::Connected, "{outsider} reaches the proxy");
        }
        // The switch's own kernel may complete a handshake with itself; nobody is served.
        let to = http::address(machine.home.router(), PROXY_PORT, 0);
        let own = Ns("leaf1").run(|| Ok(http::Request::get("/healthz").send(to).is_ok()))?;
        ensure!(!own, "the default VRF of the leaf is served");
        Ok(())
    };
    set("0")?;
    let without = check();
    set("1")?;
    without?;
    check()
}

fn proxy_is_not_served_to_the_underlay(lab: &Lab) -> Result<()> {
    let mut attempts = Vec::new();
    for machine in &lab.machines {
        attempts.push((Ns("spine"), leaf_loopback(machine.home.leaf)));
        for outsider in ["spine", "api", "tenant"] {
            attempts.push((Ns(outsider), machine.home.router()));
        }
    }
    thread::scope(|scope| {
        let outcomes: Vec<_> = attempts
            .iter()
            .map(|(from, address)| scope.spawn(|| from.run(|| reach(*address, PROXY_PORT))))
            .collect();
        for ((from, address), outcome) in attempts.iter().zip(outcomes) {
            let Ok(outcome) = outcome.join() else { fail!("an attempt panicked") };
            ensure!(outcome? != Reach::Connected, "{} reaches the proxy at {address}", from.0);
        }
        Ok(())
    })
}

/// The VRF's table holds the leaked prefixes and connected routes only, and ends in a deny.
fn every_boot_vrf_denies_by_default(lab: &Lab) -> Result<()> {
    for leaf in &lab.leaves {
        for vrf in ["VrfBoot-p1", "VrfBoot-p2"] {
            let routes = crate::lab::run(
                std::process::Command::new("ip").args(["-n", leaf.ns.0, "-6", "route", "show", "vrf", vrf]),
            )?;
            let denied = ["blackhole default", "unreachable default"];
            ensure!(
                routes.lines().any(|line| denied.iter().any(|deny| line.starts_with(deny))),
                "{vrf}: {routes}"
            );
            for line in routes.lines().filter(|line| line.contains("proto bgp")) {
                ensure!(line.starts_with("2001:db8:a91::/64 "), "{vrf} of {} imports {line}", leaf.ns.0);
            }
        }
    }
    Ok(())
}

//! What a machine reaches: the leaked prefix, its own port's proxy, and nothing else.

use std::net::{Ipv6Addr, SocketAddrV6, TcpListener};

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
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
            proxy_is_not_served_to_the_underlay,
            every_boot_vrf_denies_by_default;
    )
}

/// The place, unless it is reached although it answers: `witness` proves that it would.
fn expect_unreached(machine: &Machine, what: &str, address: Ipv6Addr, port: u16) -> Result<()> {
    let outcome = machine.reach(address, port)?;
    ensure!(
        matches!(outcome, Reach::Unreachable | Reach::TimedOut),
        "{} reaches {what} at [{address}]:{port}: {outcome:?}",
        machine.ns.0
    );
    Ok(())
}

fn expect_witness(from: Ns, address: Ipv6Addr, port: u16) -> Result<()> {
    let outcome = from.run(|| {
        http::connect(http::address(address, port, 0))
            .map(drop)
            .context(|| format!("[{address}]:{port}"))
    });
    outcome.context(|| format!("the witness does not answer {} either", from.0))
}

fn machines_reach_the_leaked_prefix_directly(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        let outcome = machine.reach(API, API_PORT)?;
        ensure!(
            outcome == Reach::Connected,
            "{} and the control API: {outcome:?}",
            machine.ns.0
        );
    }
    Ok(())
}

fn machines_do_not_reach_the_tenant_service(lab: &Lab) -> Result<()> {
    expect_witness(Ns("leaf1"), TENANT, WITNESS_PORT)?;
    expect_witness(Ns("leaf2"), TENANT, WITNESS_PORT)?;
    for machine in &lab.machines {
        expect_unreached(machine, "the tenant service", TENANT, WITNESS_PORT)?;
    }
    Ok(())
}

fn leaf_loopback(leaf: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x10 + leaf)
}

fn machines_do_not_reach_the_underlay(lab: &Lab) -> Result<()> {
    expect_witness(Ns("leaf1"), SPINE_LOOPBACK, WITNESS_PORT)?;
    expect_witness(Ns("leaf1"), leaf_loopback(2), WITNESS_PORT)?;
    expect_witness(Ns("leaf2"), leaf_loopback(1), WITNESS_PORT)?;
    for machine in &lab.machines {
        for address in [SPINE_LOOPBACK, leaf_loopback(1), leaf_loopback(2)] {
            expect_unreached(machine, "the underlay", address, WITNESS_PORT)?;
        }
        // bgpd listens on every address of the spine.
        expect_unreached(machine, "the spine's BGP", SPINE_LOOPBACK, 179)?;
    }
    Ok(())
}

/// Neither in the other partition, nor in their own partition on the other leaf.
fn machines_do_not_reach_machines(lab: &Lab) -> Result<()> {
    for target in &lab.machines {
        let address = target.address()?;
        let listener = target.ns.run(|| {
            TcpListener::bind(SocketAddrV6::new(address, WITNESS_PORT, 0, 0)).context(|| "listen".into())
        })?;
        ensure!(
            target.reach(address, WITNESS_PORT)? == Reach::Connected,
            "{} does not reach itself",
            target.ns.0
        );
        for machine in lab.machines.iter().filter(|machine| machine.ns != target.ns) {
            expect_unreached(machine, target.ns.0, address, WITNESS_PORT)?;
        }
        drop(listener);
    }
    Ok(())
}

fn machines_do_not_reach_another_partitions_router(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        for other in lab
            .machines
            .iter()
            .filter(|other| other.home.partition != machine.home.partition)
        {
            let router = other.home.router();
            expect_unreached(machine, "another partition's router", router, PROXY_PORT)?;
            let service = other.home.service_address();
            expect_unreached(
                machine,
                "another partition's service address",
                service,
                PROXY_PORT,
            )?;
        }
    }
    Ok(())
}

/// SONiC lets every wildcard listener of the switch answer in every VRF; the boot network must not.
fn listeners_of_the_default_vrf_are_out_of_reach(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        let own = Ns(if machine.home.leaf == 1 { "leaf1" } else { "leaf2" });
        expect_witness(own, leaf_loopback(machine.home.leaf), WITNESS_PORT)?;
        let places = [
            machine.router()?,
            machine.home.router(),
            machine.home.service_address(),
        ];
        for address in places {
            let outcome = machine.reach(address, WITNESS_PORT)?;
            ensure!(
                outcome != Reach::Connected,
                "{} reaches a listener of {} at {address}",
                machine.ns.0,
                own.0
            );
        }
    }
    Ok(())
}

fn operators_ports_are_not_served_to_machines(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        for address in [machine.router()?, machine.home.router()] {
            for port in [18091, 6379, 2601, 179] {
                let outcome = machine.reach(address, port)?;
                ensure!(
                    outcome != Reach::Connected,
                    "{} reaches [{address}]:{port}",
                    machine.ns.0
                );
            }
        }
    }
    Ok(())
}

fn proxy_is_not_served_to_the_underlay(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        for (from, address) in [
            (Ns("spine"), leaf_loopback(machine.home.leaf)),
            (Ns("spine"), machine.home.router()),
            (Ns("api"), machine.home.router()),
            (Ns("tenant"), machine.home.router()),
        ] {
            let outcome = from.run(|| reach(address, PROXY_PORT))?;
            ensure!(
                outcome != Reach::Connected,
                "{} reaches the proxy at {address}",
                from.0
            );
        }
    }
    Ok(())
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
                routes
                    .lines()
                    .any(|line| denied.iter().any(|deny| line.starts_with(deny))),
                "{vrf}: {routes}"
            );
            for line in routes.lines().filter(|line| line.contains("proto bgp")) {
                ensure!(
                    line.starts_with("2001:db8:a91::/64 "),
                    "{vrf} of {} imports {line}",
                    leaf.ns.0
                );
            }
        }
    }
    Ok(())
}

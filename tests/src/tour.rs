//! What the lab shows to people, checked while it is shown.

use std::net::Ipv6Addr;
use std::thread;

use crate::cases::check_boot_document;
use crate::cases::isolation::{expect_witness, leaf_loopback};
use crate::failure::{Failure, Result, ensure, fail};
use crate::http::Request;
use crate::lab::{API, API_PORT, CONVERGENCE, Lab, PROXY_PORT, SPINE_LOOPBACK, TENANT, WITNESS_PORT, run};
use crate::machine::{Machine, Reach};
use crate::ns::Ns;
use crate::wait;

/// Runs a boot on every machine and prints the results; `true` when every claim held.
pub(crate) fn run_all(lab: &Lab) -> Result<bool> {
    lab.settle(CONVERGENCE)?;
    for machine in &lab.machines {
        boot(machine)?;
    }
    let (first, port) = (&lab.machines[0], lab.machines[0].home.port);
    replug(first)?;
    title("Port-to-MAC table");
    for leaf in &lab.leaves {
        println!("$ switch-agent show macs      # on {}", leaf.ns.0);
        let table = run(&mut lab.agent_command(leaf, &["show", "macs"]))?;
        print!("{table}");
        for machine in lab.machines.iter().filter(|machine| lab.leaf_of(&machine.home).ns == leaf.ns) {
            ensure!(table.contains(machine.mac), "the table of {} lacks {}", leaf.ns.0, machine.mac);
        }
    }
    title("How m1 booted when its cable was plugged in again");
    println!("$ switch-agent show timeline {port}      # on leaf1");
    let timeline = run(&mut lab.agent_command(lab.leaf_of(&first.home), &["show", "timeline", port]))?;
    print!("{timeline}");
    // Not `first-rs`: Linux does not ask for a router that has told of itself already.
    for stage in ["carrier", "ra", "neighbor", "config", "token", "api", "event:booted"] {
        let told = timeline.lines().any(|line| line.split_whitespace().next() == Some(stage));
        ensure!(told, "the timeline of m1 lacks {stage}");
    }
    let held = reachability(lab)?;
    by_hand(lab)?;
    Ok(held)
}

fn title(text: &str) {
    println!("\n== {text}");
}

/// The steps of a boot program: where am I, a token, the control API, a progress event.
fn boot(machine: &Machine) -> Result<()> {
    let named = |Failure(reason)| Failure(format!("{}: {reason}", machine.ns.0));
    let steps = || {
        machine.check_address_in(&machine.home)?;
        check_boot_document(&machine.boot_document()?, machine, &machine.home)?;
        // From its global address this time.
        machine.get_at(machine.home.router(), "/v1/boot")?.expect(200)?;
        let token = machine.token()?;
        let call = Request::get("/api/v1/whoami").header("authorization", format!("Bearer {token}"));
        wait::until(wait::seconds(10), || machine.send(&call)?.expect(200))?;
        machine.send(&Request::post("/v1/events", r#"{"stage":"booted"}"#))?.expect(202)?;
        Ok(())
    };
    steps().map_err(named)
}

/// A boot from the first sign of carrier, for the timeline.
fn replug(machine: &Machine) -> Result<()> {
    machine.reboot()?;
    wait::until(wait::seconds(15), || machine.check_address_in(&machine.home))?;
    boot(machine)
}

/// One row of the matrix: a place and whether machines are meant to reach it.
struct Place {
    name: &'static str,
    address: Ipv6Addr,
    port: u16,
    allowed: bool,
}

fn places(lab: &Lab, machine: &Machine) -> Result<Vec<Place>> {
    let place = |name, address, port, allowed| Place { name, address, port, allowed };
    let far = if machine.home.leaf == 1 { &lab.machines[2] } else { &lab.machines[0] };
    let other = lab.machines.iter().find(|other| other.home.partition != machine.home.partition);
    let mut places = vec![
        place("discovery proxy, link-local", machine.router()?, PROXY_PORT, true),
        place("discovery proxy, ::1 of the /64", machine.home.router(), PROXY_PORT, true),
        place("control API through the leak", API, API_PORT, true),
        place("tenant service", TENANT, WITNESS_PORT, false),
        place("spine (underlay)", SPINE_LOOPBACK, WITNESS_PORT, false),
        place("the switch's own services", machine.home.router(), WITNESS_PORT, false),
        place("machine on the other leaf", far.address()?, 22, false),
    ];
    if let Some(other) = other {
        places.push(place("router of the other partition", other.home.router(), PROXY_PORT, false));
    }
    Ok(places)
}

fn reachability(lab: &Lab) -> Result<bool> {
    title("What machines can and cannot reach");
    println!("{:<34}{:>14}{:>14}{:>14}{:>14}", "", "m1", "m2", "m3", "m4");
    let mut rows: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut held = true;
    for machine in &lab.machines {
        // What is out of a machine's reach is there, and answers its switch.
        let leaf = lab.leaf_of(&machine.home).ns;
        for address in [TENANT, SPINE_LOOPBACK, leaf_loopback(machine.home.leaf)] {
            expect_witness(leaf, address, WITNESS_PORT)?;
        }
        let places = places(lab, machine)?;
        // All at once: what is out of reach ends by timeout.
        let outcomes = thread::scope(|scope| {
            let attempts: Vec<_> =
                places.iter().map(|place| scope.spawn(|| machine.reach(place.address, place.port))).collect();
            attempts.into_iter().map(|attempt| attempt.join()).collect::<Vec<_>>()
        });
        for (row, (place, outcome)) in places.into_iter().zip(outcomes).enumerate() {
            let Ok(outcome) = outcome else { fail!("an attempt panicked") };
            // Who refuses has been reached, which is not enough where somebody has to answer.
            let reached = match outcome? {
                Reach::Connected => true,
                Reach::Refused => !place.allowed,
                Reach::Unreachable | Reach::TimedOut => false,
            };
            held &= reached == place.allowed;
            let cell = match (reached, place.allowed) {
                (true, true) => "reached",
                (false, false) => "no",
                (true, false) => "REACHED (!)",
                (false, true) => "NO (!)",
            };
            match rows.get_mut(row) {
                Some((_, cells)) => cells.push(cell),
                None => rows.push((place.name, vec![cell])),
            }
        }
    }
    for (name, cells) in rows {
        print!("{name:<34}");
        for cell in cells {
            print!("{cell:>14}");
        }
        println!();
    }
    Ok(held)
}

fn by_hand(lab: &Lab) -> Result<()> {
    let shell = if Ns("patch").exists() { "labs/local/shell m1" } else { "docker exec -it m1 bash" };
    title(&format!("To try by hand ({shell})"));
    for machine in &lab.machines {
        println!(
            "{}  {}  leaf{} {}  {}",
            machine.ns.0,
            machine.mac,
            machine.home.leaf,
            machine.home.port,
            machine.address()?
        );
    }
    let machine = &lab.machines[0];
    println!("  curl 'http://[{}%25eth0]:{PROXY_PORT}/v1/boot'", machine.router()?);
    println!("  curl 'http://[{}]:{PROXY_PORT}/v1/boot'", machine.home.router());
    let router = machine.home.router();
    println!(
        "  TOKEN=$(curl -s -X POST -H 'Boot-Token: request' -d '{{}}' 'http://[{router}]:{PROXY_PORT}/v1/token' | \
         jq -r .token)"
    );
    println!("  curl -H \"Authorization: Bearer $TOKEN\" 'http://[{router}]:{PROXY_PORT}/api/v1/whoami'");
    Ok(())
}

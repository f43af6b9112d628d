//! Cables that move, links that flap, ports that others take and give back.

use std::time::Duration;

use crate::cases::boot::{check_boot_document, expect_mac_at};
use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::{CONVERGENCE, Lab, SOCKETS, Socket};
use crate::machine::{Machine, NIC};
use crate::wait;

/// How long a port has no carrier before its machines are gone; shorter losses are flaps.
const UNPLUGGED: Duration = Duration::from_secs(10);

pub(crate) fn cases() -> Vec<Case> {
    cases!("moves",
        120 s: a_cable_moves_to_another_port,
            a_cable_moves_to_another_leaf,
            a_link_flap_loses_nothing;
        180 s: a_port_taken_by_others_is_left_alone_and_taken_back;
    )
}

fn a_cable_moves_to_another_port(lab: &Lab) -> Result<()> {
    follow(lab, &lab.machines[0], &SOCKETS[2])
}

fn a_cable_moves_to_another_leaf(lab: &Lab) -> Result<()> {
    follow(lab, &lab.machines[0], &SOCKETS[5])
}

/// Moves the machine's cable, checks that the tables follow, and moves it back.
fn follow(lab: &Lab, machine: &Machine, to: &Socket) -> Result<()> {
    let home = &machine.home;
    let sent_before = solicitations(machine)?;
    lab.move_cable(machine, home, to)?;
    let result = check_moved(lab, machine, home, to, sent_before);
    lab.move_cable(machine, to, home)?;
    wait::until(wait::seconds(20), || machine.check_address_in(home))?;
    wait::until(wait::seconds(5), || expect_mac_at(lab, machine.mac, home))?;
    wait::until(wait::seconds(20), || machine.get("/v1/boot")?.expect(200))?;
    result
}

/// Router and neighbour solicitations that the machine's NIC has sent since it exists. The kernel waits up
/// to a second with the first one, its probe for a duplicate of its link-local address.
fn solicitations(machine: &Machine) -> Result<u64> {
    machine.ns.run(|| {
        let path = format!("/proc/thread-self/net/dev_snmp6/{NIC}");
        let text = std::fs::read_to_string(&path).context(|| path.clone())?;
        let sent = |line: &str| {
            let (name, count) = line.split_once(char::is_whitespace)?;
            let counted = ["Icmp6OutRouterSolicits", "Icmp6OutNeighborSolicits"].contains(&name);
            count.trim().parse::<u64>().ok().filter(|_| counted)
        };
        Ok(text.lines().filter_map(sent).sum())
    })
}

fn check_moved(lab: &Lab, machine: &Machine, from: &Socket, to: &Socket, sent_before: u64) -> Result<()> {
    wait::until(wait::seconds(5), || {
        ensure!(solicitations(machine)? > sent_before, "{} says nothing at its new place", machine.ns.0);
        Ok(())
    })?;
    wait::until(wait::seconds(2), || expect_mac_at(lab, machine.mac, to))?;
    wait::until(wait::seconds(15), || machine.check_address_in(to))?;
    wait::until(wait::seconds(5), || {
        let document = machine.boot_document()?;
        check_boot_document(&document, machine, to)
    })?;
    // Another leaf cannot know where the machine went: it forgets who was at a port that stays dark.
    wait::until(UNPLUGGED + wait::seconds(5), || {
        let entry = lab.leaf_of(from).port(from.port)?;
        let stale = entry["machines"].to_string().contains(machine.mac);
        ensure!(!stale, "leaf{} still has {} at {}", from.leaf, machine.mac, from.port);
        Ok(())
    })
}

/// The switch side of the link goes down and up; the machine keeps its address.
fn a_link_flap_loses_nothing(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[1];
    let before = machine.address()?;
    machine.home.set_carrier(false)?;
    let down = wait::until(wait::seconds(10), || {
        let entry = lab.leaves[0].port("Ethernet4")?;
        ensure!(entry["oper_status"] == "down", "the port without carrier is {}", entry["oper_status"]);
        Ok(())
    });
    machine.home.set_carrier(true)?;
    wait::until(wait::seconds(20), || machine.get("/v1/boot")?.expect(200))?;
    let after = machine.addresses()?;
    ensure!(after.contains(&before), "the machine had {before} before the flap and has {after:?}");
    down
}

/// The controller of tenant networks takes the port as SONiC wants it done, and gives it back later.
fn a_port_taken_by_others_is_left_alone_and_taken_back(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let (port, base) = ("Ethernet8", "INTERFACE|Ethernet8");
    let address = format!("{base}|{}/64", SOCKETS[2].router());
    leaf.configure("VRF|VrfTenant", &[("NULL", "NULL")])?;
    wait::until(wait::seconds(20), || {
        let state = leaf.row(crate::leaf::STATE_DB, "VRF_TABLE|VrfTenant")?;
        ensure!(!state.is_empty(), "VrfTenant does not come up");
        Ok(())
    })?;
    // As `config interface vrf bind` does it; the agent may be quicker than the writer at every step.
    let taken = wait::until(wait::seconds(40), || {
        leaf.unconfigure(&[&address, base])?;
        std::thread::sleep(Duration::from_millis(100));
        leaf.configure(base, &[("vrf_name", "VrfTenant")])?;
        wait::until(wait::seconds(3), || leaf.expect_phase(port, "foreign"))
    });
    let left_alone = taken.and_then(|()| {
        wait::throughout(wait::seconds(5), || {
            let row = leaf.row(crate::leaf::CONFIG_DB, base)?;
            ensure!(row.get("vrf_name").is_some_and(|vrf| vrf == "VrfTenant"), "{base} became {row:?}");
            Ok(())
        })?;
        ensure!(
            leaf.row(crate::leaf::CONFIG_DB, "VRF|VrfTenant")?.len() == 1,
            "the foreign VRF row was touched"
        );
        Ok(())
    });
    leaf.unconfigure(&[base])?;
    let back = wait::until(CONVERGENCE, || {
        let row = leaf.row(crate::leaf::CONFIG_DB, base)?;
        ensure!(row.get("vrf_name") == Some(&SOCKETS[2].vrf()), "{base} is {row:?} after it was freed");
        leaf.converged()
    });
    leaf.unconfigure(&["VRF|VrfTenant"])?;
    left_alone.and(back)
}

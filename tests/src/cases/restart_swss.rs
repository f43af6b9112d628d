//! swss restarts cold: the ports' netdevs go and come back with other indexes, its tables are emptied.

use nix::sys::signal::Signal;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::http::Request;
use crate::lab::{API, API_PORT, CONVERGENCE, Lab};
use crate::leaf::{CONFIG_DB, Leaf};
use crate::machine::{Machine, Reach};
use crate::ndp::Watch;
use crate::sonic::RowEvents;
use crate::wait;

/// MaxRtrAdvInterval, and the time in which there is no port to advertise on.
const RA_GAP_MAX: std::time::Duration = wait::seconds(20);

pub(crate) fn cases() -> Vec<Case> {
    cases!("restart_swss", 150 s: the_agent_stays_up, the_agent_goes_and_comes_with_it;)
}

fn the_agent_stays_up(lab: &Lab) -> Result<()> {
    restart(lab, false)
}

/// As SONiC does it with a package that is `dependent-of` swss.
fn the_agent_goes_and_comes_with_it(lab: &Lab) -> Result<()> {
    restart(lab, true)
}

fn restart(lab: &Lab, with_the_agent: bool) -> Result<()> {
    let leaf = &lab.leaves[1];
    let machines = &lab.machines[2..];
    leaf.converged()?;
    let rows = leaf.rows(CONFIG_DB)?;
    let before = [leaf.ifindex("Ethernet0")?, leaf.ifindex("VrfBoot-p1")?];
    let addresses = machines.iter().map(Machine::address).collect::<Result<Vec<_>>>()?;
    let token = machines[0].token()?;
    let watch = Watch::start(&machines[0])?;
    let events = RowEvents::start(leaf)?;

    if with_the_agent {
        leaf.end_agent(Signal::SIGTERM)?;
    }
    leaf.stop_swss()?;
    if !with_the_agent {
        expect_waiting_for_swss(leaf)?;
    }
    leaf.start_swss()?;
    if with_the_agent {
        leaf.start_agent()?;
    }
    // The status is from before until the agent has looked.
    wait::until(CONVERGENCE, || {
        leaf.expect_phase("Ethernet0", "ready")?;
        machines[0].get("/v1/boot")?.expect(200)?;
        leaf.converged()
    })?;

    let after = [leaf.ifindex("Ethernet0")?, leaf.ifindex("VrfBoot-p1")?];
    ensure!(before[0] != after[0] && before[1] != after[1], "the indexes are the old ones: {after:?}");
    serves_as_before(machines, &token)?;
    let now = machines.iter().map(Machine::address).collect::<Result<Vec<_>>>()?;
    ensure!(now == addresses, "the machines' addresses were {addresses:?} and are {now:?}");
    // An advertisement by the new port, which is another interface with the same address.
    let counted = watch.advertisements().len();
    wait::until(RA_GAP_MAX, || {
        ensure!(watch.advertisements().len() > counted, "no advertisement on the new port");
        Ok(())
    })?;
    watch.check_unbroken(RA_GAP_MAX)?;
    ensure!(leaf.rows(CONFIG_DB)? == rows, "CONFIG_DB is not what it was");
    events.expect_none()
}

fn expect_waiting_for_swss(leaf: &Leaf) -> Result<()> {
    wait::until(wait::seconds(10), || {
        let port = leaf.port("Ethernet0")?;
        ensure!(port["phase"] != "ready", "a port without netdev is ready: {port}");
        Ok(())
    })
}

/// The proxy, its tokens and the leak, all on the new interfaces.
fn serves_as_before(machines: &[Machine], old_token: &str) -> Result<()> {
    let call = |machine: &Machine, token: &str| {
        let header = format!("Bearer {token}");
        machine.send(&Request::get("/api/v1/whoami").header("authorization", header))
    };
    let refused = call(&machines[0], old_token)?.expect(401)?;
    let code = refused.json()?["error"]["code"].clone();
    ensure!(code.as_str().is_some_and(|code| code.starts_with("token-")), "{}", refused.body);
    for machine in machines {
        wait::until(wait::seconds(20), || {
            let token = machine.token()?;
            call(machine, &token)?.expect(200)
        })?;
        let router = machine.home.router();
        machine
            .get_at(router, "/healthz")
            .and_then(|reply| reply.expect(200))
            .context(|| router.to_string())?;
        wait::until(wait::seconds(30), || {
            let outcome = machine.reach(API, API_PORT)?;
            ensure!(outcome == Reach::Connected, "the leak is not back: {outcome:?}");
            Ok(())
        })?;
    }
    Ok(())
}

//! The agent dies or is stopped, and comes back: the network does not notice.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use redis::Commands;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::http::Request;
use crate::lab::{CONVERGENCE, Lab};
use crate::leaf::{CONFIG_DB, Leaf};
use crate::machine::Machine;
use crate::ndp::Watch;
use crate::sonic::RowEvents;
use crate::wait;

/// MaxRtrAdvInterval of the lab's partitions (the default), and what a busy one-CPU kernel may add.
const RA_GAP_MAX: Duration = Duration::from_millis(10_000 + 3_000);

pub(crate) fn cases() -> Vec<Case> {
    cases!("restart",
        90 s: sigkill_and_start_change_nothing, a_clean_stop_and_start_change_nothing;
        240 s: killed_at_any_moment_of_a_bring_up_it_still_converges;
        60 s: idle_passes_write_nothing;
    )
}

/// What must be the same after a restart.
#[derive(PartialEq)]
struct Still {
    rows: crate::leaf::Rows,
    frr: String,
    addresses: Vec<std::net::Ipv6Addr>,
}

fn observe(lab: &Lab, leaf: &Leaf) -> Result<Still> {
    let machines = lab.machines.iter().filter(|machine| lab.leaf_of(&machine.home).ns == leaf.ns);
    Ok(Still {
        rows: leaf.rows(CONFIG_DB)?,
        frr: leaf.vtysh(&["show running-config"])?,
        addresses: machines.map(|machine| machine.address()).collect::<Result<_>>()?,
    })
}

/// Counts the write commands that Redis has executed. Reads and subscriptions do not count.
fn writes(leaf: &Leaf) -> Result<u64> {
    let mut connection = leaf.redis(CONFIG_DB)?;
    let info: String =
        redis::cmd("INFO").arg("commandstats").query(&mut connection).context(|| "INFO".into())?;
    let written = ["cmdstat_hset:", "cmdstat_hdel:", "cmdstat_del:", "cmdstat_set:", "cmdstat_unlink:"];
    let mut sum = 0;
    for line in info.lines().filter(|line| written.iter().any(|name| line.starts_with(name))) {
        let calls = line.split("calls=").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("0");
        sum += calls.parse::<u64>().context(|| line.to_owned())?;
    }
    Ok(sum)
}

fn restart_silently(lab: &Lab, signal: Signal) -> Result<()> {
    let leaf = &lab.leaves[0];
    leaf.converged()?;
    let token = lab.machines[0].token()?;
    let before = observe(lab, leaf)?;
    let events = RowEvents::start(leaf)?;
    let watch = Watch::start(&lab.machines[0])?;

    leaf.end_agent(signal)?;
    thread::sleep(wait::seconds(1));
    leaf.start_agent()?;
    wait::until(CONVERGENCE, || leaf.converged())?;
    // One more interval, so that a late withdrawal or gap is seen.
    thread::sleep(wait::seconds(11));

    watch.check_unbroken(RA_GAP_MAX)?;
    let after = observe(lab, leaf)?;
    ensure!(before.addresses == after.addresses, "addresses were lost: {:?}", after.addresses);
    ensure!(before.rows == after.rows, "CONFIG_DB differs after the restart");
    ensure!(before.frr == after.frr, "FRR differs after the restart:\n{}\n{}", before.frr, after.frr);
    events.expect_none()?;
    for machine in &lab.machines[..2] {
        machine.get("/v1/boot")?.expect(200)?;
    }
    a_token_ends_with_the_process(&lab.machines[0], &token)
}

/// It lives in memory only: the machine is told so, and asks anew.
fn a_token_ends_with_the_process(machine: &Machine, old: &str) -> Result<()> {
    let call = |token: &str| {
        let header = format!("Bearer {token}");
        machine.send(&Request::get("/api/v1/whoami").header("authorization", header))
    };
    let refused = call(old)?.expect(401)?;
    let code = refused.json()?["error"]["code"].clone();
    ensure!(code == "token-revoked", "{}", refused.body);
    call(&machine.token()?)?.expect(200).map(drop)
}

fn sigkill_and_start_change_nothing(lab: &Lab) -> Result<()> {
    restart_silently(lab, Signal::SIGKILL)
}

fn a_clean_stop_and_start_change_nothing(lab: &Lab) -> Result<()> {
    restart_silently(lab, Signal::SIGTERM)
}

/// A partition comes back from nothing while the agent is killed again and again, later each time.
fn killed_at_any_moment_of_a_bring_up_it_still_converges(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[1];
    let machine = &lab.machines[3];
    let before = leaf.rows(CONFIG_DB)?;
    for round in 0..3_u64 {
        leaf.unconfigure(&["BOOT_NETWORK_PORT|Ethernet4", "BOOT_NETWORK_PARTITION|p2"])?;
        thread::sleep(Duration::from_millis(200 + 700 * round));
        leaf.end_agent(Signal::SIGKILL)?;
        leaf.restore(&before, &["BOOT_NETWORK_PARTITION", "BOOT_NETWORK_PORT"])?;
        leaf.start_agent()?;
        thread::sleep(Duration::from_millis(150 + 500 * round));
        leaf.end_agent(Signal::SIGKILL)?;
        leaf.start_agent()?;
        wait::until(CONVERGENCE, || leaf.converged()).context(|| format!("round {round}"))?;
    }
    let after = leaf.rows(CONFIG_DB)?;
    ensure!(before == after, "CONFIG_DB is not what it was");
    machine.reboot()?;
    wait::until(wait::seconds(20), || machine.check_address_in(&machine.home))?;
    wait::until(wait::seconds(20), || machine.get("/v1/boot")?.expect(200)).map(drop)
}

/// More than one periodic pass (30 s) without a single write to CONFIG_DB.
fn idle_passes_write_nothing(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[1];
    leaf.converged()?;
    let events = RowEvents::start(leaf)?;
    let before = writes(leaf)?;
    thread::sleep(wait::seconds(35));
    events.expect_none()?;
    // The status in STATE_DB and the stand-in may refresh a few rows; a rewrite per pass would be dozens.
    let count = writes(leaf)? - before;
    ensure!(count < 40, "{count} writes in 35 s of rest");
    let keys: u64 =
        leaf.redis(CONFIG_DB)?.keys::<_, Vec<String>>("*").context(|| "keys".into())?.len() as u64;
    ensure!(keys > 0, "CONFIG_DB is empty");
    Ok(())
}

//! Reboots of the switch: cold ones, which leave the files alone, and a warm one, which keeps the data plane.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cases::{Case, cases};
use crate::failure::{Result, ensure, fail};
use crate::lab::{API, API_PORT, CONVERGENCE, Lab};
use crate::leaf::{CONFIG_DB, Leaf, Rows, STATE_DB};
use crate::machine::{Machine, Reach};
use crate::ndp::Watch;
use crate::sonic::{RowEvents, unsaved};
use crate::wait;

pub(crate) fn cases() -> Vec<Case> {
    cases!("restart_reboot", 240 s:
        cold_with_saved_rows_writes_nothing,
        cold_without_saved_rows_waits_for_swss_and_converges,
        warm_changes_nothing_until_it_is_finished;
    )
}

pub(crate) fn long_cases() -> Vec<Case> {
    cases!("restart_reboot", 240 s: fast_changes_nothing_until_it_is_finished)
}

fn reaches_the_api(machine: &Machine) -> Result<()> {
    let outcome = machine.reach(API, API_PORT)?;
    ensure!(outcome == Reach::Connected, "the leak is not there: {outcome:?}");
    Ok(())
}

fn serves(leaf: &Leaf, machines: &[Machine]) -> Result<()> {
    for machine in machines {
        wait::until(CONVERGENCE, || {
            machine.get("/v1/boot")?.expect(200)?;
            leaf.converged()
        })?;
        machine.check_address_in(&machine.home)?;
        wait::until(CONVERGENCE, || reaches_the_api(machine))?;
    }
    Ok(())
}

/// swss, its ports and FRR.
fn start_the_rest(leaf: &Leaf) -> Result<()> {
    leaf.service("swss", "start")?;
    leaf.create_ports(true)?;
    leaf.service("frr", "start")
}

fn cold_with_saved_rows_writes_nothing(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[1];
    leaf.converged()?;
    let saved = leaf.rows(CONFIG_DB)?;
    let watch = Watch::start(&lab.machines[2])?;
    leaf.power_off()?;
    leaf.start_redis()?;
    leaf.load_rows(&saved)?;
    leaf.set_initialized()?;
    let events = RowEvents::start(leaf)?;
    start_the_rest(leaf)?;
    leaf.start_agent()?;
    serves(leaf, &lab.machines[2..])?;
    events.expect_none()?;
    // A boot is no withdrawal.
    watch.check_unbroken(wait::seconds(60))
}

/// The agent starts with the database container, before CONFIG_DB is loaded and before swss.
fn cold_without_saved_rows_waits_for_swss_and_converges(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[1];
    leaf.converged()?;
    let before = leaf.rows(CONFIG_DB)?;
    let watch = Watch::start(&lab.machines[2])?;
    leaf.power_off()?;
    leaf.start_redis()?;
    leaf.start_agent()?;
    let said = expect_said(leaf, "not initialised");
    leaf.load_rows(&unsaved(&before))?;
    leaf.set_initialized()?;
    let mut events = RowEvents::start(leaf)?;
    let waits = expect_said(leaf, "PORT_TABLE:PortInitDone");
    // Long enough for a pass of any kind but the periodic one.
    thread::sleep(wait::seconds(2));
    let early = events.so_far()?;
    start_the_rest(leaf)?;
    serves(leaf, &lab.machines[2..])?;
    said?;
    waits?;
    ensure!(early.is_empty(), "rows were written before swss was there: {early:?}");
    ensure!(leaf.rows(CONFIG_DB)? == before, "CONFIG_DB is not what it was");
    watch.check_unbroken(wait::seconds(60))
}

fn expect_said(leaf: &Leaf, words: &str) -> Result<()> {
    wait::until(wait::seconds(15), || {
        let status = leaf.admin_json("/v1/status")?.to_string();
        ensure!(status.contains(words), "nothing says {words:?}: {status}");
        Ok(())
    })
}

fn warm_changes_nothing_until_it_is_finished(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[1];
    leaf.converged()?;
    let before = leaf.rows(CONFIG_DB)?;
    let result = warm(leaf, &lab.machines[2..], &before);
    // Whatever happened, the flag holds the agent no longer.
    leaf.set_warm_reboot(false)?;
    leaf.restore(&before, &["BOOT_NETWORK_PORT"])?;
    wait::until(CONVERGENCE, || leaf.converged())?;
    lab.machines[3].reboot()?;
    wait::until(wait::seconds(20), || lab.machines[3].get("/healthz")?.expect(200))?;
    result
}

/// The kernel is a new one, and swss makes everything anew from the rows; the flag holds until all of it has
/// reconciled.
fn fast_changes_nothing_until_it_is_finished(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[1];
    leaf.converged()?;
    let saved = leaf.rows(CONFIG_DB)?;
    let watch = Watch::start(&lab.machines[2])?;
    leaf.set_fast_reboot(true)?;
    expect_said(leaf, "FAST_RESTART_ENABLE_TABLE|system")?;
    leaf.power_off()?;
    leaf.start_redis()?;
    leaf.set_fast_reboot(true)?;
    leaf.load_rows(&saved)?;
    leaf.set_initialized()?;
    let mut events = RowEvents::start(leaf)?;
    leaf.start_agent()?;
    let said = expect_said(leaf, "FAST_RESTART_ENABLE_TABLE|system");
    let result = start_the_rest(leaf).and(said).and_then(|()| fast(leaf, &lab.machines[2..], &mut events));
    // Whatever happened, the flag holds the agent no longer.
    leaf.set_fast_reboot(false)?;
    serves(leaf, &lab.machines[2..])?;
    result?;
    ensure!(leaf.rows(CONFIG_DB)? == saved, "CONFIG_DB is not what it was");
    watch.check_unbroken(wait::seconds(60))
}

fn fast(leaf: &Leaf, machines: &[Machine], events: &mut RowEvents) -> Result<()> {
    let [stays, leaves] = machines else { fail!("two machines are on this leaf") };
    // What is complete is served before the flag is taken back.
    for machine in machines {
        wait::until(CONVERGENCE, || machine.get("/v1/boot")?.expect(200))?;
        wait::until(CONVERGENCE, || reaches_the_api(machine))?;
    }
    // What operators want meanwhile has to wait.
    let row = "BOOT_NETWORK_PORT|Ethernet4";
    let before = leaf.rows(CONFIG_DB)?;
    leaf.unconfigure(&[row])?;
    thread::sleep(wait::seconds(2));
    let meanwhile = events.so_far()?;
    leaf.restore(&before, &["BOOT_NETWORK_PORT"])?;
    ensure!(meanwhile == [format!("del {row}")], "CONFIG_DB changed in the reboot: {meanwhile:?}");
    stays.router()?;
    leaves.router().map(drop)
}

fn warm(leaf: &Leaf, machines: &[Machine], before: &Rows) -> Result<()> {
    let [stays, leaves] = machines else { fail!("two machines are on this leaf") };
    let device = leaf.ifindex("VrfBoot-p1")?;
    let addresses = [stays.address()?, leaves.address()?];
    let watches = [Watch::start(stays)?, Watch::start(leaves)?];
    leaf.set_warm_reboot(true)?;
    expect_said(leaf, "WARM_RESTART_ENABLE_TABLE|system")?;
    let mut events = RowEvents::start(leaf)?;
    leaf.end_agent(Signal::SIGTERM)?;
    leaf.service("swss", "kill")?;
    leaf.service("frr", "kill")?;
    leaf.prune_state()?;

    // The new system. An empty STATE_DB tells nothing.
    leaf.start_agent()?;
    expect_said(leaf, "WARM_RESTART_ENABLE_TABLE|system")?;
    thread::sleep(Duration::from_millis(700));
    leaf.service("swss", "warm")?;
    leaf.service("frr", "start")?;
    // What is complete is served before the flag is taken back, which takes minutes.
    let served = wait::until(wait::seconds(30), || stays.get("/v1/boot")?.expect(200))
        .and_then(|_| wait::until(wait::seconds(30), || leaves.get("/v1/boot")?.expect(200)))
        .and_then(|_| wait::until(CONVERGENCE, || reaches_the_api(stays)));
    // What operators want meanwhile has to wait.
    leaf.unconfigure(&["BOOT_NETWORK_PORT|Ethernet4"])?;
    thread::sleep(wait::seconds(2));
    let meanwhile = events.so_far()?;
    let state = leaf.row(STATE_DB, "BOOT_NETWORK_STATE|global")?;
    let rows = leaf.rows(CONFIG_DB)?;
    for (watch, machine) in watches.iter().zip(machines) {
        watch.check_unbroken(wait::seconds(60))?;
        machine.router()?;
    }
    ensure!([stays.address()?, leaves.address()?] == addresses, "a machine lost its address");

    leaf.set_warm_reboot(false)?;
    let base = "INTERFACE|Ethernet4";
    let released = wait::until(CONVERGENCE, || {
        ensure!(leaf.row(CONFIG_DB, base)?.is_empty(), "{base} is still there");
        Ok(())
    });
    served?;
    ensure!(
        meanwhile == ["del BOOT_NETWORK_PORT|Ethernet4"],
        "CONFIG_DB changed in the reboot: {meanwhile:?}"
    );
    let expected: Rows = before
        .iter()
        .filter(|(key, _)| *key != "BOOT_NETWORK_PORT|Ethernet4")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    ensure!(rows == expected, "CONFIG_DB changed in the reboot");
    ensure!(state.get("status").is_some_and(|status| status == "converging"), "the status was {state:?}");
    released?;
    ensure!(leaf.ifindex("VrfBoot-p1")? == device, "the boot VRF was made anew");
    watches[1].expect_final()?;
    watches[0].check_unbroken(wait::seconds(60))
}

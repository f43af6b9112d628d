//! `config reload`: CONFIG_DB is emptied without an event and loaded from the file, then everything restarts.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cases::{Case, cases};
use crate::failure::{Result, ensure};
use crate::lab::{API, API_PORT, CONVERGENCE, Lab};
use crate::leaf::{CONFIG_DB, Leaf};
use crate::machine::{Machine, Reach};
use crate::ndp::Watch;
use crate::sonic::{RowEvents, is_of_the_agent, unsaved};
use crate::wait;

pub(crate) fn cases() -> Vec<Case> {
    cases!("restart_config", 150 s:
        saved_rows_are_adopted,
        unsaved_rows_are_not_written_into_an_empty_config_db_and_come_back;
    )
}

fn serves(leaf: &Leaf, machine: &Machine) -> Result<()> {
    wait::until(CONVERGENCE, || {
        leaf.expect_phase(machine.home.port, "ready")?;
        machine.get("/v1/boot")?.expect(200)?;
        leaf.converged()
    })?;
    machine.check_address_in(&machine.home)?;
    wait::until(wait::seconds(30), || {
        let outcome = machine.reach(API, API_PORT)?;
        ensure!(outcome == Reach::Connected, "the leak is not back: {outcome:?}");
        Ok(())
    })
}

/// After `config save` the file has the agent's rows as well. sonic.target takes the agent along.
fn saved_rows_are_adopted(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[1];
    leaf.converged()?;
    let saved = leaf.rows(CONFIG_DB)?;
    let watch = Watch::start(&lab.machines[2])?;
    leaf.end_agent(Signal::SIGTERM)?;
    leaf.stop_swss()?;
    leaf.flush_config()?;
    leaf.load_rows(&saved)?;
    leaf.set_initialized()?;
    let events = RowEvents::start(leaf)?;
    leaf.start_swss()?;
    leaf.start_agent()?;
    serves(leaf, &lab.machines[2])?;
    events.expect_none()?;
    watch.check_unbroken(wait::seconds(25))
}

/// The agent runs on while the database is emptied and half loaded, which is no order to do anything.
fn unsaved_rows_are_not_written_into_an_empty_config_db_and_come_back(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[1];
    let machine = &lab.machines[2];
    leaf.converged()?;
    let rows = leaf.rows(CONFIG_DB)?;
    let file = unsaved(&rows);
    ensure!(rows.len() > file.len() + 5, "the agent has written {} rows", rows.len() - file.len());
    let watch = Watch::start(machine)?;
    leaf.stop_swss()?;
    let mut events = RowEvents::start(leaf)?;
    leaf.flush_config()?;
    // The events of rows that are loaded wake the agent.
    leaf.load_rows(file.iter().filter(|(key, _)| key.starts_with("PORT|")))?;
    thread::sleep(Duration::from_millis(1500));
    leaf.load_rows(&file)?;
    thread::sleep(Duration::from_millis(1500));
    let status = leaf.admin_json("/v1/status")?.to_string();
    let touched: Vec<_> = events
        .so_far()?
        .into_iter()
        .filter(|event| {
            !event.split_once(' ').is_some_and(|(op, key)| op == "hset" && file.contains_key(key))
        })
        .collect();
    leaf.set_initialized()?;
    leaf.start_swss()?;
    let back = serves(leaf, machine);
    ensure!(touched.is_empty(), "while CONFIG_DB was loaded: {touched:?}");
    ensure!(status.contains("not initialised"), "the status is silent: {status}");
    back?;
    watch.check_unbroken(wait::seconds(25))?;
    let after = leaf.rows(CONFIG_DB)?;
    let changed: Vec<_> =
        rows.keys().chain(after.keys()).filter(|key| rows.get(*key) != after.get(*key)).collect();
    ensure!(changed.is_empty(), "these rows did not come back as they were: {changed:?}");
    ensure!(after.keys().any(|key| is_of_the_agent(key, &after)), "no row of the agent's is there");
    Ok(())
}

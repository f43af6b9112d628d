//! The agent dies or is stopped, and comes back: the network does not notice.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use redis::Commands;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure, fail};
use crate::http::Request;
use crate::lab::{CONVERGENCE, Lab};
use crate::leaf::{CONFIG_DB, Leaf, STATE_DB};
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
        150 s: a_look_at_rest_writes_nothing_and_finds_what_no_event_told_of;
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

/// Longer than the agent's time between two looks at the databases (30 s).
const MORE_THAN_A_LOOK: Duration = Duration::from_secs(35);

/// While nothing happens on one leaf, nothing is written to its CONFIG_DB, and its databases are looked at without
/// a pass; meanwhile the other leaf finds by its look what it lost.
fn a_look_at_rest_writes_nothing_and_finds_what_no_event_told_of(lab: &Lab) -> Result<()> {
    let lost = Lost::make(&lab.leaves[0], &lab.machines[0])?;
    looks_without_passes(&lab.leaves[1])?;
    lost.found()
}

/// What the case before left to happen may still be a pass.
fn looks_without_passes(leaf: &Leaf) -> Result<()> {
    const LOOKS: u32 = 3;
    leaf.converged()?;
    let mut passes = 0.0;
    for _ in 0..LOOKS {
        passes = until_a_look(leaf)?;
        if passes == 0.0 {
            return Ok(());
        }
    }
    let last = leaf.admin_json("/v1/status")?["pass"].to_string();
    fail!("{passes} passes until CONFIG_DB was looked at, {LOOKS} times in a row, the last: {last}")
}

/// How many passes there are until CONFIG_DB was looked at once more; of writes there must be none.
fn until_a_look(leaf: &Leaf) -> Result<f64> {
    let events = RowEvents::start(leaf)?;
    let before = writes(leaf)?;
    let (passes, read) = (leaf.metric(PASSES)?, leaf.metric(CONFIG_READ)?);
    wait::until(MORE_THAN_A_LOOK, || {
        ensure!(leaf.metric(CONFIG_READ)? > read, "nobody looked at CONFIG_DB for {MORE_THAN_A_LOOK:?}");
        Ok(())
    })?;
    events.expect_none()?;
    // The status in STATE_DB and the stand-in may refresh a few rows; a rewrite per pass would be dozens.
    let count = writes(leaf)? - before;
    ensure!(count < 40, "{count} writes at rest");
    let keys: u64 =
        leaf.redis(CONFIG_DB)?.keys::<_, Vec<String>>("*").context(|| "keys".into())?.len() as u64;
    ensure!(keys > 0, "CONFIG_DB is empty");
    Ok(leaf.metric(PASSES)? - passes)
}

const PASSES: &str = "switch_agent_reconcile_total";
const CONFIG_READ: &str = "switch_agent_config_read_timestamp_seconds";

/// A deleted row of the agent's status: the agent does not follow its own rows, so no event tells of the loss, as
/// of a flush.
struct Lost<'a> {
    leaf: &'a Leaf,
    key: String,
    row: BTreeMap<String, String>,
}

impl<'a> Lost<'a> {
    fn make(leaf: &'a Leaf, machine: &Machine) -> Result<Lost<'a>> {
        leaf.converged()?;
        let key = format!("BOOT_NETWORK_PORT_TABLE|{}", machine.home.port);
        let row = leaf.row(STATE_DB, &key)?;
        ensure!(row.contains_key("phase"), "{key} is {row:?}");
        let deleted: u64 = leaf.redis(STATE_DB)?.del(&key).context(|| key.clone())?;
        ensure!(deleted == 1, "{key} was not there");
        Ok(Lost { leaf, key, row })
    }

    fn found(self) -> Result<()> {
        let Lost { leaf, key, row } = self;
        wait::until(MORE_THAN_A_LOOK, || {
            let now = leaf.row(STATE_DB, &key)?;
            ensure!(now == row, "{key} was {row:?} and is {now:?}");
            Ok(())
        })
    }
}

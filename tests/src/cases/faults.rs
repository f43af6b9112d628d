//! The parts around the agent fail and come back: it says what it waits for, and recovers by itself.

use std::time::Duration;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::http::Request;
use crate::lab::{API, API_PORT, CONVERGENCE, Lab};
use crate::leaf::CONFIG_DB;
use crate::machine::Reach;
use crate::ndp::Watch;
use crate::wait;

const RA_GAP_MAX: Duration = Duration::from_millis(10_000 + 3_000);

pub(crate) fn cases() -> Vec<Case> {
    cases!("faults",
        180 s: redis_stops_and_starts;
        120 s: control_api_goes_down_and_up,
            drift_in_frr_is_repaired,
            rows_may_come_in_any_order;
    )
}

fn redis_stops_and_starts(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let watch = Watch::start(&lab.machines[0])?;
    let before = leaf.rows(CONFIG_DB)?;
    redis::cmd("SAVE").exec(&mut leaf.redis(CONFIG_DB)?).context(|| "SAVE".into())?;
    leaf.service("redis", "stop")?;
    let said = wait::until(wait::seconds(45), || {
        let status = leaf.admin_json("/v1/status")?.to_string();
        ensure!(
            status.contains("degraded") || status.contains("CONFIG_DB"),
            "the status is silent: {status}"
        );
        Ok(())
    });
    // Machines are served meanwhile.
    let served = lab.machines[0].get("/v1/boot").and_then(|reply| reply.expect(200));
    leaf.service("redis", "start")?;
    wait::until(wait::seconds(10), || leaf.redis(CONFIG_DB).map(drop))?;
    leaf.begin_swss("restart")?;
    // Until it has looked, what the agent says is of before.
    let looked = wait::until(wait::seconds(10), || {
        ensure!(leaf.converged().is_err(), "the agent has not noticed that swss restarted");
        Ok(())
    });
    wait::until(CONVERGENCE, || leaf.converged())?;
    said?;
    looked?;
    served?;
    watch.check_unbroken(RA_GAP_MAX)?;
    ensure!(leaf.rows(CONFIG_DB)? == before, "CONFIG_DB is not what it was");
    Ok(())
}

fn control_api_goes_down_and_up(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    let token = machine.token()?;
    let call =
        || machine.send(&Request::get("/api/v1/whoami").header("authorization", format!("Bearer {token}")));
    call()?.expect(200)?;
    lab.service("api", "control-api", "kill")?;
    let down = wait::until(wait::seconds(20), || {
        let status = call()?.status;
        ensure!((502..=504).contains(&status), "status {status} without a control API");
        Ok(())
    });
    // Discovery does not depend on it.
    let discovery = machine.get("/v1/boot").and_then(|reply| reply.expect(200));
    lab.service("api", "control-api", "start")?;
    wait::until(wait::seconds(20), || call()?.expect(200))?;
    down?;
    discovery.map(drop)
}

fn drift_in_frr_is_repaired(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let machine = &lab.machines[1];
    leaf.vtysh(&[
        "configure terminal",
        "router bgp 4200000011 vrf VrfBoot-p2",
        "address-family ipv6 unicast",
        "no import vrf default",
    ])?;
    wait::until(wait::seconds(10), || {
        ensure!(machine.reach(API, API_PORT)? != Reach::Connected, "the leak is still there");
        Ok(())
    })?;
    wait::until(CONVERGENCE, || {
        let outcome = machine.reach(API, API_PORT)?;
        ensure!(outcome == Reach::Connected, "the leak was not repaired: {outcome:?}");
        Ok(())
    })?;
    wait::until(CONVERGENCE, || leaf.converged())
}

/// All rows go away and come back backwards: ports, then partitions, then the global row.
fn rows_may_come_in_any_order(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[1];
    let before = leaf.rows(CONFIG_DB)?;
    let ours: Vec<&str> =
        before.keys().filter(|key| key.starts_with("BOOT_NETWORK")).map(String::as_str).collect();
    leaf.unconfigure(&ours)?;
    std::thread::sleep(wait::seconds(2));
    for table in ["BOOT_NETWORK_PORT", "BOOT_NETWORK_PARTITION", "BOOT_NETWORK"] {
        leaf.restore(&before, &[table])?;
        std::thread::sleep(Duration::from_millis(700));
    }
    wait::until(CONVERGENCE, || leaf.converged())?;
    ensure!(leaf.rows(CONFIG_DB)? == before, "the rows did not come back");
    for machine in &lab.machines[2..] {
        machine.reboot()?;
        wait::until(wait::seconds(20), || machine.get("/healthz")?.expect(200))?;
    }
    Ok(())
}

//! The bgp container restarts: FRR's running configuration is gone, and with it the leak and FRR's deny.

use std::time::Instant;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::{API, API_PORT, CONVERGENCE, Lab, SPINE_LOOPBACK, TENANT, WITNESS_PORT};
use crate::leaf::{CONFIG_DB, Leaf};
use crate::machine::{Machine, Reach};
use crate::ndp::Watch;
use crate::probe::Probe;
use crate::wait;

pub(crate) fn cases() -> Vec<Case> {
    cases!("restart_bgp", 180 s: the_deny_holds_and_the_leak_comes_back;)
}

/// Without its ACL: the deny has to hold by itself.
fn the_deny_holds_and_the_leak_comes_back(lab: &Lab) -> Result<()> {
    let (leaf, machine) = (&lab.leaves[0], &lab.machines[0]);
    leaf.configure("BOOT_NETWORK_PARTITION|p1", &[("isolate", "disabled")])?;
    let result = wait::until(CONVERGENCE, || {
        let rows = leaf.rows(CONFIG_DB)?;
        let acl = rows.keys().find(|key| key.contains("|BOOTNET_VrfBoot-p1"));
        ensure!(acl.is_none(), "{acl:?} is still there");
        leaf.converged()
    })
    .and_then(|()| restart(leaf, machine));
    leaf.configure("BOOT_NETWORK_PARTITION|p1", &[("isolate", "enabled")])?;
    redis::Commands::hdel::<_, _, ()>(&mut leaf.redis(CONFIG_DB)?, "BOOT_NETWORK_PARTITION|p1", "isolate")
        .context(|| "isolate".into())?;
    wait::until(CONVERGENCE, || {
        let rows = leaf.rows(CONFIG_DB)?;
        ensure!(rows.keys().any(|key| key.contains("|BOOTNET_VrfBoot-p1")), "no isolation");
        leaf.converged()
    })?;
    result
}

fn restart(leaf: &Leaf, machine: &Machine) -> Result<()> {
    // The leaf's own loopback first: every lookup that falls through finds it, fabric or not.
    let own = "2001:db8:f::11".parse().context(|| "loopback".into())?;
    let closed = [own, SPINE_LOOPBACK, TENANT].map(|address| Probe::start(machine, address, WITNESS_PORT));
    let leak = Probe::start(machine, API, API_PORT);
    let watch = Watch::start(machine)?;

    leaf.service("frr", "stop")?;
    let said = wait::until(wait::seconds(40), || {
        let status = leaf.admin_json("/v1/status")?.to_string();
        ensure!(status.contains("FRR") || status.contains("vtysh"), "the status is silent: {status}");
        Ok(())
    });
    let served = machine.get("/v1/boot").and_then(|reply| reply.expect(200));
    leaf.service("frr", "start")?;
    let started = Instant::now();
    wait::until(CONVERGENCE, || {
        let outcome = machine.reach(API, API_PORT)?;
        ensure!(outcome == Reach::Connected, "the leak is not back: {outcome:?}");
        Ok(())
    })?;
    let back = started.elapsed();
    wait::until(CONVERGENCE, || leaf.converged())?;
    said?;
    served?;
    let mut attempts = 0;
    for probe in &closed {
        attempts += probe.expect_closed()?;
    }
    let outage = leak.longest_outage()?;
    println!(
        "# leak back {:.1} s after FRR's start, away for {:.1} s in all; {attempts} attempts on what the \
         deny keeps away",
        back.as_secs_f32(),
        outage.as_secs_f32()
    );
    watch.check_unbroken(wait::seconds(13))
}

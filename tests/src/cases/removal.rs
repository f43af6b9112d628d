//! A port or a partition is taken out of CONFIG_DB: everything of it goes, in SONiC's order, and nothing else.

use std::io::Read;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::{CONVERGENCE, Lab, run};
use crate::leaf::{CONFIG_DB, Leaf, Rows, STATE_DB};
use crate::machine::Machine;
use crate::ndp::Watch;
use crate::wait;

pub(crate) fn cases() -> Vec<Case> {
    cases!("removal",
        150 s: a_removed_port_is_ceased_and_unbound_in_order, a_removed_partition_takes_its_vrf_along,
            admin_status_down_withdraws_everything_and_up_brings_it_back;
    )
}

/// Loopbacks of the partitions' service addresses; the switch's own are numbered lower.
const SERVICE_LOOPBACKS: &str = "LOOPBACK_INTERFACE|Loopback9";

/// Rows of others must be the same before and after.
fn foreign_rows(rows: &Rows) -> Rows {
    let ours = |key: &String| {
        key.starts_with("BOOT_NETWORK")
            || key.starts_with("VRF|VrfBoot")
            || key.starts_with(SERVICE_LOOPBACKS)
            || key.contains("|BOOTNET_")
            || key.contains("INTERFACE|Ethernet4")
    };
    rows.iter().filter(|(key, _)| !ours(key)).map(|(key, fields)| (key.clone(), fields.clone())).collect()
}

fn check_foreign_rows(leaf: &Leaf, before: &Rows) -> Result<()> {
    let (before, after) = (foreign_rows(before), foreign_rows(&leaf.rows(CONFIG_DB)?));
    let changed: Vec<_> =
        before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key)).collect();
    ensure!(changed.is_empty(), "rows of others changed: {changed:?}");
    Ok(())
}

fn a_removed_port_is_ceased_and_unbound_in_order(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let machine = &lab.machines[1];
    let before = leaf.rows(CONFIG_DB)?;
    let result = remove_port(leaf, machine, &before);
    leaf.restore(&before, &["BOOT_NETWORK_PORT"])?;
    wait::until(CONVERGENCE, || leaf.converged())?;
    machine.reboot()?;
    wait::until(wait::seconds(20), || machine.check_address_in(&machine.home))?;
    wait::until(wait::seconds(20), || machine.get("/healthz")?.expect(200))?;
    result
}

fn remove_port(leaf: &Leaf, machine: &Machine, before: &Rows) -> Result<()> {
    let watch = Watch::start(machine)?;
    let mut session = machine.open_proxy_connection()?;
    let base = "INTERFACE|Ethernet4";
    let address = format!("{base}|{}/64", machine.home.router());
    let deletions = Deletions::follow(leaf, "Ethernet4")?;
    leaf.unconfigure(&["BOOT_NETWORK_PORT|Ethernet4"])?;
    wait::until(wait::seconds(40), || {
        let rows = leaf.rows(CONFIG_DB)?;
        ensure!(
            !rows.contains_key(base) && !rows.contains_key(&address),
            "the rows of the port are still there"
        );
        Ok(())
    })?;
    // The base row may go only after the address row, and after swss has let go of the address.
    let let_go = format!("INTERFACE_TABLE|Ethernet4|{}/64", machine.home.router());
    deletions.in_order(&[(CONFIG_DB, &address), (STATE_DB, &let_go), (CONFIG_DB, base)])?;
    watch.expect_final()?;
    wait::until(wait::seconds(5), || {
        ensure!(machine.router().is_err(), "the machine still has a default router");
        Ok(())
    })?;
    let mut byte = [0];
    let ended = session.read(&mut byte);
    ensure!(
        matches!(ended, Ok(0)) || ended.is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock),
        "the machine's session lives on"
    );
    wait::until(wait::seconds(10), || {
        let row = leaf.row(STATE_DB, "BOOT_NETWORK_PORT_TABLE|Ethernet4")?;
        ensure!(row.is_empty(), "STATE_DB still has {row:?}");
        Ok(())
    })?;
    check_foreign_rows(leaf, before)?;
    ensure!(leaf.port("Ethernet0")?["phase"] == "ready", "another port suffered");
    Ok(())
}

fn has_link(leaf: &Leaf, name: &str) -> Result<bool> {
    let links = run(std::process::Command::new("ip").args(["-n", leaf.ns.0, "-br", "link"]))?;
    Ok(links.lines().any(|line| line.split_whitespace().next() == Some(name)))
}

fn a_removed_partition_takes_its_vrf_along(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let machine = &lab.machines[1];
    let before = leaf.rows(CONFIG_DB)?;
    ensure!(has_link(leaf, "VrfBoot-p2")?, "VrfBoot-p2 is not there to begin with");
    // In this order on purpose: the partition goes while a port still names it.
    leaf.unconfigure(&["BOOT_NETWORK_PARTITION|p2", "BOOT_NETWORK_PORT|Ethernet4"])?;
    let result = wait::until(CONVERGENCE, || {
        ensure!(leaf.row(CONFIG_DB, "VRF|VrfBoot-p2")?.is_empty(), "VRF|VrfBoot-p2 is still in CONFIG_DB");
        let rows = leaf.rows(CONFIG_DB)?;
        let acl = rows.keys().find(|key| key.contains("|BOOTNET_VrfBoot-p2"));
        ensure!(acl.is_none(), "{acl:?} is still in CONFIG_DB");
        ensure!(!has_link(leaf, "VrfBoot-p2")?, "the kernel still has VrfBoot-p2");
        Ok(())
    })
    .and_then(|()| {
        let frr = leaf.vtysh(&["show running-config"])?;
        // An empty `vrf` stanza may remain: FRR refuses to forget a VRF that exists.
        ensure!(!frr.contains("router bgp 4200000011 vrf VrfBoot-p2"), "FRR still has VrfBoot-p2:\n{frr}");
        ensure!(!frr.contains("2001:db8:1:2"), "FRR still has routes of p2:\n{frr}");
        check_foreign_rows(leaf, &before)?;
        lab.machines[0].get("/v1/boot")?.expect(200).map(drop)
    });
    leaf.restore(&before, &["BOOT_NETWORK_PARTITION", "BOOT_NETWORK_PORT"])?;
    wait::until(CONVERGENCE, || leaf.converged())?;
    machine.reboot()?;
    wait::until(wait::seconds(20), || machine.get("/healthz")?.expect(200))?;
    result
}

fn admin_status_down_withdraws_everything_and_up_brings_it_back(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[1];
    let watch = Watch::start(&lab.machines[2])?;
    leaf.configure("BOOT_NETWORK|global", &[("admin_status", "down")])?;
    let result = wait::until(CONVERGENCE, || {
        let rows = leaf.rows(CONFIG_DB)?;
        let left: Vec<_> = rows.keys().filter(|key| key.starts_with("VRF|VrfBoot")).collect();
        ensure!(left.is_empty(), "still there: {left:?}");
        Ok(())
    })
    .and_then(|()| watch.expect_final());
    leaf.configure("BOOT_NETWORK|global", &[("admin_status", "up")])?;
    wait::until(CONVERGENCE, || leaf.converged())?;
    for machine in &lab.machines[2..] {
        machine.reboot().context(|| "reboot".into())?;
        wait::until(wait::seconds(20), || machine.get("/healthz")?.expect(200))?;
    }
    result
}

/// Keys that are deleted, in the order in which Redis says so: it is one process, whatever the database.
struct Deletions(std::sync::mpsc::Receiver<(i64, String)>);

impl Deletions {
    /// Follows rows of one port in CONFIG_DB and STATE_DB.
    fn follow(leaf: &Leaf, port: &str) -> Result<Deletions> {
        let mut connection = leaf.redis(CONFIG_DB)?;
        let patterns = [CONFIG_DB, STATE_DB].map(|db| format!("__keyspace@{db}__:*|{port}*"));
        let (sender, receiver) = std::sync::mpsc::channel();
        let (subscribed, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut events = connection.as_pubsub();
            if events.psubscribe(&patterns[..]).is_err() {
                return;
            }
            // Whoever waits for it has gone when this fails.
            subscribed.send(()).ok();
            while let Ok(message) = events.get_message() {
                let Some((db, key)) = deletion(&message) else { continue };
                if sender.send((db, key)).is_err() {
                    return;
                }
            }
        });
        ready.recv_timeout(wait::seconds(5)).context(|| "keyspace events cannot be followed".into())?;
        Ok(Deletions(receiver))
    }

    fn in_order(&self, wanted: &[(i64, &str)]) -> Result<()> {
        let seen: Vec<(i64, String)> = self.0.try_iter().collect();
        let mut rest = seen.iter();
        for (db, key) in wanted {
            ensure!(
                rest.any(|(seen_db, seen_key)| seen_db == db && seen_key == key),
                "deletion of {key} is missing or out of order: {seen:?}"
            );
        }
        Ok(())
    }
}

/// The database and key that a keyspace event says is gone.
fn deletion(message: &redis::Msg) -> Option<(i64, String)> {
    let event: String = message.get_payload().ok()?;
    let channel = message.get_channel_name().strip_prefix("__keyspace@")?;
    let (db, key) = channel.split_once("__:")?;
    (event == "del").then(|| Some((db.parse().ok()?, key.to_owned()))).flatten()
}

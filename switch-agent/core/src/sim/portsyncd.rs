//! portsyncd, teamsyncd and vlanmgrd, as far as routed ports depend on them.

use super::effect::{Daemon, Effect};
use super::kernel::LinkKind;
use super::queue::{Op, Outcome, Tasks};
use super::world::World;
use crate::row::{Fields, fields};

pub(super) const BRIDGE: &str = "Bridge";

/// STATE_DB table of a port that is configured, or `None` for any other interface.
pub(super) fn state_table(world: &World, port: &str) -> Option<&'static str> {
    if world.config.row("PORT", port).is_some() {
        Some("PORT_TABLE")
    } else if world.config.row("PORTCHANNEL", port).is_some() {
        Some("LAG_TABLE")
    } else {
        None
    }
}

fn up_down(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

/// Writes the oldest unreported change of a port.
pub(super) fn sync_port(world: &mut World, port: &str) {
    let Some(queue) = world.port_reports.get_mut(port) else {
        return;
    };
    let report = queue.pop_front();
    if queue.is_empty() {
        world.port_reports.remove(port);
    }
    let Some(report) = report else { return };
    let Some(table) = state_table(world, port) else {
        return;
    };
    let mtu = report.mtu.to_string();
    let row = if table == "PORT_TABLE" {
        fields([
            ("admin_status", up_down(report.admin_up)),
            ("mtu", &mtu),
            ("netdev_oper_status", up_down(report.oper_up)),
            ("state", "ok"),
        ])
    } else {
        fields([("oper_status", up_down(report.oper_up)), ("state", "ok")])
    };
    world.state_set(table, port, row);
}

/// Once every configured port has its netdev, orchagent may work on interfaces.
pub(super) fn check_init_done(world: &mut World) {
    let all = world.config.table("PORT").all(|(port, _)| world.kernel.links.contains_key(port));
    if all && !world.port_init_done {
        world.port_init_done = true;
        let count = world.config.table("PORT").count().to_string();
        for (key, row) in [("PortConfigDone", ("count", count.as_str())), ("PortInitDone", ("lanes", "0"))] {
            let row = fields([row]);
            world.effect(Effect::ApplSet { table: "PORT_TABLE", key: key.to_owned(), fields: row });
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Vlanmgrd {
    pub(super) tasks: Tasks,
}

impl Vlanmgrd {
    pub(super) fn start(world: &mut World) -> Vlanmgrd {
        if !world.kernel.links.contains_key(BRIDGE) {
            let mac = Some(world.base_mac);
            world.kernel.add(BRIDGE, LinkKind::Bridge, mac);
            world.effect(Effect::BridgeAdd { name: BRIDGE.to_owned() });
        }
        Vlanmgrd::default()
    }

    pub(super) fn run(&mut self, world: &mut World) -> Result<(), String> {
        let generation = world.generation;
        self.tasks.run(generation, |op, key, _| member(world, op, key))
    }
}

fn member(world: &mut World, op: Op, key: &str) -> Outcome {
    const TABLE: &str = "VLAN_MEMBER_TABLE";
    let Some((_, port)) = key.split_once('|') else {
        return Outcome::Done;
    };
    match op {
        Op::Set => {
            if !world.state_has("PORT_TABLE", port) && !world.state_has("LAG_TABLE", port) {
                return Outcome::Pending;
            }
            if !world.set_master(port, BRIDGE) {
                let log = format!("Command 'ip link set {port} master {BRIDGE}' failed");
                world.refused(Daemon::Vlanmgrd, log);
            }
            world.state_set(TABLE, key, fields([("state", "ok")]));
        }
        Op::Del if !world.state_has(TABLE, key) => {}
        Op::Del => {
            let others = world
                .state
                .table(TABLE)
                .any(|(other, _): (&str, &Fields)| other != key && other.ends_with(&format!("|{port}")));
            if !others {
                world.no_master(port);
            }
            world.state_del(TABLE, key);
        }
    }
    Outcome::Done
}

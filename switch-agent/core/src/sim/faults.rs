//! What happens to a switch from outside its daemons: restarts, links, and other programs' changes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::SimSwitch;
use super::effect::{ApplTable, Daemon, Effect};
use super::kernel::{LinkKind, SimLink};
use super::orchagent::Orchagent;
use crate::name::MacAddr;
use crate::observed::Reboot;
use crate::row::ConfigDb;

/// Tables of STATE_DB that a cold start of swss deletes.
pub const STATE_TABLES_FLUSHED: [&str; 7] = [
    "PORT_TABLE",
    "VLAN_TABLE",
    "VLAN_MEMBER_TABLE",
    "LAG_TABLE",
    "INTERFACE_TABLE",
    "VRF_TABLE",
    "VRF_OBJECT_TABLE",
];

impl SimSwitch {
    /// swss stops and its databases are flushed, port netdevs vanish (the ASIC's host interfaces go with
    /// it). The daemons start again by steps: ports come back with new indexes, kernel VRFs are deleted
    /// by vrfmgrd, and everything in CONFIG_DB is replayed.
    pub fn swss_restart(&mut self) -> Vec<Effect> {
        for daemon in Daemon::ALL {
            self.stop(daemon);
        }
        self.orchagent = Orchagent::default();
        self.warm = false;
        let world = &mut self.world;
        let state = std::mem::take(&mut world.state);
        for (table, rows) in &state.tables {
            if let Some(table) = STATE_TABLES_FLUSHED.into_iter().find(|name| name == table) {
                for key in rows.keys() {
                    world.effect(Effect::StateDel { table, key: key.clone() });
                }
            } else {
                world.state.tables.insert(table.clone(), rows.clone());
            }
        }
        for table in ApplTable::ALL {
            let waiting = world.produced.remove(&table).unwrap_or_default();
            for key in waiting.keys() {
                world.effect(Effect::KeySetDel { table: table.name(), key: key.to_owned() });
            }
            let hashes: Vec<String> = world.appl.table(table.name()).map(|(key, _)| key.to_owned()).collect();
            for key in hashes {
                world.effect(Effect::ApplDel { table: table.name(), key });
            }
        }
        world.appl = ConfigDb::default();
        if world.port_init_done {
            for key in ["PortConfigDone", "PortInitDone"] {
                world.effect(Effect::ApplDel { table: "PORT_TABLE", key: key.to_owned() });
            }
        }
        world.port_init_done = false;
        world.port_reports.clear();
        if world.models_ports {
            world.remove_ports();
        }
        std::mem::take(&mut world.effects)
    }

    /// `config reload`: CONFIG_DB is replaced without a single notification, then swss restarts.
    pub fn config_reload(&mut self, config: ConfigDb) -> Vec<Effect> {
        self.world.config = config;
        self.swss_restart()
    }

    /// Whether daemons that start from now on start warm: kernel VRFs and loopbacks are kept, with whatever is
    /// in them, and CONFIG_DB is replayed over them.
    pub fn set_warm(&mut self, warm: bool) {
        self.warm = warm;
    }

    /// A warm restart of swss in a STATE_DB that a warm reboot has pruned: netdevs and APPL_DB stay.
    pub fn swss_warm_restart(&mut self) {
        for daemon in Daemon::ALL {
            self.stop(daemon);
        }
        self.orchagent = Orchagent::default();
        self.warm = true;
        self.world.state = ConfigDb::default();
    }

    /// One daemon stops and is started again by a later step, its databases kept. Meant for the cfgmgr
    /// daemons: orchagent never restarts alone on a switch.
    pub fn restart(&mut self, daemon: Daemon) {
        self.stop(daemon);
        if daemon == Daemon::Orchagent {
            self.orchagent = Orchagent::default();
        }
    }

    fn stop(&mut self, daemon: Daemon) {
        self.running.remove(&daemon);
        self.exited.remove(&daemon);
        self.subscriptions.retain(|(subscriber, _), _| *subscriber != daemon);
        match daemon {
            Daemon::Vlanmgrd => self.vlanmgrd.tasks.clear(),
            Daemon::Vrfmgrd => self.vrfmgrd.tasks.clear(),
            Daemon::Intfmgrd => self.intfmgrd.tasks.clear(),
            Daemon::Portsyncd | Daemon::Orchagent => {}
        }
        self.world.generation += 1;
    }

    /// Sets or takes back the flag of a warm or fast reboot in STATE_DB.
    pub fn set_reboot(&mut self, reboot: Option<Reboot>) {
        self.reboot = reboot;
    }

    /// A reference that orchagent's routes hold on a VRF, so that it cannot go (`false`: let go).
    pub fn hold_vrf(&mut self, vrf: &str, hold: bool) {
        let count = self.orchagent.held.entry(vrf.to_owned()).or_default();
        *count = if hold { *count + 1 } else { count.saturating_sub(1) };
        self.world.generation += 1;
    }

    // The kernel, as other programs change it

    /// Carrier of a port. The link-local address appears with the first carrier and stays.
    pub fn set_carrier(&mut self, port: &str, carrier: bool) {
        self.change_link(port, |link| {
            link.carrier = carrier;
            let own = link.mac.map(MacAddr::eui64_link_local);
            let present = |net: &IpNet| Some(net.addr()) == own.map(IpAddr::V6);
            if carrier && !link.addresses.iter().any(present) {
                link.regenerate_link_local();
            }
        });
    }

    /// Administrative status of a port; global addresses survive it, link-local ones do not.
    pub fn set_admin(&mut self, port: &str, up: bool) {
        self.change_link(port, |link| {
            link.admin_up = up;
            link.regenerate_link_local();
        });
    }

    /// Adds an address by netlink, past CONFIG_DB. Returns `false` without the link.
    pub fn kernel_add_address(&mut self, link: &str, address: IpNet) -> bool {
        self.change_link(link, |link| {
            link.addresses.insert(address);
        })
    }

    pub fn kernel_del_address(&mut self, link: &str, address: IpNet) -> bool {
        self.change_link(link, |link| {
            link.addresses.remove(&address);
        })
    }

    /// Adds `unreachable default` to the table of a VRF device. Returns `false` without the device.
    pub fn kernel_add_unreachable_default(&mut self, vrf: &str) -> bool {
        let exists = self.world.kernel.is_vrf(vrf);
        if exists {
            self.world.kernel.unreachable_defaults.insert(vrf.to_owned());
        }
        exists
    }

    /// A VRF device made by hand.
    pub fn kernel_add_vrf(&mut self, name: &str, table: u32) -> bool {
        let made = self.world.vrf_add(name, table);
        self.world.effects.clear();
        made
    }

    /// `ip link del`, by hand.
    pub fn kernel_del_link(&mut self, name: &str) {
        self.world.kernel.remove(name);
        self.world.generation += 1;
    }

    /// `ip link set master` or `nomaster`, by hand.
    pub fn kernel_set_master(&mut self, port: &str, master: Option<&str>) {
        match master {
            Some(master) => {
                self.world.set_master(port, master);
            }
            None => self.world.no_master(port),
        }
        self.world.effects.clear();
    }

    /// Whether the agent holds CAP_NET_ADMIN.
    pub fn set_net_admin(&mut self, net_admin: bool) {
        self.world.kernel.net_admin = net_admin;
    }

    /// Takes a link over from a real kernel (`None`: it is gone). Ports that changed are reported.
    pub fn sync_link(&mut self, name: &str, link: Option<SimLink>) {
        let world = &mut self.world;
        let Some(link) = link else {
            world.kernel.remove(name);
            world.generation += 1;
            return;
        };
        let before = world.kernel.links.insert(name.to_owned(), link.clone());
        let seen = |link: &SimLink| (link.admin_up, link.carrier, link.mtu, link.ifindex);
        if before.as_ref().map(seen) != Some(seen(&link)) {
            world.report_port(name);
        }
        if before.as_ref() != Some(&link) {
            world.generation += 1;
        }
    }

    fn change_link(&mut self, name: &str, change: impl FnOnce(&mut SimLink)) -> bool {
        let Some(link) = self.world.kernel.links.get_mut(name) else {
            return false;
        };
        let before = (link.admin_up, link.carrier);
        change(link);
        let changed = before != (link.admin_up, link.carrier);
        let is_port = link.kind == LinkKind::Port;
        self.world.generation += 1;
        if changed && is_port {
            self.world.report_port(name);
        }
        true
    }
}

impl super::world::World {
    /// The ports' netdevs, and the bridge, go with the processes that made them.
    fn remove_ports(&mut self) {
        let gone: BTreeSet<String> = self
            .kernel
            .links
            .iter()
            .filter(|(_, link)| matches!(link.kind, LinkKind::Port | LinkKind::Bridge))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            let removed = self.kernel.remove(&name);
            if removed.is_some_and(|link| link.kind == LinkKind::Port) {
                self.effect(Effect::PortDel { port: name });
            }
        }
    }
}

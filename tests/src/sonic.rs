//! What SONiC's own scripts do to a leaf around the agent: reboots, `config reload`, restarts of swss. The
//! lab's parts are driven in their order.

use std::fmt::Write as _;
use std::time::Duration;

use redis::Commands;

use crate::failure::{Context, Result, ensure, fail};
use crate::leaf::{CONFIG_DB, Leaf, Rows, STATE_DB};
use crate::many_ports::batch;
use crate::ns::Ns;
use crate::{sys, wait};

/// The key that SONiC's scripts set when CONFIG_DB is loaded.
const INITIALIZED: &str = "CONFIG_DB_INITIALIZED";
/// STATE_DB rows that are in the dump of a warm reboot (`backup_database` of SONiC's script fast-reboot), as
/// far as the lab has any; of `PORT_TABLE` none of the fields that the lab has.
const STATE_KEPT: [&str; 4] =
    ["FDB_TABLE|", "WARM_RESTART_TABLE|", "WARM_RESTART_ENABLE_TABLE|", "FAST_RESTART_ENABLE_TABLE|"];
const APPL_DB: i64 = 0;
/// A key of the lab's own in APPL_DB, which goes with everything else there.
const OLD_TABLES: &str = "LAB_OLD_TABLES";
/// The flag of a warm reboot.
const WARM_FLAG: &str = "WARM_RESTART_ENABLE_TABLE|system";

/// One port of a leaf and where its cable ends, as `labs/local/lib/topology.sh` has it.
struct Port {
    name: &'static str,
    far: (Ns, String),
    bridge: Option<&'static str>,
}

fn ports(leaf: &Leaf) -> Vec<Port> {
    let number = leaf.ns.0.trim_start_matches("leaf");
    let cables = if number == "1" { ["cable-m1", "cable-m2"] } else { ["cable-m3", "cable-m4"] };
    let panel = |name: &'static str, bridge| Port {
        name,
        far: (Ns("patch"), format!("l{number}e{}", name.trim_start_matches("Ethernet"))),
        bridge,
    };
    vec![
        panel("Ethernet0", Some(cables[0])),
        panel("Ethernet4", Some(cables[1])),
        panel("Ethernet8", None),
        Port { name: "Ethernet48", far: (Ns("spine"), format!("swp{number}")), bridge: None },
    ]
}

/// Rows that the agent writes, whoever has them in a file.
pub(crate) fn is_of_the_agent(key: &str, rows: &Rows) -> bool {
    let in_boot_vrf = |base: &str| {
        rows.get(base).and_then(|row| row.get("vrf_name")).is_some_and(|vrf| vrf.starts_with("VrfBoot"))
    };
    let mut parts = key.split('|');
    match (parts.next(), parts.next()) {
        (Some("VRF"), Some(name)) => name.starts_with("VrfBoot"),
        (Some("ACL_TABLE" | "ACL_RULE"), Some(name)) => name.starts_with("BOOTNET_"),
        (Some(table @ ("INTERFACE" | "LOOPBACK_INTERFACE")), Some(name)) => {
            in_boot_vrf(&format!("{table}|{name}"))
        }
        _ => false,
    }
}

/// `config_db.json` as it is when nobody has saved what the agent wrote.
pub(crate) fn unsaved(rows: &Rows) -> Rows {
    let operators = rows.iter().filter(|(key, _)| !is_of_the_agent(key, rows));
    operators.map(|(key, row)| (key.clone(), row.clone())).collect()
}

impl Leaf {
    pub(crate) fn ifindex(&self, link: &str) -> Result<u32> {
        self.ns.run(|| nix::net::if_::if_nametoindex(link).context(|| format!("{} {link}", self.ns.0)))
    }

    /// The front-panel ports' netdevs go: they are the ASIC's host interfaces. `fabric`: the uplink's too.
    pub(crate) fn remove_ports(&self, fabric: bool) -> Result<()> {
        let mut lines = String::new();
        for port in ports(self).iter().filter(|port| fabric || port.far.0 == Ns("patch")) {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "link del {}", port.name);
        }
        batch(&["-n", self.ns.0], &lines)
    }

    /// The ports' netdevs come, with new indexes, and are set up as portmgrd does it.
    pub(crate) fn create_ports(&self, fabric: bool) -> Result<()> {
        let wanted = || ports(self).into_iter().filter(move |port| fabric || port.far.0 == Ns("patch"));
        let mac = format!("52:54:00:0f:00:0{}", self.ns.0.trim_start_matches("leaf"));
        let mut lines = String::new();
        for Port { name, far: (far_ns, far), .. } in wanted() {
            let _ = writeln!(
                lines,
                "link add {name} netns {} address {mac} mtu 9100 type veth peer name {far} netns {} mtu 9100",
                self.ns.0, far_ns.0
            );
        }
        batch(&[], &lines)?;
        for Port { name, far: (far_ns, far), bridge } in wanted() {
            // The spare port has no carrier, as before.
            let cabled = bridge.is_some() || far_ns == Ns("spine");
            far_ns.run(|| {
                if let Some(bridge) = bridge {
                    sys::set_bridge_port(bridge, &far, true).context(|| far.clone())?;
                }
                if cabled { sys::set_link_up(&far, true).context(|| far.clone()) } else { Ok(()) }
            })?;
            self.ns.run(|| sys::set_link_up(name, true).context(|| name.to_owned()))?;
        }
        Ok(())
    }

    /// The swss service restarts cold: its ports go and come.
    pub(crate) fn stop_swss(&self) -> Result<()> {
        self.service("swss", "kill")?;
        self.remove_ports(false)
    }

    /// It empties its tables, and then makes the ports.
    pub(crate) fn start_swss(&self) -> Result<()> {
        self.begin_swss("start")?;
        self.create_ports(false)
    }

    /// Starts or restarts swss, and waits until it has emptied its tables: what the agent says before that is
    /// of the time before.
    pub(crate) fn begin_swss(&self, action: &str) -> Result<()> {
        let mut connection = self.redis(APPL_DB)?;
        let () = connection.set(OLD_TABLES, "1").context(|| "APPL_DB".into())?;
        self.service("swss", action)?;
        wait::until(wait::seconds(20), || {
            let old: bool = connection.exists(OLD_TABLES).context(|| "APPL_DB".into())?;
            ensure!(!old, "swss has not begun");
            Ok(())
        })
    }

    /// `FLUSHDB` of CONFIG_DB, as `config reload` does it: no event tells of it.
    pub(crate) fn flush_config(&self) -> Result<()> {
        redis::cmd("FLUSHDB").exec(&mut self.redis(CONFIG_DB)?).context(|| "FLUSHDB".into())
    }

    /// What sonic-cfggen writes.
    pub(crate) fn load_rows<'a>(&self, rows: impl IntoIterator<Item = (&'a String, &'a Row)>) -> Result<()> {
        let mut pipe = redis::pipe();
        for (key, row) in rows {
            let fields: Vec<_> = row.iter().collect();
            pipe.hset_multiple(key, &fields).ignore();
        }
        pipe.query(&mut self.redis(CONFIG_DB)?).context(|| "load CONFIG_DB".into())
    }

    pub(crate) fn set_initialized(&self) -> Result<()> {
        self.redis(CONFIG_DB)?.set(INITIALIZED, "1").context(|| INITIALIZED.into())
    }

    /// `config warm_restart enable system`, or `disable`.
    pub(crate) fn set_warm_reboot(&self, under_way: bool) -> Result<()> {
        self.set_reboot(WARM_FLAG, under_way)
    }

    /// What `fast-reboot` sets, and the last daemon to reconcile takes back.
    pub(crate) fn set_fast_reboot(&self, under_way: bool) -> Result<()> {
        self.set_reboot("FAST_RESTART_ENABLE_TABLE|system", under_way)
    }

    fn set_reboot(&self, flag: &str, under_way: bool) -> Result<()> {
        let value = if under_way { "true" } else { "false" };
        self.redis(STATE_DB)?.hset(flag, "enable", value).context(|| flag.to_owned())
    }

    /// STATE_DB as a warm reboot carries it over.
    pub(crate) fn prune_state(&self) -> Result<()> {
        let mut connection = self.redis(STATE_DB)?;
        let keys: Vec<String> = connection.keys("*").context(|| "STATE_DB".into())?;
        let gone: Vec<_> =
            keys.iter().filter(|key| !STATE_KEPT.iter().any(|kept| key.starts_with(kept))).collect();
        ensure!(gone.len() > 5, "STATE_DB had {keys:?}");
        connection.del(gone).context(|| "STATE_DB".into())
    }

    /// The power goes: every process, the kernel's devices and the databases. Files stay.
    pub(crate) fn power_off(&self) -> Result<()> {
        for part in ["agent", "swss", "frr", "redis"] {
            self.service(part, "kill")?;
        }
        self.remove_ports(true)?;
        let links = self.ns.run(|| {
            std::fs::read_to_string("/proc/thread-self/net/dev").context(|| "/proc/net/dev".into())
        })?;
        let made = |name: &&str| ["Vrf", "Loopback", "Bridge"].iter().any(|made| name.starts_with(made));
        let mut lines = String::new();
        for name in links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).filter(made) {
            let _ = writeln!(lines, "link del {name}");
        }
        batch(&["-n", self.ns.0], &lines)?;
        self.ns.run(|| {
            let flush = std::process::Command::new("nft").args(["flush", "ruleset"]).status();
            ensure!(flush.is_ok_and(|status| status.success()), "nft does not flush");
            Ok(())
        })
    }

    /// The database container: an empty Redis.
    pub(crate) fn start_redis(&self) -> Result<()> {
        self.service("redis", "start")?;
        wait::until(wait::seconds(10), || self.redis(CONFIG_DB).map(drop))
    }
}

/// One row's fields.
pub(crate) type Row = std::collections::BTreeMap<String, String>;

/// Every write to CONFIG_DB since the start, as its keyspace events tell.
pub(crate) struct RowEvents {
    connection: redis::Connection,
}

impl RowEvents {
    pub(crate) fn start(leaf: &Leaf) -> Result<Self> {
        let mut connection = leaf.redis(CONFIG_DB)?;
        connection
            .send_packed_command(
                &redis::cmd("PSUBSCRIBE").arg(format!("__keyspace@{CONFIG_DB}__:*")).get_packed_command(),
            )
            .context(|| "PSUBSCRIBE".into())?;
        connection.recv_response().context(|| "PSUBSCRIBE".into())?;
        Ok(Self { connection })
    }

    /// `operation key` of each write so far.
    pub(crate) fn so_far(&mut self) -> Result<Vec<String>> {
        self.connection.set_read_timeout(Some(Duration::from_millis(200))).context(|| "timeout".into())?;
        let mut seen = Vec::new();
        while let Ok(message) = self.connection.recv_response() {
            let Some(message) = redis::Msg::from_owned_value(message) else { fail!("no event") };
            let operation: String = message.get_payload().context(|| "event".into())?;
            let key = message.get_channel_name().split_once("__:").map_or("", |(_, key)| key);
            seen.push(format!("{operation} {key}"));
        }
        Ok(seen)
    }

    /// Nothing was written since the start.
    pub(crate) fn expect_none(mut self) -> Result<()> {
        let seen = self.so_far()?;
        ensure!(seen.is_empty(), "rows were written: {seen:?}");
        Ok(())
    }
}

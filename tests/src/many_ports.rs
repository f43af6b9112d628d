//! A leaf with many ports: its namespace, the far ends of its cables, its databases and rows.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::failure::{Context, Result, ensure};
use crate::leaf::{CONFIG_DB, Leaf};
use crate::ns::Ns;
use crate::{sys, wait};

/// MAC of every port, as SONiC gives it.
pub(crate) const SWITCH_MAC: &str = "52:54:00:0f:00:03";

/// What to build. Port `i` is `Ethernet<4i>`, has index `i + 1` and is in partition `s<i mod partitions>`.
#[derive(Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub leaf: Ns,
    pub ports: u16,
    pub partitions: u16,
    /// Where the cables end: one NIC `r<i>` for each port that has no namespace of its own.
    pub rack: Ns,
    /// Machines of their own for the first ports, each with one NIC `eth0`.
    pub machines: &'a [Ns],
    /// Further fields of the `BOOT_NETWORK_PARTITION` row of a partition.
    pub partition_fields: &'a (dyn Fn(u16) -> &'a [(&'a str, &'a str)] + Sync),
    /// Fields of `BOOT_NETWORK|global`.
    pub global_fields: &'a [(&'a str, &'a str)],
}

impl Plan<'_> {
    pub(crate) fn port(index: u16) -> String {
        format!("Ethernet{}", index * 4)
    }

    pub(crate) fn vrf(&self, port: u16) -> String {
        format!("VrfBoot-s{}", port % self.partitions)
    }

    /// The port's /64.
    pub(crate) fn prefix(&self, port: u16) -> Ipv6Addr {
        Self::prefix_of(port, self.partitions)
    }

    pub(crate) fn prefix_of(port: u16, partitions: u16) -> Ipv6Addr {
        let subnet = ((port % partitions) << 10) + port + 1;
        Ipv6Addr::new(0x2001, 0xdb8, 3, subnet, 0, 0, 0, 0)
    }

    /// Namespace and name of the NIC at the far end of a port's cable.
    pub(crate) fn far_end(&self, port: u16) -> (Ns, String) {
        match self.machines.get(usize::from(port)) {
            Some(machine) => (*machine, "eth0".to_owned()),
            None => (self.rack, format!("r{port}")),
        }
    }

    /// MAC of that NIC.
    pub(crate) fn far_mac(port: u16) -> [u8; 6] {
        let [high, low] = port.to_be_bytes();
        [0x52, 0x54, 0, 1, high, low]
    }

    /// Namespaces and cables. Both ends of each cable are up.
    pub(crate) fn create_links(&self) -> Result<()> {
        let mut lines = format!("netns add {}\nnetns add {}\n", self.leaf.0, self.rack.0);
        for machine in self.machines {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(lines, "netns add {}", machine.0);
        }
        batch(&[], &lines)?;
        self.set_kernel()?;
        // The ends of a cable must not have the same ifindex: the kernel then takes a veth for a NIC of its
        // own, and reports its carrier up to 1 s late (linkwatch_urgent_event).
        let leaf = self.leaf.0;
        batch(&[], &format!("link add spare0 netns {leaf} type veth peer name spare1 netns {leaf}\n"))?;
        let ports: Vec<u16> = (0..self.ports).collect();
        // ip(8) keeps a descriptor open for each namespace that it is told.
        for ports in ports.chunks(128) {
            let mut lines = String::new();
            for port in ports.iter().copied() {
                let (ns, nic) = self.far_end(port);
                let _ = writeln!(
                    lines,
                    "link add {} netns {} address {SWITCH_MAC} type veth peer name {nic} netns {} address {}",
                    Self::port(port),
                    leaf,
                    ns.0,
                    spell(Self::far_mac(port))
                );
            }
            batch(&[], &lines)?;
        }
        let up = |name: &str| sys::set_link_up(name, true).context(|| name.to_owned());
        for machine in self.machines {
            machine.run(|| up("lo").and_then(|()| up("eth0")))?;
        }
        let racked = || (0..self.ports).skip(self.machines.len());
        self.rack.run(|| racked().try_for_each(|port| up(&format!("r{port}"))))?;
        self.leaf.run(|| {
            up("lo")?;
            (0..self.ports).try_for_each(|port| up(&Self::port(port)))
        })
    }

    /// The settings of a SONiC image that matter here; NICs in the rack have addresses, but configure
    /// nothing by themselves.
    fn set_kernel(&self) -> Result<()> {
        let set = |path: &str, value: &str| {
            fs::write(format!("/proc/sys/net/ipv6/conf/{path}"), value).context(|| path.to_owned())
        };
        self.leaf.run(|| {
            set("all/forwarding", "1")?;
            set("default/accept_dad", "0")?;
            set("default/keep_addr_on_down", "1")
        })?;
        self.rack.run(|| {
            set("default/accept_ra", "0")?;
            set("default/accept_dad", "0")?;
            set("default/router_solicitations", "0")
        })
    }

    /// What the agent and swss would have done, without them and without VRFs: the router's address on each
    /// port. And the rows as a `config_db.json`, as far as advertisers need them.
    pub(crate) fn bind_without_vrf(&self, leaf: &Leaf) -> Result<()> {
        fs::create_dir_all(leaf.run_dir()).context(|| "run directory".into())?;
        let mut lines = String::new();
        let (mut ports, mut boot_ports) = (serde_json::Map::new(), serde_json::Map::new());
        for port in 0..self.ports {
            let name = Self::port(port);
            let _ = writeln!(lines, "address add {}1/64 dev {name}", self.prefix(port));
            boot_ports.insert(name.clone(), json!({"partition": format!("s{}", port % self.partitions)}));
            ports.insert(name, json!({"index": (port + 1).to_string()}));
        }
        batch(&["-n", self.leaf.0], &lines)?;
        let partitions: serde_json::Map<String, Value> = (0..self.partitions)
            .map(|partition| {
                let prefix = format!("2001:db8:3:{:x}::/54", partition << 10);
                (format!("s{partition}"), json!({"prefix": prefix}))
            })
            .collect();
        let config = json!({
            "BOOT_NETWORK_PARTITION": partitions,
            "BOOT_NETWORK_PORT": boot_ports,
            "PORT": ports,
        });
        fs::write(leaf.run_dir().join("config_db.json"), config.to_string())
            .context(|| "config_db.json".into())
    }

    /// Redis with the rows of the plan.
    pub(crate) fn start_redis(&self, leaf: &Leaf) -> Result<()> {
        fs::create_dir_all(leaf.run_dir()).context(|| "run directory".into())?;
        write_database_config(&leaf.run_dir())?;
        leaf.service("redis", "start")?;
        wait::until(wait::seconds(10), || leaf.redis(CONFIG_DB).map(drop))?;
        self.write_rows(leaf)
    }

    fn write_rows(&self, leaf: &Leaf) -> Result<()> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.hset_multiple(
            "DEVICE_METADATA|localhost",
            &[
                ("hostname", self.leaf.0),
                ("mac", SWITCH_MAC),
                ("bgp_asn", "4200000013"),
                ("type", "LeafRouter"),
            ],
        );
        for partition in 0..self.partitions {
            let key = format!("BOOT_NETWORK_PARTITION|s{partition}");
            pipe.hset(&key, "prefix", format!("2001:db8:3:{:x}::/54", partition << 10));
            for (field, value) in (self.partition_fields)(partition) {
                pipe.hset(&key, field, value);
            }
        }
        for port in 0..self.ports {
            let name = Self::port(port);
            pipe.hset_multiple(
                format!("PORT|{name}"),
                &[
                    ("alias", format!("Eth1/{}", port + 1)),
                    ("index", (port + 1).to_string()),
                    ("lanes", (port * 4 + 1).to_string()),
                    ("speed", "25000".to_owned()),
                    ("admin_status", "up".to_owned()),
                ],
            );
            let partition = format!("s{}", port % self.partitions);
            pipe.hset(format!("BOOT_NETWORK_PORT|{name}"), "partition", partition);
        }
        pipe.hset_multiple("BOOT_NETWORK|global", self.global_fields);
        pipe.set("CONFIG_DB_INITIALIZED", "1");
        pipe.exec(&mut leaf.redis(CONFIG_DB)?).context(|| format!("rows of {}", self.leaf.0))
    }
}

/// SONiC's `database_config.json` for a Redis with its socket in `dir`.
fn write_database_config(dir: &Path) -> Result<()> {
    let databases = [
        ("APPL_DB", 0, ":"),
        ("ASIC_DB", 1, ":"),
        ("COUNTERS_DB", 2, ":"),
        ("CONFIG_DB", 4, "|"),
        ("STATE_DB", 6, "|"),
    ];
    let databases: serde_json::Map<String, Value> = databases
        .into_iter()
        .map(|(name, id, separator)| {
            (name.to_owned(), json!({"id": id, "separator": separator, "instance": "redis"}))
        })
        .collect();
    let config = json!({
        "INSTANCES": {"redis": {
            "hostname": "127.0.0.1",
            "port": 6379,
            "unix_socket_path": dir.join("redis.sock"),
            "persistence_for_warm_boot": "yes",
        }},
        "DATABASES": databases,
        "VERSION": "1.0",
    });
    fs::write(dir.join("database_config.json"), config.to_string()).context(|| "database_config.json".into())
}

/// The agent of such a leaf, without FRR.
pub(crate) fn agent_command(leaf: &Leaf) -> Command {
    let dir = leaf.run_dir();
    let mut command = Command::new(leaf.bin().join("switch-agent"));
    // As its image sets them.
    if let Some(tunables) = std::env::var_os("LAB_AGENT_TUNABLES") {
        command.env("GLIBC_TUNABLES", tunables);
    }
    command.arg("run").args(["--vtysh", "none", "--log-format", "text", "--log-level", "warn"]);
    command.arg("--database-config").arg(dir.join("database_config.json"));
    command.arg("--state-dir").arg(dir.join("state"));
    command.arg("--admin-socket").arg(dir.join("admin.sock"));
    command.args(["--admin-listen", "127.0.0.1:18091"]);
    command
}

fn spell(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// Runs ip(8) once for many lines.
pub(crate) fn batch(options: &[&str], lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context(|| "ip -batch".into())?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes()).context(|| "ip -batch".into())?;
    }
    let status = child.wait().context(|| "ip -batch".into())?;
    ensure!(status.success(), "ip -batch: {status}");
    Ok(())
}

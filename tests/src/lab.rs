//! The lab as the cases see it: who is where, and what each place must be called.
//!
//! The facts here restate `labs/local/config` and `labs/local/lib/topology.sh`; the cases compare the
//! agent's answers with them.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use ipnet::Ipv6Net;

use crate::failure::{Context, Result, fail};
use crate::leaf::Leaf;
use crate::machine::Machine;
use crate::ns::Ns;
use crate::{sys, wait};

pub(crate) const PROXY_PORT: u16 = 18090;
pub(crate) const API: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa91, 0, 0, 0, 0, 0x10);
pub(crate) const API_PORT: u16 = 8443;
pub(crate) const TENANT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x7e7, 0, 0, 0, 0, 0x10);
pub(crate) const SPINE_LOOPBACK: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1);
/// Port of the listeners of [`crate::witnesses`].
pub(crate) const WITNESS_PORT: u16 = 7;

/// How long a leaf may take from any disturbance back to all ports ready. A fork costs 0.1 s in user-mode
/// Linux, so FRR's command line dominates.
pub(crate) const CONVERGENCE: Duration = Duration::from_secs(60);

/// A cable's end on a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Socket {
    /// 1 or 2.
    pub leaf: u16,
    pub port: &'static str,
    pub alias: &'static str,
    pub index: u16,
    pub partition: &'static str,
}

const fn socket(
    leaf: u16,
    port: &'static str,
    alias: &'static str,
    index: u16,
    partition: &'static str,
) -> Socket {
    Socket { leaf, port, alias, index, partition }
}

/// Front-panel ports of the boot network. Ethernet8 is spare: no cable.
pub(crate) const SOCKETS: [Socket; 6] = [
    socket(1, "Ethernet0", "Eth1/1", 1, "p1"),
    socket(1, "Ethernet4", "Eth1/2", 2, "p2"),
    socket(1, "Ethernet8", "Eth1/3", 3, "p1"),
    socket(2, "Ethernet0", "Eth1/1", 1, "p1"),
    socket(2, "Ethernet4", "Eth1/2", 2, "p2"),
    socket(2, "Ethernet8", "Eth1/3", 3, "p1"),
];

impl Socket {
    /// The port's /64: the partition's prefix on this leaf plus the port's index.
    pub(crate) fn prefix(&self) -> Ipv6Net {
        let partition = if self.partition == "p1" { 0x100 } else { 0x200 };
        let address = Ipv6Addr::new(0x2001, 0xdb8, self.leaf, partition + self.index, 0, 0, 0, 0);
        Ipv6Net::new_assert(address, 64)
    }

    /// `::1` of the port's /64.
    pub(crate) fn router(&self) -> Ipv6Addr {
        let mut segments = self.prefix().addr().segments();
        segments[7] = 1;
        Ipv6Addr::from(segments)
    }

    pub(crate) fn vrf(&self) -> String {
        format!("VrfBoot-{}", self.partition)
    }

    /// The partition's service address, the same on every leaf.
    pub(crate) fn service_address(&self) -> Ipv6Addr {
        let partition = if self.partition == "p1" { 1 } else { 2 };
        Ipv6Addr::new(0x2001, 0xdb8, 0x5e, partition, 0, 0, 0, 1)
    }

    /// Raises or drops the carrier that the port sees.
    ///
    /// Without a patch panel (`labs/containerlab`) the machine's NIC is the other end of the port's cable, and
    /// whoever sets that up or down has done it.
    pub(crate) fn set_carrier(&self, up: bool) -> Result<()> {
        if !Ns("patch").exists() {
            return Ok(());
        }
        let name = self.panel_port();
        Ns("patch").run(|| sys::set_link_up(&name, up).context(|| format!("{name} up={up}")))
    }

    /// The far end of the port in the patch panel.
    fn panel_port(&self) -> String {
        format!("l{}e{}", self.leaf, self.port.trim_start_matches("Ethernet"))
    }
}

pub(crate) struct Lab {
    pub leaves: [Leaf; 2],
    pub machines: [Machine; 4],
    /// Repository, for the lab's own scripts.
    pub root: PathBuf,
    /// Directory of the binaries under test.
    pub bin: PathBuf,
    /// Where the remote hands of the machine with firmware (`labs/uefi/bmc`) look, where there is one.
    pub firmware: Option<PathBuf>,
}

impl Lab {
    pub(crate) fn from_environment() -> Result<Self> {
        let root = PathBuf::from(std::env::var_os("LAB_REPO").context(|| "LAB_REPO is not set".into())?);
        let bin = PathBuf::from(std::env::var_os("LAB_BIN").context(|| "LAB_BIN is not set".into())?);
        let machines = [
            Machine::new(Ns("m1"), "52:54:00:00:00:01", SOCKETS[0]),
            Machine::new(Ns("m2"), "52:54:00:00:00:02", SOCKETS[1]),
            Machine::new(Ns("m3"), "52:54:00:00:00:03", SOCKETS[3]),
            Machine::new(Ns("m4"), "52:54:00:00:00:04", SOCKETS[4]),
        ];
        let leaves = [Leaf::new(Ns("leaf1"), &root, &bin), Leaf::new(Ns("leaf2"), &root, &bin)];
        Ok(Self { leaves, machines, root, bin, firmware: None })
    }

    pub(crate) fn leaf_of(&self, socket: &Socket) -> &Leaf {
        &self.leaves[usize::from(socket.leaf - 1)]
    }

    /// Waits until every port is ready and every machine can use its own.
    pub(crate) fn settle(&self, limit: Duration) -> Result<()> {
        for leaf in &self.leaves {
            wait::until(limit, || leaf.converged())?;
        }
        for machine in &self.machines {
            wait::until(limit, || machine.address())?;
            let own = |reason| crate::failure::Failure(format!("{}: {reason}", machine.ns.0));
            wait::until(limit, || machine.get("/healthz")?.expect(200)).map_err(own)?;
        }
        Ok(())
    }

    /// Runs `labs/local/service NODE PART ACTION`.
    pub(crate) fn service(&self, node: &str, part: &str, action: &str) -> Result<()> {
        run(Command::new(self.root.join("labs/local/service")).args([node, part, action])).map(drop)
    }

    /// Pulls the machine's cable out of `from` and puts it into `to`; both ends see the carrier go.
    ///
    /// The machine then boots: its NIC goes down and up, which forgets the addresses of the old place.
    pub(crate) fn move_cable(&self, machine: &Machine, from: &Socket, to: &Socket) -> Result<()> {
        let bridge = format!("cable-{}", machine.ns.0);
        let what = || format!("move the cable of {} to {}", machine.ns.0, to.panel_port());
        machine.set_up(false)?;
        from.set_carrier(false)?;
        Ns("patch").run(|| {
            sys::set_bridge_port(&bridge, &from.panel_port(), false).context(what)?;
            sys::set_bridge_port(&bridge, &to.panel_port(), true).context(what)
        })?;
        to.set_carrier(true)?;
        machine.set_up(true)
    }

    /// The agent's command line, with the flags that find one leaf's parts.
    pub(crate) fn agent_command(&self, leaf: &Leaf, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", leaf.ns.0));
        command.arg(self.bin.join("switch-agent")).args(arguments);
        command
            .env("SWITCH_AGENT_DATABASE_CONFIG", leaf.run_dir().join("database_config.json"))
            .env("SWITCH_AGENT_ADMIN_SOCKET", leaf.run_dir().join("admin.sock"))
            .env("SWITCH_AGENT_STATE_DIR", leaf.run_dir().join("state"))
            .env("SWITCH_AGENT_VTYSH", format!("vtysh -N {}", leaf.ns.0));
        command
    }
}

/// Output of a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context(|| format!("{command:?}"))?;
    if !output.status.success() {
        fail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

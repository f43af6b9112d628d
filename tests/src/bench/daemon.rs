//! The daemons side by side: how each is configured, started, watched and stopped.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::failure::{Context, Result};
use crate::leaf::Leaf;
use crate::many_ports::{Plan, agent_command};
use crate::process::Family;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Radvd,
    Frr,
    SwitchAgent,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Radvd, Kind::Frr, Kind::SwitchAgent];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Radvd => "radvd",
            Kind::Frr => "frr",
            Kind::SwitchAgent => "switch-agent",
        }
    }

    /// Program and arguments; writes the configuration files that they name.
    fn command(self, plan: &Plan<'_>, leaf: &Leaf, vrfs: bool) -> Result<Command> {
        let dir = leaf.run_dir();
        match self {
            Kind::Radvd => {
                let file = dir.join("radvd.conf");
                fs::write(&file, radvd_conf(plan)).context(|| file.display().to_string())?;
                // radvd refuses a file that others may write.
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600))
                    .context(|| file.display().to_string())?;
                let mut command = Command::new("radvd");
                command.arg("-n").arg("-C").arg(file).arg("-p").arg(dir.join("radvd.pid"));
                command.args(["-m", "stderr"]);
                Ok(command)
            }
            Kind::Frr => {
                let name = plan.leaf.0;
                let file = PathBuf::from(format!("/etc/frr/{name}/zebra.conf"));
                for directory in [format!("/etc/frr/{name}"), format!("/run/frr/{name}")] {
                    fs::create_dir_all(&directory).context(|| directory.clone())?;
                    let owner = nix::unistd::User::from_name("frr").ok().flatten();
                    let owner = owner.context(|| "there is no user frr".into())?;
                    nix::unistd::chown(Path::new(&directory), Some(owner.uid), Some(owner.gid))
                        .context(|| directory.clone())?;
                }
                fs::write(&file, zebra_conf(plan, vrfs)).context(|| file.display().to_string())?;
                let mut command = Command::new("/usr/lib/frr/zebra");
                command.args(["-N", name, "-P", "0", "-s", "4194304"]);
                command.args(["--log", "stdout", "--log-level", "warning", "-f"]).arg(file);
                Ok(command)
            }
            Kind::SwitchAgent if vrfs => Ok(agent_command(leaf)),
            Kind::SwitchAgent => {
                let mut command = Command::new(leaf.bin().join("examples/advertise"));
                command.arg(dir.join("config_db.json"));
                Ok(command)
            }
        }
    }

    /// Version, as the program tells it.
    pub(crate) fn version(self, bin: &Path) -> String {
        let (program, argument) = match self {
            Kind::Radvd => (PathBuf::from("radvd"), "--version"),
            Kind::Frr => (PathBuf::from("/usr/lib/frr/zebra"), "--version"),
            Kind::SwitchAgent => (bin.join("switch-agent"), "--version"),
        };
        let output = Command::new(program).arg(argument).stdin(Stdio::null()).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or("not there").trim().to_owned()
    }
}

/// 3/10 s and one /64, source link-layer address as by default.
fn radvd_conf(plan: &Plan<'_>) -> String {
    let mut text = String::new();
    for port in 0..plan.ports {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "interface {} {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 10; prefix {}/64 {{}}; }};",
            Plan::port(port),
            plan.prefix(port)
        );
    }
    text
}

/// zebra advertises the prefix of the port's address by itself, and always every 10 s.
fn zebra_conf(plan: &Plan<'_>, vrfs: bool) -> String {
    let mut text = String::new();
    for port in 0..plan.ports {
        let vrf = if vrfs { format!(" vrf {}", plan.vrf(port)) } else { String::new() };
        let _ = writeln!(
            text,
            "interface {}{vrf}\n no ipv6 nd suppress-ra\n ipv6 nd ra-interval 10\nexit\n!",
            Plan::port(port)
        );
    }
    text
}

/// A daemon that runs.
pub(crate) struct Running {
    family: Family,
    /// Just before the process was created.
    pub started: Duration,
}

impl Running {
    pub(crate) fn start(kind: Kind, plan: &Plan<'_>, leaf: &Leaf, vrfs: bool, logs: &Path) -> Result<Self> {
        let mut command = kind.command(plan, leaf, vrfs)?;
        let log = logs.join(format!("bench-{}-{}", kind.name(), plan.ports));
        let log = File::create(&log).context(|| log.display().to_string())?;
        let copy = log.try_clone().context(|| "log file".into())?;
        command.stdin(Stdio::null()).stdout(copy).stderr(log);
        let (started, child) = plan.leaf.spawn(&mut command)?;
        Ok(Self { family: Family::new(child), started })
    }

    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.family.cpu()
    }

    pub(crate) fn rss_kib(&self) -> Result<u64> {
        self.family.rss_kib()
    }

    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.family.check_alive()
    }

    pub(crate) fn kill(self) -> Result<()> {
        self.family.kill()
    }
}

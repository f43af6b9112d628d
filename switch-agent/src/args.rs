//! Command line and environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use switch_agent_core::discovery::limits::Setting as ProxyLimit;

use crate::backend::packet::SocketChoice;
use crate::cli::ADMIN_SOCKET_DEFAULT;
use crate::cli::check::CheckArgs;
use crate::cli::plan::PlanArgs;
use crate::cli::render::RenderArgs;
use crate::cli::{DumpArgs, ShowArgs, WatchArgs};
use crate::logging::{LogFormat, LogLevel};

/// SONiC's description of its databases.
pub const DATABASE_CONFIG_DEFAULT: &str = "/var/run/redis/sonic-db/database_config.json";

/// Boot-network agent for SONiC leaf switches
///
/// Binds server ports to boot VRFs through CONFIG_DB, sends Router Advertisements on them, leaks exactly the
/// configured routes through FRR, and answers machines over a proxy to the control API.
///
/// What it does is configured in CONFIG_DB: tables BOOT_NETWORK, BOOT_NETWORK_PARTITION and
/// BOOT_NETWORK_PORT.
#[derive(Debug, Parser)]
#[command(name = "switch-agent", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(RunArgs),
    Check(LiveCheckArgs),
    Plan(PlanArgs),
    Show(ShowArgs),
    Watch(WatchArgs),
    RenderFrr(RenderArgs),
    Dump(DumpArgs),
}

/// Where SONiC's databases are.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// SONiC's description of its databases
    #[arg(
        long,
        value_name = "PATH",
        env = "SWITCH_AGENT_DATABASE_CONFIG",
        default_value = DATABASE_CONFIG_DEFAULT
    )]
    pub database_config: PathBuf,
}

/// Validate the configuration without touching anything
///
/// Reads the BOOT_NETWORK* tables from CONFIG_DB, or from a config_db.json FILE (- is standard input), and
/// prints every row that would be rejected, with the field, the value and what is allowed; then partitions
/// with their VRF names, and ports with their prefixes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit codes:
  0  every row is usable
  2  rows are rejected, or the input cannot be read

Examples:
  switch-agent check
  switch-agent check /etc/sonic/config_db.json
  switch-agent check --json new.json | jq .rejected")]
pub struct LiveCheckArgs {
    #[command(flatten)]
    pub check: CheckArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Run the agent
///
/// Runs until SIGTERM or SIGINT. A stop removes nothing and sends nothing: CONFIG_DB, FRR and machines keep
/// what they have, and the next start adopts it.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Privileges: CAP_NET_RAW (packet or raw socket); those that are not used are given up. With CAP_NET_ADMIN it
also adds an unreachable default route to every boot VRF and fe80::1 to every boot port, keeps solicitations of
boot ports from the kernel's neighbour table by an nftables rule, and lets the kernel cut off the listener of a
port that leaves its VRF.

Exit codes:
  0  stopped as asked
  1  failed; the log says why
  2  bad command line")]
pub struct RunArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Unix socket of the admin API
    #[arg(long, value_name = "PATH", env = "SWITCH_AGENT_ADMIN_SOCKET", default_value = ADMIN_SOCKET_DEFAULT)]
    pub admin_socket: PathBuf,
    /// Address of the admin API, or none; only loopback is accepted
    #[arg(
        long,
        value_name = "ADDR",
        env = "SWITCH_AGENT_ADMIN_LISTEN",
        default_value = "127.0.0.1:18091",
        value_parser = admin_listen
    )]
    pub admin_listen: AdminListenArg,
    /// Directory of the identity key and the ledger; created with mode 0700
    #[arg(
        long,
        value_name = "PATH",
        env = "SWITCH_AGENT_STATE_DIR",
        default_value = "/var/lib/switch-agent"
    )]
    pub state_dir: PathBuf,
    /// Socket for Router Advertisements: packet (AF_PACKET), raw (ICMPv6), or auto
    ///
    /// auto is packet where the kernel allows it, else raw. Raw hears no probes for duplicate addresses, and
    /// answers solicitations from :: by multicast.
    #[arg(
        long,
        value_enum,
        env = "SWITCH_AGENT_ND_SOCKET",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub nd_socket: SocketChoice,
    /// Command that runs vtysh, auto, or none (FRR is not managed)
    ///
    /// auto is `vtysh` if the daemons answer it, else `docker exec -i bgp vtysh`. The client has to be of the
    /// daemons' own version.
    #[arg(long, value_name = "COMMAND", env = "SWITCH_AGENT_VTYSH", default_value = "auto")]
    pub vtysh: String,
    /// Directory with FRR templates that replace the built-in ones of the same name
    #[arg(long, value_name = "DIR", env = "SWITCH_AGENT_TEMPLATES")]
    pub templates: Option<PathBuf>,
    /// A limit of the discovery proxy, NAME=NUMBER; may be given several times, or comma separated
    ///
    /// Durations are in seconds. The names are in the reference, each with its bounds.
    #[arg(
        long = "proxy-limit",
        value_name = "NAME=NUMBER",
        env = "SWITCH_AGENT_PROXY_LIMITS",
        value_delimiter = ','
    )]
    pub proxy_limits: Vec<ProxyLimit>,
    /// Least severity that is logged, unless LOGGER|switch-agent of CONFIG_DB says otherwise
    #[arg(long, env = "SWITCH_AGENT_LOG_LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// Form of log lines; by default syslog in a SONiC container, text on a terminal, else json
    ///
    /// Text goes to standard error, json to standard output, syslog to rsyslog of the host (RFC 3164).
    #[arg(long, env = "SWITCH_AGENT_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// `--admin-listen`: an address, or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminListenArg(pub Option<SocketAddr>);

fn admin_listen(text: &str) -> Result<AdminListenArg, String> {
    if text == "none" {
        return Ok(AdminListenArg(None));
    }
    let address: SocketAddr = text.parse().map_err(|_| "must be an address with port, or none".to_owned())?;
    Ok(AdminListenArg(Some(address)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;
    use switch_agent_core::discovery::Limits;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn limits_of_the_proxy_can_be_set() {
        let parse = |arguments: &[&str]| {
            let cli = Cli::try_parse_from(["switch-agent", "run"].iter().chain(arguments));
            cli.map(|cli| match cli.command {
                Command::Run(run) => Limits::with(&run.proxy_limits),
                _ => Limits::default(),
            })
        };
        let limits =
            parse(&["--proxy-limit", "streams=4,idle_timeout=3", "--proxy-limit", "streams=5"]).unwrap();
        let wanted = Limits { streams: 5, idle_timeout: Duration::from_secs(3), ..Limits::default() };
        assert_eq!(limits, wanted);
        let error = parse(&["--proxy-limit", "streams=0"]).unwrap_err().to_string();
        assert!(error.contains("streams must be a whole number of 1 to 256"), "{error}");
    }

    #[test]
    fn the_admin_listener_can_be_switched_off() {
        assert_eq!(admin_listen("none"), Ok(AdminListenArg(None)));
        assert_eq!(admin_listen("[::1]:1"), Ok(AdminListenArg(Some("[::1]:1".parse().unwrap()))));
        assert!(admin_listen("localhost").is_err());
    }
}

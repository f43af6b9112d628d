//! Which of the kernel's filters enforces ACLs, and the programs that talk to it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use switch_agent_core::sim::SimSwitch;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::super::kernel::Kernel;
use super::rules::Table;
use super::{Error, nft, tc};

const PROCESS_TIMEOUT: Duration = Duration::from_secs(30);
const NFT: Program = Program { step: "run nft", name: "nft", arguments: &["--file", "-"] };
const NFT_CHECK: Program =
    Program { step: "check a ruleset with nft", name: "nft", arguments: &["--check", "--file", "-"] };
/// All commands in one process, also those behind one that fails.
const TC: Program = Program { step: "run tc", name: "tc", arguments: &["-force", "-batch", "-"] };

/// What reads its commands from standard input.
struct Program {
    step: &'static str,
    name: &'static str,
    arguments: &'static [&'static str],
}

#[derive(Debug)]
pub(super) enum Enforcer {
    Nftables(nft::Ruleset),
    Tc(tc::Filters),
}

impl Enforcer {
    /// nftables, where program and kernel have it at a netdev's ingress; says which it is.
    pub(super) async fn choose() -> Enforcer {
        match run(NFT_CHECK, nft::PROBE).await {
            Ok(()) => {
                tracing::info!("ACLs are enforced by nftables");
                Enforcer::Nftables(nft::Ruleset::default())
            }
            Err(error) => {
                // nft goes on to point at the place in the text.
                let said = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                let why = said.lines().next().unwrap_or_default();
                tracing::info!("ACLs are enforced by tc: {error}: {why}");
                Enforcer::Tc(tc::Filters::default())
            }
        }
    }

    /// Forgets what is bound; what to tell the program so that ports are without what an earlier life left.
    pub(super) async fn begin_anew(&mut self, switch: &SimSwitch, kernel: &Kernel) -> Result<String, Error> {
        match self {
            // Each ruleset takes the place of the one before, whoever made that.
            Enforcer::Nftables(ruleset) => {
                *ruleset = nft::Ruleset::default();
                Ok(String::new())
            }
            Enforcer::Tc(filters) => {
                *filters = tc::Filters::default();
                let indexes = kernel.with_ingress_filters().await?;
                let left_over = switch.links().filter(|(_, link)| indexes.contains(&link.ifindex));
                Ok(left_over
                    .filter(|(name, _)| is_port(switch, name))
                    .map(|(name, _)| tc::unbind(name))
                    .collect())
            }
        }
    }

    /// What to tell the program so that these tables are in front of their ports, as far as those exist;
    /// nothing if that is so.
    pub(super) fn bind(&mut self, switch: &SimSwitch, ports: &BTreeMap<String, Vec<Table>>) -> String {
        match self {
            Enforcer::Nftables(ruleset) => ruleset.bind(switch, ports),
            Enforcer::Tc(filters) => filters.bind(switch, ports),
        }
    }

    /// Leaves all ports without ACLs.
    pub(super) async fn remove(&mut self) -> Result<(), Error> {
        let commands = match self {
            Enforcer::Nftables(_) => nft::remove(),
            Enforcer::Tc(filters) => filters.unbind_all(),
        };
        self.tell(&commands).await
    }

    pub(super) async fn tell(&self, text: &str) -> Result<(), Error> {
        let program = match self {
            Enforcer::Nftables(_) => NFT,
            Enforcer::Tc(_) => TC,
        };
        run(program, text).await
    }
}

fn is_port(switch: &SimSwitch, name: &str) -> bool {
    ["PORT", "PORTCHANNEL"].into_iter().any(|table| switch.config().row(table, name).is_some())
}

/// The error has what the program said.
async fn run(program: Program, input: &str) -> Result<(), Error> {
    let failed = |source| Error::Io { step: program.step, source };
    let mut child = Command::new(program.name)
        .args(program.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let feed = async {
        match stdin {
            Some(mut stdin) => stdin.write_all(input.as_bytes()).await,
            None => Ok(()),
        }
    };
    let both = async { tokio::try_join!(feed, child.wait_with_output()) };
    let (_, output) = timeout(PROCESS_TIMEOUT, both)
        .await
        .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(std::io::Error::other(said)))
}

//! Subcommands that ask a running agent, over its admin socket.
//!
//! Each has a function that prints and returns the exit code: 0 ok, 1 not converged, failed or not running,
//! 2 bad input. Formatting is pure and apart from asking, so that tests compare it byte for byte.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

mod blank;
pub mod check;
mod client;
mod dump;
pub mod plan;
mod ra;
pub mod render;
mod show;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_support {
    pub(crate) use super::watch::tests::Follower;
}
mod watch;

pub use client::{AdminClient, ClientError};
pub use dump::{DumpArgs, dump};
pub use show::{Show, ShowArgs, show};
pub use watch::{WatchArgs, watch};

/// Where the agent answers unless told otherwise.
pub const ADMIN_SOCKET_DEFAULT: &str = "/run/switch-agent/admin.sock";

/// Options of every subcommand that asks a running agent.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Unix socket on which the agent answers
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "SWITCH_AGENT_ADMIN_SOCKET",
        default_value = ADMIN_SOCKET_DEFAULT
    )]
    pub admin_socket: PathBuf,
    /// Print the agent's JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// How a subcommand ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok = 0,
    /// Not converged, failed, or the agent does not run.
    Failed = 1,
    BadInput = 2,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        ExitCode::from(outcome as u8)
    }
}

/// Where a subcommand prints; tests collect it.
pub(crate) struct Output<'a> {
    pub(crate) out: &'a mut (dyn Write + Send),
    pub(crate) err: &'a mut (dyn Write + Send),
}

impl Output<'_> {
    /// Prints the result. A reader that went away (`| head`) is no failure.
    pub(crate) fn print(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush())
    }

    /// Prints an error with its causes on one line, and classifies it.
    pub(crate) fn fail(&mut self, error: &ClientError) -> Outcome {
        let mut line = format!("switch-agent: {error}");
        let mut cause = error.source();
        while let Some(inner) = cause {
            line.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        // There is nowhere left to report a broken standard error.
        writeln!(self.err, "{line}").ok();
        if error.is_bad_input() { Outcome::BadInput } else { Outcome::Failed }
    }
}

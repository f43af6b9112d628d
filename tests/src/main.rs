//! End-to-end tests of the agent as a black box, run inside the lab (`labs/local`).
//!
//! The harness opens its sockets in the namespaces of the machines and switches by itself; it starts a
//! process only where a process is what is tested.

mod bench;
mod bench_proxy;
mod cable;
mod capture;
mod cases;
mod failure;
mod http;
mod lab;
mod leaf;
mod machine;
mod many_ports;
mod ndp;
mod ns;
mod probe;
mod process;
mod runner;
mod sonic;
mod sys;
mod tour;
mod wait;
mod wire;
mod witnesses;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::{Context, Result};
use crate::lab::Lab;

#[derive(Parser)]
#[command(about = "End-to-end tests of switch-agent, run inside the lab")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the cases and print one line for each.
    Run {
        /// Only cases whose name contains this, or one of these (comma separated). Cases that take minutes run
        /// only where this names them.
        #[arg(long, default_value = "")]
        filter: String,
        /// Do not wait for the lab to settle after a case that failed.
        #[arg(long)]
        no_settle: bool,
        /// Also write the results as JSON.
        #[arg(long)]
        result: Option<PathBuf>,
        /// Run the cases about the machine with firmware whose remote hands watch this directory.
        #[arg(long)]
        firmware: Option<PathBuf>,
    },
    /// Print the names of the cases.
    List,
    /// Wait until every port is ready and every machine can use its own.
    Settle,
    /// Check and show what the lab does, for people.
    Tour,
    /// Measure Router Advertisements of this agent, radvd and FRR side by side.
    BenchRa(bench::Arguments),
    /// Measure the discovery proxy, nginx and HAProxy side by side.
    BenchProxy(bench_proxy::Arguments),
    /// Outside user-mode Linux: tell the bench inside what CPU time all of it has used.
    HostCpu {
        /// Questions and answers; the helper ends when it is gone.
        directory: PathBuf,
        /// An argument on the command line of user-mode Linux.
        mark: String,
    },
    /// Flood solicitations from a machine, as many as it can send.
    Flood {
        /// m1 to m4.
        machine: String,
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
    },
    /// Serve as the services that machines must not reach.
    Witnesses,
    /// Run a command with both ends of a piece of wire (outside the lab).
    Cable {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { filter, no_settle, result, firmware } => Lab::from_environment().and_then(|lab| {
            let lab = Lab { firmware, ..lab };
            runner::run(lab, &filter, !no_settle, result.as_deref())
        }),
        Command::List => {
            runner::list();
            Ok(true)
        }
        Command::Settle => {
            Lab::from_environment().and_then(|lab| lab.settle(lab::CONVERGENCE)).map(|()| true)
        }
        Command::Tour => Lab::from_environment().and_then(|lab| tour::run_all(&lab)),
        Command::BenchRa(arguments) => bench::run(&arguments).map(|()| true),
        Command::BenchProxy(arguments) => bench_proxy::run(&arguments).map(|()| true),
        Command::HostCpu { directory, mark } => bench::serve_host_cpu(&directory, &mark).map(|()| true),
        Command::Flood { machine, seconds } => flood(&machine, seconds),
        Command::Witnesses => witnesses::serve().map(|()| true),
        Command::Cable { command } => cable::run(&command),
    };
    exit_code(outcome)
}

fn flood(machine: &str, seconds: u64) -> Result<bool> {
    let lab = Lab::from_environment()?;
    let machine = lab.machines.iter().find(|known| known.ns.0 == machine);
    let machine = machine.context(|| "the machines are m1 to m4".into())?;
    cases::flood_for(machine, std::time::Duration::from_secs(seconds)).map(|()| true)
}

fn exit_code(outcome: Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

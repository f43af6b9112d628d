//! Entry point: parse, run, exit code.

use std::pin::Pin;
use std::process::ExitCode;

use clap::Parser;
use switch_agent::args::{Cli, Command};
use switch_agent::{app, backend, cli};

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    backend::memory::keep_small();
    if matches!(command, Command::Run(_))
        && let Err(failure) = backend::privileges::keep_few()
    {
        // It works all the same, with more than it needs.
        eprintln!("switch-agent: cannot give up capabilities: {failure}");
    }
    // Two workers: the agent is a guest on the switch's CPU.
    let workers = if matches!(command, Command::Run(_)) { 2 } else { 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(failure) => {
            eprintln!("switch-agent: cannot start: {failure}");
            return ExitCode::FAILURE;
        }
    };
    // Behind a pointer, as `block_on` is made once more for each kind of runtime, with all that it runs.
    let job: Pin<Box<dyn Future<Output = ExitCode>>> = Box::pin(async {
        match command {
            Command::Run(args) => app::run(args).await,
            Command::Check(args) => app::check(args).await,
            Command::RenderFrr(args) => app::render_frr(args).await,
            Command::Plan(args) => cli::plan::plan(args).await,
            Command::Show(args) => cli::show(args).await,
            Command::Watch(args) => cli::watch(args).await,
            Command::Dump(args) => cli::dump(args).await,
        }
    });
    runtime.block_on(job)
}

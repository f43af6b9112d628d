//! `run` keeps its memory to itself before it reads any secret.

use std::time::Duration;

use clap::Parser;
use nix::sys::prctl::{get_dumpable, set_dumpable};
use switch_agent::args::{Cli, Command};

#[tokio::test]
async fn run_leaves_no_core_files() {
    set_dumpable(true).unwrap();
    // A state directory that cannot be made ends the start.
    let cli = Cli::parse_from(["switch-agent", "run", "--state-dir", "/proc/nonexistent"]);
    let Command::Run(args) = cli.command else { panic!("not run") };
    tokio::time::timeout(Duration::from_secs(20), switch_agent::app::run(args)).await.unwrap();
    assert!(!get_dumpable().unwrap());
}

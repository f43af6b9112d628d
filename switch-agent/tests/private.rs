//! `run` keeps its memory to itself before it reads any secret.

use clap::Parser;
use nix::sys::prctl::{get_dumpable, set_dumpable};
use switch_agent::args::{Cli, Command};

#[tokio::test]
async fn run_leaves_no_core_files() {
    set_dumpable(true).unwrap();
    let cli = Cli::parse_from(["switch-agent", "run", "--database-config", "/nonexistent"]);
    let Command::Run(args) = cli.command else { panic!("not run") };
    switch_agent::app::run(args).await;
    assert!(!get_dumpable().unwrap());
}

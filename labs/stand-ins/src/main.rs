//! Stand-ins for the lab: parts of a fabric that are not there, as one binary.

mod control_api;
mod control_socket;
mod frr_config;
mod image_server;
mod metal_api;
mod metal_apiserver;
mod metal_core;
mod metal_hammer;
mod swss;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    stand_in: StandIn,
}

#[derive(Debug, Subcommand)]
enum StandIn {
    /// vrfmgrd, intfmgrd, vlanmgrd, portsyncd, neighsyncd and orchagent of one switch
    Swss(swss::Args),
    /// bgpcfgd: static routes of CONFIG_DB in FRR
    Bgpcfgd(frr_config::Args),
    /// frrcfgd: FRR's configuration out of CONFIG_DB, where the management framework rules
    Frrcfgd(frr_config::Args),
    /// A control API that believes only what a switch signed
    ControlApi(control_api::Args),
    /// metal-api v1 towards booting machines
    MetalApi(metal_api::Args),
    /// metal-core's passes over CONFIG_DB and frr.conf
    MetalCore(metal_core::Args),
    /// A machine that boots as metal-hammer does
    MetalHammer(metal_hammer::Args),
    /// A metal-apiserver: the metal-stack API v2 by Connect RPC in JSON
    MetalApiserver(metal_apiserver::Args),
    /// An HTTP server of boot files
    ImageServer(image_server::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let result = match args.stand_in {
        StandIn::Swss(args) => swss::run(args).map_err(Box::<dyn std::error::Error>::from),
        StandIn::Bgpcfgd(args) => frr_config::bgpcfgd(&args).map_err(Box::<dyn std::error::Error>::from),
        StandIn::Frrcfgd(args) => frr_config::frrcfgd(&args).map_err(Box::<dyn std::error::Error>::from),
        StandIn::ControlApi(args) => control_api::run(args).map_err(Box::<dyn std::error::Error>::from),
        StandIn::MetalApi(args) => metal_api::run(args).map_err(Box::<dyn std::error::Error>::from),
        StandIn::MetalCore(args) => metal_core::run(&args).map_err(Box::<dyn std::error::Error>::from),
        StandIn::MetalHammer(args) => metal_hammer::run(args).map_err(Box::<dyn std::error::Error>::from),
        StandIn::MetalApiserver(args) => {
            metal_apiserver::run(args).map_err(Box::<dyn std::error::Error>::from)
        }
        StandIn::ImageServer(args) => image_server::run(args).map_err(Box::<dyn std::error::Error>::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "cannot go on");
            ExitCode::FAILURE
        }
    }
}

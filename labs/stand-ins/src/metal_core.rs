//! metal-core, as far as it and the agent meet: its pass over CONFIG_DB and frr.conf, every 10 s.
//!
//! A pass takes unprovisioned ports back into the PXE VLAN, gives tenants' ports their VRF, removes VRFs that
//! it does not know, renders frr.conf and, when the text differs from the file, writes it and lets
//! frr-reload.py make FRR the same. A step that fails ends the pass. What is desired comes from a file, read
//! anew at each pass, where metal-core asks its API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use redis::Commands;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// SONiC's database_config.json: sockets and numbers of the databases
    #[arg(long, value_name = "PATH", default_value = "/var/run/redis/sonic-db/database_config.json")]
    database_config: PathBuf,
    /// Pathspace of the FRR that frr.conf is of
    #[arg(long, value_name = "NAME")]
    pathspace: String,
    /// What the API would say: a JSON object of `pxe_vlan`, `unprovisioned`, `vrfs`, `include`
    #[arg(long, value_name = "FILE")]
    desired: PathBuf,
    /// The part of frr.conf that is not the boot network's: metal-core's template, rendered
    #[arg(long, value_name = "FILE")]
    template: PathBuf,
    #[arg(long, value_name = "FILE")]
    frr_conf: PathBuf,
    /// Passes, reloads and errors so far, as JSON
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    interval: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Desired {
    pxe_vlan: u16,
    unprovisioned: Vec<String>,
    /// Ports by VRF; names are `Vrf` and a number.
    vrfs: BTreeMap<String, Vec<String>>,
    /// A file that the template includes, where it is there.
    include: Option<PathBuf>,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    passes: u64,
    reloads: u64,
    /// Of the last pass.
    error: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0} names no such database on a socket")]
    NoDatabase(PathBuf),
    #[error("redis refused: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("{0}")]
    Step(String),
}

/// How often a pass looks whether swss has let go of a port.
const TRIES: usize = 10;
const TRY: Duration = Duration::from_millis(500);

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let mut report = Report::default();
    loop {
        let passed = pass(args, &mut report);
        report.passes += 1;
        report.error = passed.as_ref().err().map(ToString::to_string);
        tracing::info!(passes = report.passes, reloads = report.reloads, error = report.error, "pass");
        let text = serde_json::to_string(&report).unwrap_or_default();
        let temporary = args.report.with_extension("tmp");
        write(&temporary, &text)?;
        std::fs::rename(&temporary, &args.report).map_err(failed(&args.report))?;
        std::thread::sleep(Duration::from_secs(args.interval));
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(failed(path))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(failed(path))
}

fn database(args: &Args, name: &str) -> Result<redis::Connection, Error> {
    let file: Value = serde_json::from_str(&read(&args.database_config)?).unwrap_or_default();
    let database = &file["DATABASES"][name];
    let instance = database["instance"].as_str().unwrap_or_default();
    let socket = file["INSTANCES"][instance]["unix_socket_path"].as_str();
    let (Some(socket), Some(id)) = (socket, database["id"].as_i64()) else {
        return Err(Error::NoDatabase(args.database_config.clone()));
    };
    Ok(redis::Client::open(format!("unix://{socket}?db={id}"))?.get_connection()?)
}

fn pass(args: &Args, report: &mut Report) -> Result<(), Error> {
    let desired: Desired =
        serde_json::from_str(&read(&args.desired)?).map_err(|error| Error::Step(error.to_string()))?;
    let (mut config, mut appl) = (database(args, "CONFIG_DB")?, database(args, "APPL_DB")?);
    for port in &desired.unprovisioned {
        to_pxe_vlan(&mut config, &mut appl, port, desired.pxe_vlan)?;
    }
    for (vrf, ports) in &desired.vrfs {
        let vni = vrf.trim_start_matches("Vrf");
        let _: () = config.hset_multiple(format!("VRF|{vrf}"), &[("vni", vni), ("fallback", "false")])?;
        for port in ports {
            to_vrf(&mut config, port, vrf, desired.pxe_vlan)?;
        }
    }
    cleanup_vrfs(&mut config, &desired)?;
    configure_frr(args, &desired, report)
}

fn to_pxe_vlan(
    config: &mut redis::Connection,
    appl: &mut redis::Connection,
    port: &str,
    vlan: u16,
) -> Result<(), Error> {
    let member = format!("VLAN_MEMBER|Vlan{vlan}|{port}");
    let row = format!("INTERFACE|{port}");
    if config.exists(&row)? {
        // The rows of its addresses stay.
        let _: () = config.del(&row)?;
        let mut routed = true;
        for _ in 0..TRIES {
            routed = appl.exists(format!("INTF_TABLE:{port}"))?;
            if !routed {
                break;
            }
            std::thread::sleep(TRY);
        }
        if routed {
            return Err(Error::Step(format!("router interface of {port} is still there")));
        }
    }
    let _: () = config.hset(format!("PORT|{port}"), "mtu", "9000")?;
    Ok(config.hset(member, "tagging_mode", "untagged")?)
}

fn to_vrf(config: &mut redis::Connection, port: &str, vrf: &str, vlan: u16) -> Result<(), Error> {
    let row = format!("INTERFACE|{port}");
    let bound: Option<String> = config.hget(&row, "vrf_name")?;
    if let Some(other) = bound.filter(|bound| bound != vrf) {
        return Err(Error::Step(format!("{port} is already member of a different vrfName: {other}")));
    }
    let _: () = config.del(format!("VLAN_MEMBER|Vlan{vlan}|{port}"))?;
    let fields = [("vrf_name", vrf), ("ipv6_use_link_local_only", "enable")];
    Ok(config.hset_multiple(&row, &fields)?)
}

fn cleanup_vrfs(config: &mut redis::Connection, desired: &Desired) -> Result<(), Error> {
    let mut rows: Vec<String> = config.keys("VRF|*")?;
    rows.sort();
    for row in rows {
        let name = row.trim_start_matches("VRF|");
        let number = name.strip_prefix("Vrf").and_then(|number| number.parse::<u32>().ok());
        if number.is_none() {
            return Err(Error::Step(format!("VRF {name} has no number")));
        }
        if !desired.vrfs.contains_key(name) {
            tracing::warn!(name, "removed");
            let _: () = config.del(&row)?;
        }
    }
    Ok(())
}

/// The whole file, in its order: VRFs, what the template says, what it includes.
fn rendered(args: &Args, desired: &Desired) -> Result<String, Error> {
    let mut text = read(&args.template)?;
    if let Some(include) = desired.include.as_ref().filter(|include| include.exists()) {
        text.push_str(&read(include)?);
    }
    Ok(text)
}

fn configure_frr(args: &Args, desired: &Desired, report: &mut Report) -> Result<(), Error> {
    let text = rendered(args, desired)?;
    let present = std::fs::read_to_string(&args.frr_conf).ok();
    if present.as_ref() == Some(&text) {
        return Ok(());
    }
    write(&args.frr_conf, &text)?;
    // That of the same release as the daemons.
    let lab_frr = std::env::var_os("LAB_FRR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let script = lab_frr.as_deref().unwrap_or_else(|| Path::new("/usr/lib/frr")).join("frr-reload.py");
    let reloaded = Command::new(&script)
        .args(["--reload", "--stdout", "--pathspace", &args.pathspace])
        .arg("--bindir")
        .arg(lab_frr.as_deref().unwrap_or_else(|| Path::new("/usr/bin")))
        .arg(&args.frr_conf)
        .output()
        .map_err(failed(&script))?;
    let said =
        String::from_utf8_lossy(&reloaded.stdout).into_owned() + &String::from_utf8_lossy(&reloaded.stderr);
    tracing::info!(said, "reload");
    if reloaded.status.success() {
        report.reloads += 1;
        return Ok(());
    }
    // The next pass tries again.
    match present {
        Some(present) => write(&args.frr_conf, &present)?,
        None => std::fs::remove_file(&args.frr_conf).map_err(failed(&args.frr_conf))?,
    }
    Err(Error::Step(format!("frr-reload: {}", said.lines().next_back().unwrap_or_default())))
}

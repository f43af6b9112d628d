//! The daemons that configure FRR from CONFIG_DB: bgpcfgd, or frrcfgd where the management framework rules.
//!
//! Each is a pure machine ([`Daemon`]): a row that is set or deleted makes lines of configuration. The shell
//! around them follows CONFIG_DB and hands the lines to the `vtysh` of the lab's FRR.

mod bgpcfgd;
mod frrcfgd;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use redis::Commands;
use serde_json::Value;
use switch_agent_core::row::{Fields, without_placeholder};

use bgpcfgd::Bgpcfgd;
use frrcfgd::Frrcfgd;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// SONiC's database_config.json: sockets and numbers of the databases
    #[arg(long, value_name = "PATH", default_value = "/var/run/redis/sonic-db/database_config.json")]
    database_config: PathBuf,
    /// Pathspace of the FRR that is configured
    #[arg(long, value_name = "NAME")]
    pathspace: String,
}

/// Events that come in this close one after the other are taken together.
const TOGETHER: Duration = Duration::from_millis(50);

/// What either daemon does.
pub(super) trait Daemon {
    /// Tables that it follows, in the order in which it reads them when it starts.
    const TABLES: &'static [&'static str];

    /// Whether a deletion counts as such though the row is back when it is looked at.
    const SEES_EVERY_DELETION: bool;

    /// Whether all that has come in until it looks is one file for `vtysh -f`, which is not tried again; else each
    /// batch is a `vtysh` of its own.
    const BY_FILE: bool;

    /// Configuration lines for a row as it is now; `None`: it is gone. One batch of lines is one `vtysh`.
    fn row(&mut self, table: &str, key: &str, row: Option<&Fields>) -> Vec<Vec<String>>;
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} is not a database configuration")]
    Config { path: PathBuf, source: std::io::Error },
    #[error("{path} names no CONFIG_DB on a socket")]
    NoDatabase { path: PathBuf },
    #[error("redis refused")]
    Redis(#[from] redis::RedisError),
    #[error("vtysh does not start")]
    Vtysh(#[source] std::io::Error),
    #[error("the file for vtysh cannot be written")]
    File(#[source] std::io::Error),
}

pub(crate) fn bgpcfgd(args: &Args) -> Result<(), Error> {
    serve(args, Bgpcfgd::default())
}

pub(crate) fn frrcfgd(args: &Args) -> Result<(), Error> {
    serve(args, Frrcfgd::default())
}

/// CONFIG_DB's socket, number and separator.
fn config_db(path: &PathBuf) -> Result<(redis::Client, i64, String), Error> {
    let text = std::fs::read(path).map_err(|source| Error::Config { path: path.clone(), source })?;
    let file: Value = serde_json::from_slice(&text).unwrap_or_default();
    let database = &file["DATABASES"]["CONFIG_DB"];
    let instance = database["instance"].as_str().unwrap_or_default();
    let socket = file["INSTANCES"][instance]["unix_socket_path"].as_str();
    let (Some(socket), Some(id), Some(separator)) =
        (socket, database["id"].as_i64(), database["separator"].as_str())
    else {
        return Err(Error::NoDatabase { path: path.clone() });
    };
    Ok((redis::Client::open(format!("unix://{socket}?db={id}"))?, id, separator.to_owned()))
}

/// Follows first, then reads: nothing is lost in between.
fn serve<D: Daemon>(args: &Args, mut daemon: D) -> Result<(), Error> {
    let (client, id, separator) = config_db(&args.database_config)?;
    let mut events = client.get_connection()?;
    let mut events = events.as_pubsub();
    let channel = format!("__keyspace@{id}__:");
    events.psubscribe(format!("{channel}*"))?;
    let mut redis = client.get_connection()?;
    let mut batches = Vec::new();
    for table in D::TABLES {
        let keys: Vec<String> = redis.keys(format!("{table}{separator}*"))?;
        for name in keys {
            batches.extend(change(&mut daemon, &mut redis, &separator, &name, false)?);
        }
    }
    loop {
        carry_out::<D>(&args.pathspace, std::mem::take(&mut batches))?;
        events.set_read_timeout(None)?;
        let mut event = events.get_message();
        loop {
            let message = match event {
                Err(failure) if failure.is_timeout() => break,
                event => event?,
            };
            let kind: String = message.get_payload()?;
            if matches!(kind.as_str(), "hset" | "hdel" | "del") {
                let name = message.get_channel_name().strip_prefix(&channel).unwrap_or_default().to_owned();
                let deleted = D::SEES_EVERY_DELETION && kind == "del";
                batches.extend(change(&mut daemon, &mut redis, &separator, &name, deleted)?);
            }
            if !D::BY_FILE {
                break;
            }
            events.set_read_timeout(Some(TOGETHER))?;
            event = events.get_message();
        }
    }
}

fn change<D: Daemon>(
    daemon: &mut D,
    redis: &mut redis::Connection,
    separator: &str,
    name: &str,
    deleted: bool,
) -> Result<Vec<Vec<String>>, Error> {
    let Some((table, key)) = name.split_once(separator).filter(|(table, _)| D::TABLES.contains(table)) else {
        return Ok(Vec::new());
    };
    let row: BTreeMap<String, String> = redis.hgetall(name)?;
    // A row may hold nothing but the placeholder.
    let row = (!row.is_empty() && !deleted).then(|| without_placeholder(row));
    Ok(daemon.row(table, key, row.as_ref()))
}

fn carry_out<D: Daemon>(pathspace: &str, batches: Vec<Vec<String>>) -> Result<(), Error> {
    if D::BY_FILE {
        return vtysh_file(pathspace, &batches.concat());
    }
    batches.iter().try_for_each(|lines| vtysh(pathspace, lines))
}

/// What vtysh's exit code says is all that counts, and nothing is tried again.
fn vtysh_file(pathspace: &str, lines: &[String]) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    let path = std::env::temp_dir().join(format!("frr-config-{pathspace}-{}", std::process::id()));
    std::fs::write(&path, lines.join("\n") + "\n").map_err(Error::File)?;
    let output = Command::new("vtysh").args(["-N", pathspace, "-f"]).arg(&path).output();
    let output = output.map_err(Error::Vtysh)?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        tracing::info!(?lines, said, "configured");
    } else {
        tracing::error!(?lines, said, status = %output.status, "cannot push the configuration");
    }
    Ok(())
}

/// Another session may hold FRR's configuration: tried again.
fn vtysh(pathspace: &str, lines: &[String]) -> Result<(), Error> {
    for _ in 0..10 {
        let mut command = Command::new("vtysh");
        command.args(["-N", pathspace, "-c", "configure terminal"]);
        for line in lines {
            command.args(["-c", line]);
        }
        let output = command.output().map_err(Error::Vtysh)?;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if said.contains("locked") || said.contains("could not lock") || said.contains("Lock already taken") {
            std::thread::sleep(Duration::from_millis(500));
            continue;
        }
        if said.lines().any(|line| line.starts_with('%')) {
            tracing::warn!(?lines, said, "vtysh complains");
        } else {
            tracing::info!(?lines, "configured");
        }
        return Ok(());
    }
    tracing::error!(?lines, "FRR's configuration stays locked");
    Ok(())
}

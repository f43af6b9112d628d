//! `show`: the running agent's state for people.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;
use switch_agent_core::name::MacAddr;

use super::client::segment;
use super::ra;
use super::table::{Table, printable};
use super::{AdminClient, ClientArgs, ClientError, Outcome, Output};

/// Show what a running agent knows
///
/// Asks the agent over its admin socket and prints tables, or with --json the agent's answer as it is.
/// Nothing is changed.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit codes:
  0  the agent answered (`show status`: and is converged)
  1  not converged, not found, or the agent does not answer
  2  bad input

Examples:
  switch-agent show status
  switch-agent show macs 52:54:00:00:00:01
  switch-agent show ra Ethernet0
  switch-agent show timeline Ethernet0 --all
  switch-agent show ports --json | jq -r '.ports[] | select(.phase != \"ready\") | .port'")]
pub struct ShowArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    #[command(subcommand)]
    pub what: Show,
}

/// What to show.
#[derive(Debug, Clone, Subcommand)]
pub enum Show {
    /// Verdict of the last pass, and everything that is not as it should be
    ///
    /// Prints the verdict, the last pass, counts, then one table each of what is rejected, in conflict and
    /// waited for. Exit code 0 means converged: everything CONFIG_DB asks for is in place.
    Status,
    /// Boot ports with phase, prefix and machines
    ///
    /// One line per port, in port order. Remarks say what a port waits for, or its error.
    Ports,
    /// Machines and the port each is on
    ///
    /// With a MAC address only that machine; exit code 1 when it is on no boot port. Any usual spelling of a
    /// MAC address is accepted: 52:54:00:00:00:01, 52-54-00-00-00-01, 5254.0000.0001, 525400000001.
    Macs {
        /// Only this machine
        mac: Option<String>,
    },
    /// Boot partitions with VRF, prefix, leak and how many of their ports are ready
    Partitions,
    /// Router Advertisements: what each port's advertiser does and has counted
    ///
    /// One line per port that advertises or did so since the agent started; with PORT everything about it.
    /// Times of answers count from a solicitation's arrival in the kernel.
    Ra {
        /// Port name or alias
        port: Option<String>,
    },
    /// What a machine went through on a port, with times
    ///
    /// Stages: carrier, first-rs (first Router Solicitation), dhcp6 (first DHCPv6 message), boot-url (boot
    /// file told by DHCPv6), ra (Router Advertisement sent), neighbor, config, token, api, event:STAGE (posted by the machine), released. Times count from the first
    /// stage of the boot.
    Timeline {
        /// Port name or alias
        port: String,
        /// Every boot that is kept, not only the latest
        #[arg(long)]
        all: bool,
    },
}

/// Runs `show`.
pub async fn show(args: ShowArgs) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut output = Output { out: &mut out, err: &mut err };
    run(&args, &mut output).await.into()
}

pub(super) async fn run(args: &ShowArgs, output: &mut Output<'_>) -> Outcome {
    let client = AdminClient::new(&args.client.admin_socket);
    let answer = match ask(&client, &args.what).await {
        Ok(answer) => answer,
        Err(error) => return output.fail(&error),
    };
    let text = if args.client.json { pretty(&answer) } else { render(&args.what, &answer) };
    // A reader that went away is no failure.
    output.print(&text).ok();
    let converged = answer["verdict"] == "converged" && answer["ready"] == true;
    match args.what {
        Show::Status if !converged => Outcome::Failed,
        _ => Outcome::Ok,
    }
}

async fn ask(client: &AdminClient, what: &Show) -> Result<Value, ClientError> {
    let path = match what {
        Show::Status => "/v1/status".to_owned(),
        Show::Ports | Show::Ra { port: None } => "/v1/ports".to_owned(),
        Show::Ra { port: Some(port) } => format!("/v1/ports/{}", segment(port)),
        Show::Macs { mac: None } => "/v1/macs".to_owned(),
        Show::Macs { mac: Some(mac) } => {
            let mac: MacAddr = mac.parse().map_err(|e| ClientError::BadInput(format!("{e}")))?;
            format!("/v1/macs/{mac}")
        }
        Show::Partitions => "/v1/partitions".to_owned(),
        Show::Timeline { port, .. } => format!("/v1/ports/{}/timeline", segment(port)),
    };
    client.get(&path).await
}

fn render(what: &Show, answer: &Value) -> String {
    match what {
        Show::Status => status_text(answer),
        Show::Ports => ports_text(answer),
        Show::Ra { port: None } => ra::ports_text(items(answer, "ports")),
        Show::Ra { .. } => ra::port_text(answer),
        Show::Macs { mac: None } => macs_text(items(answer, "macs")),
        Show::Macs { .. } => macs_text(std::slice::from_ref(answer)),
        Show::Partitions => partitions_text(answer),
        Show::Timeline { all, .. } => timeline_text(answer, *all),
    }
}

/// Title of the rows of control-plane ACLs that an operator has to add.
pub(super) const ROWS_TO_ADD: &str =
    "To let machines reach the proxy, add to CONFIG_DB (sudo config load FILE)";

/// JSON for people and for `jq` alike.
pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

pub(super) fn status_text(status: &Value) -> String {
    let mut text = String::new();
    let mut line = |title: &str, value: String| {
        text.push_str(&format!("{title:<13}{value}\n"));
    };
    line("Verdict", field(&status["verdict"]));
    line("Ready", if status["ready"] == true { "yes".to_owned() } else { words(status, "unready") });
    line("Version", field(&status["version"]));
    let pass = &status["pass"];
    line(
        "Last pass",
        match pass["finished_at"].as_str() {
            None => "none yet".to_owned(),
            Some(at) => format!(
                "{}, {} ms, {} actions ({})",
                seconds(at),
                field(&pass["duration_ms"]),
                field(&pass["actions"]),
                field(&pass["reason"])
            ),
        },
    );
    line("Ports", ports_summary(status));
    line("Partitions", field(&status["partitions"]));
    line("Machines", field(&status["machines"]));
    line("RA socket", ra::mode_text(&status["router_discovery"]));
    line("Advertisers", ra::states_text(&status["router_discovery"]["ports"]));
    let leak = &status["leak_method"];
    if let Some(reason) = leak["reason"].as_str() {
        line("Leak", format!("{} ({})", leak["method"].as_str().unwrap_or("none"), printable(reason)));
    }
    if let Some(error) = status["control_api_error"].as_str() {
        line("Control API", printable(error));
    }
    let control_plane = &status["control_plane"];
    if let Some(summary) = control_plane["summary"].as_str() {
        line("Proxy port", printable(summary));
    }
    let mut section = |title: &str, header: &[&'static str], rows: Vec<Vec<String>>| {
        if rows.is_empty() {
            return;
        }
        let mut table = Table::new(header);
        rows.into_iter().for_each(|row| table.row(row));
        text.push_str(&format!("\n{title}\n{}", table.render()));
    };
    let rows = |key: &str, fields: &[&str]| -> Vec<Vec<String>> {
        let row = |item: &Value| fields.iter().map(|name| field(&item[*name])).collect();
        items(status, key).iter().map(row).collect()
    };
    let rejected = ["row", "field", "value", "rule"];
    section("Rejected", &["Row", "Field", "Value", "Allowed"], rows("rejected", &rejected));
    section("Warnings", &["Row", "Field", "Value", "Warning"], rows("warnings", &rejected));
    section("Conflicts", &["Object", "Port", "Reason"], rows("conflicts", &["object", "port", "reason"]));
    section("Waiting", &["Object", "Port", "On"], rows("waiting", &["object", "port", "on"]));
    if !items(control_plane, "denied").is_empty() {
        text.push_str(&format!("\n{ROWS_TO_ADD}:\n{}", pretty(&control_plane["rows"])));
    }
    text
}

/// `4 (ready 3, waiting 1)`
pub(super) fn ports_summary(status: &Value) -> String {
    let phases = status["ports"]["by_phase"].as_object();
    let counts: Vec<String> = phases
        .into_iter()
        .flatten()
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(phase, count)| format!("{phase} {count}"))
        .collect();
    let total = field(&status["ports"]["total"]);
    if counts.is_empty() { total } else { format!("{total} ({})", counts.join(", ")) }
}

fn ports_text(answer: &Value) -> String {
    let header = ["Port", "Alias", "Partition", "VRF", "Phase", "Oper", "Prefix", "Machines", "Remarks"];
    let mut table = Table::new(&header);
    for port in items(answer, "ports") {
        let machines: Vec<String> = items(port, "machines").iter().map(|m| field(&m["mac"])).collect();
        let remark = if port["error"].is_null() { &port["waiting_on"] } else { &port["error"] };
        let mut row: Vec<String> = ["port", "alias", "partition", "vrf", "phase", "oper_status", "prefix"]
            .iter()
            .map(|name| field(&port[*name]))
            .collect();
        row.extend([machines.join("\n"), field(remark)]);
        table.row(row);
    }
    table.render()
}

fn macs_text(macs: &[Value]) -> String {
    let header = ["MAC", "Port", "Alias", "Partition", "Addresses", "Machine ID", "Sources", "Last seen"];
    let mut table = Table::new(&header);
    for entry in macs {
        for port in items(entry, "ports") {
            let machines = items(port, "machines").iter().filter(|m| m["mac"] == entry["mac"]);
            for machine in machines {
                let list = |key: &str, separator: &str| {
                    items(machine, key).iter().map(field).collect::<Vec<_>>().join(separator)
                };
                table.row(vec![
                    field(&entry["mac"]),
                    field(&port["port"]),
                    field(&port["alias"]),
                    field(&port["partition"]),
                    list("addresses", "\n"),
                    field(&machine["machine_id"]),
                    list("sources", ","),
                    machine["last_seen"].as_str().map(seconds).unwrap_or_default(),
                ]);
            }
        }
    }
    table.render()
}

fn partitions_text(answer: &Value) -> String {
    let header = ["Partition", "VRF", "Prefix", "VRF ready", "Ports ready", "Leak", "Isolation", "Remarks"];
    let mut table = Table::new(&header);
    for partition in items(answer, "partitions") {
        let state = |name: &str| match partition[name]["detail"].as_str() {
            Some(detail) => format!("{}: {}", field(&partition[name]["state"]), printable(detail)),
            None => field(&partition[name]["state"]),
        };
        let remark = if partition["error"].is_null() { "waiting_on" } else { "error" };
        table.row(vec![
            field(&partition["partition"]),
            field(&partition["vrf"]),
            field(&partition["prefix"]),
            if partition["vrf_ready"] == true { "yes".to_owned() } else { "no".to_owned() },
            format!("{}/{}", field(&partition["ports_ready"]), field(&partition["ports"])),
            state("leak"),
            state("isolation"),
            field(&partition[remark]),
        ]);
    }
    table.render()
}

fn timeline_text(answer: &Value, all: bool) -> String {
    let boots = items(answer, "boots");
    if boots.is_empty() {
        return format!("No machine booted on {} since the agent started.\n", field(&answer["port"]));
    }
    let shown = if all { boots } else { &boots[..1] };
    let boot_text = |boot: &Value| {
        let mut table = Table::new(&["Stage", "After", "Step", "Count", "Detail"]);
        for entry in items(boot, "entries") {
            table.row(vec![
                field(&entry["stage"]),
                duration(&entry["since_start_ms"]),
                duration(&entry["since_previous_ms"]),
                field(&entry["count"]),
                field(&entry["detail"]),
            ]);
        }
        let started = boot["started_at"].as_str().map(seconds).unwrap_or_default();
        let (port, number) = (field(&answer["port"]), field(&boot["number"]));
        format!("{port}, boot {number}, started {started}\n\n{}", table.render())
    };
    shown.iter().map(boot_text).collect::<Vec<_>>().join("\n")
}

pub(super) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A scalar as text; null is empty.
pub(super) fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

fn words(value: &Value, key: &str) -> String {
    format!("no: {}", items(value, key).iter().map(field).collect::<Vec<_>>().join("; "))
}

/// A time without its fraction of a second.
pub(super) fn seconds(rfc3339: &str) -> String {
    match rfc3339.split_once('.') {
        Some((whole, _)) => format!("{}Z", printable(whole)),
        None => printable(rfc3339),
    }
}

/// `1.234 s`
pub(super) fn duration(ms: &Value) -> String {
    let ms = ms.as_u64().unwrap_or_default();
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

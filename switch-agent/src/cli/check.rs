//! `switch-agent check [FILE]`: judges a configuration without touching a switch.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use switch_agent_core::desired::{CheckReport, CheckedPartition, CheckedPort, UpstreamSpec, check};
use switch_agent_core::row::{CONFIG_TABLES, ConfigDb, Fields, without_placeholder};

use super::show::ROWS_TO_ADD;

/// Largest `config_db.json` that is read: a chassis with every table filled stays far below.
const FILE_LEN_MAX: u64 = 64 << 20;
/// Exit code of a configuration with rejected rows, and of a file that cannot be read.
pub const EXIT_BAD_INPUT: u8 = 2;

/// Arguments of `check`.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// A config_db.json file, `-` for standard input; without it the running CONFIG_DB is read.
    pub file: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} has more than {FILE_LEN_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("{} is not JSON", path.display())]
    Syntax {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} is not a config_db.json: {at} must be {wanted}", path.display())]
    Shape { path: PathBuf, at: String, wanted: &'static str },
    #[error("cannot write the report")]
    Write(#[source] io::Error),
}

/// Reads a `config_db.json` as CONFIG_DB would hold it.
pub fn read_file(path: &Path) -> Result<ConfigDb, CheckError> {
    let failed = |source| CheckError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    reader.take(FILE_LEN_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(CheckError::TooLong { path: path.to_owned() });
    }
    parse(&text, path)
}

/// Parses the text of a `config_db.json`; `path` is for messages. Tables that the agent does not read are
/// skipped whatever they hold.
fn parse(text: &str, path: &Path) -> Result<ConfigDb, CheckError> {
    let root: Value =
        serde_json::from_str(text).map_err(|source| CheckError::Syntax { path: path.to_owned(), source })?;
    let shape = |at: String, wanted| CheckError::Shape { path: path.to_owned(), at, wanted };
    let root = root.as_object().ok_or_else(|| shape("the document".to_owned(), "an object of tables"))?;
    let mut config = ConfigDb::default();
    for (table, rows) in root.iter().filter(|(table, _)| CONFIG_TABLES.contains(&table.as_str())) {
        let rows = rows.as_object().ok_or_else(|| shape(table.clone(), "an object of rows"))?;
        for (key, row) in rows {
            let at = format!("{table}|{key}");
            let row = row.as_object().ok_or_else(|| shape(at.clone(), "an object of fields"))?;
            let fields = fields(row)
                .map_err(|field| shape(format!("{at}: {field}"), "a string, a number, or a list of these"))?;
            config.insert(table, key, without_placeholder(fields));
        }
    }
    Ok(config)
}

/// One row's fields as sonic-cfggen writes them to redis: a list becomes the field `name@`, its items
/// joined by commas. The error names the field that is neither text, number nor list.
fn fields(row: &Map<String, Value>) -> Result<Fields, &str> {
    let mut fields = Fields::new();
    for (name, value) in row {
        match value {
            Value::Array(items) => {
                let items: Option<Vec<String>> = items.iter().map(scalar).collect();
                let joined = items.ok_or(name.as_str())?.join(",");
                let name = if name.ends_with('@') { name.clone() } else { format!("{name}@") };
                fields.insert(name, joined);
            }
            _ => {
                fields.insert(name.clone(), scalar(value).ok_or(name.as_str())?);
            }
        }
    }
    Ok(fields)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Judges `config`, writes the report, and returns the exit code: 0, or [`EXIT_BAD_INPUT`].
pub fn run(config: &ConfigDb, json: bool, out: &mut impl Write) -> Result<u8, CheckError> {
    let report = check(config);
    let written = if json { write_json(&report, out) } else { write_text(&report, out) };
    written.map_err(CheckError::Write)?;
    Ok(if report.ok { 0 } else { EXIT_BAD_INPUT })
}

fn write_json(report: &CheckReport, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

fn write_text(report: &CheckReport, out: &mut impl Write) -> io::Result<()> {
    let global = &report.global;
    let upstream = global.upstream.as_ref().map_or_else(|| "none".to_owned(), url);
    let admin = if global.admin_up { "up" } else { "down" };
    writeln!(out, "switch {}: admin_status {admin}, control API {upstream}", global.switch_id)?;
    for partition in &report.partitions {
        write_partition(partition, out)?;
        let members = |port: &&CheckedPort| port.partition == partition.partition;
        for port in report.ports.iter().filter(members) {
            write_port(port, out)?;
        }
    }
    for warning in &report.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for rejected in &report.rejected {
        writeln!(out, "rejected: {rejected}")?;
    }
    if let Some(control_plane) = &report.control_plane {
        writeln!(out, "proxy port: {}", control_plane.summary)?;
        if !control_plane.denied.is_empty() {
            let rows = serde_json::to_string_pretty(&control_plane.rows)?;
            writeln!(out, "{ROWS_TO_ADD}:\n{rows}")?;
        }
    }
    let foreign = report.ports.iter().filter(|port| port.foreign.is_some()).count();
    writeln!(
        out,
        "partitions: {}, ports: {} ({foreign} foreign), warnings: {}, rejected: {}",
        report.partitions.len(),
        report.ports.len(),
        report.warnings.len(),
        report.rejected.len()
    )
}

fn write_partition(partition: &CheckedPartition, out: &mut impl Write) -> io::Result<()> {
    let managed = if partition.manage_vrf { "" } else { " (managed by others)" };
    let roles = if partition.roles.is_empty() { "none".to_owned() } else { partition.roles.join(", ") };
    write!(
        out,
        "partition {}: VRF {}{managed}, prefix {}, roles: {roles}",
        partition.partition, partition.vrf, partition.prefix
    )?;
    if partition.roles.contains(&"leak") && !partition.leak_prefixes.is_empty() {
        let prefixes: Vec<String> = partition.leak_prefixes.iter().map(ToString::to_string).collect();
        write!(out, ", leak to {}: {}", partition.leak_vrf, prefixes.join(", "))?;
    }
    writeln!(out)
}

fn write_port(port: &CheckedPort, out: &mut impl Write) -> io::Result<()> {
    let alias = port.alias_if_different().map(|alias| format!(" ({alias})")).unwrap_or_default();
    let down = if port.admin_up { "" } else { ", admin_status down" };
    let foreign = port.foreign.as_ref().map(|why| format!(", foreign: {why}")).unwrap_or_default();
    writeln!(out, "  {}{alias}: {}, router {}{down}{foreign}", port.port, port.prefix, port.router)
}

fn url(upstream: &UpstreamSpec) -> String {
    let host =
        if upstream.host.contains(':') { format!("[{}]", upstream.host) } else { upstream.host.clone() };
    format!("https://{host}:{}{} via VRF {}", upstream.port, upstream.base, upstream.vrf)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{
        "DEVICE_METADATA": {"localhost": {"hostname": "leaf1"}},
        "PORT": {
            "Ethernet0": {"alias": "Eth1/1", "index": 1, "lanes": "0,1"},
            "Ethernet4": {"alias": "Eth1/2", "index": "2"}
        },
        "VLAN_MEMBER": {"Vlan100|Ethernet4": {"tagging_mode": "untagged"}},
        "BOOT_NETWORK": {"global": {"control_api_url": "https://[2001:db8:f::1]/api"}},
        "BOOT_NETWORK_PARTITION": {
            "p1": {"prefix": "2001:db8::/56", "leak_prefix": ["2001:db8:f::/64", "::/0"], "isolate": "disabled"}
        },
        "BOOT_NETWORK_PORT": {"Ethernet0": {"partition": "p1"}, "Ethernet4": {"partition": "p1"}},
        "INTERFACE": {"Ethernet0": {"NULL": "NULL"}},
        "WEIRD": [1, {"a": null}]
    }"#;

    fn config(text: &str) -> Result<ConfigDb, CheckError> {
        parse(text, Path::new("config_db.json"))
    }

    fn output(text: &str, json: bool) -> (u8, String) {
        let mut out = Vec::new();
        let code = run(&config(text).unwrap(), json, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn lists_and_placeholders_become_what_redis_holds() {
        let config = config(GOOD).unwrap();
        let row = config.row("BOOT_NETWORK_PARTITION", "p1").unwrap();
        assert_eq!(row["leak_prefix@"], "2001:db8:f::/64,::/0");
        assert_eq!(config.row("INTERFACE", "Ethernet0").unwrap().len(), 0);
        assert_eq!(config.row("PORT", "Ethernet0").unwrap()["index"], "1");
        assert!(!config.tables.contains_key("WEIRD"));
    }

    #[test]
    fn the_sample_of_the_yang_module_holds() {
        let (code, text) = output(include_str!("../../../sonic-package/yang/samples/config_db.json"), false);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("warning: BOOT_NETWORK_PARTITION|p1: service_address@ = "), "{text}");
        assert!(text.contains("caclmgrd drops packets to it"), "{text}");
        assert!(text.ends_with("partitions: 2, ports: 3 (0 foreign), warnings: 1, rejected: 0\n"), "{text}");
    }

    #[test]
    fn a_good_configuration_is_summarised() {
        let (code, text) = output(GOOD, false);
        assert_eq!(code, 0, "{text}");
        assert_eq!(
            text,
            "switch leaf1: admin_status up, control API https://[2001:db8:f::1]:443/api via VRF default\n\
             partition p1: VRF VrfBoot-p1, prefix 2001:db8::/56, roles: advertise, proxy, leak, leak to default: \
             2001:db8:f::/64, ::/0\n  \
             Ethernet0 (Eth1/1): 2001:db8:0:1::/64, router 2001:db8:0:1::1\n  \
             Ethernet4 (Eth1/2): 2001:db8:0:2::/64, router 2001:db8:0:2::1, foreign: \
             VLAN_MEMBER|Vlan100|Ethernet4: the port is a VLAN member\n\
             warning: BOOT_NETWORK_PARTITION|p1: leak_prefix@ = \"::/0\": lets machines reach everything that VRF \
             default reaches\n\
             partitions: 1, ports: 2 (1 foreign), warnings: 1, rejected: 0\n"
        );
    }

    #[test]
    fn a_bad_row_exits_with_2_in_both_formats() {
        let bad = r#"{"BOOT_NETWORK_PORT": {"Ethernet0": {"partition": "p1"}}}"#;
        let (code, text) = output(bad, false);
        assert_eq!(code, EXIT_BAD_INPUT);
        let message =
            "rejected: BOOT_NETWORK_PORT|Ethernet0: port does not exist: there is no PORT|Ethernet0\n";
        assert!(text.contains(message), "{text}");
        let (code, text) = output(bad, true);
        assert_eq!(code, EXIT_BAD_INPUT);
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["ok"], false);
        assert_eq!(report["rejected"][0]["row"], "BOOT_NETWORK_PORT|Ethernet0");
    }

    #[test]
    fn the_json_report_carries_the_plan() {
        let report: Value = serde_json::from_str(&output(GOOD, true).1).unwrap();
        assert_eq!(report["ports"][0]["router"], "2001:db8:0:1::1");
        assert_eq!(report["partitions"][0]["vrf"], "VrfBoot-p1");
        assert_eq!(report["global"]["upstream"]["host"], "2001:db8:f::1");
    }

    #[test]
    fn unusable_files_say_where() {
        for (text, message) in [
            ("{", "config_db.json is not JSON"),
            ("[]", "config_db.json is not a config_db.json: the document must be an object of tables"),
            (r#"{"PORT": 1}"#, "config_db.json is not a config_db.json: PORT must be an object of rows"),
            (
                r#"{"PORT": {"Ethernet0": "x"}}"#,
                "config_db.json is not a config_db.json: PORT|Ethernet0 must be an object of fields",
            ),
            (
                r#"{"PORT": {"Ethernet0": {"index": null}}}"#,
                "config_db.json is not a config_db.json: PORT|Ethernet0: index must be a string, a number, or a list \
                 of these",
            ),
        ] {
            assert_eq!(config(text).unwrap_err().to_string(), message);
        }
        let missing = read_file(Path::new("/nonexistent/config_db.json")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read /nonexistent/config_db.json");
    }
}

//! Subcommands against an agent's admin API on a real socket, and what they print.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use serde_json::{Value, json};
use switch_agent_core::desired::Desired;
use switch_agent_core::desired::control_plane::control_plane;
use switch_agent_core::dhcp6::{MessageType, Refusal};
use switch_agent_core::row::{ConfigDb, fields};
use switch_agent_core::status::{Phase, Verdict};

use super::*;
use crate::http::admin::tests::{Rig, advertised, sightings, snapshot};

/// Parses a command line as the binary would.
fn parse<T: Args + FromArgMatches>(words: &[&str]) -> Result<T, clap::Error> {
    let command = T::augment_args(Command::new("x").no_binary_name(true));
    T::from_arg_matches(&command.try_get_matches_from(words)?)
}

struct Ran {
    outcome: Outcome,
    out: String,
    err: String,
}

async fn show_with(socket: &Path, words: &[&str]) -> Ran {
    let socket = socket.to_str().unwrap();
    let words: Vec<&str> = words.iter().copied().chain(["--admin-socket", socket]).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = show::run(&parse(&words).unwrap(), &mut Output { out: &mut out, err: &mut err }).await;
    Ran { outcome, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

#[tokio::test]
async fn ports_partitions_and_status_print_as_tables() {
    let rig = Rig::new(snapshot()).await;
    sightings(&rig.hub);
    let ran = show_with(&rig.socket, &["ports"]).await;
    assert_eq!(ran.outcome, Outcome::Ok);
    assert_eq!(
        ran.out,
        "\
Port       Alias   Partition  VRF         Phase    Oper     Prefix             Machines           Remarks
---------  ------  ---------  ----------  -------  -------  -----------------  -----------------  -----------------------------
Ethernet0  Eth1/1  p1         VrfBoot-p1  ready    up       2001:db8:0:1::/64  52:54:00:00:00:01
Ethernet4  Eth1/2  p1         VrfBoot-p1  waiting  unknown  2001:db8:0:2::/64                     STATE_DB VRF_TABLE|VrfBoot-p1
"
    );
    let ran = show_with(&rig.socket, &["partitions"]).await;
    assert_eq!(
        ran.out,
        "\
Partition  VRF         Prefix         VRF ready  Ports ready  Leak                    Isolation  Remarks
---------  ----------  -------------  ---------  -----------  ----------------------  ---------  -------
p1         VrfBoot-p1  2001:db8::/56  yes        1/2          pending: no router bgp  active
"
    );
    advertised(&rig.metrics);
    let ran = show_with(&rig.socket, &["status"]).await;
    assert_eq!(ran.outcome, Outcome::Failed);
    assert_eq!(
        ran.out,
        format!(
            "\
Verdict      converging
Ready        yes
Version      {}
Last pass    2026-01-02T03:04:05Z, 12 ms, 0 actions (periodic)
Ports        2 (waiting 1, ready 1)
Partitions   1
Machines     1
RA socket    packet; no drop rule: CAP_NET_ADMIN is not held
Advertisers  1 (advertising 1)

Waiting
Object               Port       On
-------------------  ---------  -----------------------------
INTERFACE|Ethernet4  Ethernet4  STATE_DB VRF_TABLE|VrfBoot-p1
",
            env!("CARGO_PKG_VERSION")
        )
    );
}

#[tokio::test]
async fn advertisers_print_as_a_line_each_or_one_in_full() {
    let rig = Rig::new(snapshot()).await;
    advertised(&rig.metrics);
    let ran = show_with(&rig.socket, &["ra"]).await;
    assert_eq!(
        ran.out,
        "\
Port       State               RAs  Last RA               RS  Last RS               Answer    Suppressed  Dropped  Mutes  Foreign  Errors
---------  ------------------  ---  --------------------  --  --------------------  --------  ----------  -------  -----  -------  ------
Ethernet0  advertising, muted  1    2026-01-02T03:04:05Z  1   2026-01-02T03:04:06Z  0.250 ms  0           2        1      1        1
"
    );
    let ran = show_with(&rig.socket, &["ra", "Eth1/1"]).await;
    assert_eq!(
        ran.out,
        "\
Port               Ethernet0
State              advertising, muted
RAs sent           1 (unicast 1)
Last RA to all     2026-01-02T03:04:05Z
Carrier to RA      0.500 ms
RS received        1 (link_local 1)
Last RS            2026-01-02T03:04:06Z
Answers            1
Last answer after  0.250 ms
Slowest answer     0.250 ms
Suppressed         0
Dropped            2 (checksum 2)
Mutes              1
Foreign RAs        1
Inconsistent       1 (CurHopLimit 1)
Send errors        1 (ENETDOWN 1)
"
    );
    let port = "Ethernet0".parse().unwrap();
    rig.metrics.dhcp6.received(&port, MessageType::Solicit);
    rig.metrics.dhcp6.refused(&port, Refusal::Relay);
    let ran = show_with(&rig.socket, &["ra", "Eth1/1"]).await;
    for line in ["DHCPv6 received    1 (solicit 1)", "DHCPv6 answers     0", "DHCPv6 refused     1 (relay 1)"]
    {
        assert!(ran.out.lines().any(|printed| printed == line), "{line}\n{}", ran.out);
    }
    let ran = show_with(&rig.socket, &["ra", "Ethernet4"]).await;
    assert_eq!(ran.out, "Ethernet4 has not advertised since the agent started.\n");
    assert_eq!(show_with(&rig.socket, &["ra", "Ethernet48"]).await.outcome, Outcome::Failed);
}

#[tokio::test]
async fn status_exits_zero_only_when_converged() {
    let rig = Rig::new(snapshot()).await;
    assert_eq!(show_with(&rig.socket, &["status", "--json"]).await.outcome, Outcome::Failed);
    let mut converged = snapshot();
    converged.status.verdict = Verdict::Converged;
    rig.snapshots.send(Arc::new(converged)).unwrap();
    let ran = show_with(&rig.socket, &["--json", "status"]).await;
    assert_eq!(ran.outcome, Outcome::Ok);
    let status: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(status["ports"]["by_phase"][Phase::Ready.as_str()], 1);
}

#[tokio::test]
async fn macs_and_timelines_are_found_or_refused() {
    let rig = Rig::new(snapshot()).await;
    sightings(&rig.hub);
    for words in [&["macs"][..], &["macs", "5254.0000.0001"]] {
        let ran = show_with(&rig.socket, words).await;
        assert_eq!(ran.outcome, Outcome::Ok);
        let row = ran.out.lines().nth(2).unwrap();
        let start = "52:54:00:00:00:01  Ethernet0  Eth1/1  p1         2001:db8:0:1:5054:ff:fe00:1  7f3c        \
                     rs,neighbor,lldp,proxy  2";
        assert!(row.starts_with(start) && row.ends_with('Z'), "{row}");
    }
    let ran = show_with(&rig.socket, &["macs", "52:54:00:00:00:02"]).await;
    assert_eq!((ran.outcome, ran.out.as_str()), (Outcome::Failed, ""));
    assert_eq!(ran.err, "switch-agent: 52:54:00:00:00:02 is on no boot port\n");
    let ran = show_with(&rig.socket, &["macs", "nonsense"]).await;
    assert_eq!(ran.outcome, Outcome::BadInput);
    assert!(ran.err.contains("a MAC address"), "{}", ran.err);

    let ran = show_with(&rig.socket, &["timeline", "Eth1/1", "--all"]).await;
    assert_eq!(ran.outcome, Outcome::Ok);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("Ethernet0, boot 1, started 2"), "{}", ran.out);
    assert!(lines[4].starts_with("first-rs  0.000 s  0.000 s  1"), "{}", ran.out);
    assert!(lines[6].starts_with("token "), "{}", ran.out);
    let ran = show_with(&rig.socket, &["timeline", "Ethernet4"]).await;
    assert_eq!(ran.out, "No machine booted on Ethernet4 since the agent started.\n");
    assert_eq!(show_with(&rig.socket, &["timeline", "Ethernet48"]).await.outcome, Outcome::Failed);
}

#[tokio::test]
async fn an_agent_that_does_not_run_is_named_by_its_socket() {
    let ran = show_with(Path::new("/nonexistent/admin.sock"), &["status"]).await;
    assert_eq!((ran.outcome, ran.out.as_str()), (Outcome::Failed, ""));
    assert!(
        ran.err.starts_with("switch-agent: cannot reach the agent at /nonexistent/admin.sock"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("No such file or directory"), "{}", ran.err);
}

#[tokio::test]
async fn a_dump_is_one_document_also_without_an_agent_and_has_no_secrets() {
    let rig = Rig::new(snapshot()).await;
    sightings(&rig.hub);
    rig.decisions.record(
        "apply-leak",
        "FRR",
        "failed",
        Some("% Unknown command: neighbor x password=PRIVATE"),
    );
    for (socket, outcome) in
        [(rig.socket.as_path(), Outcome::Ok), (Path::new("/nonexistent"), Outcome::Failed)]
    {
        let args = parse::<DumpArgs>(&["--admin-socket", socket.to_str().unwrap()]).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(dump::run(&args, &mut Output { out: &mut out, err: &mut err }).await, outcome);
        let document: Value = serde_json::from_slice(&out).unwrap();
        if outcome == Outcome::Ok {
            assert_eq!(document["ports"]["ports"][0]["port"], "Ethernet0");
            assert_eq!(document["timelines"]["Ethernet0"]["boots"][0]["number"], 1);
            assert_eq!(document["plan"]["plan"], json!({ "actions": [] }));
            assert!(document["metrics"].as_str().unwrap().ends_with("# EOF\n"));
            assert_eq!(document["decisions"]["decisions"][0]["object"], "FRR");
            let inputs = &document["inputs"];
            assert_eq!(inputs["desired"]["partitions"]["p1"]["vrf"], "VrfBoot-p1");
            assert_eq!(inputs["observed"]["state"]["unknown"], "connection refused");
            // The rig has secrets in a command line, in a URL, in FRR's configuration and in a reason.
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains("PRIVATE"), "{text}");
            assert!(text.contains("console=ttyS0") && text.contains("arch=amd64"), "{text}");
        } else {
            assert!(document["status"]["error"].as_str().unwrap().contains("/nonexistent"));
        }
    }
}

/// A writer that closes after one line, like `head -1`.
#[derive(Default)]
struct OneLine(Vec<u8>);

impl Write for OneLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.contains(&b'\n') {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn watch_prints_changes_until_its_reader_goes() {
    let rig = Rig::new(snapshot()).await;
    let hub = rig.hub.clone();
    let sighting = tokio::spawn(async move {
        loop {
            sightings(&hub);
            let port = "Ethernet0".parse().unwrap();
            hub.observe(switch_agent_core::machines::MachineEvent::Released { port });
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let socket = rig.socket.to_str().unwrap();
    let args = parse::<WatchArgs>(&["--port", "Ethernet0", "--admin-socket", socket]).unwrap();
    let (mut out, mut err) = (OneLine::default(), Vec::new());
    let mut output = Output { out: &mut out, err: &mut err };
    let outcome =
        tokio::time::timeout(Duration::from_secs(10), watch::run(&args, &mut output)).await.unwrap();
    sighting.abort();
    assert_eq!(outcome, Outcome::Ok);
    let line = String::from_utf8(out.0).unwrap();
    assert_eq!(line.lines().count(), 1);
    assert!(line.contains("Z  Ethernet0       "), "{line}");
}

#[test]
fn command_lines_and_help() {
    for bad in [&["timeline"][..], &["nonsense"], &[], &["ports", "extra"]] {
        assert!(parse::<ShowArgs>(bad).is_err(), "{bad:?}");
    }
    let args = parse::<ShowArgs>(&["ports"]).unwrap();
    assert_eq!(args.client.admin_socket, Path::new(ADMIN_SOCKET_DEFAULT));
    ShowArgs::augment_args(Command::new("show")).debug_assert();
    WatchArgs::augment_args(Command::new("watch")).debug_assert();
    DumpArgs::augment_args(Command::new("dump")).debug_assert();
    let help = ShowArgs::augment_args(Command::new("show")).render_long_help().to_string();
    assert!(help.contains("Exit codes:") && help.contains("Examples:"), "{help}");
}

#[tokio::test]
async fn rows_for_the_control_plane_are_shown_where_they_are_missing() {
    let mut config = ConfigDb::default();
    config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", "2001:db8::/56")]));
    config.insert("ACL_TABLE", "SSH_ONLY", fields([("type", "CTRLPLANE"), ("services@", "SSH")]));
    let rule = fields([("PRIORITY", "1"), ("PACKET_ACTION", "ACCEPT"), ("SRC_IP", "10.0.0.0/8")]);
    config.insert("ACL_RULE", "SSH_ONLY|RULE_1", rule);
    let mut snapshot = snapshot();
    snapshot.status.control_plane = control_plane(&config, &Desired::from_config(&config));
    let rig = Rig::new(snapshot).await;
    let shown = show_with(&rig.socket, &["status"]).await.out;
    let mut checked = Vec::new();
    check::run(&config, false, &mut checked).unwrap();
    for text in [shown, String::from_utf8(checked).unwrap()] {
        let dropped = "packets from 2001:db8::/56, fe80::/10 to TCP port 18090 are dropped by control-plane ACLs (SSH_ONLY)";
        assert!(text.contains(dropped), "{text}");
        let from = text.find("(sudo config load FILE):\n").unwrap();
        let rows: Value =
            serde_json::Deserializer::from_str(&text[from + 25..]).into_iter().next().unwrap().unwrap();
        assert_eq!(rows["ACL_RULE"]["BOOT_NETWORK_PROXY|RULE_2"]["SRC_IPV6"], "fe80::/10");
        assert_eq!(rows["ACL_TABLE"]["BOOT_NETWORK_PROXY"]["services"][0], "EXTERNAL_CLIENT");
    }
}

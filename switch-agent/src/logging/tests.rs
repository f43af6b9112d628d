use std::net::UdpSocket;
use std::time::Duration;

use switch_agent_core::desired::{LogOutput, LogSetting, Logger};
use tracing::{debug, error, info, warn};

use super::*;

/// A rsyslog that keeps everything.
struct Rsyslog(UdpSocket);

impl Rsyslog {
    fn new() -> Rsyslog {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Rsyslog(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// What arrived since the last time.
    fn packets(&self) -> Vec<String> {
        let mut packet = [0; 4096];
        let received = std::iter::from_fn(|| {
            let len = self.0.recv(&mut packet).ok()?;
            Some(String::from_utf8(packet[..len].to_vec()).unwrap())
        });
        received.collect()
    }
}

fn logged(level: LogLevel, lines: impl FnOnce(&Rsyslog, &Logging)) -> Vec<String> {
    let rsyslog = Rsyslog::new();
    let (subscriber, logging) = Logging::new(level, Output::Syslog, rsyslog.address());
    tracing::subscriber::with_default(subscriber, || lines(&rsyslog, &logging));
    rsyslog.packets()
}

fn row(level: LogSetting<SonicLevel>) -> Logger {
    Logger { level, output: LogSetting::CommandLine }
}

#[test]
fn lines_arrive_as_rfc_3164_packets() {
    let packets = logged(LogLevel::Trace, |_, _| {
        error!("cannot start");
        warn!(message = "row rejected\n<3>forged", port = "Ethernet0");
        info!(port = %"Ethernet0\nforged", "port");
        debug!("pass");
        tracing::trace!("detail");
        info!(text = "x".repeat(3000), "long");
    });
    let tag = format!("boot-network#switch-agent[{}]: ", std::process::id());
    let priorities: Vec<&str> = packets.iter().map(|p| p.split_inclusive('>').next().unwrap()).collect();
    assert_eq!(priorities, ["<27>", "<28>", "<29>", "<30>", "<31>", "<29>"]);
    for packet in &packets {
        let (_, rest) = packet.split_once('>').unwrap();
        let (host, rest) = rest.split_once(' ').unwrap();
        assert!(!host.is_empty() && rest.starts_with(&tag), "{packet}");
        assert!(!packet.contains(char::is_control) && packet.len() <= syslog::PACKET_MAX, "{packet:?}");
    }
    assert!(packets[0].ends_with(": cannot start"), "{}", packets[0]);
    assert!(packets[2].ends_with(r"port port=Ethernet0\nforged"), "{}", packets[2]);
}

#[test]
fn libraries_say_nothing() {
    let packets = logged(LogLevel::Trace, |_, _| {
        error!(target: "h2::proto", "connection error");
        info!(target: "switch_agent_core::plan", "of the core");
    });
    assert_eq!(packets.len(), 1, "{packets:?}");
}

#[test]
fn a_line_that_repeats_is_left_out_and_told_of() {
    let packets = logged(LogLevel::Info, |_, logging| {
        for _ in 0..1000 {
            warn!(port = "Ethernet0", request_id = 7, "control API did not answer");
        }
        warn!(port = "Ethernet4", "control API did not answer");
        logging.0.bounds.tell();
        logging.0.bounds.tell();
    });
    assert_eq!(packets.len(), 20 + 1 + 1, "{packets:?}");
    assert!(packets[20].contains("Ethernet4"), "{}", packets[20]);
    assert!(
        packets[21].contains("980 of") && packets[21].contains("control API did not answer"),
        "{packets:?}"
    );
}

#[test]
fn the_level_follows_the_row() {
    let levels = |rsyslog: &Rsyslog| -> Vec<String> {
        warn!("w");
        info!("i");
        debug!("d");
        tracing::trace!("t");
        rsyslog
            .packets()
            .iter()
            .filter_map(|p| p.rsplit_once("]: ").map(|(_, line)| line.to_owned()))
            .collect()
    };
    logged(LogLevel::Info, |rsyslog, logging| {
        assert_eq!(levels(rsyslog), ["w", "i"], "the command line's");
        logging.follow(&row(LogSetting::Set(SonicLevel::Info)));
        let now = levels(rsyslog);
        assert!(now[0].starts_with("log level changed") && now[1..] == ["w", "i", "d"], "{now:?}");
        logging.follow(&row(LogSetting::Keep));
        assert_eq!(levels(rsyslog), ["w", "i", "d"], "a bad value changes nothing");
        logging.follow(&row(LogSetting::Set(SonicLevel::Warn)));
        assert_eq!(levels(rsyslog), ["w"]);
        logging.follow(&row(LogSetting::Set(SonicLevel::Debug)));
        assert_eq!(levels(rsyslog).len(), 5);
        logging.follow(&Logger::default());
        assert_eq!(levels(rsyslog)[1..], ["w", "i"], "the row is gone");
    });
}

#[test]
fn the_output_follows_the_row() {
    let output = |output| Logger { level: LogSetting::CommandLine, output };
    let packets = logged(LogLevel::Info, |_, logging| {
        logging.follow(&output(LogSetting::Set(LogOutput::Stderr)));
        assert_eq!(logging.now().1, Output::JsonToStderr);
        warn!("elsewhere");
        logging.follow(&output(LogSetting::Keep));
        assert_eq!(logging.now().1, Output::JsonToStderr);
        logging.follow(&output(LogSetting::Set(LogOutput::Syslog)));
        warn!("here");
        logging.follow(&output(LogSetting::CommandLine));
    });
    let lines: Vec<&str> = packets.iter().map(|p| p.rsplit_once("]: ").unwrap().1).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("log lines go elsewhere") && lines[2] == "here", "{lines:?}");
}

/// The container has a terminal (`docker create -t`), and nobody looks at it.
#[test]
fn a_sonic_container_logs_to_syslog() {
    assert_eq!(LogFormat::of(true, true), LogFormat::Syslog);
    assert_eq!(LogFormat::of(true, false), LogFormat::Syslog);
    assert_eq!(LogFormat::of(false, true), LogFormat::Text);
    assert_eq!(LogFormat::of(false, false), LogFormat::Json);
}

/// SONiC's tests fail at every line of severity ERR, and at some words in any line.
#[test]
fn errors_are_kept_for_what_ends_the_process() {
    let mut sites = Vec::new();
    let mut directories = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("\nmod tests {").next().unwrap();
                let errors = code.matches("error!(").count() - code.matches("`error!(").count();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                sites.extend((errors > 0).then_some((name, errors)));
            }
        }
    }
    sites.sort();
    let known = [("app.rs", 2), ("lifecycle.rs", 2), ("logging.rs", 1)];
    assert_eq!(sites, known.map(|(name, errors)| (name.to_owned(), errors)));
}

//! Tracing set-up: text for people, JSON for collectors, RFC 3164 for a SONiC host's rsyslog.

use std::io::{self, IsTerminal, Write};
use std::net::UdpSocket;

use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Where and how log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people, on standard error.
    Text,
    /// One JSON object a line, on standard error.
    Json,
    /// RFC 3164 datagrams to the host's rsyslog, 127.0.0.1:514.
    Syslog,
}

impl LogFormat {
    /// `text` on a terminal, `syslog` in a SONiC container (which sets `CONTAINER_NAME`), else `json`.
    pub fn detect() -> LogFormat {
        if io::stderr().is_terminal() {
            LogFormat::Text
        } else if std::env::var_os("CONTAINER_NAME").is_some() {
            LogFormat::Syslog
        } else {
            LogFormat::Json
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> LevelFilter {
        match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}

/// Installs the subscriber. Called once; a second call changes nothing.
pub fn install(level: LogLevel, format: LogFormat) {
    let builder = tracing_subscriber::fmt().with_max_level(LevelFilter::from(level)).with_target(false);
    // A second installation only happens in tests that share a process.
    match format {
        LogFormat::Text => {
            builder.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).try_init().ok()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_writer(io::stderr).try_init().ok(),
        LogFormat::Syslog => builder
            .without_time()
            .with_level(false)
            .with_ansi(false)
            .with_writer(Syslog::open())
            .try_init()
            .ok(),
    };
}

/// RFC 3164 over UDP, as rsyslog on a SONiC host listens for on loopback.
#[derive(Debug)]
struct Syslog {
    socket: Option<UdpSocket>,
    tag: String,
}

/// Facility daemon (RFC 3164 section 4.1.1).
const FACILITY_DAEMON: u8 = 3;

impl Syslog {
    fn open() -> Syslog {
        let socket = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
            socket.connect("127.0.0.1:514")?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let container = std::env::var("CONTAINER_NAME").unwrap_or_else(|_| "boot-network".to_owned());
        let tag = format!("{container}#switch-agent[{}]", std::process::id());
        Syslog { socket: socket.ok(), tag }
    }

    fn line(&self, severity: u8) -> SyslogLine<'_> {
        SyslogLine { syslog: self, severity, text: Vec::new() }
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = SyslogLine<'a>;

    fn make_writer(&'a self) -> SyslogLine<'a> {
        self.line(6)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> SyslogLine<'a> {
        self.line(match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        })
    }
}

/// One datagram; sent when the event is complete. A lost one is lost: logging never blocks the agent.
struct SyslogLine<'a> {
    syslog: &'a Syslog,
    severity: u8,
    text: Vec<u8>,
}

impl Write for SyslogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SyslogLine<'_> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        let priority = FACILITY_DAEMON * 8 + self.severity;
        let datagram = format!("<{priority}>{}: {}", self.syslog.tag, text.trim_end());
        if let (Some(socket), false) = (&self.syslog.socket, text.trim().is_empty()) {
            socket.send(datagram.as_bytes()).ok();
        }
    }
}

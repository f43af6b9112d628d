//! Log lines: text for people, JSON for collectors, RFC 3164 for a SONiC host's rsyslog.
//!
//! | macro | severity | for |
//! |---|---|---|
//! | `error!` | ERR | the process cannot go on, or has a fault: what log analysers of SONiC fail a test for |
//! | `warn!` | WARNING | somebody has to look: bad rows, unusable files, somebody else who does not play along |
//! | `info!` | NOTICE | what the agent did, and what it tries again by itself; SONiC's default level |
//! | `debug!` | INFO | each pass, each forwarded request |
//! | `trace!` | DEBUG | |
//!
//! Level and output follow `LOGGER|switch-agent` of CONFIG_DB while the process runs. Lines that repeat are
//! bounded, see [`bounds`].

mod bounds;
mod syslog;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use switch_agent_core::desired::{LogLevel as SonicLevel, LogOutput, LogSetting, Logger};
use tokio_util::sync::CancellationToken;
use tracing::{Subscriber, error, info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::sonic;
use bounds::Bounds;
use syslog::Syslog;

/// Both crates of the agent; libraries say nothing of their own.
const TARGET: &str = "switch_agent";
/// Between two looks at what was left out.
const LEFT_OUT_INTERVAL: Duration = Duration::from_secs(10);

/// Where and how log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people, on standard error.
    Text,
    /// One JSON object a line, on standard output.
    Json,
    /// RFC 3164 datagrams to the host's rsyslog.
    Syslog,
}

impl LogFormat {
    /// `syslog` in a SONiC container (which has a terminal, too), `text` on another terminal, else `json`.
    pub fn detect() -> LogFormat {
        LogFormat::of(sonic::container().is_some(), io::stderr().is_terminal())
    }

    fn of(sonic_container: bool, terminal: bool) -> LogFormat {
        match (sonic_container, terminal) {
            (true, _) => LogFormat::Syslog,
            (false, true) => LogFormat::Text,
            (false, false) => LogFormat::Json,
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

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}

impl LogLevel {
    /// SONiC's word for it.
    fn in_sonic(self) -> &'static str {
        match self {
            LogLevel::Error => "ERROR",
            LogLevel::Warn => "WARN",
            LogLevel::Info => "NOTICE",
            LogLevel::Debug => "INFO",
            LogLevel::Trace => "DEBUG",
        }
    }
}

/// By severity, see the table above.
impl From<SonicLevel> for LogLevel {
    fn from(level: SonicLevel) -> LogLevel {
        match level {
            SonicLevel::Error => LogLevel::Error,
            SonicLevel::Warn => LogLevel::Warn,
            SonicLevel::Notice => LogLevel::Info,
            SonicLevel::Info => LogLevel::Debug,
            SonicLevel::Debug => LogLevel::Trace,
        }
    }
}

/// Where lines go right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    TextToStderr,
    JsonToStdout,
    JsonToStderr,
    Syslog,
}

impl From<LogFormat> for Output {
    fn from(format: LogFormat) -> Output {
        match format {
            LogFormat::Text => Output::TextToStderr,
            LogFormat::Json => Output::JsonToStdout,
            LogFormat::Syslog => Output::Syslog,
        }
    }
}

impl From<LogOutput> for Output {
    fn from(output: LogOutput) -> Output {
        match output {
            LogOutput::Syslog => Output::Syslog,
            LogOutput::Stdout => Output::JsonToStdout,
            LogOutput::Stderr => Output::JsonToStderr,
        }
    }
}

type Writer = Box<dyn Layer<Registry> + Send + Sync>;
type Written = Layered<reload::Layer<Writer, Registry>, Registry>;

/// The handle of the subscriber: what is logged, and where to. Cheap to clone.
#[derive(Clone)]
pub struct Logging(Arc<Shared>);

struct Shared {
    level: reload::Handle<Targets, Written>,
    output: reload::Handle<Writer, Registry>,
    bounds: Bounds,
    /// Where rsyslog listens.
    rsyslog: SocketAddr,
    command_line: (LogLevel, Output),
    now: Mutex<(LogLevel, Output)>,
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (level, output) = self.now();
        f.debug_struct("Logging").field("level", &level).field("output", &output).finish_non_exhaustive()
    }
}

/// Installs the subscriber for the process, and sends panics to it. A second call leaves the first one's in
/// place, as in tests that share a process.
pub fn install(level: LogLevel, format: LogFormat) -> Logging {
    let (subscriber, logging) = Logging::new(level, format.into(), syslog::rsyslog());
    if subscriber.try_init().is_ok() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let location = panic.location().map(ToString::to_string);
            let payload = panic.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let reason = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            error!(reason, location, "a task has a fault and was given up");
            hook(panic);
        }));
    }
    logging
}

impl Logging {
    fn new(level: LogLevel, output: Output, rsyslog: SocketAddr) -> (impl Subscriber + Send + Sync, Logging) {
        let bounds = Bounds::new();
        let (writer, output) = match writer(output, rsyslog) {
            Ok(writer) => (writer, output),
            // What cannot go to syslog is better on standard output than nowhere.
            Err(_) => (json(io::stdout), Output::JsonToStdout),
        };
        let (writer_layer, writer_handle) = reload::Layer::new(writer);
        let (level_layer, level_handle) = reload::Layer::new(targets(level));
        let subscriber =
            tracing_subscriber::registry().with(writer_layer).with(level_layer).with(bounds.clone());
        let shared = Shared {
            level: level_handle,
            output: writer_handle,
            bounds,
            rsyslog,
            command_line: (level, output),
            now: Mutex::new((level, output)),
        };
        (subscriber, Logging(Arc::new(shared)))
    }

    fn now(&self) -> (LogLevel, Output) {
        *self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what `LOGGER|switch-agent` asks for. Nothing happens, and nothing is said, where that is in use.
    pub fn follow(&self, logger: &Logger) {
        let (before, command_line) = (self.now(), self.0.command_line);
        let level = wanted(logger.level, before.0, command_line.0);
        let output = wanted(logger.output, before.1, command_line.1);
        if level != before.0 && self.0.level.reload(targets(level)).is_ok() {
            self.0.now.lock().unwrap_or_else(PoisonError::into_inner).0 = level;
            info!(level = level.in_sonic(), before = before.0.in_sonic(), "log level changed");
        }
        if output == before.1 {
            return;
        }
        match writer(output, self.0.rsyslog) {
            Ok(writer) => {
                info!(?output, "log lines go elsewhere from here on");
                if self.0.output.reload(writer).is_ok() {
                    self.0.now.lock().unwrap_or_else(PoisonError::into_inner).1 = output;
                    info!(before = ?before.1, "log lines come here from now on");
                }
            }
            Err(error) => warn!(%error, ?output, "log lines cannot go there and stay where they are"),
        }
    }

    /// Tells of lines that were left out, until cancelled.
    pub async fn tell_left_out(self, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(LEFT_OUT_INTERVAL) => self.0.bounds.tell(),
            }
        }
    }
}

/// What is to be in use, given what is, and what the command line says.
fn wanted<T, U: From<T>>(setting: LogSetting<T>, now: U, command_line: U) -> U {
    match setting {
        LogSetting::Set(value) => value.into(),
        LogSetting::Keep => now,
        LogSetting::CommandLine => command_line,
    }
}

fn targets(level: LogLevel) -> Targets {
    Targets::new().with_target(TARGET, level.filter())
}

fn json<W>(to: W) -> Writer
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_target(false).json();
    layer.flatten_event(true).with_writer(to).boxed()
}

/// # Errors
/// No socket for syslog.
fn writer(output: Output, rsyslog: SocketAddr) -> io::Result<Writer> {
    let text = tracing_subscriber::fmt::layer().with_target(false);
    Ok(match output {
        Output::TextToStderr => text.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).boxed(),
        Output::JsonToStdout => json(io::stdout),
        Output::JsonToStderr => json(io::stderr),
        Output::Syslog => {
            let syslog = Syslog::open(rsyslog)?;
            text.without_time().with_level(false).with_ansi(false).with_writer(syslog).boxed()
        }
    })
}

//! `LOGGER|switch-agent`: how much the agent logs and where to, as SONiC sets it for its daemons at run time.

use serde::Serialize;

use super::Findings;
use super::fields::{Reader, choice, row_name};
use crate::row::ConfigDb;

const TABLE: &str = "LOGGER";
/// The component's name in the table, and in the tag of its syslog lines.
const KEY: &str = "switch-agent";
/// Fields of SONiC's model; the last one is for daemons that read the table on a signal only.
const FIELDS: [&str; 3] = ["LOGLEVEL", "LOGOUTPUT", "require_manual_refresh"];

/// Least severity that is logged, in syslog's words (RFC 5424 table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    /// Also what the more severe levels of SONiC mean: the agent has no line above it.
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

/// Where log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogOutput {
    Syslog,
    Stdout,
    Stderr,
}

/// What a field of the row asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogSetting<T> {
    /// No such row or field: what the command line says.
    #[default]
    CommandLine,
    Set(T),
    /// The value is bad: what is in use stays.
    Keep,
}

/// The row as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Logger {
    pub level: LogSetting<LogLevel>,
    pub output: LogSetting<LogOutput>,
}

/// Reads the row. SONiC's CLI writes it whole; a daemon that finds none adds one with its defaults, which the
/// agent leaves to the operator and to the package's initial configuration.
pub(super) fn logger(config: &ConfigDb, findings: &mut Findings) -> Logger {
    let Some(fields) = config.row(TABLE, KEY) else {
        return Logger::default();
    };
    let mut reader = Reader::new(row_name(TABLE, KEY), fields, &[&FIELDS]);
    let levels = [
        ("EMERG", LogLevel::Error),
        ("ALERT", LogLevel::Error),
        ("CRIT", LogLevel::Error),
        ("ERROR", LogLevel::Error),
        ("WARN", LogLevel::Warn),
        ("NOTICE", LogLevel::Notice),
        ("INFO", LogLevel::Info),
        ("DEBUG", LogLevel::Debug),
    ];
    let outputs =
        [("SYSLOG", LogOutput::Syslog), ("STDOUT", LogOutput::Stdout), ("STDERR", LogOutput::Stderr)];
    let level = reader.optional("LOGLEVEL", choice(levels));
    let output = reader.optional("LOGOUTPUT", choice(outputs));
    let logger = Logger {
        level: setting(level, reader.is_bad("LOGLEVEL")),
        output: setting(output, reader.is_bad("LOGOUTPUT")),
    };
    findings.rejected.extend(reader.finish());
    logger
}

fn setting<T>(value: Option<T>, bad: bool) -> LogSetting<T> {
    match value {
        Some(value) => LogSetting::Set(value),
        None if bad => LogSetting::Keep,
        None => LogSetting::CommandLine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Desired;
    use crate::row::fields;

    fn desired<const N: usize>(row: [(&str, &str); N]) -> Desired {
        let mut config = ConfigDb::default();
        config.insert("LOGGER", "switch-agent", fields(row));
        config.insert("LOGGER", "orchagent", fields([("LOGLEVEL", "nonsense")]));
        Desired::from_config(&config)
    }

    #[test]
    fn words_are_those_of_sonic() {
        let noisy = desired([("LOGLEVEL", "DEBUG"), ("LOGOUTPUT", "STDERR")]);
        assert_eq!(noisy.rejected, []);
        let level = LogSetting::Set(LogLevel::Debug);
        assert_eq!(noisy.logger, Logger { level, output: LogSetting::Set(LogOutput::Stderr) });
        let quiet = desired([("LOGLEVEL", "CRIT"), ("require_manual_refresh", "true")]);
        let level = LogSetting::Set(LogLevel::Error);
        assert_eq!(quiet.logger, Logger { level, output: LogSetting::CommandLine });
        assert_eq!(quiet.rejected, []);
    }

    #[test]
    fn without_a_row_the_command_line_holds() {
        assert_eq!(Desired::from_config(&ConfigDb::default()).logger, Logger::default());
        assert_eq!(desired([]).logger, Logger::default());
    }

    #[test]
    fn a_bad_value_keeps_what_is_in_use_and_says_what_is_allowed() {
        let bad = desired([("LOGLEVEL", "debug"), ("LOGOUTPUT", "/dev/null")]);
        assert_eq!(bad.logger, Logger { level: LogSetting::Keep, output: LogSetting::Keep });
        let said: Vec<String> = bad.rejected.iter().map(ToString::to_string).collect();
        let allowed = "must be one of EMERG, ALERT, CRIT, ERROR, WARN, NOTICE, INFO, DEBUG";
        assert_eq!(said[0], format!("LOGGER|switch-agent: LOGLEVEL = \"debug\": {allowed}"));
        assert!(said[1].starts_with("LOGGER|switch-agent: LOGOUTPUT = \"/dev/null\": "), "{}", said[1]);
    }
}

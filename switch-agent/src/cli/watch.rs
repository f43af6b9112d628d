//! `watch`: follows a running agent.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http_body_util::BodyExt;
use serde_json::Value;

use super::client::Answer;
use super::show::{duration, field, ports_summary, seconds};
use super::{AdminClient, ClientArgs, ClientError, Outcome, Output};

/// Follow what happens on the boot ports
///
/// Prints one line per change: the status, then phases of ports, machines that appear, move or go, and the
/// stages of boots. With --json one JSON object per line, with the kind of event in "event". Runs until
/// interrupted; when the agent restarts, it waits and goes on.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit codes:
  0  interrupted (Ctrl-C), or the reader went away
  1  the agent does not answer

Examples:
  switch-agent watch
  switch-agent watch --port Ethernet0
  switch-agent watch --json | jq -c 'select(.event == \"machine\")'")]
pub struct WatchArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Only this port
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
}

/// Pause before the agent is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// The agent sends at least a comment each 15 s; silence for longer is a dead connection.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Longest event that is taken, in bytes.
const EVENT_SIZE_MAX: usize = 4 * 1024 * 1024;

/// Runs `watch` until interrupted.
pub async fn watch(args: WatchArgs) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut output = Output { out: &mut out, err: &mut err };
    tokio::select! {
        outcome = run(&args, &mut output) => outcome.into(),
        _ = tokio::signal::ctrl_c() => Outcome::Ok.into(),
    }
}

/// Follows until the output is closed; before the first answer, a failure ends it.
pub(super) async fn run(args: &WatchArgs, output: &mut Output<'_>) -> Outcome {
    let client = AdminClient::new(&args.client.admin_socket);
    let mut connected = false;
    loop {
        match client.open("/v1/events").await {
            Ok(answer) if answer.status.is_success() => {
                if follow(answer, args, output).await.is_none() {
                    return Outcome::Ok;
                }
                connected = true;
            }
            Ok(answer) => {
                let message = "the agent takes no more followers now".to_owned();
                let error = ClientError::Refused { status: answer.status, message };
                let outcome = output.fail(&error);
                if !connected {
                    return outcome;
                }
            }
            Err(error) if !connected => return output.fail(&error),
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Prints events until the stream ends; `None` when the output does.
async fn follow(mut answer: Answer, args: &WatchArgs, output: &mut Output<'_>) -> Option<()> {
    let mut parser = EventParser::default();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE_MAX, answer.body.frame()).await {
        let Ok(data) = frame.into_data() else { continue };
        for (name, data) in parser.feed(&data) {
            let wanted = args.port.as_deref().is_none_or(|port| data["port"] == port);
            let line = if !wanted {
                None
            } else if args.client.json {
                Some(json_line(&name, data))
            } else {
                line(&name, &data)
            };
            if let Some(line) = line {
                output.print(&(line + "\n")).ok()?;
            }
        }
    }
    Some(())
}

fn json_line(name: &str, data: Value) -> String {
    let mut fields = serde_json::Map::from_iter([("event".to_owned(), Value::from(name))]);
    if let Value::Object(data) = data {
        fields.extend(data);
    }
    Value::Object(fields).to_string()
}

/// One event as text: time, port, what happened.
pub(super) fn line(name: &str, data: &Value) -> Option<String> {
    let at = data["at"].as_str().or_else(|| data["pass"]["finished_at"].as_str());
    let at = at.map_or_else(|| "-".to_owned(), seconds);
    let text = match name {
        "status" => format!(
            "{}; ports {}; machines {}",
            field(&data["verdict"]),
            ports_summary(data),
            field(&data["machines"])
        ),
        "port" => port_text(data),
        "machine" => machine_text(data)?,
        "timeline" => {
            let detail = field(&data["detail"]);
            let detail = if detail.is_empty() { detail } else { format!(" ({detail})") };
            format!("boot: {} after {}{detail}", field(&data["stage"]), duration(&data["since_start_ms"]))
        }
        "lagged" => format!("{} events lost: too slow", field(&data["dropped"])),
        _ => return None,
    };
    let port = if data["port"].is_string() { field(&data["port"]) } else { "-".to_owned() };
    Some(format!("{at:<20}  {port:<14}  {text}"))
}

fn port_text(data: &Value) -> String {
    let or = |value: &Value, word: &str| {
        if value.is_null() { word.to_owned() } else { field(value) }
    };
    let mut text = format!(
        "{} -> {}, link {}",
        or(&data["before"], "new"),
        or(&data["phase"], "gone"),
        field(&data["oper_status"])
    );
    if data["error"].is_string() {
        text.push_str(&format!(", error: {}", field(&data["error"])));
    } else if data["waiting_on"].is_string() {
        text.push_str(&format!(", waiting on {}", field(&data["waiting_on"])));
    }
    text
}

fn machine_text(data: &Value) -> Option<String> {
    let mac = field(&data["mac"]);
    Some(match data["change"].as_str()? {
        "appeared" => format!("machine {mac} appeared ({})", field(&data["source"])),
        "moved" => {
            format!("machine {mac} moved here from {} ({})", field(&data["from"]), field(&data["source"]))
        }
        "removed" => format!("machine {mac} gone ({})", field(&data["reason"])),
        // Every new address and source: in the JSON, not worth a line.
        _ => return None,
    })
}

/// Parser of server-sent events (WHATWG HTML section 9.2.6), as far as the agent uses them: LF line ends,
/// one data line.
#[derive(Debug, Default)]
struct EventParser {
    buffer: Vec<u8>,
}

impl EventParser {
    /// Takes bytes, returns the events they complete. An event that is too long is dropped.
    fn feed(&mut self, bytes: &[u8]) -> Vec<(String, Value)> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut start = 0;
        while let Some(length) = self.buffer[start..].windows(2).position(|pair| pair == b"\n\n") {
            events.extend(parse_event(&self.buffer[start..start + length]));
            start += length + 2;
        }
        self.buffer.drain(..start);
        if self.buffer.len() > EVENT_SIZE_MAX {
            self.buffer.clear();
        }
        events
    }
}

fn parse_event(block: &[u8]) -> Option<(String, Value)> {
    let block = std::str::from_utf8(block).ok()?;
    let value = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
    let name = value("event:")?.to_owned();
    Some((name, serde_json::from_str(value("data:")?).ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Reads the events of a real agent, one by one.
    #[derive(Debug)]
    pub(crate) struct Follower {
        answer: Answer,
        parser: EventParser,
        waiting: std::collections::VecDeque<(String, Value)>,
        names: Vec<String>,
    }

    impl Follower {
        pub(crate) async fn new(client: &AdminClient) -> Follower {
            let answer = client.open("/v1/events").await.unwrap();
            Follower { answer, parser: EventParser::default(), waiting: [].into(), names: Vec::new() }
        }

        /// The data of the next event of this name; others are skipped.
        pub(crate) async fn until(&mut self, name: &str) -> Value {
            loop {
                while let Some((found, data)) = self.waiting.pop_front() {
                    self.names.push(found.clone());
                    if found == name {
                        return data;
                    }
                }
                let frame = self.answer.body.frame().await.unwrap().unwrap();
                self.waiting.extend(self.parser.feed(&frame.into_data().unwrap()));
            }
        }

        /// Names of all events so far.
        pub(crate) fn names(&self) -> &[String] {
            &self.names
        }
    }

    #[test]
    fn events_are_parsed_at_any_split() {
        let stream = b"retry: 1000\n\n: keep-alive\n\nevent: port\ndata: {\"port\":\"Ethernet0\"}\n\nevent: x\ndata: {}\n\nev";
        for split in 0..stream.len() {
            let mut parser = EventParser::default();
            let mut events = parser.feed(&stream[..split]);
            events.extend(parser.feed(&stream[split..]));
            assert_eq!(
                events,
                [("port".to_owned(), json!({ "port": "Ethernet0" })), ("x".to_owned(), json!({}))]
            );
        }
    }

    #[test]
    fn an_endless_event_stays_bounded() {
        let mut parser = EventParser::default();
        for _ in 0..100 {
            assert!(parser.feed(&[b'x'; 64 * 1024]).is_empty());
        }
        assert!(parser.buffer.len() <= EVENT_SIZE_MAX);
    }

    #[test]
    fn lines_for_people() {
        let at = "2026-01-02T03:04:05.678Z";
        let cases = [
            (
                "machine",
                json!({ "at": at, "change": "moved", "mac": "m", "from": "Ethernet0", "port": "Ethernet4", "source": "rs" }),
                "2026-01-02T03:04:05Z  Ethernet4       machine m moved here from Ethernet0 (rs)",
            ),
            (
                "timeline",
                json!({ "at": at, "port": "Ethernet0", "stage": "api", "since_start_ms": 1234, "detail": "200" }),
                "2026-01-02T03:04:05Z  Ethernet0       boot: api after 1.234 s (200)",
            ),
            (
                "port",
                json!({ "at": at, "port": "Ethernet0", "before": null, "phase": "waiting", "oper_status": "up",
                    "waiting_on": "VRF_TABLE|VrfBoot-p1\u{7}", "error": null }),
                "2026-01-02T03:04:05Z  Ethernet0       new -> waiting, link up, waiting on VRF_TABLE|VrfBoot-p1?",
            ),
            (
                "status",
                json!({ "verdict": "converged", "machines": 2, "pass": null,
                    "ports": { "total": 2, "by_phase": { "ready": 2, "failed": 0 } } }),
                "-                     -               converged; ports 2 (ready 2); machines 2",
            ),
        ];
        for (name, data, text) in cases {
            assert_eq!(line(name, &data).as_deref(), Some(text));
        }
        assert_eq!(line("machine", &json!({ "change": "updated" })), None);
    }
}

//! `dump`: everything the agent tells, as one document for a bug report.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::blank::blank_secrets;
use super::client::segment;
use super::show::{items, pretty};
use super::{AdminClient, ClientArgs, Outcome, Output};

/// Print everything the agent knows as one JSON document
///
/// For `show techsupport` and bug reports: desired and observed state, the last plan and the last 200
/// decisions, status, ports, machines, partitions, boot timelines, metrics, readiness and public keys. A
/// part that cannot be read is replaced by its error. The agent tells no secrets; what looks like one is
/// blanked nevertheless.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit codes:
  0  everything was read
  1  something could not be read (the document says what), or the agent does not answer

Examples:
  switch-agent dump > switch-agent.json
  switch-agent dump | jq .status.waiting
  switch-agent dump | jq -r '.decisions.decisions[] | [.last_at, .kind, .object, .outcome, .reason] | @tsv'")]
pub struct DumpArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

const PARTS: [(&str, &str); 9] = [
    ("status", "/v1/status"),
    ("ports", "/v1/ports"),
    ("macs", "/v1/macs"),
    ("partitions", "/v1/partitions"),
    ("plan", "/v1/plan"),
    ("decisions", "/v1/decisions"),
    ("inputs", "/v1/inputs"),
    ("jwks", "/.well-known/jwks.json"),
    ("openapi", "/openapi.json"),
];

/// Runs `dump`.
pub async fn dump(args: DumpArgs) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    run(&args, &mut Output { out: &mut out, err: &mut err }).await.into()
}

pub(super) async fn run(args: &DumpArgs, output: &mut Output<'_>) -> Outcome {
    let client = AdminClient::new(&args.client.admin_socket);
    let mut document = Map::new();
    document.insert("client_version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    document.insert("admin_socket".to_owned(), json!(client.socket()));
    let mut outcome = Outcome::Ok;
    for (name, path) in PARTS {
        match client.get(path).await {
            // The description of the API is the same on every switch.
            Ok(value) if name == "openapi" => {
                document.insert("api_version".to_owned(), value["info"]["version"].clone());
            }
            Ok(value) => {
                document.insert(name.to_owned(), value);
            }
            Err(error) => {
                document.insert(name.to_owned(), json!({ "error": error.to_string() }));
                outcome = output.fail(&error);
                if matches!(error, super::ClientError::Connect { .. }) {
                    // The other parts would say the same.
                    output.print(&pretty(&Value::Object(document))).ok();
                    return Outcome::Failed;
                }
            }
        }
    }
    let mut timelines = Map::new();
    for port in document.get("ports").map(|ports| items(ports, "ports")).unwrap_or_default() {
        if let Some(port) = port["port"].as_str() {
            let timeline = client.get(&format!("/v1/ports/{}/timeline", segment(port))).await;
            timelines.insert(port.to_owned(), timeline.unwrap_or_else(|e| json!({ "error": e.to_string() })));
        }
    }
    document.insert("timelines".to_owned(), Value::Object(timelines));
    for (name, path) in [("readyz", "/readyz"), ("metrics", "/metrics")] {
        let text = match client.fetch(path).await {
            Ok((_, body)) => json!(String::from_utf8_lossy(&body)),
            Err(error) => json!({ "error": error.to_string() }),
        };
        document.insert(name.to_owned(), text);
    }
    let mut document = Value::Object(document);
    blank_secrets(&mut document);
    output.print(&pretty(&document)).ok();
    if outcome == Outcome::Ok { Outcome::Ok } else { Outcome::Failed }
}

//! `dump`: everything the agent tells, as one document for a bug report.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::segment;
use super::show::{items, pretty};
use super::{AdminClient, ClientArgs, Outcome, Output};

/// Print everything the agent knows as one JSON document
///
/// For `show techsupport` and bug reports: status, ports, machines, partitions, the last plan, boot
/// timelines, metrics, readiness and public keys. A part that cannot be read is replaced by its error.
/// The agent tells no secrets; what looks like one is blanked nevertheless.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit codes:
  0  everything was read
  1  something could not be read (the document says what), or the agent does not answer

Examples:
  switch-agent dump > switch-agent.json
  switch-agent dump | jq .status.waiting")]
pub struct DumpArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

const PARTS: [(&str, &str); 7] = [
    ("status", "/v1/status"),
    ("ports", "/v1/ports"),
    ("macs", "/v1/macs"),
    ("partitions", "/v1/partitions"),
    ("plan", "/v1/plan"),
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

const BLANK: &str = "(removed)";

/// Blanks values under names that mean secrets, and the user information of URLs (RFC 3986 section 3.2.1).
fn blank_secrets(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(blank_secrets),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if is_secret(name) => BLANK.clone_into(text),
                    value => blank_secrets(value),
                }
            }
        }
        Value::String(text) => {
            if let Some(clean) = without_user_info(text) {
                *text = clean;
            }
        }
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // `d` and `k` are the private members of a JWK (RFC 7518 section 6, RFC 8037 section 2).
    let exact = ["d", "k", "token", "authorization", "cookie", "private_key"];
    exact.contains(&name.as_str()) || name.contains("password") || name.contains("secret")
}

fn without_user_info(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#', ' ']).next()?;
    let (_, host) = authority.rsplit_once('@')?;
    Some(format!("{scheme}://{BLANK}@{host}{}", &rest[authority.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_blanked() {
        let mut value = json!({
            "keys": [{ "kty": "OKP", "x": "public", "d": "PRIVATE" }],
            "plan": { "host": "api", "token": "PRIVATE", "token_file": "/etc/token", "db_password": "PRIVATE" },
            "url": "https://user:PRIVATE@api.example/base?x=1",
            "plain": "https://api.example/a@b",
        });
        blank_secrets(&mut value);
        let text = value.to_string();
        assert!(!text.contains("PRIVATE"), "{text}");
        assert_eq!(value["plan"]["token_file"], "/etc/token");
        assert_eq!(value["url"], "https://(removed)@api.example/base?x=1");
        assert_eq!(value["plain"], "https://api.example/a@b");
    }
}

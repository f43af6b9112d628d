//! `plan`: the agent's next steps, and what everything else waits for.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::show::pretty;
use super::table::Table;
use super::{AdminClient, ClientArgs, Outcome, Output};

/// Show what the agent would do next
///
/// Prints the actions of the last pass and what all other objects wait for. On a converged switch both
/// lists are empty. Nothing is changed.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit codes:
  0  nothing to do and nothing awaited
  1  actions are due or awaited, or the agent does not answer
  2  bad input")]
pub struct PlanArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Runs `plan`.
pub async fn plan(args: PlanArgs) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut output = Output { out: &mut out, err: &mut err };
    let plan = match AdminClient::new(&args.client.admin_socket).get("/v1/plan").await {
        Ok(plan) => plan,
        Err(error) => return output.fail(&error).into(),
    };
    let text = if args.client.json { pretty(&plan) } else { render(&plan) };
    // A reader that went away is no failure.
    output.print(&text).ok();
    if is_empty(&plan) { Outcome::Ok.into() } else { Outcome::Failed.into() }
}

fn rows<'a>(plan: &'a Value, list: &str) -> &'a [Value] {
    plan[list].as_array().map_or(&[], Vec::as_slice)
}

fn is_empty(plan: &Value) -> bool {
    rows(plan, "actions").is_empty() && rows(plan, "waiting").is_empty()
}

fn render(plan: &Value) -> String {
    if is_empty(plan) {
        return "Nothing to do, nothing awaited.\n".to_owned();
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = String::new();
    let mut section = |title: &str, list: &str, columns: [&'static str; 2], fields: [&str; 2]| {
        let rows = rows(plan, list);
        if rows.is_empty() {
            return;
        }
        let mut table = Table::new(&columns);
        for row in rows {
            table.row(fields.map(|field| text(&row[field])).to_vec());
        }
        out.push_str(&format!("{title}\n{}\n", table.render()));
    };
    section("Actions of the last pass", "actions", ["Action", "Object"], ["action", "object"]);
    section("Waiting", "waiting", ["Object", "On"], ["object", "on"]);
    section("Conflicts", "conflicts", ["Object", "Reason"], ["object", "reason"]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_plan_says_so_and_a_full_one_lists_everything() {
        let empty = serde_json::json!({"actions": [], "waiting": [], "conflicts": []});
        assert!(is_empty(&empty));
        assert_eq!(render(&empty), "Nothing to do, nothing awaited.\n");
        let full = serde_json::json!({
            "actions": [{"action": "create-vrf", "object": "VRF|VrfBoot-p1"}],
            "waiting": [{"object": "INTERFACE|Ethernet0", "port": "Ethernet0", "on": "CONFIG_DB VRF|VrfBoot-p1"}],
            "conflicts": [],
        });
        let text = render(&full);
        assert!(!is_empty(&full));
        assert!(text.contains("create-vrf") && text.contains("VRF|VrfBoot-p1"), "{text}");
        assert!(text.contains("INTERFACE|Ethernet0"), "{text}");
        assert!(!text.contains("Conflicts"), "{text}");
    }
}

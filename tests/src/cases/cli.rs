//! The command line of the agent against a running one, and its exit codes.

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::{Lab, run};

pub(crate) fn cases() -> Vec<Case> {
    cases!("cli",
        30 s: check_accepts_the_configuration, check_reads_a_file, plan_of_a_settled_switch_is_empty,
            show_prints_tables_and_json, render_frr_prints_the_leak, dump_holds_no_secret;
    )
}

fn agent(lab: &Lab, arguments: &[&str]) -> Result<String> {
    run(&mut lab.agent_command(&lab.leaves[0], arguments))
}

fn check_accepts_the_configuration(lab: &Lab) -> Result<()> {
    agent(lab, &["check"]).map(drop)
}

fn check_reads_a_file(lab: &Lab) -> Result<()> {
    let good = lab.root.join("labs/local/config/leaf2.json");
    agent(lab, &["check", &good.display().to_string()])?;
    let bad = lab.leaves[0].run_dir().join("bad_config_db.json");
    let text = std::fs::read_to_string(&good).context(|| good.display().to_string())?;
    std::fs::write(&bad, text.replace("2001:db8:2:100::/56", "2001:db8:2:100::/65"))
        .context(|| bad.display().to_string())?;
    let output = lab
        .agent_command(&lab.leaves[0], &["check", &bad.display().to_string()])
        .output()
        .context(|| "check".into())?;
    ensure!(output.status.code() == Some(2), "check of a /65 ends with {}", output.status);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    for word in ["BOOT_NETWORK_PARTITION|p1", "prefix", "2001:db8:2:100::/65"] {
        ensure!(said.contains(word), "check does not name {word}: {said}");
    }
    Ok(())
}

fn plan_of_a_settled_switch_is_empty(lab: &Lab) -> Result<()> {
    let plan = agent(lab, &["plan", "--json"])?;
    let plan: serde_json::Value = serde_json::from_str(&plan).context(|| plan.clone())?;
    let plan = plan.get("plan").unwrap_or(&plan);
    let actions = plan["actions"].as_array().context(|| format!("no actions in {plan}"))?;
    ensure!(actions.is_empty(), "the plan still holds {actions:?}");
    Ok(())
}

fn show_prints_tables_and_json(lab: &Lab) -> Result<()> {
    for (what, word) in
        [("status", "converged"), ("ports", "Ethernet0"), ("macs", "52:54:00:00:00:01"), ("partitions", "p2")]
    {
        let table = agent(lab, &["show", what])?;
        ensure!(table.contains(word), "show {what} has no {word}: {table}");
        let json = agent(lab, &["show", what, "--json"])?;
        serde_json::from_str::<serde_json::Value>(&json).context(|| format!("show {what} --json: {json}"))?;
        ensure!(json.contains(word), "show {what} --json has no {word}");
    }
    let timeline = agent(lab, &["show", "timeline", "Ethernet0"])?;
    ensure!(timeline.lines().count() > 3, "the timeline is {timeline:?}");
    Ok(())
}

fn render_frr_prints_the_leak(lab: &Lab) -> Result<()> {
    let text = agent(lab, &["render-frr"])?;
    for line in ["BOOTNET-", "import vrf", "blackhole", "2001:db8:a91::/64"] {
        ensure!(text.contains(line), "render-frr has no {line:?}:\n{text}");
    }
    Ok(())
}

fn dump_holds_no_secret(lab: &Lab) -> Result<()> {
    let token = lab.machines[0].token()?;
    let dump = agent(lab, &["dump"])?;
    ensure!(dump.contains("Ethernet0"), "the dump does not know the ports");
    ensure!(!dump.contains(&token) && !dump.contains("PRIVATE KEY"), "the dump holds a secret");
    Ok(())
}

//! `show ra`: advertisers for people.

use serde_json::Value;

use super::show::{field, seconds};
use super::table::{Table, printable};

/// `packet+drop-rule`, or the mode and why there is no drop rule.
pub(super) fn mode_text(discovery: &Value) -> String {
    match discovery["drop_rule_detail"].as_str() {
        Some(reason) => format!("{}; no drop rule: {}", field(&discovery["mode"]), printable(reason)),
        None => field(&discovery["mode"]),
    }
}

/// `4 (advertising 3, not forwarding 1)`
pub(super) fn states_text(states: &Value) -> String {
    counts(states).replace('_', " ")
}

/// One line for each port that has an advertiser, or had one.
pub(super) fn ports_text(ports: &[Value]) -> String {
    let header = [
        "Port",
        "State",
        "RAs",
        "Last RA",
        "RS",
        "Last RS",
        "Answer",
        "Suppressed",
        "Dropped",
        "Mutes",
        "Foreign",
        "Errors",
    ];
    let mut table = Table::new(&header);
    for port in ports {
        let ra = &port["ra"];
        if ra.is_null() {
            continue;
        }
        table.row(vec![
            field(&port["port"]),
            state_text(ra),
            sum(&ra["sent"]),
            time(&ra["last_multicast"]),
            sum(&ra["solicitations"]),
            time(&ra["last_solicitation"]),
            ms(&ra["answer_last_ms"]),
            field(&ra["suppressed"]),
            sum(&ra["dropped"]),
            field(&ra["mutes"]),
            field(&ra["foreign"]),
            sum(&ra["send_errors"]),
        ]);
    }
    table.render()
}

/// Everything about one port.
pub(super) fn port_text(port: &Value) -> String {
    let ra = &port["ra"];
    if ra.is_null() {
        return format!("{} has not advertised since the agent started.\n", field(&port["port"]));
    }
    let mut text = String::new();
    let mut line = |title: &str, value: String| {
        text.push_str(format!("{title:<19}{value}").trim_end());
        text.push('\n');
    };
    line("Port", field(&port["port"]));
    line("State", state_text(ra));
    line("RAs sent", counts(&ra["sent"]));
    line("Last RA to all", time(&ra["last_multicast"]));
    line("Carrier to RA", ms(&ra["carrier_to_first_ms"]));
    line("RS received", counts(&ra["solicitations"]));
    line("Last RS", time(&ra["last_solicitation"]));
    line("Answers", field(&ra["answers"]));
    line("Last answer after", ms(&ra["answer_last_ms"]));
    line("Slowest answer", ms(&ra["answer_max_ms"]));
    line("Suppressed", field(&ra["suppressed"]));
    line("Dropped", counts(&ra["dropped"]));
    line("Mutes", field(&ra["mutes"]));
    line("Foreign RAs", field(&ra["foreign"]));
    line("Inconsistent", counts(&ra["foreign_inconsistent"]));
    line("Send errors", counts(&ra["send_errors"]));
    let dhcp6 = &port["dhcp6"];
    if !dhcp6.is_null() {
        line("DHCPv6 received", counts(&dhcp6["received"]));
        line("DHCPv6 clients", counts(&dhcp6["clients"]));
        line("DHCPv6 answers", counts(&dhcp6["sent"]));
        line("DHCPv6 refused", counts(&dhcp6["refused"]));
        line("Last DHCPv6 answer", time(&dhcp6["last_sent"]));
    }
    text
}

fn state_text(ra: &Value) -> String {
    let state = field(&ra["state"]).replace('_', " ");
    if ra["muted"] == true { format!("{state}, muted") } else { state }
}

fn entries(counts: &Value) -> impl Iterator<Item = (&String, u64)> {
    counts.as_object().into_iter().flatten().map(|(name, count)| (name, count.as_u64().unwrap_or(0)))
}

fn sum(counts: &Value) -> String {
    entries(counts).map(|(_, count)| count).sum::<u64>().to_string()
}

/// `12 (initial 3, unicast 9)`
fn counts(counts: &Value) -> String {
    let parts: Vec<String> = entries(counts)
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{} {count}", printable(name)))
        .collect();
    if parts.is_empty() { "0".to_owned() } else { format!("{} ({})", sum(counts), parts.join(", ")) }
}

fn time(value: &Value) -> String {
    value.as_str().map(seconds).unwrap_or_default()
}

/// `0.312 ms`
fn ms(value: &Value) -> String {
    value.as_f64().map(|ms| format!("{ms:.3} ms")).unwrap_or_default()
}

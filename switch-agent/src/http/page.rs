//! The status page for people: one HTML document, no script, nothing loaded from elsewhere.
//!
//! It is rendered from the JSON that the API answers with, so that both always agree. Everything that comes
//! from outside (LLDP strings, machine ids, aliases, reasons) passes `escape`.

use std::fmt::Write;

use serde_json::Value;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:76em;padding:0 1em;\
color:#222;background:#fff}h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3em .8em .3em 0;\
border-bottom:1px solid #ddd;vertical-align:top}td.mono{font-family:ui-monospace,monospace}\
.good{color:#17692c}.busy{color:#8a5a00}.bad{color:#a31515}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}th,td{border-color:#333}\
.good{color:#6fce86}.busy{color:#e0b050}.bad{color:#ff8080}}";

/// Renders the page from `GET /v1/status` and `GET /v1/ports`.
pub(crate) fn render(status: &Value, ports: &Value) -> String {
    let mut page = String::with_capacity(8 * 1024);
    let verdict = text(&status["verdict"]);
    // Writing into a String cannot fail.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" content=\"10\">\
         <title>switch-agent: {verdict}</title><style>{STYLE}</style></head><body>\
         <h1>switch-agent <span class=\"{}\">{verdict}</span></h1>",
        class(&verdict),
    );
    let _ = write!(
        page,
        "<p>{} of {} ports ready, {} machines, {} partitions. Version {}. Last pass: {}.</p>",
        text(&status["ports"]["by_phase"]["ready"]),
        text(&status["ports"]["total"]),
        text(&status["machines"]),
        text(&status["partitions"]),
        text(&status["version"]),
        status["pass"]["finished_at"].as_str().map_or_else(|| "none yet".to_owned(), escape),
    );
    problems(&mut page, status);
    port_table(&mut page, ports);
    page.push_str(
        "<p>More: <a href=\"v1/status\">status</a>, <a href=\"v1/ports\">ports</a>, <a href=\"v1/macs\">MACs</a>, \
         <a href=\"v1/partitions\">partitions</a>, <a href=\"v1/plan\">plan</a>, <a href=\"metrics\">metrics</a>, \
         <a href=\"openapi.json\">API</a>.</p></body></html>\n",
    );
    page
}

fn problems(page: &mut String, status: &Value) {
    let mut lines: Vec<String> = Vec::new();
    let items = |key: &str| status[key].as_array().into_iter().flatten();
    lines.extend(items("unready").map(|reason| format!("not ready: {}", text(reason))));
    if let Some(error) = status["control_api_error"].as_str() {
        lines.push(format!("control API: {}", escape(error)));
    }
    for (key, word) in [("rejected", "rejected"), ("warnings", "warning")] {
        lines.extend(items(key).map(|row| {
            let field = row["field"].as_str().map(|field| format!(" {}", escape(field))).unwrap_or_default();
            format!("{word}: {}{field}: {}", text(&row["row"]), text(&row["rule"]))
        }));
    }
    lines.extend(
        items("conflicts").map(|c| format!("conflict: {}: {}", text(&c["object"]), text(&c["reason"]))),
    );
    lines.extend(items("waiting").map(|w| format!("waiting: {} on {}", text(&w["object"]), text(&w["on"]))));
    if lines.is_empty() {
        return;
    }
    page.push_str("<h2>What is not as it should be</h2><ul>");
    for line in lines {
        let _ = write!(page, "<li>{line}</li>");
    }
    page.push_str("</ul>");
}

fn port_table(page: &mut String, ports: &Value) {
    page.push_str(
        "<h2>Ports</h2><table><thead><tr><th>Port<th>Alias<th>Partition<th>VRF<th>Phase<th>Link<th>Prefix\
         <th>Machines<th>Remarks</tr></thead><tbody>",
    );
    for port in ports["ports"].as_array().into_iter().flatten() {
        let phase = text(&port["phase"]);
        let name = text(&port["port"]);
        let machines: Vec<String> =
            port["machines"].as_array().into_iter().flatten().map(|m| text(&m["mac"])).collect();
        let remark = port["error"].as_str().or_else(|| port["waiting_on"].as_str()).unwrap_or_default();
        let _ = write!(
            page,
            "<tr><td><a href=\"v1/ports/{name}/timeline\">{name}</a><td>{}<td>{}<td>{}<td class=\"{}\">{phase}\
             <td>{}<td class=\"mono\">{}<td class=\"mono\">{}<td>{}</tr>",
            text(&port["alias"]),
            text(&port["partition"]),
            text(&port["vrf"]),
            class(&phase),
            text(&port["oper_status"]),
            text(&port["prefix"]),
            machines.join("<br>"),
            escape(remark),
        );
    }
    page.push_str("</tbody></table>");
}

fn class(state: &str) -> &'static str {
    match state {
        "ready" | "converged" => "good",
        "rejected" | "failed" | "degraded" => "bad",
        _ => "busy",
    }
}

/// A JSON scalar, escaped; null is empty.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        other => escape(&other.to_string()),
    }
}

/// Makes text safe in HTML content and in quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        const EVIL: &str = "<script>\"'&";
        let port = json!({
            "port": EVIL, "alias": EVIL, "partition": EVIL, "vrf": EVIL, "phase": EVIL, "oper_status": EVIL,
            "prefix": EVIL, "machines": [{ "mac": EVIL }], "waiting_on": EVIL, "error": null,
        });
        let row =
            json!([{ "row": EVIL, "field": EVIL, "rule": EVIL, "object": EVIL, "reason": EVIL, "on": EVIL }]);
        let status = json!({
            "verdict": EVIL, "version": EVIL, "unready": [EVIL], "control_api_error": EVIL, "rejected": row,
            "warnings": row, "conflicts": row, "waiting": row, "pass": { "finished_at": EVIL },
        });
        let page = render(&status, &json!({ "ports": [port] }));
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains("\"'&<") && !page.contains("'&"), "{page}");
        assert!(page.matches("&lt;script&gt;&quot;&#39;&amp;").count() > 20);
    }
}

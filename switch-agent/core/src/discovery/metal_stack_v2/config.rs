//! `GET /config/{uuid}`: all that metal-hammer needs to speak to the API.

use serde_json::{Map, Value, json};

use crate::service::PortContext;

/// Members that no file of an operator changes: they say who and where the machine is.
const OURS: [&str; 5] = [
    "metal_apiserver_url",
    "metal_apiserver_token",
    "metal_apiserver_token_for_hammer",
    "pixie_api_url",
    "partition",
];

/// The document for one machine. `more` is the partition's `machine_config_file` (`logging`, `debug`, ...).
/// It bears the machine's token or handle.
pub fn document(context: &PortContext, uuid: &str, token: &str, more: &Map<String, Value>) -> Value {
    let proxy = context.proxy_url();
    let mut document = Map::new();
    document.insert("debug".to_owned(), Value::Bool(false));
    if !context.settings.ntp_servers.is_empty() {
        document.insert("ntp_servers".to_owned(), json!(context.settings.ntp_servers));
    }
    let more = more.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
    document.extend(more.map(|(name, value)| (name.clone(), value.clone())));
    document.insert("metal_apiserver_url".to_owned(), Value::from(proxy.as_str()));
    document.insert("metal_apiserver_token_for_hammer".to_owned(), Value::from(token));
    document.insert("pixie_api_url".to_owned(), Value::from(format!("{proxy}/config/{uuid}")));
    document.insert("partition".to_owned(), json!(context.partition));
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::context;

    #[test]
    fn the_document_is_the_ports_own() {
        let context = context("Ethernet4");
        let more = json!({
            "logging": { "endpoint": "https://loki" }, "debug": true, "partition": "p9",
            "metal_apiserver_url": "http://elsewhere", "metal_apiserver_token": "agent's"
        });
        let more = more.as_object().unwrap();
        let uuid = "3f2b1c4e-0000-4000-8000-000000000001";
        let wanted = json!({
            "debug": true,
            "metal_apiserver_url": "http://[2001:db8:0:2::1]:18090",
            "metal_apiserver_token_for_hammer": "secret",
            "pixie_api_url": format!("http://[2001:db8:0:2::1]:18090/config/{uuid}"),
            "ntp_servers": ["2001:db8::123"],
            "partition": "p1",
            "logging": { "endpoint": "https://loki" }
        });
        assert_eq!(document(&context, uuid, "secret", more), wanted);
    }
}

//! The document of `GET /certs`: what metal-hammer is configured with (pixie `api/api.go`).

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::REST_PREFIX;
use crate::name::PartitionId;
use crate::service::PortContext;

/// What this switch made for one machine on one port.
#[derive(Clone)]
pub struct Issued {
    /// PEM of the switch's own authority.
    pub ca_cert: String,
    /// PEM of the machine's client certificate and its key.
    pub cert: String,
    pub key: String,
    /// The port's HMAC key.
    pub hmac: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

/// `MetalConfig` of pixie, field for field.
#[derive(Clone, PartialEq, Serialize)]
pub struct MetalConfig {
    pub debug: bool,
    /// `host:port` of the gRPC server: this switch.
    pub address: String,
    pub metal_api_url: String,
    pub pixie_api_url: String,
    pub ca_cert: String,
    pub cert: String,
    pub key: String,
    pub hmac: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp_servers: Vec<String>,
    pub partition: PartitionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Value>,
}

/// Builds the document of one port. `machine_config` is the partition's `machine_config_file`: its `debug`
/// and `logging` are passed on.
pub fn document(context: &PortContext, issued: Issued, machine_config: &Map<String, Value>) -> MetalConfig {
    let url = context.proxy_url();
    MetalConfig {
        debug: machine_config.get("debug").and_then(Value::as_bool).unwrap_or(false),
        address: format!("[{}]:{}", context.router, context.tcp_port),
        metal_api_url: format!("{url}{REST_PREFIX}"),
        pixie_api_url: format!("{url}/certs"),
        ca_cert: issued.ca_cert,
        cert: issued.cert,
        key: issued.key,
        hmac: issued.hmac,
        ntp_servers: context.settings.ntp_servers.clone(),
        partition: context.partition.clone(),
        logging: machine_config.get("logging").filter(|logging| logging.is_object()).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::context;

    fn issued() -> Issued {
        let text = |text: &str| text.to_owned();
        Issued { ca_cert: text("CA"), cert: text("CERT"), key: text("KEY"), hmac: text("HMAC") }
    }

    #[test]
    fn the_document_has_exactly_pixies_fields() {
        let config: Value = serde_json::json!({
            "debug": true, "logging": {"endpoint": "http://[2001:db8::9]", "log_type": "loki"}, "kernel": "x"
        });
        let document = document(&context("Ethernet4"), issued(), config.as_object().unwrap());
        let router = context("Ethernet4").router;
        assert_eq!(
            serde_json::to_value(&document).unwrap(),
            serde_json::json!({
                "debug": true,
                "address": format!("[{router}]:18090"),
                "metal_api_url": format!("http://[{router}]:18090/metal"),
                "pixie_api_url": format!("http://[{router}]:18090/certs"),
                "ca_cert": "CA", "cert": "CERT", "key": "KEY", "hmac": "HMAC",
                "ntp_servers": ["2001:db8::123"],
                "partition": "p1",
                "logging": {"endpoint": "http://[2001:db8::9]", "log_type": "loki"}
            })
        );
        let mut plain = context("Ethernet4");
        plain.settings_mut().ntp_servers.clear();
        let value = serde_json::to_value(super::document(&plain, issued(), &Map::new())).unwrap();
        assert_eq!(value["debug"], false);
        assert!(value.get("logging").is_none() && value.get("ntp_servers").is_none());
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", issued()), "Issued { .. }");
    }
}

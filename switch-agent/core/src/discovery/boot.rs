//! The document of `GET /v1/boot`: what a machine is told about where it is.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::name::{MacAddr, PartitionId, PortName, VrfName};
use crate::service::PortContext;

/// What is known of the machine that asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MachineFacts {
    /// From the neighbour table of the ingress port; `null` where it has no entry.
    pub mac: Option<MacAddr>,
    pub addresses: Vec<Ipv6Addr>,
    /// The machine id that the port's live token was minted for: a claim, not a fact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SwitchFacts {
    pub id: String,
    pub chassis_mac: Option<MacAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortFacts {
    pub name: PortName,
    pub alias: String,
    pub index: u64,
    pub mac: MacAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiFacts {
    /// Where the control API is reached from the port.
    pub base: String,
}

/// `GET /v1/boot`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BootDocument {
    pub partition: PartitionId,
    pub switch: SwitchFacts,
    pub port: PortFacts,
    pub machine: MachineFacts,
    /// The port's /64.
    pub prefix: Ipv6Net,
    /// `::1` of it: this switch.
    pub router: Ipv6Addr,
    pub vrf: VrfName,
    pub api: ApiFacts,
    pub ntp_servers: Vec<String>,
    pub dns_servers: Vec<Ipv6Addr>,
    /// The partition's boot parameters, overlaid with its `machine_config_file`.
    pub config: Map<String, Value>,
    /// Seconds since `machine_config_file` was last read well; 0 where there is none.
    pub config_age_s: u64,
}

/// A `machine_config_file` as it was last read well.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineConfig {
    pub object: Map<String, Value>,
    pub age: Duration,
}

/// A text that is no machine config.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMachineConfig {
    #[error("machine config is no JSON")]
    Json(#[source] serde_json::Error),
    #[error("machine config must be a JSON object")]
    NoObject,
}

/// Parses the content of a `machine_config_file`.
pub fn parse_machine_config(text: &str) -> Result<Map<String, Value>, InvalidMachineConfig> {
    match serde_json::from_str(text).map_err(InvalidMachineConfig::Json)? {
        Value::Object(object) => Ok(object),
        _ => Err(InvalidMachineConfig::NoObject),
    }
}

impl PortContext {
    /// `http://[<router>]:<port>`: the proxy's root as any machine on the port can name it.
    pub fn proxy_url(&self) -> String {
        format!("http://[{}]:{}", self.router, self.tcp_port)
    }
}

/// Builds the document of one port.
pub fn document(context: &PortContext, machine: MachineFacts, config: Option<MachineConfig>) -> BootDocument {
    let settings = &context.settings;
    let mut merged = Map::new();
    if let Some(profile) = &settings.boot_profile {
        merged.insert("profile".to_owned(), Value::from(profile.as_str()));
    }
    if let Some(kernel) = &settings.boot_kernel_url {
        merged.insert("kernel".to_owned(), Value::from(kernel.as_str()));
    }
    if !settings.boot_initrd_urls.is_empty() {
        merged.insert("initrd".to_owned(), Value::from(settings.boot_initrd_urls.clone()));
    }
    if let Some(cmdline) = &settings.boot_cmdline {
        merged.insert("cmdline".to_owned(), Value::from(cmdline.as_str()));
    }
    if !settings.boot_root_paths.is_empty() {
        merged.insert("root_paths".to_owned(), Value::from(settings.boot_root_paths.clone()));
    }
    let age = config.as_ref().map_or(0, |config| config.age.as_secs());
    merged.extend(config.map(|config| config.object).unwrap_or_default());
    BootDocument {
        partition: context.partition.clone(),
        switch: SwitchFacts { id: context.switch_id.clone(), chassis_mac: context.chassis_mac },
        port: PortFacts {
            name: context.port.clone(),
            alias: context.alias.to_string(),
            index: context.index,
            mac: context.mac,
        },
        machine,
        prefix: context.prefix,
        router: context.router,
        vrf: context.vrf.clone(),
        api: ApiFacts { base: format!("{}/api", context.proxy_url()) },
        ntp_servers: settings.ntp_servers.clone(),
        dns_servers: settings.ra.rdnss.clone(),
        config: merged,
        config_age_s: age,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::context;

    #[test]
    fn the_document_has_the_agreed_shape() {
        let mut context = context("Ethernet4");
        context.settings_mut().boot_kernel_url = Some("http://c/k".to_owned());
        let machine = MachineFacts {
            mac: Some("52:54:00:00:00:01".parse().unwrap()),
            addresses: vec!["fe80::1".parse().unwrap()],
            id: None,
        };
        let config = MachineConfig {
            object: parse_machine_config(r#"{"log": "debug", "kernel": "http://c/other"}"#).unwrap(),
            age: Duration::from_secs(7),
        };
        let value = serde_json::to_value(document(&context, machine, Some(config))).unwrap();
        let wanted = serde_json::json!({
            "partition": "p1",
            "switch": {"id": "leaf1", "chassis_mac": "02:00:00:00:00:01"},
            "port": {"name": "Ethernet4", "alias": "Eth2/1", "index": 2, "mac": "02:00:00:00:00:01"},
            "machine": {"mac": "52:54:00:00:00:01", "addresses": ["fe80::1"]},
            "prefix": "2001:db8:0:2::/64",
            "router": "2001:db8:0:2::1",
            "vrf": "VrfBoot-p1",
            "api": {"base": "http://[2001:db8:0:2::1]:18090/api"},
            "ntp_servers": ["2001:db8::123"],
            "dns_servers": ["2001:db8::53"],
            "config": {"kernel": "http://c/other", "log": "debug"},
            "config_age_s": 7
        });
        assert_eq!(value, wanted);
    }

    #[test]
    fn machine_config_must_be_an_object() {
        assert!(matches!(parse_machine_config("[1]"), Err(InvalidMachineConfig::NoObject)));
        assert!(matches!(parse_machine_config("{"), Err(InvalidMachineConfig::Json(_))));
    }
}

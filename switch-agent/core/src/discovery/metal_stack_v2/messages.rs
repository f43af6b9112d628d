//! Messages of the calls that the agent makes itself, in the JSON mapping of Protocol Buffers: names in
//! camel case, absent where empty, enums by name, durations as seconds with an `s`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::desired::ComponentType;

/// A procedure: path below the API's base.
pub mod procedure {
    pub const TOKEN_CREATE: &str = "/metalstack.api.v2.TokenService/Create";
    pub const TOKEN_REVOKE: &str = "/metalstack.api.v2.TokenService/Revoke";
    pub const PARTITION_GET: &str = "/metalstack.api.v2.PartitionService/Get";
    pub const BOOT_DHCP: &str = "/metalstack.infra.v2.BootService/Dhcp";
    pub const BOOT_BOOT: &str = "/metalstack.infra.v2.BootService/Boot";
    pub const EVENT_SEND: &str = "/metalstack.infra.v2.EventService/Send";
    pub const SWITCH_GET: &str = "/metalstack.infra.v2.SwitchService/Get";
    pub const COMPONENT_PING: &str = "/metalstack.infra.v2.ComponentService/Ping";
}

/// The least life that the API gives a token.
pub const TOKEN_LIFE_MIN: Duration = Duration::from_secs(600);

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

/// `TokenServiceCreateRequest`: a token that may act for one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenCreate {
    description: String,
    expires: String,
    machine_roles: BTreeMap<String, &'static str>,
}

impl TokenCreate {
    /// `life` below what the API gives is raised to that.
    pub fn for_machine(uuid: &str, switch_id: &str, port: &str, life: Duration) -> TokenCreate {
        TokenCreate {
            description: format!("metal-hammer on {switch_id} {port}"),
            expires: seconds(life.max(TOKEN_LIFE_MIN)),
            machine_roles: BTreeMap::from([(uuid.to_owned(), "MACHINE_ROLE_EDITOR")]),
        }
    }
}

/// `TokenServiceCreateResponse`. Not printed: `secret` is the token.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct TokenCreated {
    pub token: Token,
    pub secret: String,
}

impl fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCreated").field("token", &self.token).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Token {
    pub uuid: String,
}

/// `TokenServiceRevokeRequest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenRevoke {
    pub uuid: String,
}

/// `BootServiceDhcpRequest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dhcp {
    pub uuid: String,
    pub partition: String,
}

/// `BootServiceBootRequest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Boot {
    pub mac: String,
    pub partition: String,
}

/// `BootServiceBootResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootAnswer {
    pub kernel: String,
    pub init_ram_disks: Vec<String>,
    pub cmdline: Option<String>,
}

/// Requests by id: of a partition, of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Get {
    pub id: String,
}

/// `PartitionServiceGetResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PartitionAnswer {
    pub partition: Partition,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Partition {
    pub boot_configuration: BootConfiguration,
    pub dns_servers: Vec<DnsServer>,
    pub ntp_servers: Vec<NtpServer>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootConfiguration {
    /// The initrd.
    pub image_url: String,
    pub kernel_url: String,
    pub commandline: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DnsServer {
    pub ip: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NtpServer {
    pub address: String,
}

/// `SwitchServiceGetResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SwitchAnswer {
    pub switch: Switch,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Switch {
    pub nics: Vec<Nic>,
    pub machine_connections: Vec<MachineConnection>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Nic {
    pub name: String,
    pub identifier: String,
    pub vrf: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineConnection {
    pub machine_id: String,
    pub nic: Nic,
}

/// `EventServiceSendRequest`: one event of each machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EventSend {
    pub events: BTreeMap<String, Event>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// RFC 3339.
    pub time: String,
    pub event: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// `EventServiceSendResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EventsSent {
    /// Machines whose event was not taken.
    pub failed: Vec<String>,
}

/// `ComponentServicePingRequest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ping {
    #[serde(rename = "type")]
    kind: &'static str,
    identifier: String,
    /// RFC 3339.
    started_at: String,
    interval: String,
    version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Version {
    version: String,
}

impl Ping {
    /// `interval` is 5 s to 1 h.
    pub fn new(
        kind: ComponentType,
        identifier: &str,
        started_at: String,
        interval: Duration,
        version: &str,
    ) -> Ping {
        let kind = match kind {
            ComponentType::Pixiecore => "COMPONENT_TYPE_PIXIECORE",
            ComponentType::MetalCore => "COMPONENT_TYPE_METAL_CORE",
            ComponentType::MetalBmc => "COMPONENT_TYPE_METAL_BMC",
            ComponentType::MetalImageCacheSync => "COMPONENT_TYPE_METAL_IMAGE_CACHE_SYNC",
            ComponentType::MetalConsole => "COMPONENT_TYPE_METAL_CONSOLE",
            ComponentType::MetalMetricsExporter => "COMPONENT_TYPE_METAL_METRICS_EXPORTER",
        };
        let (identifier, version) = (identifier.to_owned(), Version { version: version.to_owned() });
        Ping { kind, identifier, started_at, interval: seconds(interval), version }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_have_the_names_of_the_json_mapping() {
        let uuid = "3f2b1c4e-0000-4000-8000-000000000001";
        let create = TokenCreate::for_machine(uuid, "leaf1", "Ethernet0", Duration::from_secs(60));
        let wanted = json!({
            "description": "metal-hammer on leaf1 Ethernet0", "expires": "600s",
            "machineRoles": { uuid: "MACHINE_ROLE_EDITOR" }
        });
        assert_eq!(serde_json::to_value(create).unwrap(), wanted);
        let ping = Ping::new(
            ComponentType::default(),
            "leaf1",
            "2026-01-01T00:00:00Z".to_owned(),
            Duration::from_secs(60),
            "0.1.0",
        );
        let wanted = json!({
            "type": "COMPONENT_TYPE_PIXIECORE", "identifier": "leaf1", "startedAt": "2026-01-01T00:00:00Z",
            "interval": "60s", "version": { "version": "0.1.0" }
        });
        assert_eq!(serde_json::to_value(ping).unwrap(), wanted);
    }

    #[test]
    fn answers_are_read_with_what_is_empty_left_out() {
        let created: TokenCreated = serde_json::from_value(json!({
            "token": { "uuid": "t1", "user": "agent", "tokenType": "TOKEN_TYPE_API" }, "secret": "eyJ"
        }))
        .unwrap();
        assert_eq!((created.token.uuid.as_str(), created.secret.as_str()), ("t1", "eyJ"));
        assert!(!format!("{created:?}").contains("eyJ"));
        let switch: SwitchAnswer = serde_json::from_value(json!({ "switch": {
            "id": "leaf1",
            "nics": [{ "name": "Ethernet0", "identifier": "Eth1/1" }, { "name": "Ethernet4", "vrf": "vrf7" }],
            "machineConnections": [{ "machineId": "m", "nic": { "name": "Ethernet0" } }]
        } }))
        .unwrap();
        assert_eq!(switch.switch.nics[1].vrf.as_deref(), Some("vrf7"));
        assert_eq!(switch.switch.machine_connections[0].machine_id, "m");
        assert_eq!(serde_json::from_str::<EventsSent>(r#"{"events": "1"}"#).unwrap().failed.len(), 0);
    }
}

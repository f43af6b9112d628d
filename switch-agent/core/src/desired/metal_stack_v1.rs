//! What the dialect `metal-stack-v1` needs on top of the control API's URL, which is metal-api's REST side:
//! its gRPC side, and the key that signs REST requests.

use serde::Serialize;

use super::fields::{Reader, Rule};
use super::url::{absolute_path, authority};
use crate::desired::{Dialect, UpstreamSpec};

pub(super) const FIELDS: [&str; 5] = [
    "metal_stack_grpc_address",
    "metal_stack_grpc_ca_file",
    "metal_stack_grpc_cert_file",
    "metal_stack_grpc_key_file",
    "metal_stack_hmac_file",
];
/// Fields that the dialect cannot do without.
const REQUIRED: [&str; 4] = [
    "metal_stack_grpc_address",
    "metal_stack_grpc_cert_file",
    "metal_stack_grpc_key_file",
    "metal_stack_hmac_file",
];

/// metal-api v1 beyond its REST URL. The files hold secrets of the fleet; no machine is ever told of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MetalStackV1Spec {
    /// Host of the gRPC server: a DNS name or an address literal without brackets.
    pub grpc_host: String,
    pub grpc_port: u16,
    /// Roots of the gRPC server's certificate; `None` stands for the roots of the control API.
    pub grpc_ca_file: Option<String>,
    /// The fleet's client certificate and key.
    pub grpc_cert_file: String,
    pub grpc_key_file: String,
    /// Key of the HMAC type Metal-View.
    pub hmac_file: String,
}

impl UpstreamSpec {
    /// The gRPC side of metal-api v1, as a control API of its own; `None` in other dialects.
    pub fn grpc(&self) -> Option<UpstreamSpec> {
        let spec = self.metal_stack_v1.as_ref()?;
        Some(UpstreamSpec {
            host: spec.grpc_host.clone(),
            port: spec.grpc_port,
            base: String::new(),
            dialect: self.dialect,
            machine_token: self.machine_token,
            component_type: self.component_type,
            vrf: self.vrf.clone(),
            ca_file: spec.grpc_ca_file.clone().or_else(|| self.ca_file.clone()),
            client_cert_file: Some(spec.grpc_cert_file.clone()),
            client_key_file: Some(spec.grpc_key_file.clone()),
            token_file: None,
            metal_stack_v1: None,
        })
    }
}

/// Reads the fields; `None` where the dialect is another one, or a field is bad.
pub(super) fn read(reader: &mut Reader, dialect: Dialect) -> Option<MetalStackV1Spec> {
    let address = reader.optional("metal_stack_grpc_address", grpc_address);
    let grpc_ca_file = reader.optional("metal_stack_grpc_ca_file", absolute_path);
    let grpc_cert_file = reader.optional("metal_stack_grpc_cert_file", absolute_path);
    let grpc_key_file = reader.optional("metal_stack_grpc_key_file", absolute_path);
    let hmac_file = reader.optional("metal_stack_hmac_file", absolute_path);
    if dialect != Dialect::MetalStackV1 {
        for field in FIELDS {
            if reader.text(field).is_some() && !reader.is_bad(field) {
                reader.reject(field, "needs control_api_dialect metal-stack-v1");
            }
        }
        return None;
    }
    for field in REQUIRED {
        if reader.text(field).is_none() && reader.text("control_api_url").is_some() {
            reader.reject(field, "is needed by control_api_dialect metal-stack-v1");
        }
    }
    let (grpc_host, grpc_port) = address?;
    Some(MetalStackV1Spec {
        grpc_host,
        grpc_port,
        grpc_ca_file,
        grpc_cert_file: grpc_cert_file?,
        grpc_key_file: grpc_key_file?,
        hmac_file: hmac_file?,
    })
}

/// `host:port`, the form that gRPC clients of metal-stack are configured with.
fn grpc_address(value: &str) -> Result<(String, u16), Rule> {
    match authority(value)? {
        (host, Some(port)) => Ok((host, port)),
        (_, None) => Err("must be host:port".into()),
    }
}

//! `BOOT_NETWORK|global`, and what `DEVICE_METADATA|localhost` adds to it.
//!
//! A bad global row cannot just be dropped: the defaults that an absent row stands for would switch on
//! what its author may have switched off. A field that is valid by itself therefore holds, and a field
//! that is bad takes its safe value:
//! - `admin_status`: up, so that a misspelt word never takes machines off the network;
//! - `leak_method`: `render-only`, so that FRR is not touched;
//! - `machine_token`: handles, so that no token leaves the switch;
//! - any `control_api_*` or `metal_stack_*`: no upstream, so that no request goes out with less protection than
//!   asked for;
//! - `proxy_port`, `switch_id`: their defaults.
//!
//! `leak_method`, `control_api_*` and `metal_stack_*` also take their safe value where an unknown field looks like a
//! misspelling of them.

use super::Findings;
use super::fields::{Reader, Rule, choice, number, row_name};
use super::metal_stack_v1;
use super::url::{absolute_path, control_api_url};
use super::values::default_or_vrf;
use crate::desired::{ComponentType, Dialect, Global, LeakMethod, MachineToken, Rejected, UpstreamSpec};
use crate::row::ConfigDb;

const TABLE: &str = "BOOT_NETWORK";
const KEY: &str = "global";
pub(super) const FIELDS: [&str; 13] = [
    "admin_status",
    "switch_id",
    "control_api_url",
    "control_api_dialect",
    "control_api_vrf",
    "control_api_ca_file",
    "control_api_client_cert_file",
    "control_api_client_key_file",
    "control_api_token_file",
    "control_api_component_type",
    "machine_token",
    "proxy_port",
    "leak_method",
];

/// TCP port of the discovery proxy in boot VRFs.
pub const PROXY_PORT_DEFAULT: u16 = 18090;
/// SONiC's own default host name.
const SWITCH_ID_DEFAULT: &str = "sonic";
/// Field values of HTTP headers carry the switch id.
const SWITCH_ID_LEN_MAX: usize = 64;

/// Reads the global row; an absent one means the defaults.
pub(super) fn global(config: &ConfigDb, findings: &mut Findings) -> Global {
    for (key, _) in config.table(TABLE).filter(|(key, _)| *key != KEY) {
        let rule = "is not a key of this table; the only one is global";
        findings.rejected.push(Rejected::of_row(&row_name(TABLE, key), rule));
    }
    let none = crate::row::Fields::new();
    let fields = config.row(TABLE, KEY).unwrap_or(&none);
    let mut reader = Reader::new(row_name(TABLE, KEY), fields, &[&FIELDS, &metal_stack_v1::FIELDS]);
    let admin_up = reader.or("admin_status", true, admin_status());
    let switch_id = reader.optional("switch_id", switch_id);
    let upstream = upstream(&mut reader);
    if upstream
        .as_ref()
        .is_some_and(|upstream| upstream.dialect == Dialect::MetalStackV2 && upstream.token_file.is_none())
    {
        let rule = "is not set: without a token of its own the agent gets none for machines";
        let row = row_name(TABLE, KEY);
        findings.warnings.push(Rejected::of_field(&row, "control_api_token_file", None, rule));
    }
    let proxy_port = reader.or("proxy_port", PROXY_PORT_DEFAULT, number(1..=u16::MAX));
    let leak_method = reader.or("leak_method", LeakMethod::Auto, leak_methods());
    let leak_method =
        if reader.is_bad_or_misspelt("leak_method") { LeakMethod::RenderOnly } else { leak_method };
    findings.rejected.extend(reader.finish());
    Global {
        admin_up,
        switch_id: switch_id.unwrap_or_else(|| hostname(config, findings)),
        chassis_mac: chassis_mac(config, findings),
        upstream,
        proxy_port,
        leak_method,
    }
}

/// `up` or `down`, as in SONiC's own tables.
pub(super) fn admin_status() -> impl FnOnce(&str) -> Result<bool, Rule> {
    choice([("up", true), ("down", false)])
}

fn leak_methods() -> impl FnOnce(&str) -> Result<LeakMethod, Rule> {
    choice([
        ("auto", LeakMethod::Auto),
        ("vtysh", LeakMethod::Vtysh),
        ("static-route", LeakMethod::StaticRoute),
        ("frr-mgmt", LeakMethod::FrrMgmt),
        ("render-only", LeakMethod::RenderOnly),
    ])
}

fn switch_id(value: &str) -> Result<String, Rule> {
    let bytes_ok = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    if bytes_ok && (1..=SWITCH_ID_LEN_MAX).contains(&value.len()) {
        Ok(value.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits, - . _ or :".into())
    }
}

fn upstream(reader: &mut Reader) -> Option<UpstreamSpec> {
    let url = reader.optional("control_api_url", control_api_url);
    let dialect = reader.or(
        "control_api_dialect",
        Dialect::Generic,
        choice([
            ("generic", Dialect::Generic),
            ("metal-stack-v2", Dialect::MetalStackV2),
            ("metal-stack-v1", Dialect::MetalStackV1),
        ]),
    );
    let vrf = reader.or("control_api_vrf", "default".to_owned(), |value| match value {
        "mgmt" => Ok(value.to_owned()),
        _ => default_or_vrf(value).map_err(|_| {
            Rule::from("must be default, mgmt or a VRF name (Vrf[A-Za-z0-9_-]+, at most 15 bytes)")
        }),
    });
    let ca_file = reader.optional("control_api_ca_file", absolute_path);
    let client_cert_file = reader.optional("control_api_client_cert_file", absolute_path);
    let client_key_file = reader.optional("control_api_client_key_file", absolute_path);
    let token_file = reader.optional("control_api_token_file", absolute_path);
    let component_type = reader.or(
        "control_api_component_type",
        ComponentType::Pixiecore,
        choice([
            ("pixiecore", ComponentType::Pixiecore),
            ("metal-core", ComponentType::MetalCore),
            ("metal-bmc", ComponentType::MetalBmc),
            ("metal-image-cache-sync", ComponentType::MetalImageCacheSync),
            ("metal-console", ComponentType::MetalConsole),
            ("metal-metrics-exporter", ComponentType::MetalMetricsExporter),
        ]),
    );
    let modes = choice([("handle", MachineToken::Handle), ("token", MachineToken::Token)]);
    let machine_token = reader.or("machine_token", MachineToken::Handle, modes);
    const PAIR: [&str; 2] = ["control_api_client_cert_file", "control_api_client_key_file"];
    for (one, other) in [(PAIR[0], PAIR[1]), (PAIR[1], PAIR[0])] {
        if reader.text(one).is_some() && reader.text(other).is_none() {
            reader.reject(one, format!("needs {other} as well"));
        }
    }
    let metal_stack_v1 = metal_stack_v1::read(reader, dialect);
    let bad = reader.is_any_bad_with_prefix("control_api") || reader.is_any_bad_with_prefix("metal_stack");
    let url = url.filter(|_| !bad)?;
    Some(UpstreamSpec {
        host: url.host,
        port: url.port,
        base: url.base,
        dialect,
        machine_token,
        component_type,
        vrf,
        ca_file,
        client_cert_file,
        client_key_file,
        token_file,
        metal_stack_v1,
    })
}

const METADATA_TABLE: &str = "DEVICE_METADATA";
const METADATA_KEY: &str = "localhost";

fn hostname(config: &ConfigDb, findings: &mut Findings) -> String {
    let Some(hostname) = config.row(METADATA_TABLE, METADATA_KEY).and_then(|row| row.get("hostname")) else {
        return SWITCH_ID_DEFAULT.to_owned();
    };
    switch_id(hostname).unwrap_or_else(|rule| {
        let row = row_name(METADATA_TABLE, METADATA_KEY);
        let rule = format!("cannot be the switch id, which {rule}; {SWITCH_ID_DEFAULT} is used");
        findings.warnings.push(Rejected::of_field(&row, "hostname", Some(hostname), rule));
        SWITCH_ID_DEFAULT.to_owned()
    })
}

fn chassis_mac(config: &ConfigDb, findings: &mut Findings) -> Option<crate::name::MacAddr> {
    let text = config.row(METADATA_TABLE, METADATA_KEY)?.get("mac")?;
    let mac = text.parse().ok();
    if mac.is_none() {
        let row = row_name(METADATA_TABLE, METADATA_KEY);
        let rule = "is not a MAC address; machines are told no chassis MAC";
        findings.warnings.push(Rejected::of_field(&row, "mac", Some(text), rule));
    }
    mac
}

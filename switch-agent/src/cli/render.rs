//! `render-frr`: the FRR configuration that the agent would want, for people and for templates of others.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Args;
use switch_agent_core::desired::Desired;
use switch_agent_core::frr::{Templates, render};
use switch_agent_core::plan::full_frr_spec;
use switch_agent_core::row::ConfigDb;

use crate::args::DatabaseArgs;

/// Print the FRR configuration of the boot VRFs
///
/// Renders what the configuration asks for when every port is up: prefix lists, route maps, routes, and the
/// BGP instance of each boot VRF. Reads CONFIG_DB, or a config_db.json FILE (- is standard input). FRR is
/// not asked and nothing is changed.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit codes:
  0  printed
  1  CONFIG_DB cannot be read
  2  the input or a template is bad, or no AS number is known

Examples:
  switch-agent render-frr
  switch-agent render-frr --asn 4200000010 config_db.json")]
pub struct RenderArgs {
    /// A config_db.json file; without it the running CONFIG_DB is read
    pub file: Option<PathBuf>,
    /// AS number of the BGP instances; by default `bgp_asn` of DEVICE_METADATA|localhost
    #[arg(long)]
    pub asn: Option<u32>,
    /// BGP router id of the boot VRFs' instances
    #[arg(long)]
    pub router_id: Option<Ipv4Addr>,
    /// Directory with FRR templates that replace the built-in ones of the same name
    #[arg(long, value_name = "DIR", env = "SWITCH_AGENT_TEMPLATES")]
    pub templates: Option<PathBuf>,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Why nothing was rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderFailure {
    #[error("DEVICE_METADATA|localhost has no usable bgp_asn: give --asn")]
    Asn,
    #[error("the templates cannot be rendered")]
    Template(#[source] switch_agent_core::frr::RenderError),
}

/// The text for a configuration.
pub fn text(config: &ConfigDb, args: &RenderArgs, templates: &Templates) -> Result<String, RenderFailure> {
    let metadata = config.row("DEVICE_METADATA", "localhost");
    let configured = || metadata?.get("bgp_asn")?.parse().ok();
    let asn = args.asn.or_else(configured).ok_or(RenderFailure::Asn)?;
    let spec = full_frr_spec(&Desired::from_config(config));
    render(&spec, asn, args.router_id, templates).map_err(RenderFailure::Template)
}

#[cfg(test)]
mod tests {
    use switch_agent_core::row::fields;

    use super::*;

    #[test]
    fn renders_from_configuration_alone() {
        let mut config = ConfigDb::default();
        config.insert("DEVICE_METADATA", "localhost", fields([("bgp_asn", "65001")]));
        config.insert("PORT", "Ethernet0", fields([("alias", "Eth1/1"), ("index", "1")]));
        config.insert(
            "BOOT_NETWORK_PARTITION",
            "p1",
            fields([("prefix", "2001:db8::/56"), ("leak_prefix@", "2001:db8:a91::/64")]),
        );
        config.insert("BOOT_NETWORK_PORT", "Ethernet0", fields([("partition", "p1")]));
        let args = RenderArgs {
            file: None,
            asn: None,
            router_id: None,
            templates: None,
            database: DatabaseArgs { database_config: PathBuf::new() },
        };
        let text = text(&config, &args, &Templates::default()).unwrap();
        assert!(text.contains("router bgp 65001 vrf VrfBoot-p1"), "{text}");
        assert!(text.contains("ipv6 route 2001:db8:0:1::/64 Ethernet0 nexthop-vrf VrfBoot-p1"), "{text}");
        config.remove("DEVICE_METADATA", "localhost");
        assert!(matches!(super::text(&config, &args, &Templates::default()), Err(RenderFailure::Asn)));
    }
}

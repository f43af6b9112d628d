//! neighsyncd: the kernel's neighbours to APPL_DB `NEIGH_TABLE`.

use std::net::IpAddr;

use switch_agent_core::name::{MacAddr, PortKind};
use switch_agent_core::row::fields;
use switch_agent_core::sim::SimSwitch;

use super::Error;
use super::database::Databases;
use super::kernel::Kernel;

const TABLE: &str = "NEIGH_TABLE";

/// A neighbour that is resolved, or (without a MAC) no longer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) port: String,
    pub(super) address: IpAddr,
    pub(super) mac: Option<MacAddr>,
}

/// Link-local neighbours count only where the interface's row asks for them.
fn is_published(change: &Change, switch: &SimSwitch) -> bool {
    let is_port = PortKind::ALL
        .into_iter()
        .filter(|kind| *kind != PortKind::Loopback)
        .find_map(|kind| switch.config().row(kind.interface_table(), &change.port));
    let link_local_too = is_port
        .and_then(|row| row.get("ipv6_use_link_local_only"))
        .is_some_and(|value| value == "enable");
    let configured = ["PORT", "PORTCHANNEL"]
        .into_iter()
        .any(|table| switch.config().row(table, &change.port).is_some());
    match change.address {
        IpAddr::V6(address) if address.is_unicast_link_local() => configured && link_local_too,
        address => configured && !address.is_multicast(),
    }
}

pub(super) async fn publish(
    change: Change,
    switch: &SimSwitch,
    databases: &mut Databases,
) -> Result<(), Error> {
    if !is_published(&change, switch) {
        return Ok(());
    }
    let key = format!("{}:{}", change.port, change.address);
    match change.mac {
        Some(mac) => {
            let family = if change.address.is_ipv4() { "IPv4" } else { "IPv6" };
            let row = fields([("family", family), ("neigh", &mac.to_string())]);
            databases.appl_set(TABLE, &key, &row).await
        }
        None => databases.appl_del(TABLE, &key).await,
    }
}

/// Publishes what the kernel knows already.
pub(super) async fn republish(
    kernel: &Kernel,
    switch: &SimSwitch,
    databases: &mut Databases,
) -> Result<(), Error> {
    for change in kernel.neighbors().await? {
        publish(change, switch, databases).await?;
    }
    Ok(())
}

//! neighsyncd: the kernel's neighbours to APPL_DB `NEIGH_TABLE`.

use std::net::IpAddr;

use switch_agent_core::name::MacAddr;
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
    let config = switch.config();
    let configured =
        ["PORT", "PORTCHANNEL"].into_iter().any(|table| config.row(table, &change.port).is_some());
    let row =
        ["INTERFACE", "PORTCHANNEL_INTERFACE"].into_iter().find_map(|table| config.row(table, &change.port));
    let link_local_too =
        row.and_then(|row| row.get("ipv6_use_link_local_only")).is_some_and(|value| value == "enable");
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
    // Whatever was published goes, also when the row that asked for it went first.
    if change.mac.is_some() && !is_published(&change, switch) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn change(port: &str, address: &str) -> Change {
        Change { port: port.into(), address: address.parse().unwrap(), mac: Some(MacAddr([2; 6])) }
    }

    #[test]
    fn link_local_neighbors_are_published_only_where_the_row_asks_for_them() {
        let mut switch = SimSwitch::for_real_kernel();
        switch.config_put("PORT", "Ethernet0", fields([]));
        assert!(is_published(&change("Ethernet0", "2001:db8::2"), &switch));
        assert!(is_published(&change("Ethernet0", "192.0.2.2"), &switch));
        assert!(!is_published(&change("Ethernet0", "ff02::1"), &switch));
        assert!(!is_published(&change("eth0", "2001:db8::2"), &switch));
        assert!(!is_published(&change("Ethernet0", "fe80::2"), &switch));
        switch.config_put("INTERFACE", "Ethernet0", fields([("ipv6_use_link_local_only", "enable")]));
        assert!(is_published(&change("Ethernet0", "fe80::2"), &switch));
    }
}

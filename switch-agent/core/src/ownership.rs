//! What in SONiC's tables is the agent's, and what is not.
//!
//! SONiC's tables take no owner marks (orchagent refuses unknown fields of a `VRF` row), so ownership is
//! by name plus a ledger: a VRF is ours when the ledger says we created it, or when its name starts with
//! `VrfBoot` and the ledger does not say that somebody else manages it. The ledger is written *before* the
//! row it announces, so a crash in between costs nothing. Deletes take `Owned*` values, and only this
//! module makes them: leaking a row of ours is bounded harm, deleting a foreign one is not.

use std::collections::BTreeMap;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use crate::desired::LeakMethod;
use crate::frr::rows::{Kind, NETWORK_TABLE, classify};
use crate::isolate::ACL_TABLE_PREFIX;
use crate::name::{BOOT_VRF_PREFIX, PortName, VrfName};
use crate::row::{ConfigDb, Fields};

/// Numbers of the loopbacks that carry service addresses: `Loopback900` to `Loopback999`. SONiC knows 0 to
/// 999, and operators use low ones.
pub const SERVICE_LOOPBACKS: std::ops::RangeInclusive<u32> = 900..=999;

/// How a VRF that the agent uses came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VrfOrigin {
    /// The agent wrote its `VRF` row and may delete it.
    Created,
    /// Somebody else manages it (`manage_vrf: disabled`); its rows are never deleted.
    Adopted,
}

/// What the agent wrote (or is about to write) for one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPort {
    pub vrf: VrfName,
    /// Address rows of ours on this interface, `address/length` (a /64 on ports, /128 on loopbacks).
    pub addresses: Vec<Ipv6Net>,
    /// Whether the base row (`INTERFACE|<port>`) is ours too; `false` in adopt mode.
    pub base_row: bool,
}

/// The agent's record of the rows it owns, kept in the state directory as `ledger.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    #[serde(default)]
    pub vrfs: BTreeMap<VrfName, VrfOrigin>,
    #[serde(default)]
    pub ports: BTreeMap<PortName, LedgerPort>,
    /// Rows of the leak, as `TABLE|key`, with their boot VRF: in one that somebody else manages names do not
    /// tell, and an announcement has no content that could.
    #[serde(default)]
    pub leak_rows: BTreeMap<String, VrfName>,
    /// The method whose objects may be in FRR or CONFIG_DB.
    #[serde(default)]
    pub leak_method: Option<LeakMethod>,
}

/// A `VRF` row that the agent may delete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OwnedVrf(VrfName);
/// A base row (`INTERFACE|<port>`) that the agent may delete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OwnedInterface(PortName);
/// An address row (`INTERFACE|<port>|<address>`) that the agent may delete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OwnedAddress(PortName, Ipv6Net);

/// An `ACL_TABLE` or `ACL_RULE` row that the agent may delete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OwnedAcl {
    table: &'static str,
    key: String,
}

impl OwnedAcl {
    /// The row as one of ours: our tables are known by their name, which starts with `BOOTNET_`.
    pub fn new(table: &'static str, key: &str) -> Option<OwnedAcl> {
        let ours = matches!(table, "ACL_TABLE" | "ACL_RULE") && key.starts_with(ACL_TABLE_PREFIX);
        ours.then(|| OwnedAcl { table, key: key.to_owned() })
    }

    /// `ACL_TABLE` or `ACL_RULE`.
    pub fn table(&self) -> &'static str {
        self.table
    }

    pub fn key(&self) -> &str {
        &self.key
    }
}

/// A row of the leak (`STATIC_ROUTE`, `BGP_GLOBALS`, ...) that the agent may delete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OwnedLeakRow {
    table: &'static str,
    key: String,
}

impl OwnedLeakRow {
    pub fn table(&self) -> &'static str {
        self.table
    }

    pub fn key(&self) -> &str {
        &self.key
    }
}

impl OwnedVrf {
    pub fn name(&self) -> &VrfName {
        &self.0
    }
}
impl OwnedInterface {
    pub fn port(&self) -> &PortName {
        &self.0
    }
}
impl OwnedAddress {
    pub fn port(&self) -> &PortName {
        &self.0
    }
    pub fn address(&self) -> Ipv6Net {
        self.1
    }
}

impl Ledger {
    /// The VRF as one of ours, or `None` when it is foreign.
    pub fn owned_vrf(&self, name: &VrfName) -> Option<OwnedVrf> {
        let ours = match self.vrfs.get(name) {
            Some(VrfOrigin::Created) => true,
            Some(VrfOrigin::Adopted) => false,
            None => name.as_str().starts_with(BOOT_VRF_PREFIX),
        };
        ours.then(|| OwnedVrf(name.clone()))
    }

    /// A row of one of the leak's tables as one of ours, with the boot VRF it names and what it is for.
    ///
    /// Ours means: exactly what the agent writes at that key; and the ledger knows the row, or its boot VRF
    /// (or its own name) is one of ours.
    pub(crate) fn owned_leak_row(
        &self,
        config: &ConfigDb,
        table: &'static str,
        key: &str,
        row: &Fields,
    ) -> Option<(OwnedLeakRow, VrfName, Kind)> {
        let known = self.leak_rows.get(&format!("{table}|{key}"));
        let network = || known.filter(|_| table == NETWORK_TABLE && row.is_empty());
        let (vrf, kind) = classify(config, table, key, row)
            .or_else(|| network().map(|vrf| (vrf.clone(), Kind::Network)))?;
        let named = self.owned_vrf(&vrf).is_some() || kind >= Kind::RouteMap;
        let ours = named || known.is_some();
        ours.then(|| (OwnedLeakRow { table, key: key.to_owned() }, vrf, kind))
    }

    /// The base row of `port`, given the VRF it names, as one of ours.
    ///
    /// Ours means: the ledger says so and the row still names the VRF we wrote; or the ledger knows
    /// nothing of the port and the row names a VRF of ours (a lost ledger).
    pub fn owned_interface(&self, port: &PortName, row_vrf: &VrfName) -> Option<OwnedInterface> {
        let ours = match self.ports.get(port) {
            Some(entry) => entry.base_row && entry.vrf == *row_vrf,
            None => self.owned_vrf(row_vrf).is_some(),
        };
        ours.then(|| OwnedInterface(port.clone()))
    }

    /// The address row of `port` as one of ours. `row_vrf` is the VRF its base row names, if any.
    ///
    /// Without a ledger entry two things are taken for ours: an address that the configuration wants on
    /// this very port (`wanted`), and, in a VRF of ours, a router address (`::1` of a /64) or whatever is
    /// on a loopback from the range of service addresses.
    pub fn owned_address(
        &self,
        port: &PortName,
        row_vrf: Option<&VrfName>,
        address: Ipv6Net,
        wanted: &[Ipv6Net],
    ) -> Option<OwnedAddress> {
        let ours = match self.ports.get(port) {
            Some(entry) => entry.addresses.contains(&address),
            None => {
                let router = address.prefix_len() == 64 && address.addr().segments()[4..] == [0, 0, 0, 1];
                let named = router || SERVICE_LOOPBACKS.clone().any(|number| port.is_loopback(number));
                wanted.contains(&address) || named && row_vrf.is_some_and(|vrf| self.owned_vrf(vrf).is_some())
            }
        };
        ours.then(|| OwnedAddress(port.clone(), address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vrf(name: &str) -> VrfName {
        name.parse().unwrap()
    }

    #[test]
    fn names_decide_until_the_ledger_says_otherwise() {
        let mut ledger = Ledger::default();
        assert!(ledger.owned_vrf(&vrf("VrfBoot-p1")).is_some());
        assert!(ledger.owned_vrf(&vrf("VrfTenant")).is_none());
        ledger.vrfs.insert(vrf("VrfBoot-p1"), VrfOrigin::Adopted);
        ledger.vrfs.insert(vrf("VrfTenant"), VrfOrigin::Created);
        assert!(ledger.owned_vrf(&vrf("VrfBoot-p1")).is_none());
        assert!(ledger.owned_vrf(&vrf("VrfTenant")).is_some());
    }

    #[test]
    fn a_foreign_change_of_our_row_makes_it_foreign() {
        let port: PortName = "Ethernet0".parse().unwrap();
        let address: Ipv6Net = "2001:db8::1/64".parse().unwrap();
        let mut ledger = Ledger::default();
        assert!(ledger.owned_interface(&port, &vrf("VrfBoot-p1")).is_some());
        ledger.ports.insert(
            port.clone(),
            LedgerPort { vrf: vrf("VrfBoot-p1"), addresses: vec![address], base_row: true },
        );
        assert!(ledger.owned_interface(&port, &vrf("VrfBoot-p1")).is_some());
        assert!(ledger.owned_interface(&port, &vrf("Vrf7")).is_none());
        // The address row is still ours to take away, whoever owns the base row now.
        assert!(ledger.owned_address(&port, Some(&vrf("Vrf7")), address, &[]).is_some());
        assert!(
            ledger.owned_address(&port, Some(&vrf("Vrf7")), "2001:db8::2/64".parse().unwrap(), &[]).is_none()
        );
    }
}

//! The readable part of an observation, indexed by interface.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::rc::Rc;

use ipnet::Ipv6Net;

use crate::desired::Desired;
use crate::name::{PortKind, PortName, VrfName};
use crate::observed::{ApplDb, Kernel, Link, Observed, Runtime, StateDb};
use crate::ownership::{Ledger, OwnedAddress, OwnedInterface};
use crate::row::{ConfigDb, Fields};

/// Everything that must be readable before a row may be written or a port judged.
pub(super) struct View<'a> {
    pub(super) desired: &'a Desired,
    pub(super) config: &'a ConfigDb,
    pub(super) state: &'a StateDb,
    pub(super) appl: &'a ApplDb,
    pub(super) kernel: &'a Kernel,
    pub(super) ledger: &'a Ledger,
    pub(super) runtime: &'a Runtime,
    pub(super) backing_off: &'a BTreeMap<String, String>,
    pub(super) cooling: &'a BTreeSet<String>,
    pub(super) overdue: &'a BTreeSet<String>,
    /// Interfaces by the network of each address that intfmgrd has taken.
    pub(super) networks: BTreeMap<Ipv6Net, Vec<&'a (PortName, Ipv6Net)>>,
    /// What [`View::interface`] gathered so far.
    pub(super) interfaces: RefCell<HashMap<PortName, Rc<Interface<'a>>>>,
}

/// One interface across all databases and the kernel.
pub(super) struct Interface<'a> {
    pub(super) base: Option<&'a Fields>,
    /// `vrf_name` of the base row; empty where the row has none.
    pub(super) row_vrf: Option<&'a str>,
    /// Address rows by the text of their key; `None` where it is no IPv6 prefix.
    pub(super) addresses: Vec<(&'a str, Option<Ipv6Net>)>,
    pub(super) state_vrf: Option<&'a str>,
    pub(super) state_addresses: Vec<Ipv6Net>,
    pub(super) link: Option<&'a Link>,
}

impl<'a> View<'a> {
    /// `None` when a source that rows depend on is unknown.
    pub(super) fn new(desired: &'a Desired, observed: &'a Observed) -> Option<View<'a>> {
        let state = observed.state.known()?;
        let mut networks: BTreeMap<Ipv6Net, Vec<_>> = BTreeMap::new();
        for entry in &state.interface_prefixes {
            networks.entry(entry.1.trunc()).or_default().push(entry);
        }
        Some(View {
            desired,
            config: observed.config.known()?,
            state,
            appl: observed.appl.known()?,
            kernel: observed.kernel.known()?,
            ledger: observed.ledger.known()?,
            runtime: &observed.runtime,
            backing_off: &observed.backing_off,
            cooling: &observed.cooling,
            overdue: &observed.overdue,
            networks,
            interfaces: RefCell::default(),
        })
    }

    /// The interface across all databases; gathered once per plan.
    pub(super) fn interface(&self, port: &PortName) -> Rc<Interface<'a>> {
        if let Some(known) = self.interfaces.borrow().get(port) {
            return known.clone();
        }
        let gathered = Rc::new(self.gather(port));
        self.interfaces.borrow_mut().insert(port.clone(), gathered.clone());
        gathered
    }

    fn gather(&self, port: &PortName) -> Interface<'a> {
        let table = self.config.tables.get(port.kind().interface_table());
        let base = table.and_then(|rows| rows.get(port.as_str()));
        let from = format!("{port}|");
        let addresses = table
            .into_iter()
            .flat_map(|rows| rows.range(from.clone()..))
            .map_while(|(key, _)| key.strip_prefix(from.as_str()))
            .map(|text| (text, text.parse().ok()))
            .collect();
        let lowest = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);
        let state_addresses = self
            .state
            .interface_prefixes
            .range((port.clone(), lowest)..)
            .take_while(|(name, _)| name == port)
            .map(|(_, address)| *address)
            .collect();
        Interface {
            base,
            row_vrf: base.map(|row| row.get("vrf_name").map_or("", String::as_str)),
            addresses,
            state_vrf: self.state.interface_table.get(port).map(String::as_str),
            state_addresses,
            link: self.kernel.links.get(port.as_str()),
        }
    }

    /// The kernel shows the port in this VRF.
    pub(super) fn enslaved(&self, port: &PortName, vrf: &str) -> bool {
        self.kernel.links.get(port.as_str()).is_some_and(|link| link.master.as_deref() == Some(vrf))
    }

    /// An action on the object may be emitted now: it neither failed nor ran a moment ago.
    pub(super) fn free(&self, object: &str) -> bool {
        !self.backing_off.contains_key(object) && !self.cooling.contains(object)
    }

    /// A row that swss has not taken may be written again: it had its time.
    pub(super) fn repairable(&self, object: &str) -> bool {
        self.free(object) && self.overdue.contains(object)
    }

    pub(super) fn vrf_device(&self, vrf: &VrfName) -> Option<&'a Link> {
        self.kernel.links.get(vrf.as_str()).filter(|link| link.is_vrf)
    }

    /// Row, both STATE_DB rows and the kernel device exist.
    pub(super) fn vrf_ready(&self, vrf: &VrfName) -> bool {
        self.vrf_missing(vrf).is_none()
    }

    /// The first thing a VRF lacks, worded for operators.
    pub(super) fn vrf_missing(&self, vrf: &VrfName) -> Option<String> {
        if self.config.row("VRF", vrf.as_str()).is_none() {
            Some(format!("CONFIG_DB VRF|{vrf}"))
        } else if !self.state.vrf_table.contains(vrf.as_str()) {
            Some(format!("vrfmgrd: STATE_DB VRF_TABLE|{vrf}"))
        } else if !self.state.vrf_object_table.contains(vrf.as_str()) {
            Some(format!("orchagent: STATE_DB VRF_OBJECT_TABLE|{vrf}"))
        } else if self.vrf_device(vrf).is_none() {
            Some(format!("kernel device {vrf}"))
        } else {
            None
        }
    }

    /// Base rows of any routed-interface table that name the VRF, as `TABLE|key`.
    pub(super) fn rows_in_vrf(&self, vrf: &str) -> Vec<String> {
        const TABLES: [&str; 5] = [
            "INTERFACE",
            "LOOPBACK_INTERFACE",
            "PORTCHANNEL_INTERFACE",
            "VLAN_INTERFACE",
            "VLAN_SUB_INTERFACE",
        ];
        TABLES
            .iter()
            .flat_map(|table| self.config.table(table).map(move |(key, row)| (table, key, row)))
            .filter(|(_, _, row)| row.get("vrf_name").is_some_and(|name| name == vrf))
            .map(|(table, key, _)| format!("{table}|{key}"))
            .collect()
    }

    /// Interfaces (ports and loopbacks) that carry or may carry rows of ours.
    pub(super) fn interfaces_with_rows(&self) -> BTreeSet<PortName> {
        PortKind::ALL
            .iter()
            .flat_map(|kind| self.config.table(kind.interface_table()))
            .filter_map(|(key, _)| key.split('|').next()?.parse().ok())
            .chain(self.ledger.ports.keys().cloned())
            .chain(self.runtime.services.keys().cloned())
            .chain(self.runtime.advertisers.keys().cloned())
            .collect()
    }
}

impl Interface<'_> {
    pub(super) fn row_vrf_name(&self) -> Option<VrfName> {
        self.row_vrf?.parse().ok()
    }

    /// The base row as one of ours.
    pub(super) fn owned_base(&self, ledger: &Ledger, port: &PortName) -> Option<OwnedInterface> {
        ledger.owned_interface(port, &self.row_vrf_name()?)
    }

    /// Address rows that are ours.
    pub(super) fn owned_addresses(
        &self,
        ledger: &Ledger,
        port: &PortName,
        wanted: &[Ipv6Net],
    ) -> Vec<OwnedAddress> {
        let vrf = self.row_vrf_name();
        let rows = self.addresses.iter().filter_map(|(_, address)| *address);
        rows.filter_map(|address| ledger.owned_address(port, vrf.as_ref(), address, wanted)).collect()
    }

    pub(super) fn has_address_row(&self, address: Ipv6Net) -> bool {
        self.addresses.iter().any(|(_, net)| *net == Some(address))
    }

    /// The kernel has the address and it is usable.
    pub(super) fn kernel_has(&self, address: Ipv6Net) -> bool {
        self.link.is_some_and(|link| link.addresses.contains(&address) && !link.tentative.contains(&address))
    }
}

//! The kernel's links as far as the daemons touch them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use crate::name::{INTERFACE_NAME_LEN_MAX, MacAddr};
use crate::observed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    Port,
    Vrf { table: u32 },
    Dummy,
    Bridge,
}

/// A link of the modelled kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimLink {
    pub ifindex: u32,
    pub kind: LinkKind,
    pub master: Option<String>,
    /// IFF_UP.
    pub admin_up: bool,
    /// IFF_LOWER_UP.
    pub carrier: bool,
    pub mac: Option<MacAddr>,
    pub mtu: u32,
    /// All addresses, link-local ones included.
    pub addresses: BTreeSet<IpNet>,
}

impl SimLink {
    /// Whether an address is left that intfmgrd waits for before it releases the port: anything but an
    /// IPv6 link-local address, whoever configured it.
    pub(super) fn holds_address(&self) -> bool {
        self.addresses.iter().any(|net| match net {
            IpNet::V4(_) => true,
            IpNet::V6(net) => !net.addr().is_unicast_link_local(),
        })
    }

    fn remove_link_locals(&mut self) {
        self.addresses.retain(|net| match net {
            IpNet::V4(_) => true,
            IpNet::V6(net) => !net.addr().is_unicast_link_local(),
        });
    }

    /// The kernel's link-local address of a link that is up: addresses of this kind do not survive a
    /// down/up cycle and are made anew, made-by-hand ones are gone for good.
    pub(super) fn regenerate_link_local(&mut self) {
        self.remove_link_locals();
        if self.admin_up
            && self.carrier
            && let Some(net) = self.mac.and_then(|mac| Ipv6Net::new(mac.eui64_link_local(), 64).ok())
        {
            self.addresses.insert(IpNet::V6(net));
        }
    }

    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|net| match net {
            IpNet::V6(net) if net.addr().is_unicast_link_local() => Some(net.addr()),
            _ => None,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SimKernel {
    pub(super) links: BTreeMap<String, SimLink>,
    pub(super) unreachable_defaults: BTreeSet<String>,
    pub(super) net_admin: bool,
    pub(super) next_ifindex: u32,
}

impl SimKernel {
    pub(super) fn new() -> SimKernel {
        SimKernel {
            links: BTreeMap::new(),
            unreachable_defaults: BTreeSet::new(),
            net_admin: true,
            next_ifindex: 2,
        }
    }

    /// Indexes are never handed out twice, as in the kernel.
    pub(super) fn add(&mut self, name: &str, kind: LinkKind, mac: Option<MacAddr>) -> &mut SimLink {
        let ifindex = self.next_ifindex;
        self.next_ifindex += 1;
        let mut link = SimLink {
            ifindex,
            kind,
            master: None,
            admin_up: true,
            carrier: true,
            mac,
            mtu: 9100,
            addresses: BTreeSet::new(),
        };
        link.regenerate_link_local();
        let slot = self.links.entry(name.to_owned()).or_insert_with(|| link.clone());
        *slot = link;
        slot
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<SimLink> {
        let removed = self.links.remove(name)?;
        self.unreachable_defaults.remove(name);
        for link in self.links.values_mut().filter(|link| link.master.as_deref() == Some(name)) {
            link.master = None;
            link.regenerate_link_local();
        }
        Some(removed)
    }

    pub(super) fn is_vrf(&self, name: &str) -> bool {
        self.links.get(name).is_some_and(|link| matches!(link.kind, LinkKind::Vrf { .. }))
    }

    pub(super) fn vrfs(&self) -> Vec<String> {
        self.links
            .iter()
            .filter(|(_, link)| matches!(link.kind, LinkKind::Vrf { .. }))
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(super) fn observe(&self) -> observed::Kernel {
        observed::Kernel {
            links: self.links.iter().map(|(name, link)| (name.clone(), observe_link(link))).collect(),
            unreachable_defaults: self.unreachable_defaults.clone(),
            net_admin: self.net_admin,
        }
    }
}

fn observe_link(link: &SimLink) -> observed::Link {
    let vrf_table = match link.kind {
        LinkKind::Vrf { table } => Some(table),
        _ => None,
    };
    let addresses = link.addresses.iter().filter_map(|net| match net {
        IpNet::V6(net) => Some(*net),
        IpNet::V4(_) => None,
    });
    observed::Link {
        ifindex: link.ifindex,
        master: link.master.clone(),
        is_vrf: vrf_table.is_some(),
        vrf_table,
        admin_up: link.admin_up,
        carrier: link.carrier,
        mac: link.mac,
        addresses: addresses.collect(),
        tentative: BTreeSet::new(),
        forwarding: Some(true),
    }
}

/// Whether `ip link add` takes the name: the kernel's rule, weaker than SONiC's.
pub(super) fn is_link_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= INTERFACE_NAME_LEN_MAX
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

//! Multicast Listener Discovery reports (RFC 2710, RFC 3810): read for who sent them, which is often the
//! first that a machine lets be heard. The groups are the kernel's business.

use std::net::Ipv6Addr;

use super::parse::{ChecksumOffload, Invalid, array};
use super::{NEXT_HEADER_ICMPV6, icmpv6_checksum};
use crate::name::MacAddr;

/// A valid report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MldReport {
    /// Source of the Ethernet frame.
    pub mac: MacAddr,
    /// `None` when it was sent from `::`, as RFC 3590 has it while the link-local address is tentative.
    pub source: Option<Ipv6Addr>,
}

/// Hop limit of every MLD message (RFC 3810 section 5).
const HOP_LIMIT: u8 = 1;
const VERSION_1_REPORT: u8 = 131;
const VERSION_2_REPORT: u8 = 143;
/// Router Alert with value 0, "contains a MLD message" (RFC 2711).
const ROUTER_ALERT_MLD: [u8; 4] = [5, 2, 0, 0];
const PAD1: u8 = 0;
/// `ff02::16` (RFC 3810 section 5.2.14).
const ALL_MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// What the IPv6 header says of the packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) mac: MacAddr,
    pub(super) hop_limit: u8,
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
}

/// Reads the payload of an IPv6 packet that starts with a Hop-by-Hop Options header. Whatever is no MLD
/// report is [`Invalid::NotRouterDiscovery`]; a report that its RFC tells to ignore is [`Invalid::Mld`].
pub(super) fn parse(
    addresses: Addresses,
    payload: &[u8],
    offload: ChecksumOffload,
) -> Result<MldReport, Invalid> {
    let [next_header, units] = array(payload, 0)?;
    let (options, icmp) = payload.split_at_checked((usize::from(units) + 1) * 8).ok_or(Invalid::Truncated)?;
    let Some(&kind @ (VERSION_1_REPORT | VERSION_2_REPORT)) = icmp.first() else {
        return Err(Invalid::NotRouterDiscovery);
    };
    if next_header != NEXT_HEADER_ICMPV6 {
        return Err(Invalid::NotRouterDiscovery);
    }
    let Addresses { mac, hop_limit, source, destination } = addresses;
    let from_the_link = source.is_unspecified() || source.is_unicast_link_local();
    if hop_limit != HOP_LIMIT || !from_the_link || !has_router_alert(&options[2..]) {
        return Err(Invalid::Mld);
    }
    if offload == ChecksumOffload::Complete && icmpv6_checksum(source, destination, icmp) != 0 {
        return Err(Invalid::Checksum);
    }
    let holds = match kind {
        VERSION_1_REPORT => {
            Ipv6Addr::from(array::<16>(icmp, 8)?) == destination && destination.is_multicast()
        }
        _ => destination == ALL_MLDV2_ROUTERS && records_fit(icmp)?,
    };
    if !holds {
        return Err(Invalid::Mld);
    }
    Ok(MldReport { mac, source: (!source.is_unspecified()).then_some(source) })
}

/// Walks the options of a Hop-by-Hop header (RFC 8200 section 4.2).
fn has_router_alert(mut options: &[u8]) -> bool {
    while let Some(&kind) = options.first() {
        if options.starts_with(&ROUTER_ALERT_MLD) {
            return true;
        }
        let length = match (kind, options.get(1)) {
            (PAD1, _) => 1,
            (_, Some(length)) => 2 + usize::from(*length),
            (_, None) => return false,
        };
        options = options.get(length..).unwrap_or_default();
    }
    false
}

/// Whether the multicast address records (RFC 3810 section 5.2) are as many and as long as they say.
fn records_fit(icmp: &[u8]) -> Result<bool, Invalid> {
    const HEADER_LEN: usize = 8;
    const RECORD_LEN_MIN: usize = 20;
    let count = u16::from_be_bytes(array(icmp, 6)?);
    let mut records = icmp.get(HEADER_LEN..).unwrap_or_default();
    for _ in 0..count {
        let auxiliary_words = usize::from(array::<1>(records, 1)?[0]);
        let sources = usize::from(u16::from_be_bytes(array(records, 2)?));
        let length = RECORD_LEN_MIN + sources * 16 + auxiliary_words * 4;
        records = records.get(length..).ok_or(Invalid::Truncated)?;
    }
    Ok(count > 0)
}

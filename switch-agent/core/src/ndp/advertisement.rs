//! Router Advertisements (RFC 4861 section 4.2), split over several messages where one would grow too long.

use super::option::{NdpOption, preference_bits};
use super::{IPV6_HEADER_LEN, IPV6_MTU_MIN, ROUTER_ADVERTISEMENT};
use crate::name::MacAddr;
use crate::ra::Preference;

/// Most bytes of one ICMPv6 message, so that its packet passes every IPv6 link unfragmented.
pub const MESSAGE_LEN_MAX: usize = IPV6_MTU_MIN - IPV6_HEADER_LEN;

const HEADER_LEN: usize = 16;
const SLLAO_LEN: usize = 8;
/// Most bytes of one option, so that it fits into a message of its own.
pub(super) const OPTION_LEN_MAX: usize = MESSAGE_LEN_MAX - HEADER_LEN - SLLAO_LEN;

const MANAGED: u8 = 0x80;
const OTHER_CONFIG: u8 = 0x40;

/// The fixed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub cur_hop_limit: u8,
    pub managed: bool,
    pub other_config: bool,
    /// RFC 4191 section 2.2; sent as medium while the router lifetime is 0, as that section demands.
    pub preference: Preference,
    pub router_lifetime_s: u16,
    /// Milliseconds.
    pub reachable_time_ms: u32,
    /// Milliseconds.
    pub retrans_timer_ms: u32,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let preference = if self.router_lifetime_s == 0 { Preference::Medium } else { self.preference };
        let mut flags = preference_bits(preference);
        if self.managed {
            flags |= MANAGED;
        }
        if self.other_config {
            flags |= OTHER_CONFIG;
        }
        let mut message = Vec::with_capacity(MESSAGE_LEN_MAX);
        message.extend_from_slice(&[ROUTER_ADVERTISEMENT, 0, 0, 0, self.cur_hop_limit, flags]);
        message.extend_from_slice(&self.router_lifetime_s.to_be_bytes());
        message.extend_from_slice(&self.reachable_time_ms.to_be_bytes());
        message.extend_from_slice(&self.retrans_timer_ms.to_be_bytes());
        message
    }
}

/// The ICMPv6 messages that carry `options` in their order, each with `header` and the source link-layer
/// address, none longer than [`MESSAGE_LEN_MAX`]; the checksum is left zero for [`super::write_frame`].
/// Options come in order of importance: some clients take only the first message.
pub fn messages(header: &Header, mac: MacAddr, options: &[NdpOption<'_>]) -> Vec<Vec<u8>> {
    let mut encoded = vec![];
    NdpOption::SourceLinkLayerAddress(mac).encode(&mut encoded);
    let mut start = header.encode();
    encoded.drain(..).for_each(|bytes| start.extend(bytes));
    options.iter().for_each(|option| option.encode(&mut encoded));

    let mut messages = vec![];
    let mut message = start.clone();
    for option in encoded {
        if message.len() + option.len() > MESSAGE_LEN_MAX {
            messages.push(std::mem::replace(&mut message, start.clone()));
        }
        message.extend_from_slice(&option);
    }
    messages.push(message);
    messages
}

//! Router Solicitations: valid ones, and each way of being invalid (RFC 4861 6.1.1).

use std::net::Ipv6Addr;

use super::{ALL_ROUTERS, ALL_ROUTERS_MAC, ETHERTYPE_IPV6, NEXT_HEADER_ICMPV6, checksum};

const ROUTER_SOLICITATION: u8 = 133;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

/// A Router Solicitation to be. Every field may be made wrong.
#[derive(Debug, Clone)]
pub(crate) struct RsFrame {
    pub mac: [u8; 6],
    pub source: Ipv6Addr,
    pub hop_limit: u8,
    pub code: u8,
    /// Options as bytes.
    pub options: Vec<u8>,
    /// Bytes to keep of the ICMPv6 message.
    pub length: usize,
    /// Added to the right checksum.
    pub checksum_error: u16,
}

impl RsFrame {
    /// As Linux sends it: from the link-local address that the MAC makes, with its link-layer address.
    pub(crate) fn link_local(mac: [u8; 6]) -> Self {
        let mut options = vec![SOURCE_LINK_LAYER_ADDRESS, 1];
        options.extend(mac);
        Self { source: eui64(mac), options, ..Self::unspecified(mac) }
    }

    /// As UEFI sends it: from `::`, without options.
    pub(crate) fn unspecified(mac: [u8; 6]) -> Self {
        Self {
            mac,
            source: Ipv6Addr::UNSPECIFIED,
            hop_limit: 255,
            code: 0,
            options: Vec::new(),
            length: usize::MAX,
            checksum_error: 0,
        }
    }

    /// The whole Ethernet frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut message = vec![ROUTER_SOLICITATION, self.code, 0, 0, 0, 0, 0, 0];
        message.extend(&self.options);
        message.truncate(self.length);
        let sum = checksum(self.source, ALL_ROUTERS, &message).wrapping_add(self.checksum_error);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame = Vec::with_capacity(54 + message.len());
        frame.extend(ALL_ROUTERS_MAC);
        frame.extend(self.mac);
        frame.extend(ETHERTYPE_IPV6.to_be_bytes());
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes());
        frame.extend([NEXT_HEADER_ICMPV6, self.hop_limit]);
        frame.extend(self.source.octets());
        frame.extend(ALL_ROUTERS.octets());
        frame.extend(message);
        frame
    }
}

/// The link-local address that modified EUI-64 makes of a MAC (RFC 4291 appendix A).
pub(crate) fn eui64(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solicitation_as_linux_sends_it() {
        let frame = RsFrame::link_local([0x52, 0x54, 0, 0, 0, 1]).bytes();
        assert_eq!(frame.len(), 14 + 40 + 16);
        assert_eq!(frame[21], 255);
        assert_eq!(&frame[22..38], &"fe80::5054:ff:fe00:1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(frame[54..56], [133, 0]);
        assert_eq!(checksum(eui64([0x52, 0x54, 0, 0, 0, 1]), ALL_ROUTERS, &frame[54..]), 0);
    }

    #[test]
    fn a_wrong_checksum_is_wrong() {
        let mac = [2, 0, 0, 0, 0, 9];
        let frame = RsFrame { checksum_error: 1, ..RsFrame::link_local(mac) }.bytes();
        assert_ne!(checksum(eui64(mac), ALL_ROUTERS, &frame[54..]), 0);
    }

    #[test]
    fn a_cut_message_has_its_own_checksum() {
        let frame = RsFrame { length: 6, ..RsFrame::unspecified([2, 0, 0, 0, 0, 9]) }.bytes();
        assert_eq!(frame.len(), 14 + 40 + 6);
        assert_eq!(frame[18..20], [0, 6]);
        assert_eq!(checksum(Ipv6Addr::UNSPECIFIED, ALL_ROUTERS, &frame[54..]), 0);
    }
}

//! Router Advertisements as a conformance tester reads them (RFC 4861 4.2, 6.1.2).

use std::net::Ipv6Addr;

use super::checksum;
use crate::failure::{Context, Result, ensure};

const PREFIX_INFORMATION: u8 = 3;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

/// A Prefix Information option (RFC 4861 4.6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrefixInfo {
    pub prefix: Ipv6Addr,
    pub length: u8,
    pub on_link: bool,
    pub autonomous: bool,
    pub valid: u32,
    pub preferred: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Advert {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    pub code: u8,
    pub checksum_correct: bool,
    pub cur_hop_limit: u8,
    /// M, O, preference and reserved bits.
    pub flags: u8,
    /// Seconds; zero says "not your default router".
    pub router_lifetime: u16,
    /// Milliseconds.
    pub reachable_time: u32,
    pub retrans_timer: u32,
    pub source_link_layer_address: Option<[u8; 6]>,
    pub prefixes: Vec<PrefixInfo>,
    /// Types of all options, in order.
    pub options: Vec<u8>,
}

impl Advert {
    /// Reads a whole Ethernet frame. What RFC 4861 6.1.2 leaves to the receiver to check is a field here.
    pub(crate) fn parse(frame: &[u8]) -> Result<Self> {
        let header: &[u8; 70] = frame.first_chunk().context(|| format!("{} bytes", frame.len()))?;
        let address = |at: usize| -> Result<Ipv6Addr> {
            let octets: &[u8; 16] = header[at..].first_chunk().context(|| "address".into())?;
            Ok(Ipv6Addr::from(*octets))
        };
        let mac =
            |at: usize| -> Result<[u8; 6]> { header[at..].first_chunk().copied().context(|| "MAC".into()) };
        ensure!(header[12..14] == [0x86, 0xdd] && header[20] == 58, "no ICMPv6 packet");
        let length = usize::from(u16::from_be_bytes([header[18], header[19]]));
        let message = frame.get(54..54 + length).context(|| format!("payload length {length}"))?;
        ensure!(message.len() >= 16 && message[0] == 134, "no Router Advertisement: {message:02x?}");
        let (source, destination) = (address(22)?, address(38)?);
        let mut advert = Self {
            destination_mac: mac(0)?,
            source_mac: mac(6)?,
            source,
            destination,
            hop_limit: header[21],
            code: message[1],
            checksum_correct: checksum(source, destination, message) == 0,
            cur_hop_limit: message[4],
            flags: message[5],
            router_lifetime: u16::from_be_bytes([message[6], message[7]]),
            reachable_time: word(message, 8),
            retrans_timer: word(message, 12),
            source_link_layer_address: None,
            prefixes: Vec::new(),
            options: Vec::new(),
        };
        advert.read_options(&message[16..])?;
        Ok(advert)
    }

    fn read_options(&mut self, mut rest: &[u8]) -> Result<()> {
        while let [kind, units, ..] = *rest {
            let length = usize::from(units) * 8;
            ensure!(length > 0 && length <= rest.len(), "option {kind} of {length} in {} bytes", rest.len());
            let (option, tail) = rest.split_at(length);
            self.options.push(kind);
            match kind {
                SOURCE_LINK_LAYER_ADDRESS if length == 8 => {
                    self.source_link_layer_address = option[2..].first_chunk().copied();
                }
                PREFIX_INFORMATION => {
                    ensure!(length == 32, "a Prefix Information option of {length} bytes");
                    let octets: &[u8; 16] = option[16..].first_chunk().context(|| "prefix".into())?;
                    self.prefixes.push(PrefixInfo {
                        prefix: Ipv6Addr::from(*octets),
                        length: option[2],
                        on_link: option[3] & 0x80 != 0,
                        autonomous: option[3] & 0x40 != 0,
                        valid: word(option, 4),
                        preferred: word(option, 8),
                    });
                }
                _ => {}
            }
            rest = tail;
        }
        ensure!(rest.is_empty(), "{} bytes behind the last option", rest.len());
        Ok(())
    }

    /// Sent to many, not (RFC 6085) to one.
    pub(crate) fn is_multicast_frame(&self) -> bool {
        self.destination_mac[0] & 1 != 0
    }

    /// v6LC.2.2.5, and what every receiver checks (RFC 4861 6.1.2).
    pub(crate) fn check_valid(&self) -> Result<()> {
        ensure!(self.source.is_unicast_link_local(), "the source is {}", self.source);
        ensure!(self.hop_limit == 255, "the hop limit is {}", self.hop_limit);
        ensure!(self.checksum_correct, "the checksum is wrong");
        ensure!(self.code == 0, "the code is {}", self.code);
        ensure!(!self.options.is_empty(), "there are no options");
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_be_bytes(*word))
}

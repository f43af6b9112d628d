//! Options of answers, as bytes.

use std::net::Ipv6Addr;

use super::boot::expand;
use super::frame::UDP_HEADER_LEN;
use super::option;
use super::{Dhcp6Options, MacAddr};
use crate::ndp::{IPV6_MTU_MIN, encode_domain};

/// Longest answer: its packet passes every IPv6 link unfragmented, as firmware assumes.
pub const ANSWER_LEN_MAX: usize = IPV6_MTU_MIN - IPV6_HEADER_LEN - UDP_HEADER_LEN;
const IPV6_HEADER_LEN: usize = 40;

/// A DUID is a type and up to 128 bytes (RFC 8415 section 11.1).
pub(super) const DUID_LEN_MAX: usize = 130;

const OPTION_HEADER_LEN: usize = 4;
const IAADDR_LEN: usize = 24;

/// A message under construction, never longer than [`ANSWER_LEN_MAX`].
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(kind: u8, transaction_id: [u8; 3]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(kind);
        bytes.extend_from_slice(&transaction_id);
        Writer(bytes)
    }

    /// Appends an option; `false`, and nothing appended, where it does not fit.
    pub(super) fn option(&mut self, code: u16, data: &[u8]) -> bool {
        let fits = self.0.len() + OPTION_HEADER_LEN + data.len() <= ANSWER_LEN_MAX;
        if fits {
            push_option(&mut self.0, code, data);
        }
        fits
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Appends code, length and content. Content is far below 65536 bytes: the callers' buffers are bounded.
pub(super) fn push_option(out: &mut Vec<u8>, code: u16, data: &[u8]) {
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(data);
}

/// Appends an IA Address option (RFC 8415 section 21.6).
pub(super) fn push_address(out: &mut Vec<u8>, address: Ipv6Addr, preferred_s: u32, valid_s: u32) {
    let mut data = Vec::with_capacity(IAADDR_LEN);
    data.extend_from_slice(&address.octets());
    data.extend_from_slice(&preferred_s.to_be_bytes());
    data.extend_from_slice(&valid_s.to_be_bytes());
    push_option(out, option::IAADDR, &data);
}

/// DUID-LL: type 3, hardware type 1, link-layer address (RFC 8415 section 11.4).
pub(super) fn duid_ll(mac: MacAddr) -> [u8; 10] {
    let mut duid = [0, 3, 0, 1, 0, 0, 0, 0, 0, 0];
    duid[4..].copy_from_slice(&mac.0);
    duid
}

pub(super) fn addresses(addresses: &[Ipv6Addr]) -> Vec<u8> {
    addresses.iter().flat_map(Ipv6Addr::octets).collect()
}

/// Names that have no encoding are left out; configuration is checked before it gets here.
pub(super) fn domains(domains: &[String]) -> Vec<u8> {
    domains.iter().filter_map(|domain| encode_domain(domain)).flatten().collect()
}

/// The one suboption of an NTP Server option (RFC 5908 section 4): 1 an address, 3 a name. None for what has
/// no form: an IPv4 address.
pub(super) fn ntp_server(server: &str) -> Option<Vec<u8>> {
    let (code, data) = match server.parse() {
        Ok(std::net::IpAddr::V6(address)) => (1, address.octets().to_vec()),
        Ok(std::net::IpAddr::V4(_)) => return None,
        Err(_) => (3, encode_domain(server)?),
    };
    let mut suboption = Vec::with_capacity(OPTION_HEADER_LEN + data.len());
    push_option(&mut suboption, code, &data);
    Some(suboption)
}

/// Vendor Class with one piece (RFC 8415 section 21.16), or boot parameters without an enterprise number
/// (RFC 5970 section 3.2): each piece behind its length.
pub(super) fn pieces<'a>(start: &[u8], pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut data = start.to_vec();
    for piece in pieces {
        data.extend_from_slice(&u16::try_from(piece.len()).unwrap_or(u16::MAX).to_be_bytes());
        data.extend_from_slice(piece);
    }
    data
}

pub(super) fn boot_params(params: &[String]) -> Vec<u8> {
    pieces(&[], params.iter().map(String::as_bytes))
}

/// Length of the longest answer that a client with one identity association can get, in bytes; configuration
/// keeps it within [`ANSWER_LEN_MAX`].
pub fn longest_answer(options: &Dhcp6Options) -> usize {
    /// Header, identifiers, Preference, Rapid Commit, IA_NA with its address and one with lifetime 0, a
    /// vendor class, three times of 4 bytes, and a refused IA_PD with its words.
    const FIXED: usize = 4 + (4 + DUID_LEN_MAX) + (4 + 10) + 5 + 4 + (16 + 28 + 28) + 20 + 3 * 8 + 64;
    let option = |len: usize| if len == 0 { 0 } else { OPTION_HEADER_LEN + len };
    let widest = Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff);
    let url = options.boot_urls.iter().map(|boot| expand(&boot.url, widest, u16::MAX).len()).max();
    // iPXE's own script is told even where no URL is configured.
    let url = url.unwrap_or(0).max(64);
    FIXED
        + option(16 * options.dns_servers.len())
        + option(domains(&options.domain_search).len())
        + options
            .ntp_servers
            .iter()
            .filter_map(|server| Some(option(ntp_server(server)?.len())))
            .sum::<usize>()
        + option(url)
        + option(boot_params(&options.boot_params).len())
}

//! Options of a Router Advertisement, as bytes.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::advertisement::OPTION_LEN_MAX;
use crate::name::MacAddr;
use crate::ra::{AdvPrefix, EncryptedDns, Preference, PrefixVariables, SvcParams};

const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
pub(super) const PREFIX_INFORMATION: u8 = 3;
pub(super) const MTU: u8 = 5;
pub(super) const ROUTE_INFORMATION: u8 = 24;
pub(super) const RDNSS: u8 = 25;
pub(super) const DNSSL: u8 = 31;
const CAPTIVE_PORTAL: u8 = 37;
pub(super) const PREF64: u8 = 38;
const ENCRYPTED_DNS: u8 = 144;

/// Flags of a prefix (RFC 4861 section 4.6.2, RFC 9762 section 4).
pub(super) const ON_LINK: u8 = 0x80;
pub(super) const AUTONOMOUS: u8 = 0x40;
pub(super) const PD_PREFERRED: u8 = 0x10;

/// Longest captive-portal URI in bytes that still fits beside the source link-layer address.
pub const CAPTIVE_PORTAL_LEN_MAX: usize = OPTION_LEN_MAX - 2;

/// Most servers put into one RDNSS option; further ones go into further options.
const RDNSS_PER_OPTION: usize = 16;
/// Most bytes of names put into one DNSSL option; at least one name (255 bytes) always fits.
const DNSSL_NAMES_LEN: usize = 504;

/// One option, or several of a kind where one would grow too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NdpOption<'a> {
    /// RFC 4861 section 4.6.1.
    SourceLinkLayerAddress(MacAddr),
    /// RFC 4861 section 4.6.2.
    PrefixInformation(AdvPrefix),
    /// RFC 4861 section 4.6.4.
    Mtu(u32),
    /// RFC 4191 section 2.3.
    RouteInformation { prefix: Ipv6Net, preference: Preference, lifetime_s: u32 },
    /// RFC 8106 section 5.1.
    Rdnss { servers: &'a [Ipv6Addr], lifetime_s: u32 },
    /// RFC 8106 section 5.2. Names that [`is_encodable_domain`] refuses are left out.
    Dnssl { domains: &'a [String], lifetime_s: u32 },
    /// RFC 8781 section 4.
    Pref64 { prefix: Ipv6Net, lifetime_s: u32 },
    /// RFC 9463 section 6.1. A name that [`is_encodable_domain`] refuses is left out.
    EncryptedDns { resolver: &'a EncryptedDns, lifetime_s: u32 },
    /// RFC 8910 section 2.3.
    CaptivePortal(&'a str),
}

impl NdpOption<'_> {
    /// Appends the encoded option(s) to `out`, each a buffer of its own of at most [`OPTION_LEN_MAX`] bytes.
    /// Nothing is appended for a value without encoding (an empty list, a PREF64 length that RFC 8781 does
    /// not know, a URI beyond [`CAPTIVE_PORTAL_LEN_MAX`]); configuration is checked before it gets here.
    pub(super) fn encode(&self, out: &mut Vec<Vec<u8>>) {
        match *self {
            NdpOption::SourceLinkLayerAddress(mac) => {
                out.push(option(SOURCE_LINK_LAYER_ADDRESS, &[&mac.0]));
            }
            NdpOption::PrefixInformation(AdvPrefix { prefix, variables }) => out.push(option(
                PREFIX_INFORMATION,
                &[
                    &[prefix.prefix_len(), prefix_flags(&variables)],
                    &variables.adv_valid_lifetime_s.to_be_bytes(),
                    &variables.adv_preferred_lifetime_s.to_be_bytes(),
                    &[0; 4],
                    &prefix.network().octets(),
                ],
            )),
            NdpOption::Mtu(mtu) => out.push(option(MTU, &[&[0; 2], &mtu.to_be_bytes()])),
            NdpOption::RouteInformation { prefix, preference, lifetime_s } => {
                let significant = match prefix.prefix_len() {
                    0 => 0,
                    1..=64 => 8,
                    _ => 16,
                };
                out.push(option(
                    ROUTE_INFORMATION,
                    &[
                        &[prefix.prefix_len(), preference_bits(preference)],
                        &lifetime_s.to_be_bytes(),
                        &prefix.network().octets()[..significant],
                    ],
                ));
            }
            NdpOption::Rdnss { servers, lifetime_s } => {
                for servers in servers.chunks(RDNSS_PER_OPTION) {
                    let addresses: Vec<u8> = servers.iter().flat_map(Ipv6Addr::octets).collect();
                    out.push(option(RDNSS, &[&[0; 2], &lifetime_s.to_be_bytes(), &addresses]));
                }
            }
            NdpOption::Dnssl { domains, lifetime_s } => encode_dnssl(domains, lifetime_s, out),
            NdpOption::Pref64 { prefix, lifetime_s } => {
                if let Some(code) = prefix_length_code(prefix.prefix_len()) {
                    let field = scaled_lifetime(lifetime_s) << 3 | code;
                    out.push(option(PREF64, &[&field.to_be_bytes(), &prefix.network().octets()[..12]]));
                }
            }
            NdpOption::EncryptedDns { resolver, lifetime_s } => {
                out.extend(encode_encrypted_dns(resolver, lifetime_s));
            }
            NdpOption::CaptivePortal(uri) => {
                if !uri.is_empty() && uri.len() <= CAPTIVE_PORTAL_LEN_MAX {
                    out.push(option(CAPTIVE_PORTAL, &[uri.as_bytes()]));
                }
            }
        }
    }
}

/// Prf in the bits of a flags octet (RFC 4191 section 2.1).
pub(super) fn preference_bits(preference: Preference) -> u8 {
    match preference {
        Preference::High => 0b01 << 3,
        Preference::Medium => 0,
        Preference::Low => 0b11 << 3,
    }
}

fn prefix_flags(variables: &PrefixVariables) -> u8 {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    flag(variables.adv_on_link_flag, ON_LINK)
        | flag(variables.adv_autonomous_flag, AUTONOMOUS)
        | flag(variables.adv_pd_preferred_flag, PD_PREFERRED)
}

/// Prefix Length Code (RFC 8781 section 4).
fn prefix_length_code(prefix_len: u8) -> Option<u16> {
    match prefix_len {
        96 => Some(0),
        64 => Some(1),
        56 => Some(2),
        48 => Some(3),
        40 => Some(4),
        32 => Some(5),
        _ => None,
    }
}

/// The inverse of [`preference_bits`]; `None` for the reserved value, with which a Route Information option
/// must be ignored (RFC 4191 section 2.3).
pub(super) fn preference_of_bits(flags: u8) -> Option<Preference> {
    match (flags >> 3) & 0b11 {
        0b01 => Some(Preference::High),
        0b00 => Some(Preference::Medium),
        0b11 => Some(Preference::Low),
        _ => None,
    }
}

/// The inverse of [`prefix_length_code`].
pub(super) fn prefix_length_of_code(code: u16) -> Option<u8> {
    [96, 64, 56, 48, 40, 32].get(usize::from(code)).copied()
}

/// Lifetime in units of 8 seconds, rounded up, in 13 bits (RFC 8781 section 4.1).
fn scaled_lifetime(lifetime_s: u32) -> u16 {
    u16::try_from(lifetime_s.div_ceil(8).min(0x1fff)).unwrap_or(0x1fff)
}

fn encode_dnssl(domains: &[String], lifetime_s: u32, out: &mut Vec<Vec<u8>>) {
    let mut names: Vec<u8> = Vec::new();
    for name in domains.iter().filter_map(|domain| encode_domain(domain)) {
        if !names.is_empty() && names.len() + name.len() > DNSSL_NAMES_LEN {
            out.push(option(DNSSL, &[&[0; 2], &lifetime_s.to_be_bytes(), &names]));
            names.clear();
        }
        names.extend_from_slice(&name);
    }
    if !names.is_empty() {
        out.push(option(DNSSL, &[&[0; 2], &lifetime_s.to_be_bytes(), &names]));
    }
}

/// Whether the domain can be sent in a DNSSL option: labels of 1 to 63 ASCII bytes, 255 bytes in all
/// (RFC 1035 section 3.1). A trailing dot is allowed.
pub fn is_encodable_domain(domain: &str) -> bool {
    encode_domain(domain).is_some()
}

/// Labels, each behind its length (RFC 1035 section 3.1), uncompressed; `None` where [`is_encodable_domain`]
/// refuses the domain.
pub(crate) fn encode_domain(domain: &str) -> Option<Vec<u8>> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let mut name = Vec::with_capacity(domain.len() + 2);
    for label in domain.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        if !label.is_ascii() {
            return None;
        }
        name.push(length);
        name.extend_from_slice(label.as_bytes());
    }
    name.push(0);
    (name.len() <= 255).then_some(name)
}

/// Without addresses the option ends after the name: ADN-only mode (RFC 9463 section 6.1). `None` where it
/// would exceed [`OPTION_LEN_MAX`] or has no encoding.
fn encode_encrypted_dns(resolver: &EncryptedDns, lifetime_s: u32) -> Option<Vec<u8>> {
    let mut body = vec![];
    body.extend_from_slice(&resolver.service_priority.to_be_bytes());
    body.extend_from_slice(&lifetime_s.to_be_bytes());
    push_counted(&mut body, &encode_domain(&resolver.adn)?)?;
    if !resolver.addresses.is_empty() {
        let addresses: Vec<u8> = resolver.addresses.iter().flat_map(Ipv6Addr::octets).collect();
        push_counted(&mut body, &addresses)?;
        push_counted(&mut body, &encode_svc_params(&resolver.svc_params)?)?;
    }
    (body.len() + 2 <= OPTION_LEN_MAX).then(|| option(ENCRYPTED_DNS, &[&body]))
}

/// SvcParamKey and SvcParamValue in ascending order of keys (RFC 9460 section 2.2).
fn encode_svc_params(params: &SvcParams) -> Option<Vec<u8>> {
    const ALPN: u16 = 1;
    const PORT: u16 = 3;
    const DOHPATH: u16 = 7;
    let mut bytes = vec![];
    let mut push = |key: u16, value: &[u8]| {
        bytes.extend_from_slice(&key.to_be_bytes());
        push_counted(&mut bytes, value)
    };
    if !params.alpn.is_empty() {
        let mut ids = vec![];
        for id in &params.alpn {
            ids.push(u8::try_from(id.len()).ok()?);
            ids.extend_from_slice(id.as_bytes());
        }
        push(ALPN, &ids)?;
    }
    if let Some(port) = params.port {
        push(PORT, &port.to_be_bytes())?;
    }
    if let Some(dohpath) = &params.dohpath {
        push(DOHPATH, dohpath.as_bytes())?;
    }
    Some(bytes)
}

/// Appends the length of `field` in 16 bits, and `field`.
fn push_counted(bytes: &mut Vec<u8>, field: &[u8]) -> Option<()> {
    bytes.extend_from_slice(&u16::try_from(field.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(field);
    Some(())
}

/// Type, length in units of 8 octets, `parts`, zero padding.
fn option(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    let length = (2 + body).next_multiple_of(8);
    let mut bytes = Vec::with_capacity(length);
    bytes.push(kind);
    bytes.push(u8::try_from(length / 8).unwrap_or(u8::MAX));
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.resize(length, 0);
    bytes
}

//! Names and addresses, parsed once at the edge.
//!
//! Every string that enters the core becomes one of these types or an [`InvalidName`] that says what was
//! wrong. Limits come from SONiC: `sonic-types.yang` (`interface_name`, 1..15 bytes) and the kernel's
//! `IFNAMSIZ`. A VRF row with a longer name crash-loops vrfmgrd, so nothing may bypass these parsers.

use std::cmp::Ordering;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use arrayvec::ArrayString;
use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A string that is not the name it should be. `Display` says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {wanted}")]
pub struct InvalidName {
    pub value: String,
    pub wanted: &'static str,
}

/// Longest name of an interface, VRFs among them, that the kernel and SONiC take, in bytes (`IFNAMSIZ` - 1).
pub const INTERFACE_NAME_LEN_MAX: usize = 15;
/// Held in place: a switch has hundreds of them, each in a dozen tables.
type InterfaceName = ArrayString<INTERFACE_NAME_LEN_MAX>;

fn invalid(value: &str, wanted: &'static str) -> InvalidName {
    InvalidName { value: value.to_owned(), wanted }
}

macro_rules! string_name {
    ($name:ident) => {
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                value.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

/// Name of a routed interface that SONiC's `INTERFACE` family of tables can hold: `Ethernet<n>`,
/// `PortChannel<n>` or (for service addresses) `Loopback<n>`. Orders naturally: `Ethernet4` before
/// `Ethernet12`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct PortName(InterfaceName);
string_name!(PortName);

/// The kinds of interface a [`PortName`] can name; each has its own CONFIG_DB table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortKind {
    Ethernet,
    PortChannel,
    Loopback,
}

impl PortKind {
    /// CONFIG_DB table that binds an interface of this kind to a VRF and holds its addresses.
    pub fn interface_table(self) -> &'static str {
        match self {
            PortKind::Ethernet => "INTERFACE",
            PortKind::PortChannel => "PORTCHANNEL_INTERFACE",
            PortKind::Loopback => "LOOPBACK_INTERFACE",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            PortKind::Ethernet => "Ethernet",
            PortKind::PortChannel => "PortChannel",
            PortKind::Loopback => "Loopback",
        }
    }

    pub const ALL: [PortKind; 3] = [PortKind::Ethernet, PortKind::PortChannel, PortKind::Loopback];
}

impl PortName {
    pub fn kind(&self) -> PortKind {
        // The rest of the prefix was checked when the name was parsed.
        match self.0.as_bytes().first() {
            Some(b'P') => PortKind::PortChannel,
            Some(b'L') => PortKind::Loopback,
            _ => PortKind::Ethernet,
        }
    }

    /// `Loopback<number>`.
    pub fn is_loopback(&self, number: u32) -> bool {
        self.kind() == PortKind::Loopback && self.number() == number
    }

    fn number(&self) -> u32 {
        self.0.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse().unwrap_or(u32::MAX)
    }

    /// The number's digits without leading zeros, which order as it does: shorter ones first.
    fn digits(&self) -> (usize, &[u8]) {
        let mut digits = self.0.as_bytes().get(self.kind().prefix().len()..).unwrap_or_default();
        while let [b'0', rest @ ..] = digits {
            digits = rest;
        }
        (digits.len(), digits)
    }
}

impl FromStr for PortName {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        const WANTED: &str = "a port name (Ethernet<n> or PortChannel<n>, at most 15 bytes)";
        let kind = PortKind::ALL.into_iter().find(|kind| value.starts_with(kind.prefix()));
        let digits = kind.map_or("", |kind| &value[kind.prefix().len()..]);
        // SONiC's own tools create port channels with leading zeros (PortChannel0001).
        let canonical = kind == Some(PortKind::PortChannel) || digits == "0" || !digits.starts_with('0');
        let ok = !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && canonical
            && digits.parse::<u32>().is_ok();
        let name = ok.then(|| InterfaceName::from(value).ok()).flatten();
        name.map(PortName).ok_or_else(|| invalid(value, WANTED))
    }
}

impl Ord for PortName {
    fn cmp(&self, other: &Self) -> Ordering {
        // The agent's maps are keyed by ports: this runs thousands of times a pass, so it parses nothing.
        let kind = self.kind();
        kind.cmp(&other.kind()).then_with(|| match self.0.len().cmp(&other.0.len()) {
            Ordering::Equal => self.0.cmp(&other.0),
            // Only port channels have leading zeros; elsewhere the longer number is the larger one.
            length if kind != PortKind::PortChannel => length,
            _ => (self.digits(), &self.0).cmp(&(other.digits(), &other.0)),
        })
    }
}
impl PartialOrd for PortName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A VRF name as SONiC accepts it: `Vrf[A-Za-z0-9_-]+`, at most 15 bytes (`sonic-vrf.yang`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct VrfName(InterfaceName);
string_name!(VrfName);

/// Names that start so are the agent's own (see [`crate::ownership`]).
pub const BOOT_VRF_PREFIX: &str = "VrfBoot";

impl FromStr for VrfName {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        const WANTED: &str = "a VRF name (Vrf[A-Za-z0-9_-]+, at most 15 bytes)";
        let rest = value.strip_prefix("Vrf").unwrap_or("");
        let ok =
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let name = ok.then(|| InterfaceName::from(value).ok()).flatten();
        name.map(VrfName).ok_or_else(|| invalid(value, WANTED))
    }
}

impl VrfName {
    /// The boot VRF's name for a partition that configures none: `VrfBoot-<id>` where that fits, else
    /// `VrfBoot-` and seven characters of the id's SHA-256 in base32, so that the same id has the same
    /// name on every leaf.
    pub fn derived(partition: &PartitionId) -> VrfName {
        let plain = format!("{BOOT_VRF_PREFIX}-{partition}");
        if let Ok(name) = plain.parse() {
            return name;
        }
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let digest = Sha256::digest(partition.as_str().as_bytes());
        let hash = digest[..7].iter().map(|b| char::from(ALPHABET[usize::from(b & 31)]));
        let mut name = InterfaceName::new();
        // As long as a name can be, to the letter.
        for letter in BOOT_VRF_PREFIX.chars().chain(['-']).chain(hash) {
            name.push(letter);
        }
        VrfName(name)
    }
}

/// Key of `BOOT_NETWORK_PARTITION`: `[A-Za-z0-9][A-Za-z0-9._-]*`, at most 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct PartitionId(Arc<str>);
string_name!(PartitionId);

impl FromStr for PartitionId {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        const WANTED: &str = "a partition id ([A-Za-z0-9][A-Za-z0-9._-]*, at most 64 bytes)";
        let first_ok = value.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let ok = first_ok
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && value.len() <= 64;
        if ok { Ok(PartitionId(value.into())) } else { Err(invalid(value, WANTED)) }
    }
}

/// An Ethernet address. Parses any usual spelling (`52:54:00:00:00:01`, `52-54-…`, `5254.0000.0001`,
/// `525400000001`); prints lower-case with colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Neither zero, broadcast nor multicast: an address that one interface can have.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The link-local address that modified EUI-64 makes of this MAC (RFC 4291 appendix A).
    pub fn eui64_link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let mut octets = [0u8; 16];
        octets[..2].copy_from_slice(&[0xfe, 0x80]);
        octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        Ipv6Addr::from(octets)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        const WANTED: &str = "a MAC address (like 52:54:00:00:00:01)";
        let groups = |separator: char, count: usize, width: usize| {
            let parts: Vec<&str> = value.split(separator).collect();
            parts.len() == count && parts.iter().all(|part| part.len() == width)
        };
        let spelled = groups(':', 6, 2) || groups('-', 6, 2) || groups('.', 3, 4) || value.len() == 12;
        let digits: Vec<u8> = value
            .bytes()
            .filter(|b| !matches!(b, b':' | b'-' | b'.'))
            .map(|b| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok()).unwrap_or(0xff))
            .collect();
        if !spelled || digits.len() != 12 || digits.contains(&0xff) {
            return Err(invalid(value, WANTED));
        }
        let mut mac = [0u8; 6];
        for (byte, pair) in mac.iter_mut().zip(digits.chunks(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(MacAddr(mac))
    }
}
impl TryFrom<String> for MacAddr {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, InvalidName> {
        value.parse()
    }
}
impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}
impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The /64 number `offset` of a boot prefix, or `None` when the offset lies beyond it. `prefix` is at
/// most a /64.
pub fn port_prefix(prefix: Ipv6Net, offset: u64) -> Option<Ipv6Net> {
    let bits = 64u32.checked_sub(u32::from(prefix.prefix_len()))?;
    let within = bits >= 64 || offset >> bits == 0;
    let base = u128::from(prefix.trunc().network());
    let address = Ipv6Addr::from(base | u128::from(offset) << 64);
    within.then(|| Ipv6Net::new(address, 64).ok()).flatten()
}

/// The router's address on a port: `::1` of the port's /64. The prefix length stays 64, so that the
/// printed form is the key of the CONFIG_DB address row (`2001:db8:0:1::1/64`).
pub fn router_interface_address(port_prefix: Ipv6Net) -> Ipv6Net {
    let address = Ipv6Addr::from(u128::from(port_prefix.network()) | 1);
    Ipv6Net::new_assert(address, port_prefix.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_order_naturally_and_reject_nonsense() {
        let mut ports: Vec<PortName> =
            ["PortChannel1", "Ethernet12", "Ethernet4"].iter().map(|p| p.parse().unwrap()).collect();
        ports.sort();
        assert_eq!(
            ports.iter().map(PortName::as_str).collect::<Vec<_>>(),
            ["Ethernet4", "Ethernet12", "PortChannel1"]
        );
        for bad in ["", "eth0", "Ethernet", "Ethernet01", "Ethernet-1", "Ethernet0|x", "Ethernet99999999999"]
        {
            assert!(bad.parse::<PortName>().is_err(), "{bad}");
        }
        assert!("PortChannel0001".parse::<PortName>().is_ok());
    }

    #[test]
    fn leading_zeros_order_by_number_first_and_stay_distinct() {
        let names = ["PortChannel2", "PortChannel0", "PortChannel0002", "PortChannel10", "PortChannel00"];
        let mut ports: Vec<PortName> = names.iter().map(|name| name.parse().unwrap()).collect();
        ports.sort();
        let ordered = ["PortChannel0", "PortChannel00", "PortChannel0002", "PortChannel2", "PortChannel10"];
        assert_eq!(ports.iter().map(PortName::as_str).collect::<Vec<_>>(), ordered);
    }

    #[test]
    fn derived_vrf_names_always_fit() {
        let short: PartitionId = "p1".parse().unwrap();
        assert_eq!(VrfName::derived(&short).as_str(), "VrfBoot-p1");
        let seven: PartitionId = "fra-eq1".parse().unwrap();
        assert_eq!(VrfName::derived(&seven).as_str(), "VrfBoot-fra-eq1");
        let long: PartitionId = "fra-equ01.rack-2".parse().unwrap();
        let name = VrfName::derived(&long);
        assert_eq!(name.as_str().len(), 15);
        assert_eq!(name, VrfName::derived(&long));
        assert!(name.as_str().parse::<VrfName>().is_ok());
    }

    #[test]
    fn macs_parse_in_every_usual_spelling() {
        for text in ["52:54:00:AB:00:01", "52-54-00-ab-00-01", "5254.00ab.0001", "525400ab0001"] {
            assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), "52:54:00:ab:00:01");
        }
        for bad in ["", "52:54:00:ab:00", "52:54:00:ab:00:0g", "5:254:00:ab:00:01", "52:54-00:ab:00:01"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
        assert_eq!(
            "52:54:00:ab:00:01".parse::<MacAddr>().unwrap().eui64_link_local().to_string(),
            "fe80::5054:ff:feab:1"
        );
    }

    #[test]
    fn port_prefixes_are_cut_by_offset() {
        let base: Ipv6Net = "2001:db8::/56".parse().unwrap();
        assert_eq!(port_prefix(base, 7).unwrap().to_string(), "2001:db8:0:7::/64");
        assert_eq!(port_prefix(base, 255).unwrap().to_string(), "2001:db8:0:ff::/64");
        assert_eq!(port_prefix(base, 256), None);
        let single: Ipv6Net = "2001:db8::/64".parse().unwrap();
        assert_eq!(port_prefix(single, 0).unwrap().to_string(), "2001:db8::/64");
        assert_eq!(port_prefix(single, 1), None);
        assert_eq!(router_interface_address(port_prefix(base, 7).unwrap()).to_string(), "2001:db8:0:7::1/64");
    }
}

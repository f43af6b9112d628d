//! Who gets which boot file: architectures, user class, URLs with the port's own addresses in them.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A value of IANA's registry "Processor Architecture Types", as clients tell it in option 61 (RFC 5970
/// section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture(pub u16);

/// The registry's entries by a word each; deprecated ones have none.
const NAMES: [(u16, &str); 36] = [
    (0x00, "x86-bios"),
    (0x02, "itanium"),
    (0x06, "x86-uefi"),
    (0x07, "x64-uefi"),
    (0x09, "ebc"),
    (0x0a, "arm32-uefi"),
    (0x0b, "arm64-uefi"),
    (0x0c, "powerpc-open-firmware"),
    (0x0d, "powerpc-epapr"),
    (0x0e, "power-opal-v3"),
    (0x0f, "x86-uefi-http"),
    (0x10, "x64-uefi-http"),
    (0x11, "ebc-http"),
    (0x12, "arm32-uefi-http"),
    (0x13, "arm64-uefi-http"),
    (0x14, "x86-bios-http"),
    (0x15, "arm32-uboot"),
    (0x16, "arm64-uboot"),
    (0x17, "arm32-uboot-http"),
    (0x18, "arm64-uboot-http"),
    (0x19, "riscv32-uefi"),
    (0x1a, "riscv32-uefi-http"),
    (0x1b, "riscv64-uefi"),
    (0x1c, "riscv64-uefi-http"),
    (0x1d, "riscv128-uefi"),
    (0x1e, "riscv128-uefi-http"),
    (0x1f, "s390-basic"),
    (0x20, "s390-extended"),
    (0x21, "mips32-uefi"),
    (0x22, "mips64-uefi"),
    (0x23, "sunway32-uefi"),
    (0x24, "sunway64-uefi"),
    (0x25, "loongarch32-uefi"),
    (0x26, "loongarch32-uefi-http"),
    (0x27, "loongarch64-uefi"),
    (0x28, "loongarch64-uefi-http"),
];

impl Architecture {
    /// The word for it, where the registry has one that is not deprecated.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(value, _)| *value == self.0).map(|(_, name)| *name)
    }

    /// All words.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, name)| *name)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Architecture {
    type Err = ();

    /// A word, or the number in decimal.
    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some((value, _)) = NAMES.iter().find(|(_, name)| *name == text) {
            return Ok(Architecture(*value));
        }
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| digits).map(Architecture).ok_or(())
    }
}

/// Whom a boot URL is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BootClient {
    Architecture(Architecture),
    /// User class `iPXE`, whatever its architecture.
    Ipxe,
    /// Everybody else; never iPXE, which would be sent to itself for ever.
    Default,
}

impl fmt::Display for BootClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootClient::Architecture(architecture) => architecture.fmt(f),
            BootClient::Ipxe => f.write_str("ipxe"),
            BootClient::Default => f.write_str("default"),
        }
    }
}

impl FromStr for BootClient {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "ipxe" => Ok(BootClient::Ipxe),
            "default" => Ok(BootClient::Default),
            _ => text.parse().map(BootClient::Architecture),
        }
    }
}

impl Serialize for BootClient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One boot URL of a partition, with placeholders (see [`expand`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootUrl {
    pub client: BootClient,
    pub url: String,
}

/// What iPXE gets where nothing is configured for it and the proxy runs: the port's own script.
const PROXY_SCRIPT: &str = "http://[{router}]:{proxy_port}/boot.ipxe";

/// Puts the port's values into a URL: `{router}` is the router's address (without brackets), `{proxy_port}`
/// the discovery proxy's port. What follows `$` is not ours but iPXE's.
pub fn expand(url: &str, router: Ipv6Addr, proxy_port: u16) -> String {
    url.replace("{router}", &router.to_string()).replace("{proxy_port}", &proxy_port.to_string())
}

/// Whether the URL has braces that are neither a placeholder nor a setting of iPXE's (`${...}`).
pub fn has_unknown_placeholder(url: &str) -> bool {
    let known = url.replace("{router}", "").replace("{proxy_port}", "");
    known.match_indices('{').any(|(at, _)| !known[..at].ends_with('$'))
}

/// The URL of a client that names these architectures, in its order of preference.
pub(super) fn select(
    urls: &[BootUrl],
    ipxe: bool,
    mut architectures: impl Iterator<Item = Architecture>,
    proxy: bool,
) -> Option<&str> {
    let of = |client: BootClient| urls.iter().find(|url| url.client == client).map(|url| url.url.as_str());
    if ipxe {
        return of(BootClient::Ipxe).or_else(|| proxy.then_some(PROXY_SCRIPT));
    }
    architectures
        .find_map(|architecture| of(BootClient::Architecture(architecture)))
        .or_else(|| of(BootClient::Default))
}

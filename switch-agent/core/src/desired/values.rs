//! Grammars of single values: addresses, prefixes, DNS names, route-information items, path rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::fields::{Rule, number};
use crate::discovery::PathRule;
use crate::name::VrfName;
use crate::ra::{EncryptedDns, Preference, RouteInfo, SvcParams};

/// Longest DNS name in presentation form (RFC 1035 section 2.3.4).
const DNS_NAME_LEN_MAX: usize = 253;
const DNR_ADDRESSES_MAX: usize = 8;
const DOHPATH_LEN_MAX: usize = 255;

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

fn is_ipv4_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

/// An address that one interface anywhere in the network can have.
pub(super) fn routed_unicast(value: &str) -> Result<Ipv6Addr, Rule> {
    let usable = |address: &Ipv6Addr| !is_link_local(*address) && is_unicast(*address);
    value.parse().ok().filter(usable).ok_or_else(|| {
        Rule::from("must be a routed IPv6 unicast address, without a prefix length (it stands for a /128)")
    })
}

fn is_unicast(address: Ipv6Addr) -> bool {
    !address.is_multicast() && !address.is_unspecified() && !address.is_loopback() && !is_ipv4_mapped(address)
}

/// A recursive DNS server; link-local ones are legal (RFC 8106 section 5.1).
pub(super) fn dns_server(value: &str) -> Result<Ipv6Addr, Rule> {
    let address = value.parse().ok().filter(|address| is_unicast(*address));
    address.ok_or_else(|| Rule::from("must be an IPv6 unicast address"))
}

/// A prefix with its length, host bits zero.
pub(super) fn canonical_prefix(value: &str) -> Result<Ipv6Net, Rule> {
    let net: Ipv6Net = value.parse().map_err(|_| Rule::from("must be an IPv6 prefix (address/length)"))?;
    if net.trunc() != net {
        return Err(format!("has host bits set; did you mean {}?", net.trunc()).into());
    }
    Ok(net)
}

/// A prefix that unicast routes can have.
pub(super) fn routed_prefix(value: &str) -> Result<Ipv6Net, Rule> {
    let net = canonical_prefix(value)?;
    let address = net.network();
    if net.prefix_len() > 0 && (!is_unicast(address) && !address.is_unspecified() || is_link_local(address)) {
        return Err("must not be link-local, multicast, loopback or IPv4-mapped".into());
    }
    Ok(net)
}

/// A partition's boot prefix.
pub(super) fn boot_prefix(value: &str) -> Result<Ipv6Net, Rule> {
    let net = routed_prefix(value)?;
    if !(40..=64).contains(&net.prefix_len()) {
        return Err("must have a length from /40 to /64".into());
    }
    if net.network().is_unspecified() {
        return Err("must not contain the unspecified and the loopback address".into());
    }
    Ok(net)
}

/// A NAT64 prefix (RFC 8781 section 4).
pub(super) fn nat64_prefix(value: &str) -> Result<Ipv6Net, Rule> {
    let net = routed_prefix(value)?;
    if ![32, 40, 48, 56, 64, 96].contains(&net.prefix_len()) {
        return Err("must have one of the NAT64 lengths /32, /40, /48, /56, /64, /96 (RFC 8781)".into());
    }
    Ok(net)
}

/// A DNS name, its trailing dot removed. Underscores are allowed: search domains have them.
pub(super) fn dns_name(value: &str) -> Result<String, Rule> {
    let name = value.strip_suffix('.').unwrap_or(value);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= DNS_NAME_LEN_MAX && name.split('.').all(label_ok) {
        Ok(name.to_owned())
    } else {
        Err("must be a DNS name (labels of 1 to 63 letters, digits, - and _, at most 253 bytes)".into())
    }
}

/// A host without brackets: an address, or a DNS name in lower case that cannot be taken for one.
pub(super) fn host(value: &str) -> Result<String, Rule> {
    if let Ok(address) = value.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let name = dns_name(value).ok();
    let named = name.filter(|name| {
        let last = name.rsplit('.').next().unwrap_or_default();
        !last.bytes().all(|b| b.is_ascii_digit())
    });
    named.map(|name| name.to_ascii_lowercase()).ok_or_else(|| "must be a DNS name or an IP address".into())
}

/// An IPv6 literal in a URL (between its brackets), or any other host.
pub(super) fn url_host(value: &str) -> Result<String, Rule> {
    const RULE: &str = "must name a host: a DNS name, an IPv4 address or an IPv6 address in brackets";
    if let Some(literal) = value.strip_prefix('[') {
        let inner = literal.strip_suffix(']').and_then(|literal| literal.parse::<Ipv6Addr>().ok());
        return inner.map(|address| address.to_string()).ok_or_else(|| RULE.into());
    }
    let host = host(value).ok().filter(|host| host.parse::<Ipv6Addr>().is_err());
    host.ok_or_else(|| RULE.into())
}

/// `default` or a VRF name.
pub(super) fn default_or_vrf(value: &str) -> Result<String, Rule> {
    if value == "default" || value.parse::<VrfName>().is_ok() {
        Ok(value.to_owned())
    } else {
        Err("must be default or a VRF name (Vrf[A-Za-z0-9_-]+, at most 15 bytes)".into())
    }
}

/// Words of Default Router Preference (RFC 4191 section 2.1).
pub(super) fn preference(value: &str) -> Result<Preference, Rule> {
    match value {
        "low" => Ok(Preference::Low),
        "medium" => Ok(Preference::Medium),
        "high" => Ok(Preference::High),
        _ => Err("must be one of low, medium, high".into()),
    }
}

/// One item of `route_info@`: `prefix[;preference[;lifetime]]`, in seconds; the preference is medium and
/// the lifetime `default_lifetime_s` where the item has none.
pub(super) fn route_info(value: &str, default_lifetime_s: u32) -> Result<RouteInfo, Rule> {
    const RULE: &str = "must be prefix[;low|medium|high[;lifetime]], like 2001:db8::/48;high;1800";
    let mut parts = value.split(';');
    let prefix = routed_prefix(parts.next().unwrap_or_default()).map_err(|_| Rule::from(RULE))?;
    let prf = parts.next().map_or(Ok(Preference::Medium), preference).map_err(|_| Rule::from(RULE))?;
    let seconds = |text: &str| number(0..=u32::MAX)(text).map_err(|_| Rule::from(RULE));
    let lifetime_s = parts.next().map_or(Ok(default_lifetime_s), seconds)?;
    if parts.next().is_some() {
        return Err(RULE.into());
    }
    Ok(RouteInfo { prefix, preference: prf, lifetime_s })
}

/// One item of `dnr@`: `priority;name[;address|address[;key=value]...]`, with the keys `alpn` (required with
/// addresses), `port` and `dohpath` (required with `h2` and `h3`, RFC 9461 section 5). Without addresses a
/// machine resolves the name, and learns the parameters from its SVCB record.
pub(super) fn encrypted_dns(value: &str) -> Result<EncryptedDns, Rule> {
    const RULE: &str =
        "must be priority;name[;address|address;alpn=dot|doq|h2|h3[;port=n][;dohpath=/path{?dns}]]";
    let rule = || Rule::from(RULE);
    let mut parts = value.split(';');
    let priority = parts.next().unwrap_or_default();
    let service_priority = number(1..=u16::MAX)(priority).map_err(|_| rule())?;
    let adn = dns_name(parts.next().unwrap_or_default()).map_err(|_| rule())?;
    let Some(addresses) = parts.next() else {
        let svc_params = SvcParams::default();
        return Ok(EncryptedDns { service_priority, adn, addresses: Vec::new(), svc_params });
    };
    let addresses: Vec<Ipv6Addr> =
        addresses.split('|').map(dns_server).collect::<Result<_, _>>().map_err(|_| rule())?;
    if addresses.len() > DNR_ADDRESSES_MAX {
        return Err(format!("must have at most {DNR_ADDRESSES_MAX} addresses").into());
    }
    let svc_params = svc_params(parts).ok_or_else(rule)?;
    let over_http = svc_params.alpn.iter().any(|id| id.starts_with('h'));
    if over_http != svc_params.dohpath.is_some() {
        return Err(
            "must have a dohpath with alpn h2 or h3, and with nothing else (RFC 9461 section 5)".into()
        );
    }
    Ok(EncryptedDns { service_priority, adn, addresses, svc_params })
}

/// `key=value` items, each key at most once; `None` where they do not hold, or lack `alpn`.
fn svc_params<'a>(items: impl Iterator<Item = &'a str>) -> Option<SvcParams> {
    let mut params = SvcParams::default();
    for item in items {
        match item.split_once('=')? {
            ("alpn", ids) if params.alpn.is_empty() => {
                params.alpn = ids.split('|').map(str::to_owned).collect();
                let known = |id: &String| ["dot", "doq", "h2", "h3"].contains(&id.as_str());
                let repeated = |at: usize| params.alpn[..at].contains(&params.alpn[at]);
                if !params.alpn.iter().all(known) || (0..params.alpn.len()).any(repeated) {
                    return None;
                }
            }
            ("port", port) if params.port.is_none() => params.port = Some(number(1..=u16::MAX)(port).ok()?),
            ("dohpath", path) if params.dohpath.is_none() => {
                let printable = path.bytes().all(|b| b.is_ascii_graphic());
                let template = path.starts_with('/') && path.contains("dns") && path.contains('{');
                if !printable || !template || path.len() > DOHPATH_LEN_MAX {
                    return None;
                }
                params.dohpath = Some(path.to_owned());
            }
            _ => return None,
        }
    }
    (!params.alpn.is_empty()).then_some(params)
}

/// One item of `api_allow@`.
pub(super) fn path_rule(value: &str) -> Result<PathRule, Rule> {
    value.parse::<PathRule>().map_err(|invalid| invalid.to_string().into())
}

/// An NTP server: an address or a DNS name.
pub(super) fn ntp_server(value: &str) -> Result<String, Rule> {
    let host = host(value)?;
    let usable = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => is_unicast(address),
        Ok(IpAddr::V4(address)) => {
            !address.is_multicast() && address != Ipv4Addr::BROADCAST && !address.is_unspecified()
        }
        Err(_) => true,
    };
    if usable { Ok(host) } else { Err("must be a unicast address or a DNS name".into()) }
}

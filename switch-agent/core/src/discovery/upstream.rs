//! Which addresses the control API may have.

use std::net::IpAddr;

use ipnet::Ipv6Net;

/// Why an address is not taken for the control API's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefusal {
    #[error("the address is unspecified, loopback, link-local or multicast")]
    NotGlobal,
    #[error("the address lies in a boot prefix: a machine would answer")]
    BootPrefix,
}

/// Refuses addresses at which no control API can be, so that a name that resolves to them (by mistake or
/// by malice) leads nowhere: the switch itself, a link, a group, a machine.
pub fn check_address(address: IpAddr, boot_prefixes: &[Ipv6Net]) -> Result<(), AddressRefusal> {
    let address = address.to_canonical();
    let local = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    match address {
        _ if local => Err(AddressRefusal::NotGlobal),
        IpAddr::V4(v4) if v4.is_link_local() || v4.is_broadcast() => Err(AddressRefusal::NotGlobal),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(AddressRefusal::NotGlobal),
        IpAddr::V6(v6) if boot_prefixes.iter().any(|net| net.contains(&v6)) => {
            Err(AddressRefusal::BootPrefix)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_other_hosts_pass() {
        let boot: Vec<Ipv6Net> = vec!["2001:db8:b::/48".parse().unwrap()];
        let check = |text: &str| check_address(text.parse().unwrap(), &boot);
        for good in ["192.0.2.1", "10.0.0.1", "2001:db8:a::1", "fd00::1"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "::1",
            "::",
            "0.0.0.0",
            "169.254.169.254",
            "fe80::1",
            "ff02::1",
            "224.0.0.1",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(check(bad), Err(AddressRefusal::NotGlobal), "{bad}");
        }
        assert_eq!(check("2001:db8:b:7::1"), Err(AddressRefusal::BootPrefix));
    }
}

//! Options of an advertisement that somebody else sent: read in place, typed, for comparison only.
//!
//! Nothing is copied and nothing is kept, so what a peer sends costs time in proportion to its frame and no
//! memory. An option whose body does not hold is passed over, as RFC 4861 section 6.1.2 has it of options
//! that a receiver does not know.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::option::{
    AUTONOMOUS, DNSSL, MTU, ON_LINK, PD_PREFERRED, PREF64, PREFIX_INFORMATION, RDNSS, ROUTE_INFORMATION,
    preference_of_bits, prefix_length_of_code,
};
use crate::ra::{AdvPrefix, PrefixVariables, RouteInfo};

/// One option; lifetimes in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdvertOption<'a> {
    Mtu(u32),
    PrefixInformation(AdvPrefix),
    RouteInformation(RouteInfo),
    Rdnss { lifetime_s: u32, servers: Servers<'a> },
    Dnssl { lifetime_s: u32, names: Names<'a> },
    Pref64 { prefix: Ipv6Net, lifetime_s: u32 },
}

/// The options behind the fixed part, their lengths checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdvertOptions<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for AdvertOptions<'a> {
    type Item = AdvertOption<'a>;

    fn next(&mut self) -> Option<AdvertOption<'a>> {
        loop {
            let length = usize::from(*self.0.get(1)?) * 8;
            let (option, rest) = self.0.split_at_checked(length).filter(|_| length > 0)?;
            self.0 = rest;
            if let Some(read) = read(option) {
                return Some(read);
            }
        }
    }
}

fn read(option: &[u8]) -> Option<AdvertOption<'_>> {
    let u32_at = |offset: usize| option.get(offset..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    match (*option.first()?, option.len()) {
        (MTU, 8) => u32_at(4).map(AdvertOption::Mtu),
        (PREFIX_INFORMATION, 32) => {
            let flags = option[3];
            let prefix = net(option.get(16..)?, option[2])?;
            let variables = PrefixVariables {
                adv_valid_lifetime_s: u32_at(4)?,
                adv_preferred_lifetime_s: u32_at(8)?,
                adv_on_link_flag: flags & ON_LINK != 0,
                adv_autonomous_flag: flags & AUTONOMOUS != 0,
                adv_pd_preferred_flag: flags & PD_PREFERRED != 0,
            };
            Some(AdvertOption::PrefixInformation(AdvPrefix { prefix, variables }))
        }
        // RFC 4191 section 2.3: at least as long as the prefix needs.
        (ROUTE_INFORMATION, length @ (8 | 16 | 24)) => {
            let fits = usize::from(option[2]).div_ceil(64) * 8 + 8 <= length;
            let prefix = net(&option[8..], option[2]).filter(|_| fits)?;
            let preference = preference_of_bits(option[3])?;
            Some(AdvertOption::RouteInformation(RouteInfo { prefix, preference, lifetime_s: u32_at(4)? }))
        }
        (RDNSS, 24..) => match option[8..].as_chunks() {
            (servers, []) => Some(AdvertOption::Rdnss { lifetime_s: u32_at(4)?, servers: Servers(servers) }),
            _ => None,
        },
        (DNSSL, 16..) => Some(AdvertOption::Dnssl { lifetime_s: u32_at(4)?, names: Names(option.get(8..)?) }),
        (PREF64, 16) => {
            let field = u16::from_be_bytes([option[2], option[3]]);
            let prefix = net(&option[4..], prefix_length_of_code(field & 7)?)?;
            Some(AdvertOption::Pref64 { prefix, lifetime_s: u32::from(field & !7) })
        }
        _ => None,
    }
}

/// The first `length` bits of up to 16 bytes; bits behind them do not count (RFC 4861 section 4.6.2).
fn net(bytes: &[u8], length: u8) -> Option<Ipv6Net> {
    let mut address = [0; 16];
    address.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Ipv6Net::new(Ipv6Addr::from(address), length).ok().map(|net| net.trunc())
}

/// Addresses of an RDNSS option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Servers<'a>(&'a [[u8; 16]]);

impl Servers<'_> {
    pub fn contains(&self, server: Ipv6Addr) -> bool {
        self.0.contains(&server.octets())
    }
}

/// Domain names of a DNSSL option as on the wire, each with its final zero (RFC 1035 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names<'a>(&'a [u8]);

impl<'a> Iterator for Names<'a> {
    type Item = &'a [u8];

    /// Ends at the padding, and at what is no name: RFC 8106 section 5.2 allows no compression.
    fn next(&mut self) -> Option<&'a [u8]> {
        let mut length = 0;
        loop {
            match *self.0.get(length)? {
                0 if length == 0 => return None,
                0 => break,
                label @ 1..=63 => length += 1 + usize::from(label),
                64.. => return None,
            }
        }
        let (name, rest) = self.0.split_at_checked(length + 1)?;
        self.0 = rest;
        Some(name)
    }
}

//! A boot machine: a Linux host in a namespace that knows SLAAC and its default router, nothing else.

use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Context, Result, ensure, fail};
use crate::http::{self, Request, Response, connect};
use crate::lab::{PROXY_PORT, Socket};
use crate::ns::Ns;
use crate::sys;

pub(crate) const NIC: &str = "eth0";
/// Losses of carrier below 1 s are flaps, and Linux tells of one up to 1 s late (its link watch).
const POWER_CYCLE: Duration = Duration::from_millis(2500);

/// Attempts while the proxy answers 429.
const TURNS_MAX: u32 = 4;

#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub ns: Ns,
    pub mac: &'static str,
    /// Where its cable is when no case has moved it.
    pub home: Socket,
}

/// Outcome of a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Connected,
    /// A host answered that nobody listens: the packets got there.
    Refused,
    /// The network said no (ICMPv6 unreachable, or no route).
    Unreachable,
    TimedOut,
}

const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;

impl Machine {
    pub(crate) fn new(ns: Ns, mac: &'static str, home: Socket) -> Self {
        Self { ns, mac, home }
    }

    /// All usable global addresses.
    pub(crate) fn addresses(&self) -> Result<Vec<Ipv6Addr>> {
        self.ns.run(global_addresses)
    }

    /// The one global address of a machine at rest.
    pub(crate) fn address(&self) -> Result<Ipv6Addr> {
        match self.addresses()?[..] {
            [address] => Ok(address),
            ref other => {
                fail!("{} has {} global addresses instead of one: {other:?}", self.ns.0, other.len())
            }
        }
    }

    /// The link-local address that the kernel makes of the MAC (RFC 4291 appendix A).
    pub(crate) fn link_local(&self) -> Result<Ipv6Addr> {
        let octets: Vec<u16> = self
            .mac
            .split(':')
            .map(|octet| u16::from_str_radix(octet, 16))
            .collect::<std::result::Result<_, _>>()
            .context(|| self.mac.into())?;
        let [a, b, c, d, e, f] = octets[..] else { fail!("{} is no MAC", self.mac) };
        let (first, last) = (((a ^ 2) << 8) | b, (e << 8) | f);
        Ok(Ipv6Addr::new(0xfe80, 0, 0, 0, first, (c << 8) | 0xff, 0xfe00 | d, last))
    }

    /// Next hop of the default route: the router's link-local address.
    pub(crate) fn router(&self) -> Result<Ipv6Addr> {
        self.ns.run(default_router)
    }

    /// `GET path` of the discovery proxy at the default router's link-local address.
    pub(crate) fn get(&self, path: &str) -> Result<Response> {
        self.send(&Request::get(path))
    }

    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Response> {
        self.ns.run(|| {
            let scope = nix::net::if_::if_nametoindex(NIC).context(|| NIC.into())?;
            send_in_turn(request, http::address(default_router()?, PROXY_PORT, scope))
        })
    }

    /// `GET path` of the discovery proxy at any address; link-local ones are reached through the NIC.
    pub(crate) fn get_at(&self, address: Ipv6Addr, path: &str) -> Result<Response> {
        self.ns
            .run(|| send_in_turn(&Request::get(path), http::address(address, PROXY_PORT, scope_of(address)?)))
    }

    pub(crate) fn boot_document(&self) -> Result<Value> {
        self.get("/v1/boot")?.expect(200)?.json()
    }

    /// A fresh token of the machine's port.
    pub(crate) fn token(&self) -> Result<String> {
        let request = Request::post("/v1/token", "{}").header("boot-token", "request");
        let reply = self.send(&request)?.expect(200)?.json()?;
        Ok(reply["token"].as_str().context(|| format!("no token in {reply}"))?.to_owned())
    }

    /// Tries to open a TCP connection.
    pub(crate) fn reach(&self, address: Ipv6Addr, port: u16) -> Result<Reach> {
        self.ns.run(|| reach(address, port))
    }

    /// An open connection to the proxy, for cases that watch it end.
    pub(crate) fn open_proxy_connection(&self) -> Result<TcpStream> {
        self.ns.run(|| {
            let router = default_router()?;
            let to = http::address(router, PROXY_PORT, scope_of(router)?);
            connect(to).context(|| format!("connect to {to}"))
        })
    }

    pub(crate) fn set_up(&self, up: bool) -> Result<()> {
        self.ns.run(|| sys::set_link_up(NIC, up).context(|| format!("{NIC} up={up}")))
    }

    /// Whether addresses are made of advertised prefixes; counts from the next boot.
    pub(crate) fn set_autoconf(&self, on: bool) -> Result<()> {
        let path = format!("/proc/sys/net/ipv6/conf/{NIC}/autoconf");
        self.ns.run(|| fs::write(&path, if on { "1" } else { "0" }).context(|| path.clone()))
    }

    /// A restart at its home: the link goes away for a moment on both ends, addresses and routes are
    /// forgotten, the kernel solicits anew.
    pub(crate) fn reboot(&self) -> Result<()> {
        self.reboot_with(|| Ok(()))
    }

    /// Boots with another MAC: a machine that no switch has seen.
    pub(crate) fn reboot_as(&self, mac: [u8; 6]) -> Result<()> {
        self.reboot_with(|| self.ns.run(|| sys::set_mac(NIC, mac).context(|| "set the MAC".into())))
    }

    fn reboot_with(&self, while_down: impl FnOnce() -> Result<()>) -> Result<()> {
        self.set_up(false)?;
        self.home.set_carrier(false)?;
        while_down()?;
        thread::sleep(POWER_CYCLE);
        self.home.set_carrier(true)?;
        self.set_up(true)
    }

    /// The address is the one SLAAC computes from its port's prefix.
    pub(crate) fn check_address_in(&self, socket: &Socket) -> Result<()> {
        let address = self.address()?;
        ensure!(
            socket.prefix().contains(&address),
            "{} has {address}, not of {} on leaf{} {}",
            self.ns.0,
            socket.prefix(),
            socket.leaf,
            socket.port
        );
        Ok(())
    }
}

/// Sends the request, and again when the proxy says that the port has had its share for now.
fn send_in_turn(request: &Request<'_>, to: SocketAddrV6) -> Result<Response> {
    for _ in 1..TURNS_MAX {
        let reply = request.send(to)?;
        if reply.status != 429 {
            return Ok(reply);
        }
        let wait = reply.header("retry-after").and_then(|value| value.parse().ok());
        let seconds: u64 = wait.context(|| format!("429 without Retry-After: {}", reply.excerpt()))?;
        ensure!(seconds <= 60, "429 with Retry-After: {seconds}");
        thread::sleep(Duration::from_secs(seconds));
    }
    request.send(to)
}

fn scope_of(address: Ipv6Addr) -> Result<u32> {
    if address.is_unicast_link_local() {
        nix::net::if_::if_nametoindex(NIC).context(|| NIC.into())
    } else {
        Ok(0)
    }
}

/// Tries to connect from the calling thread's namespace.
pub(crate) fn reach(address: Ipv6Addr, port: u16) -> Result<Reach> {
    let scope = scope_of(address)?;
    match connect(http::address(address, port, scope)) {
        Ok(_) => Ok(Reach::Connected),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Ok(Reach::Refused),
            io::ErrorKind::TimedOut => Ok(Reach::TimedOut),
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Ok(Reach::Unreachable),
            // A reject route answers "permission denied" (ICMPv6 administratively prohibited).
            io::ErrorKind::PermissionDenied => Ok(Reach::Unreachable),
            _ => fail!("connect to [{address}]:{port}: {error}"),
        },
    }
}

fn global_addresses() -> Result<Vec<Ipv6Addr>> {
    let text = fs::read_to_string("/proc/thread-self/net/if_inet6").context(|| "if_inet6".into())?;
    let mut addresses = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[address, _, _, scope, flags, name] = &fields[..] else {
            continue;
        };
        let flags = u32::from_str_radix(flags, 16).context(|| line.into())?;
        if name == NIC && scope == "00" && flags & (IFA_F_TENTATIVE | IFA_F_DEPRECATED) == 0 {
            addresses.push(parse_hex_address(address)?);
        }
    }
    Ok(addresses)
}

fn default_router() -> Result<Ipv6Addr> {
    let text = fs::read_to_string("/proc/thread-self/net/ipv6_route").context(|| "ipv6_route".into())?;
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_default = fields.len() == 10 && fields[1] == "00" && fields[9] == NIC;
        if is_default && fields[4].chars().any(|digit| digit != '0') {
            return parse_hex_address(fields[4]);
        }
    }
    fail!("no default router")
}

fn parse_hex_address(hex: &str) -> Result<Ipv6Addr> {
    u128::from_str_radix(hex, 16).map(Ipv6Addr::from).context(|| format!("address {hex:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_tables_spell_addresses_without_colons() {
        let address = parse_hex_address("20010db8000001010000000000000001").unwrap();
        assert_eq!(address, "2001:db8:0:101::1".parse::<Ipv6Addr>().unwrap());
        assert!(parse_hex_address("xyz").is_err());
    }
}

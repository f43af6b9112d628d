//! Linux clients: from carrier to a global address that can be used.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::bench::measure::Samples;
use crate::bench::world::World;
use crate::failure::{Context, Result};
use crate::ns::Ns;
use crate::wire;

const CARRIER_DOWN: Duration = Duration::from_millis(1500);
/// Between two clients that come up, so that they do not compete.
const STAGGER: Duration = Duration::from_millis(137);
const LIMIT: Duration = Duration::from_secs(10);

/// `RTMGRP_IPV6_IFADDR` and `RTM_NEWADDR` of rtnetlink(7).
const ADDRESS_GROUP: u32 = 0x100;
const NEW_ADDRESS: u16 = 20;
const TENTATIVE: u8 = 0x40;
const SCOPE_UNIVERSE: u8 = 0;

/// How a client's kernel is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// As Linux comes.
    Default,
    /// `dad_transmits` and `router_solicitation_delay` 0, as an initrd may set them.
    WithoutDad,
}

/// Cuts the carrier of the first ports, where machines are, and lets them come up again one by one.
pub(crate) fn carrier_to_address(world: &World, machines: &[Ns], kind: Client) -> Result<Samples> {
    let (sender, events) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let mut up = vec![None; machines.len()];
    let mut found = Vec::new();
    for (machine, ns) in machines.iter().enumerate() {
        ns.run(|| configure(kind))?;
        world.set_carrier(machine, false)?;
        let watch = ns.run(open)?;
        let (stop, sender) = (Arc::clone(&stop), sender.clone());
        thread::spawn(move || follow(&watch, machine, &stop, &sender));
    }
    world.rest(CARRIER_DOWN)?;
    for (machine, up) in up.iter_mut().enumerate() {
        *up = Some(world.set_carrier(machine, true)?);
        world.rest(STAGGER)?;
    }
    let deadline = wire::now() + LIMIT;
    while up.iter().any(Option::is_some) {
        let Ok((machine, at)) = events.recv_timeout(deadline.saturating_sub(wire::now())) else { break };
        // The same address may be told of again, with new lifetimes.
        let since: Option<Duration> = up[machine].take_if(|since| *since <= at);
        found.extend(since.map(|since| at - since));
    }
    stop.store(true, Ordering::Relaxed);
    world.forget();
    Ok(Samples::of(found, machines.len()))
}

fn configure(kind: Client) -> Result<()> {
    let (transmits, delay) = match kind {
        Client::Default => ("1", "1"),
        Client::WithoutDad => ("0", "0"),
    };
    for (name, value) in [("dad_transmits", transmits), ("router_solicitation_delay", delay)] {
        let path = format!("/proc/sys/net/ipv6/conf/eth0/{name}");
        fs::write(&path, value).context(|| path.clone())?;
    }
    Ok(())
}

fn open() -> Result<OwnedFd> {
    let what = || "netlink socket".to_owned();
    let kind = (AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
    let watch = socket(kind.0, kind.1, kind.2, kind.3).context(what)?;
    setsockopt(&watch, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000)).context(what)?;
    bind(watch.as_raw_fd(), &NetlinkAddr::new(0, ADDRESS_GROUP)).context(what)?;
    Ok(watch)
}

fn follow(watch: &OwnedFd, machine: usize, stop: &AtomicBool, sender: &Sender<(usize, Duration)>) {
    let mut buffer = [0; 8192];
    while !stop.load(Ordering::Relaxed) {
        // Timeouts and interruptions alike: look at `stop` and go on.
        let Ok(length) = recv(watch.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty()) else {
            continue;
        };
        let at = wire::now();
        if tells_of_usable_global_address(&buffer[..length]) && sender.send((machine, at)).is_err() {
            return;
        }
    }
}

/// One of the messages adds (or changes) a global address that is not tentative: `struct nlmsghdr`, then
/// `struct ifaddrmsg` (rtnetlink(7)).
fn tells_of_usable_global_address(mut messages: &[u8]) -> bool {
    while let Some(header) = messages.first_chunk::<24>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let (flags, scope) = (header[18], header[19]);
        if kind == NEW_ADDRESS && scope == SCOPE_UNIVERSE && flags & TENTATIVE == 0 {
            return true;
        }
        messages = messages.get(length.max(16).next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

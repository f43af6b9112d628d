//! Ethernet frames of Router Discovery as a machine sends and receives them, with the kernel's stamps.
//!
//! The frames are written here by hand: a test that builds its packets with the codec under test would
//! agree with every mistake of it.

use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::failure::{Context, Result};
use crate::ns::Ns;

mod advert;
mod solicit;
mod sys;

pub(crate) use advert::Advert;
pub(crate) use solicit::RsFrame;

/// `ETH_P_IPV6`.
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Room for the answers of 512 ports at once, and more.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Frames in one system call; the kernel takes no more than 1024.
const SEND_BATCH: usize = 64;
const READ_TIMEOUT: Duration = Duration::from_millis(100);

pub(crate) const ALL_ROUTERS_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 2];
pub(crate) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Time since the Unix epoch, of the clock that the kernel stamps packets with.
pub(crate) fn now() -> Duration {
    sys::now()
}

/// A Router Advertisement as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Kernel stamp, since the Unix epoch.
    pub at: Duration,
    /// Position in the list of namespaces that the tap listens in.
    pub place: usize,
    pub ifindex: u32,
    pub frame: Vec<u8>,
}

/// Sends whole frames out of the interfaces of one namespace.
#[derive(Debug)]
pub(crate) struct Injector(Socket);

impl Injector {
    pub(crate) fn open(ns: Ns) -> Result<Self> {
        // Protocol 0: this socket receives nothing.
        let socket = ns.run(|| {
            Socket::new(Domain::PACKET, Type::RAW, None).context(|| format!("packet socket in {}", ns.0))
        })?;
        Ok(Self(socket))
    }

    pub(crate) fn send(&self, ifindex: u32, frame: &[u8]) -> Result<()> {
        self.send_all(&[(ifindex, frame)])
    }

    /// Sends frames as fast as the kernel takes them.
    pub(crate) fn send_all(&self, frames: &[(u32, &[u8])]) -> Result<()> {
        for batch in frames.chunks(SEND_BATCH) {
            let mut rest = batch;
            while !rest.is_empty() {
                let sent = sys::send(&self.0, rest).context(|| "send frames".into())?;
                rest = rest.get(sent.max(1)..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// Passes every Router Advertisement of some namespaces on until it is dropped.
pub(crate) struct Tap {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Tap {
    pub(crate) fn start(places: &[Ns], sender: &Sender<Arrival>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (place, ns) in places.iter().enumerate() {
            let socket = ns.run(|| open_tap().context(|| format!("packet socket in {}", ns.0)))?;
            let (stop, sender) = (Arc::clone(&stop), sender.clone());
            threads.push(thread::spawn(move || pass_on(&socket, place, &stop, &sender)));
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // The threads only end; there is nothing to learn from how.
            let _ = thread.join();
        }
    }
}

fn open_tap() -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.attach_filter(&sys::advertisements_only())?;
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    sys::force_receive_buffer(&socket, RECEIVE_BUFFER)?;
    sys::stamp_packets(&socket)?;
    // From here on frames arrive, and only those that the filter lets through.
    sys::bind_all(&socket, ETHERTYPE_IPV6)?;
    Ok(socket)
}

fn pass_on(socket: &Socket, place: usize, stop: &AtomicBool, sender: &Sender<Arrival>) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        // Timeouts and interruptions alike: look at `stop` and go on.
        let Ok(Some((length, ifindex, at))) = sys::receive(socket, &mut buffer) else {
            continue;
        };
        let frame = buffer[..length].to_vec();
        if sender.send(Arrival { at, place, ifindex, frame }).is_err() {
            return;
        }
    }
}

/// Ones' complement checksum of an ICMPv6 message with its pseudo-header (RFC 8200 section 8.1); 0 over a
/// message with a correct one.
pub(crate) fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut sum = u32::try_from(message.len()).unwrap_or(u32::MAX) + u32::from(NEXT_HEADER_ICMPV6);
    for part in [&source.octets()[..], &destination.octets()[..], message] {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

const NEXT_HEADER_ICMPV6: u8 = 58;

/// The interface's index, in the namespace.
pub(crate) fn ifindex(ns: Ns, name: &str) -> Result<u32> {
    ns.run(|| nix::net::if_::if_nametoindex(name).context(|| format!("{name} in {}", ns.0)))
}

//! Listening to Router Advertisements on a machine's NIC.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::failure::{Context, Result, ensure, fail};
use crate::machine::{Machine, NIC};

/// ICMPv6 type of a Router Advertisement (RFC 4861 4.2).
const ROUTER_ADVERTISEMENT: u8 = 134;

/// One advertisement as received.
#[derive(Debug, Clone)]
pub(crate) struct Advertisement {
    pub at: Instant,
    /// Seconds; zero says "no longer your router".
    pub router_lifetime: u16,
    /// M: addresses by DHCPv6.
    pub managed: bool,
    /// O: other configuration by DHCPv6.
    pub other: bool,
}

impl Advertisement {
    fn parse(bytes: &[u8], at: Instant) -> Option<Self> {
        let header: &[u8; 16] = bytes.first_chunk()?;
        let router_lifetime = u16::from_be_bytes([header[6], header[7]]);
        let (managed, other) = (header[5] & 0x80 != 0, header[5] & 0x40 != 0);
        (header[0] == ROUTER_ADVERTISEMENT).then_some(Self { at, router_lifetime, managed, other })
    }
}

/// Records every advertisement that reaches a machine until it is dropped.
pub(crate) struct Watch {
    seen: Arc<Mutex<Vec<Advertisement>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    started: Instant,
}

impl Watch {
    pub(crate) fn start(machine: &Machine) -> Result<Self> {
        let socket = machine.ns.run(|| open().context(|| "raw ICMPv6 socket".into()))?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || record(&socket, &seen, &stop)
        });
        Ok(Self { seen, stop, thread: Some(thread), started: Instant::now() })
    }

    pub(crate) fn advertisements(&self) -> Vec<Advertisement> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No advertisement so far ended the router, and no gap (from the start until now) was longer.
    pub(crate) fn check_unbroken(&self, gap_max: Duration) -> Result<()> {
        let mut last = self.started;
        for advertisement in self.advertisements() {
            ensure!(advertisement.router_lifetime > 0, "a zero-lifetime advertisement was sent");
            let gap = advertisement.at.duration_since(last);
            ensure!(gap <= gap_max, "no advertisement for {gap:?}");
            last = advertisement.at;
        }
        let gap = last.elapsed();
        ensure!(gap <= gap_max, "no advertisement for the last {gap:?}");
        Ok(())
    }

    /// The final advertisement of a port that leaves was seen.
    pub(crate) fn expect_final(&self) -> Result<()> {
        match self.advertisements().iter().any(|advertisement| advertisement.router_lifetime == 0) {
            true => Ok(()),
            false => fail!("no zero-lifetime advertisement in {} seen", self.advertisements().len()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread only ends; there is nothing to learn from how.
            let _ = thread.join();
        }
    }
}

fn open() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(NIC.as_bytes()))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket)
}

fn record(socket: &Socket, seen: &Mutex<Vec<Advertisement>>, stop: &AtomicBool) {
    let mut buffer = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        // Timeouts and interruptions alike: look at `stop` and go on.
        let Ok(length) = (&mut &*socket).read(&mut buffer) else {
            continue;
        };
        if let Some(advertisement) = Advertisement::parse(&buffer[..length], Instant::now()) {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(advertisement);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_router_lifetime() {
        // RFC 4861 4.2: hop limit 64, lifetime 1800 s; then a source link-layer address option.
        let mut bytes = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([1, 1, 0x52, 0x54, 0, 0, 0, 1]);
        assert_eq!(Advertisement::parse(&bytes, Instant::now()).unwrap().router_lifetime, 1800);
    }

    #[test]
    fn refuses_other_messages_and_short_ones() {
        assert!(Advertisement::parse(&[133; 16], Instant::now()).is_none());
        assert!(Advertisement::parse(&[134; 15], Instant::now()).is_none());
    }
}

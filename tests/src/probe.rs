//! Attempts to connect from a machine, again and again while something else happens.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::failure::{Result, ensure, fail};
use crate::machine::Machine;

const ATTEMPT: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(30);

/// One place, tried until this is dropped.
pub(crate) struct Probe {
    what: String,
    attempts: Arc<Mutex<Vec<(Instant, bool)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    pub(crate) fn start(machine: &Machine, address: Ipv6Addr, port: u16) -> Self {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (ns, to) = (machine.ns, SocketAddrV6::new(address, port, 0, 0));
        let thread = thread::spawn({
            let (attempts, stop) = (Arc::clone(&attempts), Arc::clone(&stop));
            move || {
                // The attempts tell of a thread that is not where it should be.
                if ns.enter().is_err() {
                    return;
                }
                while !stop.load(Ordering::Relaxed) {
                    let answered = match TcpStream::connect_timeout(&to.into(), ATTEMPT) {
                        Ok(_) => true,
                        // Packets got there and back.
                        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
                    };
                    let attempt = (Instant::now(), answered);
                    attempts.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
                    thread::sleep(PAUSE);
                }
            }
        });
        Self {
            what: format!("{} and [{address}]:{port}", machine.ns.0),
            attempts,
            stop,
            thread: Some(thread),
        }
    }

    fn attempts(&self) -> Vec<(Instant, bool)> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No attempt was answered, and there were enough to say so.
    pub(crate) fn expect_closed(&self) -> Result<usize> {
        let attempts = self.attempts();
        let started = attempts.first().map(|(at, _)| *at);
        if let (Some(started), Some((at, _))) = (started, attempts.iter().find(|(_, answered)| *answered)) {
            fail!("{}: answered after {:?}", self.what, at.duration_since(started));
        }
        ensure!(attempts.len() >= 10, "{}: only {} attempts", self.what, attempts.len());
        Ok(attempts.len())
    }

    /// The longest time without an answer between two answers; the last attempt was answered.
    pub(crate) fn longest_outage(&self) -> Result<Duration> {
        let attempts = self.attempts();
        let mut answered = attempts.iter().filter(|(_, answered)| *answered).map(|(at, _)| *at);
        let (Some(mut last), Some((_, true))) = (answered.next(), attempts.last()) else {
            fail!("{}: not answered at the end, after {} attempts", self.what, attempts.len());
        };
        let mut longest = Duration::ZERO;
        for at in answered {
            longest = longest.max(at.duration_since(last));
            last = at;
        }
        Ok(longest)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only ends; there is nothing to learn from how.
            let _ = thread.join();
        }
    }
}

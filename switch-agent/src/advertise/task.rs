//! The loop around the driver: waits for whatever comes first, and knows the time.
//!
//! One `ppoll` and what follows from it: with hundreds of ports at rest, being woken is what costs, and a
//! runtime's timers wake more often than they are due.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::inbox::Inbox;
use crate::backend::packet::{Batch, PacketSocket};

/// Pause after the socket failed as a whole; sending goes on.
const RECEIVE_RETRY: Duration = Duration::from_secs(1);

/// Runs until `cancel`, which [`Inbox::wake`] must follow. A batch of frames is bounded, so timers are served
/// under any flood.
pub(super) fn run(mut driver: Driver<PacketSocket>, inbox: &Inbox, cancel: &CancellationToken) {
    let origin = Instant::now();
    let mut batch = Batch::default();
    let mut deaf_until = None;
    while !cancel.is_cancelled() {
        driver.flush(|| origin.elapsed());
        let deadline = driver.deadline().into_iter().chain(deaf_until).min();
        let timeout = deadline.map(|deadline| deadline.saturating_sub(origin.elapsed()));
        let (told, heard) = match wait(inbox, driver.wire(), deaf_until.is_none(), timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot wait for the packet socket");
                std::thread::sleep(RECEIVE_RETRY);
                continue;
            }
        };
        let now = origin.elapsed();
        deaf_until = deaf_until.filter(|until| *until > now);
        if told {
            driver.inbox(now, inbox.take());
        }
        if heard {
            match driver.wire().receive(&mut batch) {
                Ok(()) => driver.batch(now, &batch),
                Err(error) => {
                    tracing::warn!(%error, "cannot receive from the packet socket");
                    deaf_until = Some(now + RECEIVE_RETRY);
                }
            }
        }
    }
}

/// Whether there is something in the inbox, and in the socket unless nobody listens to it.
fn wait(
    inbox: &Inbox,
    socket: &PacketSocket,
    listening: bool,
    timeout: Option<Duration>,
) -> Result<(bool, bool), Errno> {
    let readable = PollFlags::POLLIN;
    let mut descriptors = [PollFd::new(inbox.as_fd(), readable), PollFd::new(socket.as_fd(), readable)];
    let watched = if listening { &mut descriptors[..] } else { &mut descriptors[..1] };
    ppoll(watched, timeout.map(TimeSpec::from_duration), None)?;
    let ready = |descriptor: &PollFd<'_>| descriptor.any().unwrap_or(true);
    Ok((ready(&descriptors[0]), listening && ready(&descriptors[1])))
}

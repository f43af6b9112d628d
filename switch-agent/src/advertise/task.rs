//! The loop around the driver: waits for whatever comes first, and knows the time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::inbox::Inbox;
use crate::backend::packet::{Batch, PacketSocket};

/// Pause after the socket failed as a whole; sending goes on.
const RECEIVE_RETRY: Duration = Duration::from_secs(1);
/// Sleep while no port has a deadline; commands and frames end it.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs until `cancel`. A batch of frames is bounded, so timers are served under any flood.
pub(super) async fn run(mut driver: Driver<PacketSocket>, inbox: Arc<Inbox>, cancel: CancellationToken) {
    let origin = Instant::now();
    let mut batch = Batch::default();
    let mut deaf_until = None;
    loop {
        driver.flush(|| origin.elapsed());
        let deadline = origin + driver.deadline().unwrap_or_else(|| origin.elapsed() + IDLE);
        let listening = deaf_until.is_none();
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = inbox.filled() => driver.inbox(origin.elapsed(), inbox.take()),
            () = sleep_until(deadline) => {}
            () = wait(deaf_until) => deaf_until = None,
            received = driver.wire().receive(&mut batch), if listening => match received {
                Ok(()) => driver.batch(origin.elapsed(), &batch),
                Err(error) => {
                    tracing::warn!(error = %error, "cannot receive from the packet socket");
                    deaf_until = Some(Instant::now() + RECEIVE_RETRY);
                }
            },
        }
    }
}

/// Waits until then; for ever where there is nothing to wait for.
async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => loop {
            sleep(IDLE).await;
        },
    }
}

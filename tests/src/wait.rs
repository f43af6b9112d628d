//! Waiting with a limit: polls, and keeps the last reason for the failure message.

use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

const INTERVAL: Duration = Duration::from_millis(50);

/// Repeats `attempt` until it succeeds or `limit` has passed; the last failure is then the reason.
pub(crate) fn until<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Failure(reason)) if start.elapsed() >= limit => {
                return Err(Failure(format!("not within {limit:?}: {reason}")));
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

/// Checks that `holds` does not fail once during `span`.
pub(crate) fn throughout(span: Duration, mut holds: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        holds()?;
        thread::sleep(INTERVAL);
    }
    Ok(())
}

pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

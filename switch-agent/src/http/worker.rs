//! The thread that serves machines.
//!
//! Whatever machines ask of the proxy, and however much of it, takes this thread's time alone: advertisements
//! and passes run on others. One thread also does more than two would that share the connections, since
//! nothing moves from one processor to the other for each request (`tests/bench/proxy`).

use std::future::Future;
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Polls of tasks between two looks at timers and sockets. A connection may take sixteen requests, or a buffer of a
/// body, with each poll, and ask for the next at once: at tokio's own 61 one port kept the others waiting for tens
/// of milliseconds. A smaller number costs system calls (at 2, 2 to 3 us for each request under load).
const POLLS: u32 = 2;

/// Starts the thread, which runs what is spawned on the handle until `stop`. The future is there when it ended.
///
/// # Errors
/// The system gives no thread, or no descriptors.
pub fn start(stop: CancellationToken) -> io::Result<(Handle, impl Future<Output = ()> + Send + 'static)> {
    let runtime = Builder::new_current_thread().event_interval(POLLS).enable_all().build()?;
    let handle = runtime.handle().clone();
    let (alive, ended) = oneshot::channel::<()>();
    thread::Builder::new().name("proxy".to_owned()).spawn(move || {
        runtime.block_on(stop.cancelled());
        drop(alive);
    })?;
    Ok((handle, async {
        ended.await.ok();
    }))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};
    use std::task::Poll;
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn what_is_spawned_runs_on_a_thread_of_its_own_until_the_stop() {
        let stop = CancellationToken::new();
        let (handle, ended) = start(stop.clone()).unwrap();
        let name = handle.spawn(async { thread::current().name().map(str::to_owned) }).await.unwrap();
        assert_eq!(name.as_deref(), Some("proxy"));
        let endless = handle.spawn(std::future::pending::<()>());
        stop.cancel();
        ended.await;
        assert!(endless.await.unwrap_err().is_cancelled());
    }

    /// Counts polls, not time: whatever else the machine does, a timer waits for no more of them.
    #[test]
    fn a_task_that_is_always_ready_keeps_no_timer_waiting() {
        const PIECE: Duration = Duration::from_millis(1);
        let stop = CancellationToken::new();
        let (handle, _) = start(stop.clone()).unwrap();
        let polls = Arc::new(Mutex::new(Vec::new()));
        let seen = polls.clone();
        let busy = handle.spawn(poll_fn(move |cx| {
            seen.lock().unwrap().push(Instant::now());
            thread::sleep(PIECE);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        for _ in 0..9 {
            let waits = handle.spawn(async {
                let due = Instant::now() + PIECE;
                tokio::time::sleep_until(due.into()).await;
                (due, Instant::now())
            });
            let (due, woken) = handle.block_on(waits).unwrap();
            let between = polls.lock().unwrap().iter().filter(|at| (due..woken).contains(*at)).count();
            // One interval until the timer is looked at (its clock counts milliseconds, and rounds up), one until
            // the task that it wakes runs.
            assert!(between <= 3 * POLLS as usize, "{between} polls while a timer was due");
        }
        busy.abort();
        stop.cancel();
    }
}

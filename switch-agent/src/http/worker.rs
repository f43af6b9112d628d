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

/// Starts the thread, which runs what is spawned on the handle until `stop`. The future is there when it ended.
///
/// # Errors
/// The system gives no thread, or no descriptors.
pub fn start(stop: CancellationToken) -> io::Result<(Handle, impl Future<Output = ()> + Send + 'static)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
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
}

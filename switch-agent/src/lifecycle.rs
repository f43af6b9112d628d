//! Named tasks with an owner, a cancel and a deadline.
//!
//! Every task of the process is spawned here. A task that ends by itself, or panics, before the process was
//! asked to stop ends the process: a switch without its listener must not look alive. On a stop, tasks get
//! [`STOP_DEADLINE`] to finish.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long tasks may take to finish what they are at.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Owns all tasks of the process.
#[derive(Debug, Default)]
pub struct Lifecycle {
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
}

/// Why the process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// SIGTERM or SIGINT.
    Asked,
    /// A task ended that never should.
    TaskLost(String),
}

impl Lifecycle {
    /// Cancelled when the process is to stop; hand a clone to every task.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task that must live as long as the process.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        // Behind a pointer: one kind of task for the runtime, not a dozen.
        let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task);
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits for what the start needs, while the tasks that there are already run.
    ///
    /// # Errors
    /// A stop was asked for meanwhile, or a task was lost; nothing is drained yet.
    pub async fn until<T>(
        &mut self,
        ready: impl Future<Output = T>,
        asked: impl Future<Output = ()>,
    ) -> Result<T, Ended> {
        tokio::select! {
            ended = self.ended(asked) => Err(ended),
            value = ready => Ok(value),
        }
    }

    /// Runs until a stop is asked for or a task is lost, then drains.
    pub async fn run(mut self, asked: impl Future<Output = ()>) -> Ended {
        let ended = self.ended(asked).await;
        self.drain(ended).await
    }

    async fn ended(&mut self, asked: impl Future<Output = ()>) -> Ended {
        tokio::select! {
            () = asked => Ended::Asked,
            lost = self.tasks.join_next() => match lost {
                Some(Ok(name)) => Ended::TaskLost(name.to_owned()),
                Some(Err(failure)) => Ended::TaskLost(failure.to_string()),
                None => Ended::TaskLost("all".to_owned()),
            },
        }
    }

    /// Ends all tasks, and gives back why.
    pub async fn drain(mut self, ended: Ended) -> Ended {
        match &ended {
            Ended::Asked => info!("stopping; CONFIG_DB, FRR and machines keep what they have"),
            Ended::TaskLost(task) => error!(task, "a task ended that never should; stopping"),
        }
        self.stop.cancel();
        let drained =
            tokio::time::timeout(STOP_DEADLINE, async { while self.tasks.join_next().await.is_some() {} });
        if drained.await.is_err() {
            warn!(deadline_s = STOP_DEADLINE.as_secs(), "tasks did not stop in time");
        }
        ended
    }
}

/// Completes on SIGTERM or SIGINT.
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        error!("signal handlers cannot be installed; only SIGKILL will stop this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// A task that ends when it is asked to.
    fn lifecycle() -> Lifecycle {
        let mut lifecycle = Lifecycle::default();
        let stop = lifecycle.token();
        lifecycle.spawn("patient", async move { stop.cancelled().await });
        lifecycle
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_waits_can_be_ended() {
        let mut waiting = lifecycle();
        assert_eq!(waiting.until(ready(7), pending()).await, Ok(7));
        let ended = waiting.until(pending::<()>(), ready(())).await.unwrap_err();
        assert_eq!(ended, Ended::Asked);
        let before = tokio::time::Instant::now();
        assert_eq!(waiting.drain(ended).await, Ended::Asked);
        assert!(before.elapsed() < STOP_DEADLINE, "the tasks were not told");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_lost_ends_the_wait_and_the_run() {
        for wait in [true, false] {
            let mut lifecycle = lifecycle();
            lifecycle.spawn("admin", async {});
            let ended = match wait {
                true => lifecycle.until(pending::<()>(), pending()).await.unwrap_err(),
                false => lifecycle.run(pending()).await,
            };
            assert_eq!(ended, Ended::TaskLost("admin".to_owned()));
        }
    }
}

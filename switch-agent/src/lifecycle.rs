//! Named tasks with an owner, a cancel and a deadline.
//!
//! Every task of the process is spawned here. A task that ends by itself, or panics, before the process was
//! asked to stop ends the process: a switch without its listener must not look alive. On a stop, tasks get
//! [`STOP_DEADLINE`] to finish.

use std::future::Future;
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
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Runs until a stop is asked for or a task is lost, then drains.
    pub async fn run(mut self, asked: impl Future<Output = ()>) -> Ended {
        let ended = tokio::select! {
            () = asked => Ended::Asked,
            lost = self.tasks.join_next() => match lost {
                Some(Ok(name)) => Ended::TaskLost(name.to_owned()),
                Some(Err(failure)) => Ended::TaskLost(failure.to_string()),
                None => Ended::TaskLost("all".to_owned()),
            },
        };
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

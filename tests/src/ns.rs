//! Work inside a network namespace of the lab, on a thread of its own instead of a process.

use std::fs::File;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::failure::{Context, Result, fail};

/// A node of the lab, named like its network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ns(pub &'static str);

impl Ns {
    /// Runs `work` on a thread inside the namespace and returns what it returns.
    ///
    /// Sockets opened there stay in the namespace wherever they are used later.
    pub(crate) fn run<T: Send>(self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let handle = scope.spawn(|| {
                self.enter()?;
                work()
            });
            match handle.join() {
                Ok(result) => result,
                Err(_) => fail!("the work in namespace {} panicked", self.0),
            }
        })
    }

    /// Moves the calling thread into the namespace for good.
    pub(crate) fn enter(self) -> Result<()> {
        let path = format!("/run/netns/{}", self.0);
        let file = File::open(&path).context(|| path.clone())?;
        setns(file, CloneFlags::CLONE_NEWNET).context(|| format!("setns to {}", self.0))
    }
}

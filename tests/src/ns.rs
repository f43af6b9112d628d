//! Work inside a network namespace of the lab, on a thread of its own instead of a process.

use std::fs::File;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::failure::{Context, Result, fail};
use crate::wire;

/// A node of the lab, named like its network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ns(pub &'static str);

impl Ns {
    /// Whether the lab has this node.
    pub(crate) fn exists(self) -> bool {
        std::path::Path::new("/run/netns").join(self.0).exists()
    }

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

    /// Starts a process in the namespace, with a `/sys` that shows the namespace's interfaces; the time just
    /// before. Not by nsenter(1) and unshare(1): each of them would count as the start of the process.
    pub(crate) fn spawn(self, command: &mut Command) -> Result<(Duration, Child)> {
        self.run(|| {
            unshare(CloneFlags::CLONE_NEWNS).context(|| "unshare".into())?;
            let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
            mount(none, "/", none, private, none).context(|| "mount /".into())?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)
                .context(|| "mount /sys".into())?;
            let started = wire::now();
            let child = command.spawn().context(|| format!("{command:?}"))?;
            Ok((started, child))
        })
    }

    /// Moves the calling thread into the namespace for good.
    pub(crate) fn enter(self) -> Result<()> {
        let path = format!("/run/netns/{}", self.0);
        let file = File::open(&path).context(|| path.clone())?;
        setns(file, CloneFlags::CLONE_NEWNET).context(|| format!("setns to {}", self.0))
    }
}

//! CPU time where the lab kernel's own clock is too coarse: user-mode Linux charges whole ticks of 10 ms.
//!
//! There the host knows better. A helper outside adds up what all processes of the user-mode kernel have
//! used; inside, the difference to a window without daemon is what the daemon adds to the machine. Question
//! and answer are files on the file system that both share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::failure::{Context, Result};
use crate::wait;

/// Environment variable with the directory of questions and answers.
pub(crate) const DIRECTORY: &str = "BENCH_HOST_CPU";
const POLL: Duration = Duration::from_millis(20);

/// Outside: answers until the directory is gone. `mark` is an argument on the command line of every process
/// of the user-mode kernel.
pub(crate) fn serve(directory: &Path, mark: &str) -> Result<()> {
    for number in 0_u32.. {
        let question = directory.join(format!("ask-{number}"));
        while !question.exists() {
            if !directory.exists() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        if number == 0 {
            prefer(mark);
        }
        let answer = directory.join(format!("cpu-{number}"));
        let draft = answer.with_extension("draft");
        fs::write(&draft, cpu_of(mark).to_string()).context(|| draft.display().to_string())?;
        fs::rename(&draft, &answer).context(|| answer.display().to_string())?;
    }
    Ok(())
}

/// Whatever else this machine does is not what is measured: where the scheduler groups processes by session,
/// their nice values count among themselves only, and the group has one of its own (sched(7)).
fn prefer(mark: &str) {
    for process in processes(mark) {
        // Without autogroups there is no such file, and the processes' own values count.
        let _ = fs::write(process.join("autogroup"), "-15");
    }
}

/// Those with the argument on their command line, as directories of `/proc`.
fn processes(mark: &str) -> Vec<PathBuf> {
    let marked = |process: &PathBuf| {
        // Processes come and go, and not every entry is one.
        let command_line = fs::read(process.join("cmdline")).unwrap_or_default();
        let mut arguments = command_line.split(|byte| *byte == 0);
        arguments.next().is_some_and(|program| program.ends_with(b"linux.uml"))
            && arguments.any(|argument| argument == mark.as_bytes())
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.map(|entry| entry.path()).filter(marked).collect()
}

/// Nanoseconds that all threads of the processes have run (`/proc/<pid>/task/<tid>/schedstat`).
fn cpu_of(mark: &str) -> u64 {
    let mut total = 0;
    for process in processes(mark) {
        for task in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let ran = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
            total += ran.unwrap_or_default();
        }
    }
    total
}

/// Inside: asks the helper, where there is one.
pub(crate) struct HostCpu {
    directory: PathBuf,
}

/// Questions so far, of all sizes: an answer is never read twice.
static ASKED: AtomicU32 = AtomicU32::new(0);

impl HostCpu {
    pub(crate) fn from_environment() -> Option<Self> {
        std::env::var_os(DIRECTORY).map(|directory| Self { directory: directory.into() })
    }

    /// What the whole kernel and everything in it has used so far.
    pub(crate) fn read(&self) -> Result<Duration> {
        let number = ASKED.fetch_add(1, Ordering::Relaxed);
        let question = self.directory.join(format!("ask-{number}"));
        fs::write(&question, "").context(|| question.display().to_string())?;
        let answer = self.directory.join(format!("cpu-{number}"));
        let text = wait::until(wait::seconds(10), || {
            fs::read_to_string(&answer).context(|| answer.display().to_string())
        })?;
        text.trim().parse().map(Duration::from_nanos).context(|| text.clone())
    }
}

//! A daemon under measurement: what it and its children use.

use std::fs;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::failure::{Context, Result, ensure};
use crate::wait;

/// How long a killed process may take to end.
const END: Duration = Duration::from_secs(10);

/// Whether it runs still; a zombie has closed its files (proc(5), `stat`).
fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// A process that was started, with the children it has.
pub(crate) struct Family(Child);

impl Family {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// What was started, and its children.
    fn processes(&self) -> Result<Vec<Pid>> {
        let id = self.0.id().cast_signed();
        let mut found = vec![Pid::from_raw(id)];
        for entry in fs::read_dir("/proc").context(|| "/proc".into())?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // The process may be gone by now.
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            if fields.nth(1).and_then(|parent| parent.parse().ok()) == Some(id) {
                found.push(Pid::from_raw(pid));
            }
        }
        Ok(found)
    }

    /// CPU time of all threads so far, by the scheduler's clock.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for pid in self.processes()? {
            let time = clock_getcpuclockid(pid)
                .and_then(nix::time::ClockId::now)
                .context(|| format!("CPU clock of {pid}"))?;
            total += Duration::from(time);
        }
        Ok(total)
    }

    /// Resident memory of all processes in KiB (proc(5), `VmRSS`).
    pub(crate) fn rss_kib(&self) -> Result<u64> {
        let mut total = 0;
        for pid in self.processes()? {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).context(|| format!("pid {pid}"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let value = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            total += value.context(|| format!("VmRSS of {pid}"))?;
        }
        Ok(total)
    }

    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let status = self.0.try_wait().context(|| "wait".into())?;
        ensure!(status.is_none(), "the daemon ended: {status:?}");
        Ok(())
    }

    /// Ends it at once, so that it says no goodbye on the wire.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.kill_all()
    }

    fn kill_all(&mut self) -> Result<()> {
        // The parent first: it would replace children that it misses.
        let processes = self.processes()?;
        for pid in &processes {
            // It may have ended by itself.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        self.0.wait().context(|| "wait".into())?;
        // Children that still die hold the sockets that the next daemon wants to listen on.
        wait::until(END, || {
            let alive = processes.iter().find(|pid| is_running(**pid));
            ensure!(alive.is_none(), "process {alive:?} does not end");
            Ok(())
        })
    }
}

impl Drop for Family {
    /// A bench that failed leaves nothing running; after [`Family::kill`] there is nothing left to end.
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.kill_all();
        }
    }
}

//! vtysh: reading FRR's state and applying a delta.
//!
//! Configuration goes in as `vtysh -c <line> -c <line> ...`: one process, every line acknowledged by its
//! daemon before the next is sent, stopping at the first that is refused. `vtysh -f` is faster for
//! thousands of lines, but goes on after errors and, since FRR 10, feeds the daemons side by side; it also
//! needs a file that the daemons' container can see. Exit codes prove nothing: success is an output without
//! a `%` line, and what the next reading shows.
//!
//! The client must be of the daemons' own release (others have their lines dropped without an error), which
//! is why it is always the one beside the daemons: on SONiC, inside the bgp container.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV6;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::Ipv6Net;
use switch_agent_core::frr::{DEFAULT_VRF, FrrDelta, FrrObserved, Running, prefix_list_name};
use switch_agent_core::name::VrfName;
use tokio::net::{TcpSocket, TcpStream};

use crate::metrics::Metrics;
use crate::metrics::frr::Outcome;

mod command_line;
mod drop_in;
mod process;
mod show;

pub use drop_in::{DropInError, load_templates, write_drop_in};
use process::Output;
pub use process::ProcessError;

/// Lines per process: keeps one call well under the timeout, and the command line under the kernel's limit.
const LINES_PER_CALL_MAX: usize = 256;
/// How long a running configuration that somebody else changed must stand still before a repair.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// vtysh's option to say each command before its answer: a complaint does not name its line.
const ECHO: &str = "-E";
/// Pauses between attempts while another session holds mgmtd's lock.
const LOCK_RETRIES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

#[derive(Debug, thiserror::Error)]
pub enum FrrError {
    #[error("{setting:?} is not a command line")]
    CommandLine { setting: String },
    #[error("cannot run {command}")]
    Process {
        command: String,
        #[source]
        source: ProcessError,
    },
    #[error("no vtysh answers (tried {tried})")]
    Unavailable {
        tried: String,
        /// None of these commands exists.
        absent: bool,
        #[source]
        source: Box<FrrError>,
    },
    #[error("vtysh answered {found} of {wanted} requests: {text}")]
    Incomplete { wanted: usize, found: usize, text: String },
    #[error("FRR answers `{request}` with: {text}")]
    Answer { request: String, text: String },
    #[error("FRR refused `{line}`: {text}")]
    Refused { line: String, text: String },
    #[error("another session keeps FRR's configuration locked, at `{line}`: {text}")]
    Locked { line: String, text: String },
    #[error("FRR's running configuration is being changed by somebody else")]
    Changing,
    #[error("FRR is not managed (--vtysh none)")]
    Unmanaged,
}

impl FrrError {
    /// Somebody else is at work: it passes by itself, and soon.
    pub fn passes(&self) -> bool {
        matches!(self, FrrError::Changing | FrrError::Locked { .. })
    }
}

/// Ways to reach vtysh, best first; `none` has none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidates(Vec<Vec<String>>);

impl Candidates {
    fn parse(setting: &str) -> Result<Candidates, FrrError> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        match setting {
            "none" => Ok(Candidates(Vec::new())),
            "auto" => Ok(Candidates(vec![words("vtysh"), words("docker exec -i bgp vtysh")])),
            _ => command_line::split(setting)
                .map(|command| Candidates(vec![command]))
                .ok_or_else(|| FrrError::CommandLine { setting: setting.to_owned() }),
        }
    }
}

/// What is remembered between calls.
#[derive(Debug, Default)]
struct Memory {
    /// Index of the candidate that answered last.
    candidate: Option<usize>,
    /// The running configuration as last read, and when it was first seen so.
    seen: Option<(String, Instant)>,
    /// It was seen unchanged at least [`SETTLE_TIME`] apart, or its last change is our own.
    settled: bool,
    /// A delta went in after `seen` was read.
    applied_since: bool,
    /// A delta was ever applied: later foreign changes that need one are drift.
    applied_once: bool,
}

impl Memory {
    /// Records a reading.
    fn read(&mut self, text: &str, now: Instant) {
        match &self.seen {
            Some((before, since)) if before == text => {
                self.settled |= now.saturating_duration_since(*since) >= SETTLE_TIME;
            }
            _ => {
                self.settled = self.applied_since;
                self.seen = Some((text.to_owned(), now));
            }
        }
        self.applied_since = false;
    }
}

/// FRR, as reached through its command-line client.
#[derive(Debug)]
pub struct Vtysh {
    candidates: Candidates,
    timeout: Duration,
    metrics: Metrics,
    memory: Mutex<Memory>,
    /// One configuration session at a time.
    configuring: tokio::sync::Mutex<()>,
}

impl Vtysh {
    /// `setting` is `none`, `auto`, or a command such as `docker exec -i bgp vtysh`. `timeout` bounds each
    /// process.
    ///
    /// # Errors
    /// The setting is empty or has an open quote.
    pub fn new(setting: &str, timeout: Duration, metrics: Metrics) -> Result<Vtysh, FrrError> {
        Ok(Vtysh {
            candidates: Candidates::parse(setting)?,
            timeout,
            metrics,
            memory: Mutex::default(),
            configuring: tokio::sync::Mutex::default(),
        })
    }

    /// `false` with `--vtysh none`.
    pub fn managed(&self) -> bool {
        !self.candidates.0.is_empty()
    }

    /// Reads what the plan needs: one process while the leak is complete, two while routes are missing.
    ///
    /// `vrfs` are the boot VRFs with the VRF each leaks to, `exported` the /64s that go out. Where `auto` finds
    /// no client at all, FRR is not managed, as with `none`.
    ///
    /// # Errors
    /// No client answers, or a daemon does not; nothing partial is returned.
    pub async fn observe(
        &self,
        vrfs: &BTreeMap<VrfName, String>,
        exported: &[Ipv6Net],
    ) -> Result<FrrObserved, FrrError> {
        if !self.managed() {
            return Ok(FrrObserved::default());
        }
        let survey = show::Survey::new(vrfs, exported);
        let requests = survey.requests();
        let output = match self.run(&requests).await {
            Err(error) if self.absent(&error) => return Ok(FrrObserved::default()),
            output => output?,
        };
        let (running_config, answers) = show::split_answers(&output, &requests)?;
        self.memory().read(running_config, Instant::now());
        let mut observed = survey.evaluate(running_config, &answers);

        let missing = missing_imports(&observed, vrfs);
        if !missing.is_empty() {
            let requests: Vec<String> =
                missing.iter().map(|(_, leak_vrf, prefix)| show::bgp_route(leak_vrf, *prefix)).collect();
            let output = self.run(&requests).await?;
            let answers = show::parse_answers(&output.text, &output.errors, &requests)?;
            for ((vrf, _, prefix), answer) in missing.iter().zip(&answers) {
                if let Some(routes) = observed.routes.get_mut(vrf).filter(|_| show::has_best_path(answer)) {
                    routes.importable.insert(*prefix);
                }
            }
        }
        Ok(observed)
    }

    /// Sends a delta. What it did is known only by the next [`Vtysh::observe`].
    ///
    /// A configuration that somebody else has just changed is given a second to settle: repairing in the
    /// middle of a reload ends with half of both.
    ///
    /// # Errors
    /// [`FrrError::Changing`] and [`FrrError::Locked`] pass by themselves. After any other error an unknown
    /// part of the delta is in effect, up to the line that was refused.
    pub async fn apply(&self, delta: &FrrDelta) -> Result<(), FrrError> {
        if delta.is_empty() {
            return Ok(());
        }
        if !self.managed() {
            return Err(FrrError::Unmanaged);
        }
        let _session = self.configuring.lock().await;
        let result = self.apply_settled(delta).await;
        let outcome = match &result {
            Ok(()) => Outcome::Ok,
            Err(FrrError::Changing | FrrError::Locked { .. }) => Outcome::Deferred,
            Err(_) => Outcome::Failed,
        };
        self.metrics.frr.applied(outcome);
        result
    }

    async fn apply_settled(&self, delta: &FrrDelta) -> Result<(), FrrError> {
        let drift = self.settle().await?;
        for stage in delta.stages() {
            for lines in calls(stage) {
                self.memory().applied_since = true;
                self.configure(lines).await?;
            }
        }
        self.memory().applied_once = true;
        if drift {
            self.metrics.frr.drift_repaired();
        }
        Ok(())
    }

    /// Waits until the running configuration has stood still. Returns whether this is a repair of drift.
    async fn settle(&self) -> Result<bool, FrrError> {
        let (settled, seen, drift) = {
            let memory = self.memory();
            (memory.settled || memory.applied_since, memory.seen.clone(), memory.applied_once)
        };
        let Some((before, since)) = seen.filter(|_| !settled) else {
            return Ok(false);
        };
        tokio::time::sleep(SETTLE_TIME.saturating_sub(since.elapsed())).await;
        let requests = [show::RUNNING_CONFIG.to_owned()];
        let output = self.run(&requests).await?;
        let (now, _) = show::split_answers(&output, &requests)?;
        self.memory().read(now, Instant::now());
        if now == before { Ok(drift) } else { Err(FrrError::Changing) }
    }

    /// Sends the lines of one call. vtysh stops at the first that a daemon refuses; that one is named.
    async fn configure(&self, lines: &[String]) -> Result<(), FrrError> {
        let mut requests = vec!["configure terminal".to_owned()];
        requests.extend(lines.iter().map(|line| line.trim().to_owned()));
        let mut pauses = LOCK_RETRIES.iter();
        loop {
            let output = self.run_with(&[ECHO], &requests).await?;
            let complaint = show::complaint(&output.text).or_else(|| show::complaint(&output.errors));
            let Some(text) = complaint else { return Ok(()) };
            let sent = show::echoed(&output.text, &requests);
            let line = sent.last().cloned().unwrap_or_default();
            if !show::is_lock_race(&text) {
                return Err(FrrError::Refused { line, text });
            }
            // What was taken away cannot be taken away again: then the next reading tells what is left to do.
            let repeatable =
                sent.split_last().is_some_and(|(_, done)| !done.iter().any(|line| line.starts_with("no ")));
            match pauses.next().filter(|_| repeatable) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(FrrError::Locked { line, text }),
            }
        }
    }

    /// Opens a TCP connection from a boot VRF: whether machines' replies and requests find their way, as
    /// far as the switch is concerned. The connection is closed at once.
    ///
    /// # Errors
    /// The VRF's device is missing, or the address cannot be reached in time.
    pub async fn probe(vrf: &VrfName, target: SocketAddrV6, timeout: Duration) -> std::io::Result<()> {
        let socket = TcpSocket::new_v6()?;
        socket.bind_device(Some(vrf.as_str().as_bytes()))?;
        let connected: Result<TcpStream, _> =
            tokio::time::timeout(timeout, socket.connect(target.into())).await?;
        connected.map(drop)
    }

    /// Runs vtysh with one `-c` per request, through the client that answered last, else the first that
    /// answers. Returns its output; its exit code means nothing unless it could not reach the daemons.
    async fn run(&self, requests: &[String]) -> Result<Output, FrrError> {
        self.run_with(&[], requests).await
    }

    /// [`Vtysh::run`] with options of vtysh before the requests.
    async fn run_with(&self, options: &[&str], requests: &[String]) -> Result<Output, FrrError> {
        let commands = requests.iter().flat_map(|request| ["-c", request]);
        let arguments: Vec<&str> = options.iter().copied().chain(commands).collect();
        let known = self.memory().candidate;
        let (mut first_error, mut absent) = (None, true);
        for (index, command) in self.candidates.0.iter().enumerate() {
            if known.is_some_and(|known| known != index) {
                continue;
            }
            match process::run(command, &arguments, self.timeout).await {
                Ok(output) => {
                    self.memory().candidate = Some(index);
                    return Ok(output);
                }
                Err(source) => {
                    absent &= source.is_absent();
                    let error = FrrError::Process { command: command.join(" "), source };
                    first_error.get_or_insert(error);
                }
            }
        }
        // Search anew next time: a container may have come or gone.
        self.memory().candidate = None;
        let error = first_error.unwrap_or(FrrError::Unmanaged);
        if known.is_some() || self.candidates.0.len() == 1 {
            return Err(error);
        }
        let tried = self.candidates.0.iter().map(|command| command.join(" ")).collect::<Vec<_>>().join(", ");
        Err(FrrError::Unavailable { tried, absent, source: Box::new(error) })
    }

    /// Whether no client is there to answer, now or later: the search for one, not a setting, found none,
    /// and none ever answered.
    fn absent(&self, error: &FrrError) -> bool {
        matches!(error, FrrError::Unavailable { absent: true, .. }) && self.memory().seen.is_none()
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts a stage into calls, at lines outside any context.
fn calls(stage: &[String]) -> impl Iterator<Item = &[String]> {
    let mut rest = stage;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let closes = |line: &String| !line.starts_with(' ') && line.starts_with("exit");
        let opens =
            |line: &String| ["vrf ", "router ", "route-map "].iter().any(|word| line.starts_with(word));
        let mut inside = false;
        let mut cut = rest.len();
        for (index, line) in rest.iter().enumerate() {
            inside = (inside || opens(line)) && !closes(line);
            if index + 1 >= LINES_PER_CALL_MAX && !inside {
                cut = index + 1;
                break;
            }
        }
        let (call, left) = rest.split_at(cut);
        rest = left;
        Some(call)
    })
}

/// Entries of our prefix-lists without an imported route.
fn missing_imports(
    observed: &FrrObserved,
    vrfs: &BTreeMap<VrfName, String>,
) -> Vec<(VrfName, String, Ipv6Net)> {
    let running = Running::parse(&observed.running_config);
    let mut missing = Vec::new();
    for (vrf, leak_vrf) in vrfs {
        let imported: BTreeSet<Ipv6Net> = observed
            .routes
            .get(vrf)
            .map(|routes| routes.imported.keys().copied().collect())
            .unwrap_or_default();
        let entries = running.prefix_lists.get(&prefix_list_name(vrf)).into_iter().flatten();
        let wanted = entries.filter_map(|(_, entry)| entry.strip_prefix("permit ")?.parse::<Ipv6Net>().ok());
        missing.extend(
            wanted
                .filter(|prefix| !imported.contains(prefix))
                .map(|prefix| (vrf.clone(), leak_vrf.clone(), prefix)),
        );
    }
    let known = |leak_vrf: &str| leak_vrf == DEFAULT_VRF || running.bgp.contains_key(leak_vrf);
    missing.retain(|(_, leak_vrf, _)| known(leak_vrf));
    missing
}

#[cfg(test)]
mod tests;

//! The boot timeline of each port: what a machine went through from carrier to its last posted event, with
//! times.
//!
//! A boot starts
//! - when carrier comes back after it was lost for [`TimelineLimits::carrier_debounce`];
//! - when it comes back after a shorter loss that is no flap ([`TimelineLimits::carrier_flap`]), if the boot
//!   so far had come as far as a token or an event: a machine that ran was restarted. Before that, a short
//!   loss is firmware and kernel taking over the network card from each other, one boot;
//! - with the first solicitation (of a router or of DHCPv6) or request on a port that has no boot, also after it was released;
//! - with a solicitation from a machine that had come that far and was quiet for
//!   [`TimelineLimits::restart_quiet`]: a restart with the link kept up by a management controller.
//!
//! The agent's own advertisements start nothing, and neither does carrier that was up when the agent
//! started: its beginning was not seen.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::dhcp6::Architecture;
use crate::machines::{MachineEvent, ProxyStep};
use crate::name::PortName;

#[cfg(test)]
mod tests;

/// Bounds and times of [`Timelines`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineLimits {
    pub boots_per_port_max: usize,
    pub entries_per_boot_max: usize,
    pub carrier_debounce: Duration,
    pub carrier_flap: Duration,
    pub restart_quiet: Duration,
    /// How long a boot without any sign of its machine counts as in flight: a server that is switched off
    /// keeps its link for its management controller.
    pub silent_boot: Duration,
    /// How long after the last sign of its machine a boot counts as in flight.
    pub quiet_boot: Duration,
}

impl Default for TimelineLimits {
    fn default() -> Self {
        TimelineLimits {
            boots_per_port_max: 4,
            entries_per_boot_max: 64,
            carrier_debounce: Duration::from_secs(10),
            carrier_flap: Duration::from_secs(1),
            restart_quiet: Duration::from_secs(60),
            silent_boot: Duration::from_secs(5 * 60),
            quiet_boot: Duration::from_secs(30 * 60),
        }
    }
}

/// Longest stage name and message of a posted event that are kept, in characters.
const STAGE_LEN_MAX: usize = 64;
const DETAIL_LEN_MAX: usize = 256;

/// A step of a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    Carrier,
    FirstRs,
    /// The first DHCPv6 message that was answered.
    Dhcp6,
    /// A boot file URL was told by DHCPv6.
    BootUrl,
    /// The first advertisement since the boot started.
    Ra,
    /// The kernel resolved an address of the machine.
    Neighbor,
    Config,
    Token,
    /// The first request that was forwarded to the control API.
    Api,
    /// Posted by the machine.
    Event(String),
    Released,
}

impl Stage {
    /// The kind of step; what a machine posted is of one kind, whatever it says.
    pub fn kind(&self) -> &'static str {
        match self {
            Stage::Carrier => "carrier",
            Stage::FirstRs => "first-rs",
            Stage::Dhcp6 => "dhcp6",
            Stage::BootUrl => "boot-url",
            Stage::Ra => "ra",
            Stage::Neighbor => "neighbor",
            Stage::Config => "config",
            Stage::Token => "token",
            Stage::Api => "api",
            Stage::Event(_) => "event",
            Stage::Released => "released",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Event(stage) => write!(f, "{}:{stage}", self.kind()),
            _ => f.write_str(self.kind()),
        }
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One step, at its first occurrence in the boot. As JSON:
/// `{"stage":"first-rs","unix_ms":0,"since_start_ms":0,"since_previous_ms":0,"count":1,"detail":null}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub stage: Stage,
    pub unix_ms: i64,
    pub since_start_ms: u64,
    /// Since the entry before it.
    pub since_previous_ms: u64,
    /// How often it happened in this boot; for events, in a row.
    pub count: u32,
    /// Address, kind of DHCPv6 client, URL, API status, machine id or message, by stage; the latest one.
    pub detail: Option<String>,
}

/// One boot, oldest entry first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// Counts the boots of the port since the agent started, from 1.
    pub number: u64,
    pub started_ms: i64,
    pub entries: Vec<Entry>,
    /// Events that were dropped because there were too many, the oldest first.
    pub dropped: u64,
    /// The port was released; nothing is added any more.
    pub ended: bool,
    #[serde(skip)]
    started_at: Duration,
    #[serde(skip)]
    latest_at: Duration,
}

impl Boot {
    /// The machine ran something that speaks to the agent: more than firmware.
    fn is_up(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.stage, Stage::Token | Stage::Event(_)))
    }

    /// The times of the boot are times since carrier.
    pub fn began_with_carrier(&self) -> bool {
        self.entries.first().is_some_and(|entry| entry.stage == Stage::Carrier)
    }

    /// The boot began with what firmware or a starting system does, and not with what a running one does too.
    fn began_in_sight(&self) -> bool {
        let first = self.entries.first().map(|entry| &entry.stage);
        matches!(first, Some(Stage::Carrier | Stage::FirstRs | Stage::Dhcp6 | Stage::BootUrl | Stage::Config))
    }

    /// A machine was heard, not only a link seen.
    fn has_sign(&self) -> bool {
        self.entries.iter().any(|entry| !matches!(entry.stage, Stage::Carrier | Stage::Ra))
    }
}

#[derive(Debug, Clone, Copy, Default)]
enum Carrier {
    #[default]
    Unknown,
    Up,
    /// Since when; `None` where it was down when the agent started.
    Down(Option<Duration>),
}

#[derive(Debug, Clone, Default)]
struct PortTimeline {
    carrier: Carrier,
    boots: VecDeque<Boot>,
    boots_seen: u64,
}

/// The timelines of all ports. Time comes in with every call, as for
/// [`MachineTable`](crate::machines::MachineTable).
#[derive(Debug, Clone, Default)]
pub struct Timelines {
    limits: TimelineLimits,
    ports: BTreeMap<PortName, PortTimeline>,
}

impl Timelines {
    pub fn new(limits: TimelineLimits) -> Timelines {
        Timelines { limits, ports: BTreeMap::new() }
    }

    /// Folds one event; the port and the new entry where it made one.
    pub fn fold(&mut self, event: &MachineEvent, now: Duration, unix_ms: i64) -> Option<(PortName, Entry)> {
        // A running system renews its address for days.
        let mut opens = true;
        let (name, stage, detail) = match event {
            MachineEvent::Carrier { port, up } => {
                let starts = self.carrier(port, *up, now);
                let timeline = self.ports.get_mut(port).filter(|_| starts)?;
                timeline.start(&self.limits, now, unix_ms);
                (port, Stage::Carrier, None)
            }
            MachineEvent::Solicit { port, address, .. } => {
                (port, Stage::FirstRs, address.map(|address| address.to_string()))
            }
            MachineEvent::Dhcp6 { port, boot_url: Some(url), .. } => {
                (port, Stage::BootUrl, Some(printable(url, DETAIL_LEN_MAX)))
            }
            MachineEvent::Dhcp6 { port, request, architecture, ipxe, .. } => {
                opens = request.opens();
                (port, Stage::Dhcp6, client(*architecture, *ipxe))
            }
            MachineEvent::Advertised { port } => (port, Stage::Ra, None),
            MachineEvent::Neighbor { port, address, .. } => {
                (port, Stage::Neighbor, Some(address.to_string()))
            }
            MachineEvent::Proxy { port, step, .. } => {
                let (stage, detail) = proxy_stage(step)?;
                (port, stage, detail)
            }
            MachineEvent::Released { port } => (port, Stage::Released, None),
            MachineEvent::Probe { .. } | MachineEvent::NeighborGone { .. } | MachineEvent::Lldp { .. } => {
                return None;
            }
        };
        let timeline = self.ports.entry(name.clone()).or_default();
        if opens && timeline.starts_with(&stage, &self.limits, now) {
            timeline.start(&self.limits, now, unix_ms);
        }
        let boot = timeline.boots.back_mut().filter(|boot| !boot.ended)?;
        boot.ended = stage == Stage::Released;
        let entry = boot.record(stage, detail, self.limits.entries_per_boot_max, now, unix_ms)?;
        Some((name.clone(), entry))
    }

    /// The boots of a port, oldest first.
    pub fn boots(&self, port: &PortName) -> impl DoubleEndedIterator<Item = &Boot> {
        self.ports.get(port).into_iter().flat_map(|timeline| timeline.boots.iter())
    }

    /// Forgets the boots of a port but the last, which is what its machine is doing; returns how many.
    pub fn forget_past(&mut self, port: &PortName) -> usize {
        let Some(timeline) = self.ports.get_mut(port) else { return 0 };
        let past = timeline.boots.len().saturating_sub(1);
        timeline.boots.drain(..past).count()
    }

    /// Ports that have at least one boot.
    pub fn ports(&self) -> impl Iterator<Item = &PortName> {
        self.ports.iter().filter(|(_, timeline)| !timeline.boots.is_empty()).map(|(name, _)| name)
    }

    /// Whether a machine is on its way on the port: its latest boot was seen from the beginning, and has come
    /// neither to a token or an event nor to a release. It counts until the link is gone, or the machine was
    /// quiet for too long ([`TimelineLimits::silent_boot`], [`TimelineLimits::quiet_boot`]).
    pub fn in_flight(&self, port: &PortName, now: Duration) -> bool {
        let limits = &self.limits;
        let Some(timeline) = self.ports.get(port) else { return false };
        let unplugged = match timeline.carrier {
            Carrier::Down(since) => {
                since.is_none_or(|since| now.saturating_sub(since) >= limits.carrier_debounce)
            }
            Carrier::Up | Carrier::Unknown => false,
        };
        let Some(boot) = timeline.boots.back().filter(|_| !unplugged) else { return false };
        let patience = if boot.has_sign() { limits.quiet_boot } else { limits.silent_boot };
        let heard = now.saturating_sub(boot.latest_at) < patience;
        boot.began_in_sight() && !boot.ended && !boot.is_up() && heard
    }

    /// Follows carrier; whether a boot starts with it.
    fn carrier(&mut self, port: &PortName, up: bool, now: Duration) -> bool {
        let TimelineLimits { carrier_debounce, carrier_flap, .. } = self.limits;
        let timeline = self.ports.entry(port.clone()).or_default();
        let before = timeline.carrier;
        timeline.carrier = match (up, before) {
            (true, _) => Carrier::Up,
            (false, Carrier::Unknown) => Carrier::Down(None),
            (false, Carrier::Up) => Carrier::Down(Some(now)),
            (false, down @ Carrier::Down(_)) => down,
        };
        match (up, before) {
            (true, Carrier::Down(None)) => true,
            (true, Carrier::Down(Some(since))) => {
                let lost = now.saturating_sub(since);
                let restarted = timeline.boots.back().is_none_or(|boot| boot.ended || boot.is_up());
                lost >= carrier_debounce || lost >= carrier_flap && restarted
            }
            _ => false,
        }
    }
}

/// What a DHCPv6 client calls itself.
fn client(architecture: Option<Architecture>, ipxe: bool) -> Option<String> {
    match (architecture, ipxe) {
        (Some(architecture), true) => Some(format!("ipxe, {architecture}")),
        (None, true) => Some("ipxe".to_owned()),
        (architecture, false) => architecture.map(|architecture| architecture.to_string()),
    }
}

fn proxy_stage(step: &ProxyStep) -> Option<(Stage, Option<String>)> {
    match step {
        ProxyStep::Seen => None,
        ProxyStep::Config => Some((Stage::Config, None)),
        ProxyStep::Token { machine_id } => {
            Some((Stage::Token, machine_id.as_deref().map(|id| printable(id, DETAIL_LEN_MAX))))
        }
        ProxyStep::Api { status } => Some((Stage::Api, Some(status.to_string()))),
        ProxyStep::Event { stage, message } => {
            let detail = message.as_deref().map(|message| printable(message, DETAIL_LEN_MAX));
            Some((Stage::Event(printable(stage, STAGE_LEN_MAX)), detail))
        }
    }
}

/// What a machine wrote, fit for one line of a terminal.
fn printable(text: &str, len_max: usize) -> String {
    text.chars().take(len_max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl PortTimeline {
    /// Whether a boot starts with this step.
    fn starts_with(&self, stage: &Stage, limits: &TimelineLimits, now: Duration) -> bool {
        let latest = self.boots.back();
        match stage {
            Stage::Carrier | Stage::Ra | Stage::Released => false,
            // An entry that outlives the release of its port is no new machine.
            Stage::Neighbor => latest.is_none(),
            Stage::FirstRs | Stage::Dhcp6 => latest.is_none_or(|boot| {
                let quiet = now.saturating_sub(boot.latest_at) >= limits.restart_quiet;
                boot.ended || boot.is_up() && quiet
            }),
            Stage::BootUrl | Stage::Config | Stage::Token | Stage::Api | Stage::Event(_) => {
                latest.is_none_or(|boot| boot.ended)
            }
        }
    }

    fn start(&mut self, limits: &TimelineLimits, now: Duration, unix_ms: i64) {
        self.boots_seen += 1;
        while self.boots.len() >= limits.boots_per_port_max.max(1) {
            self.boots.pop_front();
        }
        self.boots.push_back(Boot {
            number: self.boots_seen,
            started_ms: unix_ms,
            entries: Vec::new(),
            dropped: 0,
            ended: false,
            started_at: now,
            latest_at: now,
        });
    }
}

impl Boot {
    /// Adds the step, or counts it where the boot has it already.
    fn record(
        &mut self,
        stage: Stage,
        detail: Option<String>,
        entries_max: usize,
        now: Duration,
        unix_ms: i64,
    ) -> Option<Entry> {
        let seen = match &stage {
            Stage::Event(_) => self.entries.last_mut().filter(|entry| entry.stage == stage),
            _ => self.entries.iter_mut().find(|entry| entry.stage == stage),
        };
        if stage != Stage::Ra {
            self.latest_at = now;
        }
        if let Some(entry) = seen {
            entry.count = entry.count.saturating_add(1);
            if detail.is_some() {
                entry.detail = detail;
            }
            return None;
        }
        let since_start_ms = ms(now.saturating_sub(self.started_at));
        let since_previous_ms =
            since_start_ms.saturating_sub(self.entries.last().map_or(0, |entry| entry.since_start_ms));
        let entry = Entry { stage, unix_ms, since_start_ms, since_previous_ms, count: 1, detail };
        self.entries.push(entry.clone());
        if self.entries.len() > entries_max
            && let Some(oldest) = self.entries.iter().position(|entry| matches!(entry.stage, Stage::Event(_)))
        {
            self.entries.remove(oldest);
            self.dropped += 1;
        }
        Some(entry)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

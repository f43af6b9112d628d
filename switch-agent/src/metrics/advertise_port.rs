//! What one port's advertiser counts: atomics, so that counting costs no look-up and no memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use switch_agent_core::map::IntoMap;
use switch_agent_core::ra::TransmitKind;

/// Whether a port advertises, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RaState {
    /// Nothing runs on the port.
    Off,
    /// No carrier.
    Down,
    /// The kernel has no usable link-local address on the port: it does not answer for the router.
    NoLinkLocal,
    /// The kernel does not forward from the port: the router lifetime is 0.
    NotForwarding,
    Advertising,
    /// Final advertisements are on their way.
    Ceasing,
}

impl RaState {
    pub const ALL: [RaState; 6] = [
        RaState::Off,
        RaState::Down,
        RaState::NoLinkLocal,
        RaState::NotForwarding,
        RaState::Advertising,
        RaState::Ceasing,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RaState::Off => "off",
            RaState::Down => "down",
            RaState::NoLinkLocal => "no_link_local",
            RaState::NotForwarding => "not_forwarding",
            RaState::Advertising => "advertising",
            RaState::Ceasing => "ceasing",
        }
    }
}

/// Kinds of address that solicitations come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// `::`
    Unspecified,
    LinkLocal,
    Global,
}

impl SourceKind {
    pub const ALL: [SourceKind; 3] = [SourceKind::Unspecified, SourceKind::LinkLocal, SourceKind::Global];

    pub fn as_str(self) -> &'static str {
        match self {
            SourceKind::Unspecified => "unspecified",
            SourceKind::LinkLocal => "link_local",
            SourceKind::Global => "global",
        }
    }
}

/// Every type of advertisement, with its name in metrics.
const SENT_TYPES: [(TransmitKind, &str); 6] = [
    (TransmitKind::Initial, "initial"),
    (TransmitKind::Periodic, "multicast"),
    (TransmitKind::Solicited, "solicited"),
    (TransmitKind::Unicast, "unicast"),
    (TransmitKind::Triggered, "triggered"),
    (TransmitKind::Final, "final"),
];

/// Counts by names that few ports ever need.
#[derive(Debug, Default)]
struct Rare {
    dropped: BTreeMap<&'static str, u64>,
    send_errors: BTreeMap<i32, u64>,
    foreign: BTreeMap<&'static str, u64>,
}

/// Counters and times of one port. They outlive its advertiser: a counter never goes back.
#[derive(Debug, Default)]
pub struct PortCounters {
    state: AtomicU8,
    sent: [AtomicU64; 6],
    solicited: [AtomicU64; 3],
    suppressed: AtomicU64,
    foreign: AtomicU64,
    mutes: AtomicU64,
    muted: AtomicU8,
    answers: AtomicU64,
    answer_last_us: AtomicU64,
    answer_max_us: AtomicU64,
    carrier_to_first_us: AtomicU64,
    last_solicit_ms: AtomicU64,
    last_multicast_ms: AtomicU64,
    /// There from the first of them on.
    rare: Mutex<Option<Box<Rare>>>,
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Zero stands for "never".
fn known(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

impl PortCounters {
    pub fn set_state(&self, state: RaState) {
        self.state.store(state as u8, Relaxed);
    }

    pub fn state(&self) -> RaState {
        let state = usize::from(self.state.load(Relaxed));
        RaState::ALL.get(state).copied().unwrap_or(RaState::Off)
    }

    /// An advertisement left.
    pub fn sent(&self, kind: TransmitKind) {
        let index = SENT_TYPES.iter().position(|(known, _)| *known == kind);
        if let Some(counter) = index.and_then(|index| self.sent.get(index)) {
            bump(counter);
        }
    }

    /// An advertisement left for all nodes, at this Unix time.
    pub fn multicast_at(&self, unix_time: Duration) {
        self.last_multicast_ms.store(millis(unix_time), Relaxed);
    }

    /// A solicitation was answered after this time, from its arrival in the kernel.
    pub fn answered(&self, after: Duration) {
        let after = micros(after).max(1);
        bump(&self.answers);
        self.answer_last_us.store(after, Relaxed);
        self.answer_max_us.fetch_max(after, Relaxed);
    }

    pub fn send_failed(&self, errno: i32) {
        self.seldom(|rare| *rare.send_errors.entry(errno).or_default() += 1);
    }

    /// A valid solicitation arrived at this Unix time.
    pub fn solicited(&self, source: SourceKind, unix_time: Duration) {
        if let Some(counter) = self.solicited.get(source as usize) {
            bump(counter);
        }
        self.last_solicit_ms.store(millis(unix_time), Relaxed);
    }

    /// A solicitation needs no answer of its own.
    pub fn suppressed(&self) {
        bump(&self.suppressed);
    }

    /// A frame was not used: it is invalid, our own, or over the port's budget.
    pub fn dropped(&self, reason: &'static str) {
        self.seldom(|rare| *rare.dropped.entry(reason).or_default() += 1);
    }

    /// Somebody else's advertisement arrived; the variables in which it contradicts ours
    /// (RFC 4861 section 6.2.7).
    pub fn foreign(&self, inconsistent: &[&'static str]) {
        bump(&self.foreign);
        if !inconsistent.is_empty() {
            self.seldom(|rare| {
                for field in inconsistent {
                    *rare.foreign.entry(field).or_default() += 1;
                }
            });
        }
    }

    /// The port was muted in the kernel, or is heard again.
    pub fn set_muted(&self, muted: bool) {
        if muted {
            bump(&self.mutes);
        }
        self.muted.store(muted.into(), Relaxed);
    }

    /// From the kernel's word of carrier to the first advertisement.
    pub fn first_after_carrier(&self, after: Duration) {
        self.carrier_to_first_us.store(micros(after).max(1), Relaxed);
    }

    /// The port does not advertise any more: a time that never moves again would look like a fault.
    pub fn stopped(&self) {
        self.set_state(RaState::Off);
        self.muted.store(0, Relaxed);
        self.last_multicast_ms.store(0, Relaxed);
        self.carrier_to_first_us.store(0, Relaxed);
    }

    fn seldom(&self, count: impl FnOnce(&mut Rare)) {
        count(self.rare.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
    }

    pub fn read(&self) -> PortReading {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let (none, rare) = (Rare::default(), self.rare.lock().unwrap_or_else(PoisonError::into_inner));
        let rare = rare.as_deref().unwrap_or(&none);
        let name = |errno: i32| format!("{:?}", Errno::from_raw(errno));
        PortReading {
            state: self.state(),
            sent: SENT_TYPES.iter().zip(&self.sent).map(|((_, name), n)| (*name, load(n))).into_map(),
            solicited: SourceKind::ALL
                .iter()
                .zip(&self.solicited)
                .map(|(kind, n)| (kind.as_str(), load(n)))
                .into_map(),
            suppressed: load(&self.suppressed),
            dropped: rare.dropped.clone(),
            send_errors: rare.send_errors.iter().map(|(errno, n)| (name(*errno), *n)).into_map(),
            foreign: load(&self.foreign),
            foreign_inconsistent: rare.foreign.clone(),
            mutes: load(&self.mutes),
            muted: self.muted.load(Relaxed) != 0,
            answers: load(&self.answers),
            answer_last_us: known(load(&self.answer_last_us)),
            answer_max_us: known(load(&self.answer_max_us)),
            carrier_to_first_us: known(load(&self.carrier_to_first_us)),
            last_solicit_ms: known(load(&self.last_solicit_ms)),
            last_multicast_ms: known(load(&self.last_multicast_ms)),
        }
    }
}

/// [`PortCounters`] at one moment. Counts are since the start of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortReading {
    pub state: RaState,
    /// Advertisements by type.
    pub sent: BTreeMap<&'static str, u64>,
    /// Valid solicitations by kind of source.
    pub solicited: BTreeMap<&'static str, u64>,
    pub suppressed: u64,
    /// Frames that were not used, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// By the name of the error.
    pub send_errors: BTreeMap<String, u64>,
    pub foreign: u64,
    /// Foreign advertisements by the variable in which they contradict ours.
    pub foreign_inconsistent: BTreeMap<&'static str, u64>,
    pub mutes: u64,
    pub muted: bool,
    pub answers: u64,
    pub answer_last_us: Option<u64>,
    pub answer_max_us: Option<u64>,
    pub carrier_to_first_us: Option<u64>,
    /// Unix time in milliseconds.
    pub last_solicit_ms: Option<u64>,
    /// Unix time in milliseconds.
    pub last_multicast_ms: Option<u64>,
}

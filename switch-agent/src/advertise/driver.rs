//! From frames, commands and time to advertisements: all ports, without waiting.
//!
//! Ports live in numbered slots. A wake-up costs what is due and what arrived, never the number of ports:
//! deadlines are in a [`Schedule`], and what leaves at one time leaves by one system call. The way from a
//! solicitation to its answer allocates nothing and takes no lock of another part; who is told of the
//! machine is told after the answer has left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use switch_agent_core::dhcp6::is_udp;
use switch_agent_core::machines::MachineEvent;
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::ndp::{Advert, Message, MldReport, Probe, Solicit, parse_frame, write_frame};
use switch_agent_core::observed::AdvertiserState;
use switch_agent_core::ra::{
    Advertiser, AdvertiserSpec, Destination, Heard, TokenBucket, Transmit, Trigger, compare,
};
use tokio::sync::watch;

use super::Snapshot;
use super::guard::{Admission, Guard};
use super::inbox::{Command, LinkChange, Pending};
use super::schedule::Schedule;
use crate::backend::packet::{Batch, MUTED_MAX, Outbox, Received, UNKNOWN_MAC};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::metrics::advertise::{PortCounters, RaState, SourceKind};
use crate::wake::{Reason, Waker};

mod dhcp6;
mod entry;
#[cfg(test)]
mod tests;
mod transmit;
mod wire;

pub(super) use wire::Wire;

/// Sightings per port by probes and by solicitations that share their answer with others; an answer of its
/// own is bounded by the limits of the advertiser.
const SIGHTINGS: TokenBucket = TokenBucket::new(20, Duration::from_millis(100));
/// A foreign router on a port is logged once in this time, and when it is another one.
const FOREIGN_LOG_INTERVAL: Duration = Duration::from_secs(600);

/// Advertisements that one port may send at one moment; more would be a fault of its state machine, whose own
/// limit is some twenty answers at once.
const TRANSMITS_MAX: u32 = 32;
/// And it is left alone for this long.
const FAULT_PAUSE: Duration = Duration::from_secs(1);

/// Whom the driver tells what happened.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) hub: Hub,
    pub(super) metrics: Metrics,
    pub(super) waker: Waker,
    pub(super) snapshot: Snapshot,
    /// Ports that advertise, ceasing ones included.
    pub(super) ports: watch::Sender<BTreeSet<PortName>>,
}

#[derive(Debug)]
struct Entry {
    port: PortName,
    advertiser: Advertiser,
    counters: Arc<PortCounters>,
    /// What the kernel says of the link.
    link: LinkState,
    /// When carrier came, until the first advertisement has left.
    unannounced: Option<Duration>,
    /// The last transmission failed.
    failing: bool,
    /// The foreign router that was logged last, and when.
    foreign: Option<(Ipv6Addr, Duration)>,
    sightings: TokenBucket,
    /// Behind a pointer, as only ports with the role have it.
    dhcp6: Option<Box<dhcp6::Dhcp6>>,
    /// Advertisements since this moment.
    moment: (Duration, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LinkState {
    carrier: bool,
    link_local: bool,
}

impl LinkState {
    /// What is assumed of a link that the kernel has not told of yet.
    const UNTOLD: LinkState = LinkState { carrier: true, link_local: true };
}

/// A machine that was heard, to be told of when there is time.
#[derive(Debug, Clone, Copy)]
enum Sighting {
    Solicit { slot: usize, mac: MacAddr, address: Option<Ipv6Addr> },
    Probe { slot: usize, mac: MacAddr },
    Advertised { slot: usize },
}

/// One advertisement on its way, and its frames in the outbox.
#[derive(Debug)]
struct Sending {
    slot: usize,
    transmit: Transmit,
    frames: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Driver<W> {
    wire: W,
    outputs: Outputs,
    entries: Vec<Option<Entry>>,
    by_port: BTreeMap<PortName, usize>,
    by_ifindex: HashMap<u32, usize>,
    schedule: Schedule,
    guard: Guard,
    /// Links that the kernel has told of, configured or not.
    links: HashMap<u32, LinkState>,
    seed: u64,
    outbox: Outbox,
    sending: Vec<Sending>,
    sightings: Vec<Sighting>,
    /// DHCPv6: answers to send, and machines to tell of.
    answers: Outbox,
    answering: Vec<dhcp6::Answering>,
    heard: Vec<MachineEvent>,
    /// It was told that DHCPv6 is not served.
    unserved: bool,
}

impl<W: Wire> Driver<W> {
    pub(super) fn new(wire: W, outputs: Outputs, seed: u64) -> Self {
        Driver {
            wire,
            outputs,
            entries: vec![],
            by_port: BTreeMap::new(),
            by_ifindex: HashMap::new(),
            schedule: Schedule::default(),
            guard: Guard::new(MUTED_MAX),
            links: HashMap::new(),
            seed,
            outbox: Outbox::with_buffers(),
            sending: Vec::with_capacity(64),
            sightings: Vec::with_capacity(64),
            answers: Outbox::default(),
            answering: Vec::new(),
            heard: Vec::new(),
            unserved: false,
        }
    }

    pub(super) fn wire(&self) -> &W {
        &self.wire
    }

    /// When [`Driver::flush`] has something to do, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match (self.schedule.next(), self.guard.next()) {
            (Some(port), Some(mute)) => Some(port.min(mute)),
            (port, mute) => port.or(mute),
        }
    }

    /// Takes in what the handle was told. Links first: a port that is set now knows its carrier.
    pub(super) fn inbox(&mut self, now: Duration, pending: Pending) {
        for (ifindex, change) in pending.links {
            self.link(now, ifindex, change);
        }
        for (port, command) in pending.commands {
            match command {
                Command::Set(spec) => self.set(now, spec),
                Command::Cease(cease) => {
                    let Some(slot) = self.by_port.get(&port).copied() else { continue };
                    if let Some(entry) = self.entries.get_mut(slot).and_then(Option::as_mut) {
                        entry.advertiser.cease(now, cease);
                        tracing::info!(port = %port, cease = ?cease, "ceasing to advertise");
                    }
                    self.settle(slot);
                }
            }
        }
        self.show_ports();
    }

    fn show_ports(&mut self) {
        self.outputs.ports.send_if_modified(|shown| {
            let same = shown.len() == self.by_port.len() && shown.iter().eq(self.by_port.keys());
            if !same {
                *shown = self.by_port.keys().cloned().collect();
            }
            !same
        });
    }

    fn link(&mut self, now: Duration, ifindex: u32, change: LinkChange) {
        let state = LinkState { carrier: change.carrier, link_local: change.link_local };
        if change.gone {
            self.links.remove(&ifindex);
        } else {
            self.links.insert(ifindex, state);
        }
        let Some(&slot) = self.by_ifindex.get(&ifindex) else { return };
        let Some(entry) = self.entries.get_mut(slot).and_then(Option::as_mut) else { return };
        if change.was_down {
            entry.advertiser.handle_link(now, false);
        }
        if change.carrier && (change.was_down || !entry.link.carrier) {
            entry.unannounced = Some(now.saturating_sub(change.at.elapsed()));
        }
        entry.link = state;
        entry.advertiser.handle_link(now, change.carrier);
        if entry.advertiser.is_done() {
            // It was ceasing, and whoever waits for the end of that has to be told.
            return self.settle(slot);
        }
        entry.show_state();
        self.schedule.set(slot, entry.advertiser.next_deadline());
    }

    fn set(&mut self, now: Duration, spec: impl Into<Arc<AdvertiserSpec>>) {
        let spec: Arc<AdvertiserSpec> = spec.into();
        let (port, ifindex) = (spec.port.clone(), spec.ifindex);
        let dhcp6 = spec.dhcp6.clone();
        let spec = self.told(spec);
        let link = self.links.get(&ifindex).copied().unwrap_or(LinkState::UNTOLD);
        let slot = match self.by_port.get(&port).copied() {
            Some(slot) => {
                let Some(entry) = self.entries.get_mut(slot).and_then(Option::as_mut) else { return };
                let before = entry.advertiser.spec().ifindex;
                if before != ifindex {
                    entry.unannounced = Some(now);
                    // Another port may have taken over the index in the meantime.
                    if self.by_ifindex.get(&before) == Some(&slot) {
                        self.by_ifindex.remove(&before);
                    }
                }
                entry.advertiser.reconfigure(now, spec);
                entry.link = link;
                entry.advertiser.handle_link(now, link.carrier);
                slot
            }
            None => {
                tracing::info!(port = %port, ifindex, carrier = link.carrier, "advertising");
                let seed = self.seed ^ u64::from(ifindex).rotate_left(32);
                let entry = Entry {
                    counters: self.outputs.metrics.advertise.port(&port),
                    port: port.clone(),
                    advertiser: Advertiser::new(spec, link.carrier, seed, now),
                    link,
                    unannounced: Some(now),
                    failing: false,
                    foreign: None,
                    sightings: SIGHTINGS,
                    dhcp6: None,
                    moment: (Duration::ZERO, 0),
                };
                let slot = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
                if slot == self.entries.len() {
                    self.entries.push(None);
                }
                self.entries[slot] = Some(entry);
                self.by_port.insert(port, slot);
                slot
            }
        };
        self.by_ifindex.insert(ifindex, slot);
        self.set_dhcp6(slot, ifindex, dhcp6);
        self.settle(slot);
    }

    /// Shows a port as it is now and schedules what it does next. A port that is done goes, and the
    /// reconciler may release it.
    fn settle(&mut self, slot: usize) {
        let Some(entry) = self.entries.get(slot).and_then(Option::as_ref) else { return };
        let mut snapshot = self.outputs.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if !entry.advertiser.is_done() {
            let state = match entry.advertiser.is_ceasing() {
                true => AdvertiserState::Ceasing,
                false => AdvertiserState::Running(self.configured(entry.advertiser.spec().clone())),
            };
            snapshot.insert(entry.port.clone(), state);
            entry.show_state();
            self.schedule.set(slot, entry.advertiser.next_deadline());
            return;
        }
        snapshot.remove(&entry.port);
        drop(snapshot);
        let ifindex = entry.advertiser.spec().ifindex;
        if self.by_ifindex.get(&ifindex) == Some(&slot) {
            self.by_ifindex.remove(&ifindex);
        }
        self.by_port.remove(&entry.port);
        self.leave_dhcp6(entry.dhcp6.as_deref());
        entry.counters.stopped();
        self.outputs.waker.wake(Reason::Service);
        tracing::info!(port = %entry.port, "ceased to advertise");
        self.schedule.set(slot, None);
        self.entries[slot] = None;
    }

    /// Takes in what the socket had.
    pub(super) fn batch(&mut self, now: Duration, batch: &Batch) {
        if let Some(lost) = batch.lost() {
            self.outputs.metrics.advertise.socket_lost(lost.into());
        }
        for received in batch.frames() {
            self.frame(now, &received);
        }
    }

    /// Takes in one frame. Those of ports that do not advertise are nobody's business, but for their number.
    pub(super) fn frame(&mut self, now: Duration, received: &Received<'_>) {
        let slot = self.by_ifindex.get(&received.ifindex).copied();
        let entry = slot.and_then(|slot| self.entries.get_mut(slot)?.as_mut());
        match self.guard.admit(now, received.ifindex) {
            Admission::Take => {}
            refused => {
                let Some(entry) = entry else { return };
                entry.counters.dropped("over_budget");
                if refused == Admission::Mute {
                    entry.counters.set_muted(true);
                    tracing::debug!(port = %entry.port, "flooded: muted for a while");
                }
                return;
            }
        }
        let (Some(slot), Some(entry)) = (slot, entry) else { return };
        if is_udp(received.frame) {
            return self.dhcp6_frame(now, slot, received);
        }
        let own_mac = entry.advertiser.spec().mac;
        match parse_frame(received.frame, received.offload) {
            Err(invalid) => {
                entry.counters.dropped(invalid.reason());
                tracing::debug!(port = %entry.port, error = %invalid, "invalid router discovery message");
            }
            Ok(
                Message::Solicit(Solicit { mac, .. })
                | Message::Advert(Advert { mac, .. })
                | Message::Probe(Probe { mac })
                | Message::MldReport(MldReport { mac, .. }),
            ) if mac == own_mac => entry.counters.dropped("own_address"),
            Ok(Message::Solicit(solicit)) => {
                let arrived = now.saturating_sub(received.age);
                entry.counters.solicited(source_kind(&solicit), unix_time());
                let heard = entry.advertiser.handle_solicit(arrived, &solicit);
                self.schedule.set(slot, entry.advertiser.next_deadline());
                if heard.is_limited() {
                    entry.counters.suppressed();
                }
                if heard == Heard::Merged && !entry.sightings.try_take(now) {
                    return;
                }
                let mac = solicit.sllao.unwrap_or(solicit.mac);
                if mac != UNKNOWN_MAC {
                    self.sightings.push(Sighting::Solicit { slot, mac, address: solicit.source });
                }
            }
            Ok(Message::MldReport(report)) => {
                entry.advertiser.handle_trigger(now, Trigger::MldReport, report.mac);
                self.schedule.set(slot, entry.advertiser.next_deadline());
            }
            Ok(Message::Probe(probe)) => {
                entry.advertiser.handle_trigger(now, Trigger::Probe, probe.mac);
                self.schedule.set(slot, entry.advertiser.next_deadline());
                if entry.sightings.try_take(now) {
                    self.sightings.push(Sighting::Probe { slot, mac: probe.mac });
                }
            }
            Ok(Message::Advert(advert)) => entry.foreign(now, &advert),
        }
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn source_kind(solicit: &Solicit) -> SourceKind {
    match solicit.source {
        None => SourceKind::Unspecified,
        Some(address) if address.is_unicast_link_local() => SourceKind::LinkLocal,
        Some(_) => SourceKind::Global,
    }
}

//! From frames, commands and time to advertisements: all ports, without waiting.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::Ipv6Addr;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use switch_agent_core::machines::MachineEvent;
use switch_agent_core::name::PortName;
use switch_agent_core::ndp::{Advert, Message, MldReport, Probe, Solicit, parse_frame, write_frame};
use switch_agent_core::observed::AdvertiserState;
use switch_agent_core::ra::{Advertiser, AdvertiserSpec, Destination, Heard, TokenBucket, Transmit, Trigger};

use super::Snapshot;
use super::inbox::{Command, LinkChange, Pending};
use crate::backend::packet::{PacketSocket, Received};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::wake::{Reason, Waker};

#[cfg(test)]
mod tests;

/// Probes count as sightings once in this time per port, whatever a machine sends. It is less than the
/// shortest pause between two probes of one machine (Retrans Timer of profile `boot`).
const PROBE_SPACING: Duration = Duration::from_millis(50);
/// Sightings per port by solicitations that share their answer with others; an answer of its own is
/// bounded by the limits of the advertiser.
const SIGHTINGS: TokenBucket = TokenBucket::new(20, Duration::from_millis(100));
/// A foreign router on a port is logged once in this time, and when it is another one.
const FOREIGN_LOG_INTERVAL: Duration = Duration::from_secs(600);

/// Advertisements that one port may send at one moment; more would be a fault of its state machine.
const TRANSMITS_MAX: usize = 16;

/// Where frames leave.
pub(super) trait Wire {
    /// Sends a whole Ethernet frame out of a port, without blocking.
    fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()>;
}

impl Wire for PacketSocket {
    fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        PacketSocket::send(self, ifindex, frame)
    }
}

/// Whom the driver tells what happened.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) hub: Hub,
    pub(super) metrics: Metrics,
    pub(super) waker: Waker,
    pub(super) snapshot: Snapshot,
}

#[derive(Debug)]
struct Entry {
    advertiser: Advertiser,
    /// An advertisement left since carrier came.
    announced: bool,
    /// The last transmission failed.
    failing: bool,
    /// The foreign router that was logged last, and when.
    foreign: Option<(Ipv6Addr, Duration)>,
    /// When a probe last counted as a sighting.
    probed: Option<Duration>,
    sightings: TokenBucket,
}

#[derive(Debug)]
pub(super) struct Driver<W> {
    wire: W,
    outputs: Outputs,
    entries: BTreeMap<PortName, Entry>,
    by_ifindex: HashMap<u32, PortName>,
    /// Links whose carrier was told, configured or not.
    links: BTreeMap<u32, bool>,
    seed: u64,
    buffer: Vec<u8>,
}

impl<W: Wire> Driver<W> {
    pub(super) fn new(wire: W, outputs: Outputs, seed: u64) -> Self {
        Driver {
            wire,
            outputs,
            entries: BTreeMap::new(),
            by_ifindex: HashMap::new(),
            links: BTreeMap::new(),
            seed,
            buffer: Vec::with_capacity(1536),
        }
    }

    pub(super) fn wire(&self) -> &W {
        &self.wire
    }

    /// The earliest deadline of all ports.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.entries.values().filter_map(|entry| entry.advertiser.next_deadline()).min()
    }

    /// Takes in what the handle was told. Links first: a port that is set now knows its carrier.
    pub(super) fn inbox(&mut self, now: Duration, pending: Pending) {
        for (ifindex, change) in pending.links {
            self.link(now, ifindex, change);
        }
        for (port, command) in pending.commands {
            match command {
                Command::Set(spec) => self.set(now, *spec),
                Command::Cease(cease) => {
                    if let Some(entry) = self.entries.get_mut(&port) {
                        entry.advertiser.cease(now, cease);
                        tracing::info!(port = %port, cease = ?cease, "ceasing to advertise");
                    }
                    self.publish(&port);
                }
            }
        }
    }

    fn link(&mut self, now: Duration, ifindex: u32, change: LinkChange) {
        if change.gone {
            self.links.remove(&ifindex);
        } else {
            self.links.insert(ifindex, change.carrier);
        }
        let Some(entry) = self.by_ifindex.get(&ifindex).and_then(|port| self.entries.get_mut(port)) else {
            return;
        };
        if change.was_down {
            entry.advertiser.handle_link(now, false);
            entry.announced = false;
        }
        entry.advertiser.handle_link(now, change.carrier);
    }

    fn set(&mut self, now: Duration, spec: AdvertiserSpec) {
        let port = spec.port.clone();
        let carrier = self.links.get(&spec.ifindex).copied().unwrap_or(true);
        match self.entries.get_mut(&port) {
            Some(entry) => {
                let before = entry.advertiser.spec().ifindex;
                if before != spec.ifindex {
                    entry.announced = false;
                    // Another port may have taken over the index in the meantime.
                    if self.by_ifindex.get(&before) == Some(&port) {
                        self.by_ifindex.remove(&before);
                    }
                }
                self.by_ifindex.insert(spec.ifindex, port.clone());
                entry.advertiser.reconfigure(now, spec);
                entry.advertiser.handle_link(now, carrier);
            }
            None => {
                tracing::info!(port = %port, ifindex = spec.ifindex, carrier, "advertising");
                self.by_ifindex.insert(spec.ifindex, port.clone());
                let seed = self.seed ^ u64::from(spec.ifindex).rotate_left(32);
                let advertiser = Advertiser::new(spec, carrier, seed, now);
                let entry = Entry {
                    advertiser,
                    announced: false,
                    failing: false,
                    foreign: None,
                    probed: None,
                    sightings: SIGHTINGS,
                };
                self.entries.insert(port.clone(), entry);
            }
        }
        self.publish(&port);
    }

    /// Shows a port as it is now. A port that is done goes, and the reconciler may release it.
    fn publish(&mut self, port: &PortName) {
        let Some(entry) = self.entries.get(port) else {
            return;
        };
        let mut snapshot = self.outputs.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if entry.advertiser.is_done() {
            snapshot.remove(port);
            drop(snapshot);
            let ifindex = entry.advertiser.spec().ifindex;
            if self.by_ifindex.get(&ifindex) == Some(port) {
                self.by_ifindex.remove(&ifindex);
            }
            self.entries.remove(port);
            self.outputs.metrics.advertise.stopped(port);
            self.outputs.waker.wake(Reason::Service);
            tracing::info!(port = %port, "ceased to advertise");
        } else if entry.advertiser.is_ceasing() {
            snapshot.insert(port.clone(), AdvertiserState::Ceasing);
        } else {
            snapshot.insert(port.clone(), AdvertiserState::Running(entry.advertiser.spec().clone()));
        }
    }

    /// Takes in one frame. Those of ports that do not advertise are nobody's business.
    pub(super) fn frame(&mut self, now: Duration, received: &Received<'_>) {
        let Some(port) = self.by_ifindex.get(&received.ifindex) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(port) else {
            return;
        };
        let metrics = &self.outputs.metrics.advertise;
        let own_mac = entry.advertiser.spec().mac;
        match parse_frame(received.frame, received.offload) {
            Err(invalid) => {
                metrics.invalid(port, invalid.reason());
                tracing::debug!(port = %port, error = %invalid, "invalid router discovery message");
            }
            Ok(
                Message::Solicit(Solicit { mac, .. })
                | Message::Advert(Advert { mac, .. })
                | Message::Probe(Probe { mac })
                | Message::MldReport(MldReport { mac, .. }),
            ) if mac == own_mac => {
                metrics.invalid(port, "own_address");
            }
            Ok(Message::Solicit(solicit)) => {
                let arrived = now.saturating_sub(received.age);
                metrics.solicited(port, source_kind(&solicit));
                let heard = entry.advertiser.handle_solicit(arrived, &solicit);
                if heard.is_limited() {
                    metrics.suppressed(port);
                }
                if heard == Heard::Merged && !entry.sightings.try_take(now) {
                    return;
                }
                self.outputs.hub.observe(MachineEvent::Solicit {
                    port: port.clone(),
                    mac: solicit.sllao.unwrap_or(solicit.mac),
                    address: solicit.source,
                });
            }
            Ok(Message::MldReport(report)) => {
                entry.advertiser.handle_trigger(now, Trigger::MldReport, report.mac);
            }
            Ok(Message::Probe(probe)) => {
                entry.advertiser.handle_trigger(now, Trigger::Probe, probe.mac);
                if entry.probed.is_none_or(|at| now.saturating_sub(at) >= PROBE_SPACING) {
                    entry.probed = Some(now);
                    self.outputs.hub.observe(MachineEvent::Probe { port: port.clone(), mac: probe.mac });
                }
            }
            Ok(Message::Advert(advert)) => {
                metrics.foreign(port);
                let logged = entry.foreign.is_some_and(|(source, at)| {
                    source == advert.source && now.saturating_sub(at) < FOREIGN_LOG_INTERVAL
                });
                if !logged {
                    entry.foreign = Some((advert.source, now));
                    tracing::warn!(
                        port = %port,
                        source = %advert.source,
                        mac = %advert.mac,
                        router_lifetime_s = advert.router_lifetime_s,
                        "another router advertises on the port"
                    );
                }
            }
        }
    }

    /// Sends everything that is due.
    pub(super) fn flush(&mut self, clock: impl Fn() -> Duration) {
        let now = clock();
        let mut done = vec![];
        for (port, entry) in &mut self.entries {
            let mut left = TRANSMITS_MAX;
            while left > 0
                && let Some(transmit) = entry.advertiser.poll_transmit(now)
            {
                left -= 1;
                let ifindex = entry.advertiser.spec().ifindex;
                let sent = send(&self.wire, &mut self.buffer, ifindex, &transmit);
                entry.report(port, now, &clock, &transmit, sent, &self.outputs);
            }
            if entry.advertiser.is_done() {
                done.push(port.clone());
            }
        }
        for port in done {
            self.publish(&port);
        }
    }
}

fn source_kind(solicit: &Solicit) -> &'static str {
    match solicit.source {
        None => "unspecified",
        Some(address) if address.is_unicast_link_local() => "link_local",
        Some(_) => "global",
    }
}

fn send<W: Wire>(wire: &W, buffer: &mut Vec<u8>, ifindex: u32, transmit: &Transmit) -> io::Result<()> {
    transmit.messages.iter().try_for_each(|message| {
        write_frame(buffer, &transmit.addresses, message);
        wire.send(ifindex, buffer)
    })
}

impl Entry {
    fn report(
        &mut self,
        port: &PortName,
        now: Duration,
        clock: &impl Fn() -> Duration,
        transmit: &Transmit,
        sent: io::Result<()>,
        outputs: &Outputs,
    ) {
        let metrics = &outputs.metrics.advertise;
        if let Err(error) = sent {
            self.advertiser.transmit_failed(now);
            metrics.send_failed(port, format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap_or(0))));
            if !std::mem::replace(&mut self.failing, true) {
                tracing::warn!(port = %port, error = %error, "cannot send advertisements, trying again");
            }
            return;
        }
        if std::mem::replace(&mut self.failing, false) {
            tracing::info!(port = %port, "advertisements leave again");
        }
        metrics.sent(port, transmit.kind);
        if let Some(solicited_at) = transmit.solicited_at {
            metrics.answered(clock().saturating_sub(solicited_at));
        }
        if transmit.destination == Destination::AllNodes {
            let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            metrics.multicast_at(port, unix_time);
        }
        if !std::mem::replace(&mut self.announced, true) && !self.advertiser.is_ceasing() {
            outputs.hub.observe(MachineEvent::Advertised { port: port.clone() });
        }
    }
}

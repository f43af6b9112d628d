//! The advertiser of one port: RFC 4861 section 6.2 without sockets, clock or chance of its own.
//!
//! ```text
//!                 link down, solicitations remembered
//!                          │ handle_link(up)
//!   new ─► Advertising ◄───┘
//!             │ cease(Final)                cease(Silent), link down while ceasing
//!             ▼                                        │
//!          Ceasing ── final advertisements are out ──► Done
//!             └── reconfigure ─► Advertising
//! ```
//! The driver sleeps until [`Advertiser::next_deadline`], then takes [`Advertiser::poll_transmit`] until it
//! is `None`, and reports what could not be sent by [`Advertiser::transmit_failed`]. Nothing is sent while
//! the link is down, and nothing before the deadline that was reported last.

use std::sync::Arc;
use std::time::Duration;

use super::answers::{Answers, Heard, Pending, Queued, Target, Trigger};
use super::content::{self, Messages};
use super::multicast::{BOOT_MIN_DELAY, Multicast};
use super::rng::SplitMix64;
use super::transmit::{Destination, Transmit, TransmitKind, frame_addresses};
use super::withdrawn::Withdrawn;
use super::{AdvertiserSpec, Cease, RaProfile};
use crate::name::MacAddr;
use crate::ndp::Solicit;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// RFC 4861 section 10.
const MAX_FINAL_RTR_ADVERTISEMENTS: u8 = 3;

/// In the strict profile further final advertisements would hold the port for MIN_DELAY_BETWEEN_RAS each.
const STRICT_FINAL_RTR_ADVERTISEMENTS: u8 = 1;

/// Attempts at final advertisements, failed ones included, so that a broken port cannot hold its release.
const FINAL_ATTEMPTS: u8 = 6;

/// First pause after a failed transmission; it doubles up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Advertising,
    Ceasing { due: Duration, sends_left: u8, attempts_left: u8 },
    Done,
}

/// What the last transmission changed, to be taken back where it did not leave.
#[derive(Debug, Clone)]
enum InFlight {
    Multicast(Multicast),
    Farewell {
        former: Arc<AdvertiserSpec>,
        before: Multicast,
    },
    Answer(Pending),
    /// What was left to do, this transmission not counted as sent, but as an attempt.
    Final {
        sends_left: u8,
        attempts_left: u8,
        before: Multicast,
    },
}

#[derive(Debug, Clone)]
pub struct Advertiser {
    spec: Arc<AdvertiserSpec>,
    phase: Phase,
    carrier: bool,
    rng: SplitMix64,
    multicast: Multicast,
    answers: Answers,
    /// Seldom anything, so behind a pointer.
    withdrawn: Option<Box<Withdrawn>>,
    messages: Messages,
    /// As whom the port advertised before its link-local address changed, until machines are told.
    former: Option<Arc<AdvertiserSpec>>,
    in_flight: Option<InFlight>,
    failures: u32,
}

impl Advertiser {
    /// Starts to advertise: at once where the link is up, so that machines that know the router from before
    /// a restart of the process see no gap. `seed` decides the random intervals.
    pub fn new(spec: impl Into<Arc<AdvertiserSpec>>, carrier: bool, seed: u64, now: Duration) -> Self {
        let spec = spec.into();
        Advertiser {
            phase: Phase::Advertising,
            carrier,
            rng: SplitMix64::seeded(seed),
            multicast: Multicast::started(now, None, spec.config.profile),
            answers: Answers::new(),
            messages: content::regular(&spec, Withdrawn::NONE),
            withdrawn: None,
            spec,
            former: None,
            in_flight: None,
            failures: 0,
        }
    }

    pub fn spec(&self) -> &Arc<AdvertiserSpec> {
        &self.spec
    }

    fn withdrawn(&self) -> &Withdrawn {
        self.withdrawn.as_deref().unwrap_or(Withdrawn::NONE)
    }

    pub fn is_ceasing(&self) -> bool {
        self.phase != Phase::Advertising
    }

    /// Nothing more will be sent.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// A valid solicitation arrived at `now`. One that arrives while the link still counts as down is
    /// remembered and answered when it comes up.
    pub fn handle_solicit(&mut self, now: Duration, solicit: &Solicit) -> Heard {
        if self.phase != Phase::Advertising {
            return Heard::Ignored;
        }
        if self.carrier {
            self.multicast.heard(now, &self.spec.config, &mut self.rng);
        }
        let strict = self.spec.config.profile == RaProfile::Strict;
        let queued = match solicit.source {
            Some(address) => self.answers.push(Target::Unicast { address, mac: solicit.mac }, now),
            None if strict => Queued::Full,
            None => self.answers.push(Target::AllNodesIn { mac: solicit.mac }, now),
        };
        let due = match queued {
            Queued::New(due) => due,
            Queued::Merged => return Heard::Merged,
            // The first advertisement after carrier answers.
            Queued::Full if !self.carrier => return Heard::Merged,
            Queued::Full if self.multicast.solicited().is_some() => return Heard::Merged,
            Queued::Full => {
                let at = match strict {
                    true => self.multicast.strict_answer_time(now, &mut self.rng),
                    false => {
                        let token = self.answers.reserve_multicast(now);
                        self.multicast.earliest(token, RaProfile::Boot)
                    }
                };
                self.multicast.solicit(now, at);
                at
            }
        };
        if due <= now { Heard::Answering } else { Heard::Delayed }
    }

    /// A machine showed itself at `now`, without having asked. In the boot profile it gets an advertisement
    /// in a frame of its own, so that address configuration need not wait for its solicitation.
    pub fn handle_trigger(&mut self, now: Duration, trigger: Trigger, mac: MacAddr) -> Heard {
        if self.phase != Phase::Advertising || self.spec.config.profile == RaProfile::Strict {
            return Heard::Ignored;
        }
        let just_told = self.multicast.last().is_some_and(|last| last + BOOT_MIN_DELAY > now);
        if !self.carrier || just_told && trigger != Trigger::Dhcp6Solicit {
            return Heard::Merged;
        }
        let heard = self.answers.greet(trigger, mac, now);
        // A report may leave before the machine's link takes anything in.
        if trigger != Trigger::MldReport && matches!(heard, Heard::Answering | Heard::Delayed) {
            self.multicast.heard(now, &self.spec.config, &mut self.rng);
        }
        heard
    }

    /// Carrier changed. Coming up begins the port anew; going down forgets the machines that waited.
    pub fn handle_link(&mut self, now: Duration, carrier: bool) {
        if carrier == self.carrier {
            return;
        }
        self.carrier = carrier;
        if !carrier {
            self.answers.clear();
            if self.phase != Phase::Advertising {
                self.phase = Phase::Done;
            }
            return;
        }
        self.answers.forget_older(now);
        self.begin(now);
    }

    fn begin(&mut self, now: Duration) {
        self.failures = 0;
        self.in_flight = None;
        self.multicast = Multicast::started(now, self.multicast.last(), self.spec.config.profile);
    }

    /// Replaces the variables. Where what is said, by whom and how often stays the same, nothing is sent and
    /// every timer goes on; else it is announced at once. Whoever waits for an answer still gets one. A port
    /// that was ceasing advertises again.
    pub fn reconfigure(&mut self, now: Duration, spec: impl Into<Arc<AdvertiserSpec>>) {
        let spec = spec.into();
        let revived = self.phase != Phase::Advertising;
        if spec == self.spec && !revived {
            return;
        }
        let new_link = spec.ifindex != self.spec.ifindex || spec.config.profile != self.spec.config.profile;
        let addressed = self.addressed();
        let mut withdrawn = self.withdrawn.take().unwrap_or_default();
        withdrawn.update(now, &self.spec.config, &spec.config);
        self.withdrawn = Some(withdrawn).filter(|withdrawn| !withdrawn.is_none());
        let former = std::mem::replace(&mut self.spec, spec);
        if former.link_local != self.spec.link_local && !revived && self.multicast.last().is_some() {
            // Nobody was told of an address that came and went before this.
            self.former.get_or_insert(former);
        }
        self.former.take_if(|former| former.link_local == self.spec.link_local);
        let regular = content::regular(&self.spec, self.withdrawn());
        let before = std::mem::replace(&mut self.messages, regular);
        self.phase = Phase::Advertising;
        if revived || new_link {
            self.begin(now);
        } else if addressed != self.addressed() || before != self.messages {
            self.in_flight = None;
            self.multicast.changed(now, self.spec.config.profile);
        }
    }

    /// What of the variables is not in the messages, but in their frames and times.
    fn addressed(&self) -> (MacAddr, std::net::Ipv6Addr, Duration, Duration) {
        let AdvertiserSpec { mac, link_local, config, .. } = &*self.spec;
        (*mac, *link_local, config.min_rtr_adv_interval, config.max_rtr_adv_interval)
    }

    /// Stops. [`Cease::Final`] ends after the final advertisements, at once where the link is down;
    /// [`Cease::Silent`] ends now.
    pub fn cease(&mut self, now: Duration, cease: Cease) {
        if cease == Cease::Silent || !self.carrier {
            self.phase = Phase::Done;
            return;
        }
        if self.phase != Phase::Advertising {
            return;
        }
        let profile = self.spec.config.profile;
        self.answers.clear();
        self.in_flight = None;
        self.messages = content::last(&self.spec, self.withdrawn());
        self.phase = Phase::Ceasing {
            due: self.multicast.earliest(now, profile),
            sends_left: match profile {
                RaProfile::Boot => MAX_FINAL_RTR_ADVERTISEMENTS,
                RaProfile::Strict => STRICT_FINAL_RTR_ADVERTISEMENTS,
            },
            attempts_left: FINAL_ATTEMPTS,
        };
    }

    /// When [`Advertiser::poll_transmit`] has something next, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        match self.phase {
            _ if !self.carrier => None,
            Phase::Advertising => {
                let multicast = self.multicast.due();
                Some(self.answers.due().map_or(multicast, |answer| answer.min(multicast)))
            }
            Phase::Ceasing { due, .. } => Some(due),
            Phase::Done => None,
        }
    }

    /// The next advertisement that is due, counted as sent unless [`Advertiser::transmit_failed`] follows.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return None;
        }
        if self.in_flight.take().is_some() {
            self.failures = 0;
        }
        match self.phase {
            Phase::Done => None,
            Phase::Ceasing { sends_left, attempts_left, .. } => {
                Some(self.transmit_final(now, sends_left, attempts_left))
            }
            Phase::Advertising => match self.answers.pop(now) {
                Some(pending) => Some(self.transmit_answer(pending)),
                None => Some(self.transmit_multicast(now)),
            },
        }
    }

    fn transmit_answer(&mut self, pending: Pending) -> Transmit {
        self.in_flight = Some(InFlight::Answer(pending));
        let (kind, destination) = match pending.target {
            Target::Unicast { address, mac } => {
                (TransmitKind::Unicast, Destination::Unicast { address, mac })
            }
            Target::AllNodesIn { mac } => {
                let solicited = pending.solicited_at().map(|_| TransmitKind::Solicited);
                (solicited.unwrap_or(TransmitKind::Triggered), Destination::AllNodesIn(mac))
            }
        };
        Transmit {
            kind,
            destination,
            addresses: frame_addresses(&self.spec, destination),
            messages: self.messages.clone(),
            solicited_at: pending.solicited_at(),
        }
    }

    /// One last advertisement from the former address, and the new one's as soon as the spacing allows
    /// (RFC 4861 section 6.2.8).
    fn transmit_farewell(&mut self, now: Duration, former: Arc<AdvertiserSpec>) -> Transmit {
        let before = self.multicast.clone();
        self.multicast.sent(now, &self.spec.config, &mut self.rng);
        self.multicast.changed(now, self.spec.config.profile);
        let transmit = Transmit {
            kind: TransmitKind::Final,
            destination: Destination::AllNodes,
            addresses: frame_addresses(&former, Destination::AllNodes),
            messages: content::farewell(&former),
            solicited_at: None,
        };
        self.in_flight = Some(InFlight::Farewell { former, before });
        transmit
    }

    fn transmit_multicast(&mut self, now: Duration) -> Transmit {
        if let Some(former) = self.former.take() {
            return self.transmit_farewell(now, former);
        }
        self.in_flight = Some(InFlight::Multicast(self.multicast.clone()));
        let solicited_at = self.multicast.solicited();
        let kind = match solicited_at {
            Some(_) => TransmitKind::Solicited,
            None if self.multicast.is_initial() => TransmitKind::Initial,
            None => TransmitKind::Periodic,
        };
        let messages = self.messages.clone();
        self.multicast.sent(now, &self.spec.config, &mut self.rng);
        self.answers.multicast_sent();
        let expired = |withdrawn: &mut Box<Withdrawn>| withdrawn.expire(now);
        if !self.multicast.is_initial() && self.withdrawn.as_mut().is_some_and(expired) {
            self.withdrawn.take_if(|withdrawn| withdrawn.is_none());
            self.messages = content::regular(&self.spec, self.withdrawn());
        }
        Transmit {
            kind,
            destination: Destination::AllNodes,
            addresses: frame_addresses(&self.spec, Destination::AllNodes),
            messages,
            solicited_at,
        }
    }

    fn transmit_final(&mut self, now: Duration, sends_left: u8, attempts_left: u8) -> Transmit {
        let attempts_left = attempts_left.saturating_sub(1);
        let before = self.multicast.clone();
        self.in_flight = Some(InFlight::Final { sends_left, attempts_left, before });
        self.multicast.sent(now, &self.spec.config, &mut self.rng);
        self.phase = ceasing(now + BOOT_MIN_DELAY, sends_left.saturating_sub(1), attempts_left);
        Transmit {
            kind: TransmitKind::Final,
            destination: Destination::AllNodes,
            addresses: frame_addresses(&self.spec, Destination::AllNodes),
            messages: self.messages.clone(),
            solicited_at: None,
        }
    }

    /// What [`Advertiser::poll_transmit`] returned last did not leave: it is tried again, ever more slowly.
    pub fn transmit_failed(&mut self, now: Duration) {
        let pause = RETRY_DELAY.saturating_mul(1 << self.failures.min(5)).min(RETRY_DELAY_MAX);
        match self.in_flight.take() {
            Some(InFlight::Multicast(before)) => {
                self.multicast = before;
                self.multicast.postpone(now + pause);
            }
            Some(InFlight::Farewell { former, before }) => {
                self.former = Some(former);
                self.multicast = before;
                self.multicast.postpone(now + pause);
            }
            Some(InFlight::Answer(pending)) => self.answers.postpone(pending, now + pause),
            Some(InFlight::Final { sends_left, attempts_left, before }) => {
                self.multicast = before;
                self.phase = ceasing(now + RETRY_DELAY, sends_left, attempts_left);
            }
            None => return,
        }
        self.failures = self.failures.saturating_add(1);
    }
}

fn ceasing(due: Duration, sends_left: u8, attempts_left: u8) -> Phase {
    if sends_left == 0 || attempts_left == 0 {
        return Phase::Done;
    }
    Phase::Ceasing { due, sends_left, attempts_left }
}

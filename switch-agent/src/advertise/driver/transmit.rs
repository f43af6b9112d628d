//! What leaves: advertisements that are due, mutes, and word of the machines that were heard.

use super::*;

impl<W: Wire> Driver<W> {
    /// Sends everything that is due, ends mutes that are over, and tells of the machines that were heard.
    pub(in crate::advertise) fn flush(&mut self, clock: impl Fn() -> Duration) {
        let now = clock();
        self.unmute(now);
        self.send_answers(&clock);
        loop {
            self.collect(now);
            if self.sending.is_empty() {
                break;
            }
            self.wire.send(&mut self.outbox);
            self.report(now, &clock);
        }
        self.mute();
        self.tell();
        self.tell_dhcp6();
    }

    /// Fills the outbox with one advertisement each of the ports that are due.
    fn collect(&mut self, now: Duration) {
        self.outbox.clear();
        self.sending.clear();
        while !self.outbox.is_full()
            && let Some(slot) = self.schedule.pop(now)
        {
            let Some(entry) = self.entries.get_mut(slot).and_then(Option::as_mut) else { continue };
            if !entry.may_transmit(now) {
                self.schedule.set(slot, Some(now + FAULT_PAUSE));
                continue;
            }
            let Some(transmit) = entry.advertiser.poll_transmit(now) else {
                self.schedule.set(slot, entry.advertiser.next_deadline());
                continue;
            };
            let ifindex = entry.advertiser.spec().ifindex;
            let first = self.outbox.len();
            for message in transmit.messages.iter() {
                self.outbox.push(ifindex, |frame| write_frame(frame, &transmit.addresses, message));
            }
            self.sending.push(Sending { slot, transmit, frames: first..self.outbox.len() });
        }
    }

    fn report(&mut self, now: Duration, clock: &impl Fn() -> Duration) {
        let after = clock();
        let unix_time = unix_time();
        let mut left = false;
        let mut sending = std::mem::take(&mut self.sending);
        for Sending { slot, transmit, frames } in sending.drain(..) {
            let Some(entry) = self.entries.get_mut(slot).and_then(Option::as_mut) else { continue };
            match self.outbox.error(frames) {
                Some(errno) => entry.failed(now, errno),
                None => {
                    if let Some(solicited_at) = transmit.solicited_at {
                        let answered_after = after.saturating_sub(solicited_at);
                        entry.counters.answered(answered_after);
                        self.outputs.metrics.advertise.answered(answered_after);
                    }
                    if entry.sent(after, unix_time, &transmit) {
                        self.sightings.push(Sighting::Advertised { slot });
                    }
                }
            }
            self.schedule.set(slot, entry.advertiser.next_deadline());
            if entry.advertiser.is_done() {
                self.settle(slot);
                left = true;
            }
        }
        self.sending = sending;
        if left {
            self.show_ports();
        }
    }

    fn mute(&mut self) {
        if let Some(muted) = self.guard.take_change()
            && let Err(error) = self.wire.set_muted(muted)
        {
            tracing::debug!(error = %error, "ports cannot be muted; their frames are dropped one by one");
        }
    }

    fn unmute(&mut self, now: Duration) {
        if self.guard.next().is_none_or(|due| due > now) {
            return;
        }
        let (entries, by_ifindex) = (&self.entries, &self.by_ifindex);
        self.guard.expire(now, |ifindex| {
            let slot = by_ifindex.get(&ifindex);
            if let Some(entry) = slot.and_then(|slot| entries.get(*slot)?.as_ref()) {
                entry.counters.set_muted(false);
            }
        });
    }

    fn tell(&mut self) {
        for sighting in self.sightings.drain(..) {
            let port = |slot: usize| Some(self.entries.get(slot)?.as_ref()?.port.clone());
            let event = match sighting {
                Sighting::Solicit { slot, mac, address } => {
                    port(slot).map(|port| MachineEvent::Solicit { port, mac, address })
                }
                Sighting::Probe { slot, mac } => port(slot).map(|port| MachineEvent::Probe { port, mac }),
                Sighting::Advertised { slot } => port(slot).map(|port| MachineEvent::Advertised { port }),
            };
            if let Some(event) = event {
                self.outputs.hub.observe(event);
            }
        }
    }
}

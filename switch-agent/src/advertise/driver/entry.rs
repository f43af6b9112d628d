//! One port: what it shows and counts.

use super::*;

impl Entry {
    /// Counts an advertisement; `false` where the port has sent too many at one moment.
    pub(super) fn may_transmit(&mut self, now: Duration) -> bool {
        if self.moment.0 != now {
            self.moment = (now, 0);
        }
        self.moment.1 += 1;
        self.moment.1 <= TRANSMITS_MAX
    }

    pub(super) fn show_state(&self) {
        self.counters.set_state(match self.link {
            _ if self.advertiser.is_ceasing() => RaState::Ceasing,
            LinkState { carrier: false, .. } => RaState::Down,
            LinkState { link_local: false, .. } => RaState::NoLinkLocal,
            _ if !self.advertiser.spec().forwarding => RaState::NotForwarding,
            _ => RaState::Advertising,
        });
    }

    pub(super) fn failed(&mut self, now: Duration, errno: i32) {
        self.advertiser.transmit_failed(now);
        self.counters.send_failed(errno);
        if !std::mem::replace(&mut self.failing, true) {
            let error = Errno::from_raw(errno);
            tracing::info!(port = %self.port, error = %error, "cannot send advertisements, trying again");
        }
    }

    /// Notes that an advertisement has left. Returns whether it is the first since carrier came.
    pub(super) fn sent(&mut self, now: Duration, unix_time: Duration, transmit: &Transmit) -> bool {
        if std::mem::replace(&mut self.failing, false) {
            tracing::info!(port = %self.port, "advertisements leave again");
        }
        self.counters.sent(transmit.kind);
        if transmit.destination == Destination::AllNodes {
            self.counters.multicast_at(unix_time);
        }
        match self.unannounced.take() {
            Some(carrier) if !self.advertiser.is_ceasing() => {
                self.counters.first_after_carrier(now.saturating_sub(carrier));
                true
            }
            _ => false,
        }
    }

    pub(super) fn foreign(&mut self, now: Duration, advert: &Advert<'_>) {
        let differences = compare(self.advertiser.spec(), advert);
        let mut fields: Vec<&'static str> = differences.iter().map(|difference| difference.field).collect();
        fields.dedup();
        self.counters.foreign(&fields);
        let logged = self.foreign.is_some_and(|(source, at)| {
            source == advert.source && now.saturating_sub(at) < FOREIGN_LOG_INTERVAL
        });
        if !logged {
            self.foreign = Some((advert.source, now));
            tracing::warn!(
                port = %self.port,
                source = %advert.source,
                mac = %advert.mac,
                router_lifetime_s = advert.router_lifetime_s,
                differences = ?differences.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "another router advertises on the port"
            );
        }
    }
}

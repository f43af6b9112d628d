//! Where every part reports what it saw of machines, and where HTTP reads it.
//!
//! The hub adds the clocks to the pure folds of [`MachineTable`] and [`Timelines`], counts, and tells
//! followers. One short lock per event, never held across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use switch_agent_core::machines::{
    Limits, LldpNeighbor, Machine, MachineChange, MachineEvent, MachineTable, SightingSource,
};
use switch_agent_core::map::IntoMap;
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::timeline::{Boot, Entry, Timelines};
use tokio::sync::{Notify, broadcast};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Events that a follower may lag behind before it loses some.
const FOLLOWERS_BACKLOG: usize = 256;
/// What is due is forgotten together, and this much later; the times concerned are 10 s and more.
const AGEING_INTERVAL: Duration = Duration::from_secs(1);

/// Something a follower is told.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum HubEvent {
    Machine {
        at: Timestamp,
        #[serde(flatten)]
        change: MachineChange,
    },
    Timeline {
        at: Timestamp,
        port: PortName,
        #[serde(flatten)]
        entry: Entry,
    },
}

impl HubEvent {
    /// Event name of `GET /v1/events`.
    pub fn name(&self) -> &'static str {
        match self {
            HubEvent::Machine { .. } => "machine",
            HubEvent::Timeline { .. } => "timeline",
        }
    }

    pub fn port(&self) -> &PortName {
        match self {
            HubEvent::Machine { change, .. } => change.port(),
            HubEvent::Timeline { port, .. } => port,
        }
    }
}

/// A machine as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineView {
    pub mac: MacAddr,
    pub addresses: Vec<Ipv6Addr>,
    pub machine_id: Option<String>,
    pub sources: Vec<SightingSource>,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
}

impl MachineView {
    fn new(mac: MacAddr, machine: &Machine) -> MachineView {
        MachineView {
            mac,
            addresses: machine.addresses().collect(),
            machine_id: machine.machine_id.clone(),
            sources: machine.sources.iter().copied().collect(),
            first_seen: timestamp(machine.first_seen_ms),
            last_seen: timestamp(machine.last_seen_ms),
        }
    }
}

/// What is known of one port's far end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortView {
    pub machines: Vec<MachineView>,
    pub lldp: Option<LldpNeighbor>,
}

#[derive(Debug, Default)]
struct Folds {
    machines: MachineTable,
    timelines: Timelines,
}

#[derive(Debug)]
struct Shared {
    origin: Instant,
    folds: Mutex<Folds>,
    /// Something will be due sooner than was known.
    sooner: Notify,
    followers: broadcast::Sender<HubEvent>,
    metrics: Metrics,
}

/// Cheap to clone; folding one event takes a short lock and no I/O.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Shared>);

impl Default for Hub {
    fn default() -> Self {
        Hub::new(Metrics::default(), Limits::default())
    }
}

impl Hub {
    pub fn new(metrics: Metrics, limits: Limits) -> Hub {
        let folds = Folds { machines: MachineTable::new(limits), timelines: Timelines::default() };
        Hub(Arc::new(Shared {
            origin: Instant::now(),
            folds: Mutex::new(folds),
            sooner: Notify::new(),
            followers: broadcast::Sender::new(FOLLOWERS_BACKLOG),
            metrics,
        }))
    }

    /// Folds one event into the machine table and the port's timeline. Never blocks.
    pub fn observe(&self, event: MachineEvent) {
        self.fold(|folds, now, unix_ms| {
            let changes = folds.machines.fold(&event, now, unix_ms);
            (changes, folds.timelines.fold(&event, now, unix_ms))
        });
    }

    /// The switch's own MACs, which are never machines.
    pub fn set_own_macs(&self, macs: BTreeSet<MacAddr>) {
        self.fold(|folds, _, _| (folds.machines.set_own_macs(macs), None));
    }

    /// Forgets what is due, until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        loop {
            let due = self.lock().machines.next_deadline();
            let ageing = async {
                match due {
                    Some(due) => sleep(due.saturating_sub(self.0.origin.elapsed()) + AGEING_INTERVAL).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.0.sooner.notified() => {}
                () = ageing => self.fold(|folds, now, _| (folds.machines.age(now), None)),
            }
        }
    }

    /// Follows changes from now on. A follower that lags more than a few hundred events behind loses the
    /// oldest, and is told how many.
    pub fn subscribe(&self) -> broadcast::Receiver<HubEvent> {
        self.0.followers.subscribe()
    }

    pub fn port(&self, port: &PortName) -> PortView {
        let folds = self.lock();
        PortView {
            machines: folds.machines.machines(port).map(|(mac, m)| MachineView::new(mac, m)).collect(),
            lldp: folds.machines.lldp(port).cloned(),
        }
    }

    /// The port a machine is on.
    pub fn lookup(&self, mac: MacAddr) -> Option<PortName> {
        self.lock().machines.lookup(mac).cloned()
    }

    /// Every known machine with its port, boot port or not.
    pub fn homes(&self) -> BTreeMap<MacAddr, PortName> {
        self.lock().machines.homes().clone()
    }

    /// The boots of a port, oldest first.
    pub fn boots(&self, port: &PortName) -> Vec<Boot> {
        self.lock().timelines.boots(port).cloned().collect()
    }

    /// Forgets the boots of a port but the last; returns how many.
    pub fn forget_past_boots(&self, port: &PortName) -> usize {
        self.lock().timelines.forget_past(port)
    }

    /// Which of the ports a machine is on its way on ([`Timelines::in_flight`]).
    pub fn in_flight<'a>(&self, ports: impl Iterator<Item = &'a PortName>) -> BTreeMap<PortName, bool> {
        let folds = self.lock();
        let now = self.0.origin.elapsed();
        ports.map(|port| (port.clone(), folds.timelines.in_flight(port, now))).into_map()
    }

    fn fold(
        &self,
        fold: impl FnOnce(&mut Folds, Duration, i64) -> (Vec<MachineChange>, Option<(PortName, Entry)>),
    ) {
        let at = Timestamp::now();
        let mut folds = self.lock();
        // The time is taken under the lock, so that the folds see it never go back.
        let now = self.0.origin.elapsed();
        let before = *folds.machines.counters();
        let due = folds.machines.next_deadline();
        let (changes, entry) = fold(&mut folds, now, at.as_millisecond());
        if let Some(next) = folds.machines.next_deadline()
            && due.is_none_or(|due| next < due)
        {
            self.0.sooner.notify_one();
        }
        self.0.metrics.machines.counted(&before, folds.machines.counters());
        // Told under the lock too: followers see changes in the order they happened. A send without
        // followers fails, and that is fine.
        for change in changes {
            self.0.followers.send(HubEvent::Machine { at, change }).ok();
        }
        if let Some((port, entry)) = entry {
            let boot = folds.timelines.boots(&port).next_back();
            if boot.is_some_and(Boot::began_with_carrier) {
                self.0.metrics.boots.reached(&entry.stage, Duration::from_millis(entry.since_start_ms));
            }
            self.0.followers.send(HubEvent::Timeline { at, port, entry }).ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Folds> {
        self.0.folds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A time within what [`Timestamp`] can hold; the clock of a switch without NTP may say anything.
pub fn timestamp(unix_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solicit(port: &str) -> MachineEvent {
        MachineEvent::Solicit {
            port: port.parse().unwrap(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            address: None,
        }
    }

    #[tokio::test]
    async fn followers_see_changes_in_order_and_metrics_count() {
        let metrics = Metrics::default();
        let hub = Hub::new(metrics.clone(), Limits::default());
        let mut events = hub.subscribe();
        hub.observe(solicit("Ethernet0"));
        hub.observe(solicit("Ethernet4"));
        let mut told = Vec::new();
        while let Ok(event) = events.try_recv() {
            told.push(serde_json::to_value(&event).unwrap());
        }
        assert_eq!(told.len(), 4);
        assert_eq!(told[0]["change"], "appeared");
        assert_eq!(told[1]["stage"], "first-rs");
        assert_eq!(told[2]["change"], "moved");
        assert_eq!((&told[2]["from"], &told[2]["port"]), (&"Ethernet0".into(), &"Ethernet4".into()));
        assert_eq!(hub.lookup("525400000001".parse().unwrap()), Some("Ethernet4".parse().unwrap()));
        let text = metrics.encode();
        assert!(text.contains("switch_agent_machine_moves_total 1"), "{text}");
        assert!(text.contains("switch_agent_machine_sightings_total{source=\"rs\"} 2"), "{text}");
    }

    #[tokio::test]
    async fn stages_are_timed_from_carrier_only() {
        let metrics = Metrics::default();
        let hub = Hub::new(metrics.clone(), Limits::default());
        let carrier = |port: &str, up| hub.observe(MachineEvent::Carrier { port: port.parse().unwrap(), up });
        carrier("Ethernet0", false);
        carrier("Ethernet0", true);
        for port in ["Ethernet0", "Ethernet0", "Ethernet4"] {
            hub.observe(solicit(port));
        }
        let text = metrics.encode();
        assert!(text.contains("switch_agent_boot_stage_seconds_count{stage=\"first-rs\"} 1\n"), "{text}");
        assert!(!text.contains("stage=\"carrier\""), "{text}");
        let ports = ["Ethernet0", "Ethernet4", "Ethernet8"].map(|port| port.parse().unwrap());
        let in_flight: Vec<bool> = hub.in_flight(ports.iter()).into_values().collect();
        assert_eq!(in_flight, [true, true, false]);
    }

    #[tokio::test]
    async fn a_slow_follower_loses_the_oldest_and_blocks_nobody() {
        let hub = Hub::default();
        let mut events = hub.subscribe();
        for n in 0..1000u32 {
            hub.observe(solicit(if n % 2 == 0 { "Ethernet0" } else { "Ethernet4" }));
        }
        assert!(matches!(events.recv().await, Err(broadcast::error::RecvError::Lagged(n)) if n > 500));
    }

    #[tokio::test]
    async fn a_running_hub_forgets_an_unplugged_machine_and_stops_when_told() {
        let limits = Limits { carrier_debounce: Duration::from_millis(50), ..Limits::default() };
        let hub = Hub::new(Metrics::default(), limits);
        let cancel = CancellationToken::new();
        let running = tokio::spawn(hub.clone().run(cancel.clone()));
        // It sleeps already, first without anything to forget and then for the age of a machine.
        tokio::task::yield_now().await;
        hub.observe(solicit("Ethernet0"));
        tokio::task::yield_now().await;
        hub.observe(MachineEvent::Carrier { port: "Ethernet0".parse().unwrap(), up: false });
        let mut events = hub.subscribe();
        let event = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap().unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap()["reason"], "unplugged");
        assert!(hub.homes().is_empty());
        cancel.cancel();
        tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
    }
}

//! Router Advertisements and solicitations: counted in [`PortCounters`], encoded when somebody asks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use switch_agent_core::name::PortName;

pub use super::advertise_port::{PortCounters, PortReading, RaState, SourceKind};

/// From 50 µs, where an idle switch answers, to the 3 s of a rate limit.
const ANSWER_BUCKETS: [f64; 12] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.1, 0.5, 1.0, 3.5];

/// How router discovery runs on this switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NdMode {
    /// `packet` or `raw`; empty while nothing runs.
    pub socket: &'static str,
    /// `active`, `idle` or `unavailable`.
    pub drop_rule: &'static str,
    /// Why it is unavailable.
    pub detail: Option<String>,
}

impl NdMode {
    /// The mode in one word: `packet+drop-rule`, `packet` or `raw`.
    pub fn as_str(&self) -> &'static str {
        match (self.socket, self.drop_rule) {
            ("packet", "active") => "packet+drop-rule",
            (socket, _) => socket,
        }
    }
}

#[derive(Debug)]
pub struct AdvertiseMetrics {
    ports: Ports,
    mode: Arc<Mutex<NdMode>>,
    answer_seconds: Histogram,
    socket_lost: Counter,
}

impl AdvertiseMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = AdvertiseMetrics {
            ports: Ports::default(),
            mode: Arc::default(),
            answer_seconds: Histogram::new(ANSWER_BUCKETS),
            socket_lost: Counter::default(),
        };
        registry.register(
            "ra_answer_seconds",
            "From the arrival of a Router Solicitation in the kernel to its answer",
            metrics.answer_seconds.clone(),
        );
        registry.register(
            "nd_socket_lost_frames",
            "Frames that the router discovery socket had no room for",
            metrics.socket_lost.clone(),
        );
        registry.register_collector(Box::new(Source {
            ports: metrics.ports.clone(),
            mode: Arc::clone(&metrics.mode),
        }));
        metrics
    }

    /// The counters of a port, made where there are none yet.
    pub fn port(&self, port: &PortName) -> Arc<PortCounters> {
        Arc::clone(self.ports.lock().entry(port.clone()).or_default())
    }

    /// What a port has counted; `None` where it never advertised.
    pub fn read(&self, port: &PortName) -> Option<PortReading> {
        self.ports.lock().get(port).map(|counters| counters.read())
    }

    /// How many ports are in each state, those that do not advertise at all left out.
    pub fn states(&self) -> BTreeMap<&'static str, usize> {
        let mut states = BTreeMap::new();
        for counters in self.ports.lock().values() {
            match counters.state() {
                RaState::Off => {}
                state => *states.entry(state.as_str()).or_default() += 1,
            }
        }
        states
    }

    pub fn mode(&self) -> NdMode {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_mode(&self, mode: NdMode) {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// A solicitation was answered after this time.
    pub fn answered(&self, after: Duration) {
        self.answer_seconds.observe(after.as_secs_f64());
    }

    /// The socket has lost this many frames since it was opened.
    pub fn socket_lost(&self, total: u64) {
        let before = self.socket_lost.get();
        self.socket_lost.inc_by(total.saturating_sub(before));
    }
}

type Map = BTreeMap<PortName, Arc<PortCounters>>;

#[derive(Debug, Clone, Default)]
struct Ports(Arc<Mutex<Map>>);

impl Ports {
    fn lock(&self) -> std::sync::MutexGuard<'_, Map> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Source {
    ports: Ports,
    mode: Arc<Mutex<NdMode>>,
}

impl Collector for Source {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let ports = self.ports.lock();
        let readings = ports.iter().map(|(port, counters)| (port.clone(), counters.read())).collect();
        drop(ports);
        let mode = self.mode.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut families = Families { readings, encoder };
        families.encode()?;
        families.info(
            "nd_socket",
            "Which socket router discovery uses, and whether the kernel drops solicitations after it",
            &mode,
        )
    }
}

/// One value of a family: its label besides the port, where there is one, and the number.
type Sample = (Option<Cow<'static, str>>, u64);

struct Families<'a> {
    readings: Vec<(PortName, PortReading)>,
    encoder: DescriptorEncoder<'a>,
}

impl Families<'_> {
    fn encode(&mut self) -> fmt::Result {
        self.counter(
            "ra_sent",
            "Router Advertisements sent, by port and type (initial, multicast, solicited, unicast, triggered, final)",
            "type",
            |reading| by_name(&reading.sent),
        )?;
        self.gauge(
            "ra_last_multicast_timestamp_seconds",
            "Unix time of the last Router Advertisement to all nodes of the port",
            "",
            1e3,
            |reading| known(reading.last_multicast_ms),
        )?;
        self.counter(
            "ra_send_errors",
            "Router Advertisements that could not be sent and are tried again, by port and error",
            "errno",
            |reading| owned(&reading.send_errors),
        )?;
        self.counter(
            "rs_received",
            "Valid Router Solicitations, by port and kind of source address",
            "source",
            |reading| by_name(&reading.solicited),
        )?;
        self.gauge(
            "rs_last_timestamp_seconds",
            "Unix time of the last valid Router Solicitation of the port",
            "",
            1e3,
            |reading| known(reading.last_solicit_ms),
        )?;
        self.counter(
            "rs_suppressed",
            "Router Solicitations without an answer of their own at once: merged with another, or held back by the limits of the port",
            "",
            |reading| number(reading.suppressed),
        )?;
        self.counter(
            "ndp_dropped",
            "Frames of router discovery that were not used: invalid (RFC 4861 6.1), own_address, over_budget",
            "reason",
            |reading| by_name(&reading.dropped),
        )?;
        self.counter(
            "ndp_mutes",
            "Times that a port was muted in the kernel because it exceeded its budget of frames",
            "",
            |reading| number(reading.mutes),
        )?;
        self.counter(
            "foreign_ra",
            "Router Advertisements that somebody else sent on the port",
            "",
            |reading| number(reading.foreign),
        )?;
        self.counter(
            "foreign_ra_inconsistent",
            "Foreign Router Advertisements that contradict ours (RFC 4861 6.2.7), by port and variable",
            "field",
            |reading| by_name(&reading.foreign_inconsistent),
        )?;
        self.gauge(
            "ra_carrier_to_first_seconds",
            "From carrier to the first Router Advertisement of the port, at its last carrier",
            "",
            1e6,
            |reading| known(reading.carrier_to_first_us),
        )?;
        self.gauge(
            "ra_state",
            "State of the port's advertiser; 1 for the state it is in",
            "state",
            1.0,
            |reading| match reading.state {
                RaState::Off => vec![],
                state => vec![(Some(Cow::Borrowed(state.as_str())), 1)],
            },
        )
    }

    fn info(&mut self, name: &'static str, help: &'static str, mode: &NdMode) -> fmt::Result {
        if mode.socket.is_empty() {
            return Ok(());
        }
        let labels = [("socket", mode.socket), ("drop_rule", mode.drop_rule)];
        self.encoder.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        samples: impl Fn(&PortReading) -> Vec<Sample>,
    ) -> fmt::Result {
        self.family(name, help, label, None, samples)
    }

    /// Samples are divided by `scale`.
    fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        scale: f64,
        samples: impl Fn(&PortReading) -> Vec<Sample>,
    ) -> fmt::Result {
        self.family(name, help, label, Some(scale), samples)
    }

    /// As the families of the registry do, one appears with its first value. An empty `label` means that
    /// the port is the only one.
    fn family(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        scale: Option<f64>,
        samples: impl Fn(&PortReading) -> Vec<Sample>,
    ) -> fmt::Result {
        let found: Vec<(&PortName, Sample)> = self
            .readings
            .iter()
            .flat_map(|(port, reading)| samples(reading).into_iter().map(move |sample| (port, sample)))
            .filter(|(_, (_, value))| *value != 0)
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        let kind = if scale.is_some() { MetricType::Gauge } else { MetricType::Counter };
        let mut metric = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (port, (value_of_label, value)) in found {
            let mut labels = vec![("port", Cow::Borrowed(port.as_str()))];
            labels.extend(value_of_label.map(|text| (label, text)));
            let labels = labels.as_slice();
            let mut encoder = metric.encode_family(&labels)?;
            match scale {
                None => encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None)?,
                Some(scale) => encoder.encode_gauge(&(float(value) / scale))?,
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

fn number(value: u64) -> Vec<Sample> {
    vec![(None, value)]
}

fn known(value: Option<u64>) -> Vec<Sample> {
    value.map(|value| (None, value)).into_iter().collect()
}

fn by_name(counts: &BTreeMap<&'static str, u64>) -> Vec<Sample> {
    counts.iter().map(|(name, count)| (Some(Cow::Borrowed(*name)), *count)).collect()
}

fn owned(counts: &BTreeMap<String, u64>) -> Vec<Sample> {
    counts.iter().map(|(name, count)| (Some(Cow::Owned(name.clone())), *count)).collect()
}

//! Router Advertisements and solicitations.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use switch_agent_core::name::PortName;
use switch_agent_core::ra::TransmitKind;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabel {
    port: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SentLabels {
    port: String,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    port: String,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    port: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrnoLabels {
    port: String,
    errno: String,
}

fn port_label(port: &PortName) -> PortLabel {
    PortLabel { port: port.to_string() }
}

/// From 50 µs, where an idle switch answers, to the 3 s of a rate limit.
const ANSWER_BUCKETS: [f64; 12] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.1, 0.5, 1.0, 3.5];

#[derive(Debug)]
pub struct AdvertiseMetrics {
    ra_sent: Family<SentLabels, Counter>,
    ra_last_multicast: Family<PortLabel, Gauge<f64, AtomicU64>>,
    ra_send_errors: Family<ErrnoLabels, Counter>,
    rs_received: Family<SourceLabels, Counter>,
    rs_suppressed: Family<PortLabel, Counter>,
    ndp_invalid: Family<ReasonLabels, Counter>,
    foreign_ra: Family<PortLabel, Counter>,
    answer_seconds: Histogram,
}

impl AdvertiseMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = AdvertiseMetrics {
            ra_sent: Family::default(),
            ra_last_multicast: Family::default(),
            ra_send_errors: Family::default(),
            rs_received: Family::default(),
            rs_suppressed: Family::default(),
            ndp_invalid: Family::default(),
            foreign_ra: Family::default(),
            answer_seconds: Histogram::new(ANSWER_BUCKETS),
        };
        registry.register(
            "ra_sent",
            "Router Advertisements sent, by port and type (initial, multicast, solicited, unicast, triggered, final)",
            metrics.ra_sent.clone(),
        );
        registry.register(
            "ra_last_multicast_timestamp_seconds",
            "Unix time of the last Router Advertisement to all nodes of the port",
            metrics.ra_last_multicast.clone(),
        );
        registry.register(
            "ra_send_errors",
            "Router Advertisements that could not be sent and are tried again, by port and error",
            metrics.ra_send_errors.clone(),
        );
        registry.register(
            "rs_received",
            "Valid Router Solicitations, by port and kind of source address",
            metrics.rs_received.clone(),
        );
        registry.register(
            "rs_suppressed",
            "Router Solicitations without an answer of their own at once: merged with another, or held back by the limits of the port",
            metrics.rs_suppressed.clone(),
        );
        registry.register(
            "ndp_invalid",
            "Router discovery messages that failed validation (RFC 4861 6.1), by port and reason",
            metrics.ndp_invalid.clone(),
        );
        registry.register(
            "foreign_ra",
            "Router Advertisements that somebody else sent on the port",
            metrics.foreign_ra.clone(),
        );
        registry.register(
            "ra_answer_seconds",
            "From the arrival of a Router Solicitation in the kernel to its answer",
            metrics.answer_seconds.clone(),
        );
        metrics
    }

    /// An advertisement left.
    pub fn sent(&self, port: &PortName, kind: TransmitKind) {
        let r#type = match kind {
            TransmitKind::Initial => "initial",
            TransmitKind::Periodic => "multicast",
            TransmitKind::Solicited => "solicited",
            TransmitKind::Unicast => "unicast",
            TransmitKind::Triggered => "triggered",
            TransmitKind::Final => "final",
        };
        self.ra_sent.get_or_create(&SentLabels { port: port.to_string(), r#type }).inc();
    }

    /// An advertisement left for all nodes, at this Unix time.
    pub fn multicast_at(&self, port: &PortName, unix_time: Duration) {
        self.ra_last_multicast.get_or_create(&port_label(port)).set(unix_time.as_secs_f64());
    }

    /// A solicitation was answered after this time.
    pub fn answered(&self, after: Duration) {
        self.answer_seconds.observe(after.as_secs_f64());
    }

    /// `errno` is the symbolic name.
    pub fn send_failed(&self, port: &PortName, errno: String) {
        self.ra_send_errors.get_or_create(&ErrnoLabels { port: port.to_string(), errno }).inc();
    }

    /// `source` is `unspecified`, `link_local` or `global`.
    pub fn solicited(&self, port: &PortName, source: &'static str) {
        self.rs_received.get_or_create(&SourceLabels { port: port.to_string(), source }).inc();
    }

    pub fn suppressed(&self, port: &PortName) {
        self.rs_suppressed.get_or_create(&port_label(port)).inc();
    }

    pub fn invalid(&self, port: &PortName, reason: &'static str) {
        self.ndp_invalid.get_or_create(&ReasonLabels { port: port.to_string(), reason }).inc();
    }

    pub fn foreign(&self, port: &PortName) {
        self.foreign_ra.get_or_create(&port_label(port)).inc();
    }

    /// The port does not advertise any more: a timestamp that never moves again would look like a fault.
    pub fn stopped(&self, port: &PortName) {
        self.ra_last_multicast.remove(&port_label(port));
    }
}

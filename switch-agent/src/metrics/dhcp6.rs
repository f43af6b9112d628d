//! DHCPv6.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use switch_agent_core::dhcp6::{Answer, AnswerType, MessageType, Refusal};
use switch_agent_core::name::PortName;

use super::unix_ms;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    port: String,
    r#type: &'static str,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClientLabels {
    client: &'static str,
}

/// From 50 µs, where an idle switch answers, to a second, when clients ask again.
const ANSWER_BUCKETS: [f64; 9] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.1, 1.0];

/// What a port has counted since the process started, by the names of the labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dhcp6Reading {
    pub received: BTreeMap<&'static str, u64>,
    pub sent: BTreeMap<&'static str, u64>,
    pub refused: BTreeMap<&'static str, u64>,
    pub clients: BTreeMap<&'static str, u64>,
    /// Unix time in milliseconds.
    pub last_sent_ms: Option<u64>,
}

#[derive(Debug)]
pub struct Dhcp6Metrics {
    ports: Mutex<BTreeMap<PortName, Dhcp6Reading>>,
    received: Family<TypeLabels, Counter>,
    sent: Family<TypeLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    send_errors: Family<ErrnoLabels, Counter>,
    clients: Family<ClientLabels, Counter>,
    answer_seconds: Histogram,
}

impl Dhcp6Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Dhcp6Metrics {
            ports: Mutex::default(),
            received: Family::default(),
            sent: Family::default(),
            refused: Family::default(),
            send_errors: Family::default(),
            clients: Family::default(),
            answer_seconds: Histogram::new(ANSWER_BUCKETS),
        };
        registry.register(
            "dhcp6_received",
            "Well-formed DHCPv6 messages of clients, by port and type",
            metrics.received.clone(),
        );
        registry.register(
            "dhcp6_sent",
            "DHCPv6 answers sent, by port and type (advertise, reply)",
            metrics.sent.clone(),
        );
        registry.register(
            "dhcp6_refused",
            "DHCPv6 messages without an answer, by port and reason (RFC 8415 16; rate_limited)",
            metrics.refused.clone(),
        );
        registry.register(
            "dhcp6_send_errors",
            "DHCPv6 answers that could not be sent, by port and error",
            metrics.send_errors.clone(),
        );
        registry.register(
            "dhcp6_clients",
            "Solicits and Information-requests that were answered, by architecture (RFC 5970), ipxe, other or none",
            metrics.clients.clone(),
        );
        registry.register(
            "dhcp6_answer_seconds",
            "From the arrival of a DHCPv6 message in the kernel to its answer",
            metrics.answer_seconds.clone(),
        );
        metrics
    }

    /// What a port has counted; `None` where it never heard DHCPv6.
    pub fn read(&self, port: &PortName) -> Option<Dhcp6Reading> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).get(port).cloned()
    }

    fn count(&self, port: &PortName, count: impl FnOnce(&mut Dhcp6Reading)) {
        count(self.ports.lock().unwrap_or_else(PoisonError::into_inner).entry(port.clone()).or_default());
    }

    pub fn received(&self, port: &PortName, kind: MessageType) {
        self.count(port, |reading| *reading.received.entry(kind.name()).or_default() += 1);
        self.received.get_or_create(&TypeLabels { port: port.to_string(), r#type: kind.name() }).inc();
    }

    pub fn refused(&self, port: &PortName, refusal: Refusal) {
        self.count(port, |reading| *reading.refused.entry(refusal.reason()).or_default() += 1);
        self.refused.get_or_create(&ReasonLabels { port: port.to_string(), reason: refusal.reason() }).inc();
    }

    /// An answer was made; it is told once for each exchange what kind of client asked.
    pub fn client(&self, port: &PortName, answer: &Answer) {
        if !answer.request.opens() {
            return;
        }
        let client = match answer.architecture {
            _ if answer.ipxe => "ipxe",
            Some(architecture) => architecture.name().unwrap_or("other"),
            None => "none",
        };
        self.count(port, |reading| *reading.clients.entry(client).or_default() += 1);
        self.clients.get_or_create(&ClientLabels { client }).inc();
    }

    /// An answer left after this time.
    pub fn sent(&self, port: &PortName, kind: AnswerType, after: Duration) {
        self.count(port, |reading| {
            *reading.sent.entry(kind.name()).or_default() += 1;
            reading.last_sent_ms = Some(unix_ms());
        });
        self.sent.get_or_create(&TypeLabels { port: port.to_string(), r#type: kind.name() }).inc();
        self.answer_seconds.observe(after.as_secs_f64());
    }

    /// `errno` is the symbolic name.
    pub fn send_failed(&self, port: &PortName, errno: String) {
        self.send_errors.get_or_create(&ErrnoLabels { port: port.to_string(), errno }).inc();
    }
}

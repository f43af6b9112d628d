//! The discovery proxy.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use switch_agent_core::name::PortName;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabels {
    port: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FileLabels {
    file: &'static str,
}

/// An open connection. It counts on the gauge that it began with: a port that was closed meanwhile has lost
/// that one, and begins anew.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Debug)]
pub struct ProxyMetrics {
    requests: Family<RequestLabels, Counter>,
    upstream_duration: Histogram,
    open_connections: Family<PortLabels, Gauge>,
    rejected: Family<ReasonLabels, Counter>,
    tokens_minted: Counter,
    tokens_refused: Family<ReasonLabels, Counter>,
    upstream_errors: Family<ReasonLabels, Counter>,
    upstream_usable: Gauge,
    upstream_suspended: Gauge,
    upstream_retries: Counter,
    certificate_expiry: Family<FileLabels, Gauge>,
}

impl ProxyMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let metrics = ProxyMetrics {
            requests: Family::default(),
            upstream_duration: Histogram::new(buckets),
            open_connections: Family::default(),
            rejected: Family::default(),
            tokens_minted: Counter::default(),
            tokens_refused: Family::default(),
            upstream_errors: Family::default(),
            upstream_usable: Gauge::default(),
            upstream_suspended: Gauge::default(),
            upstream_retries: Counter::default(),
            certificate_expiry: Family::default(),
        };
        // Nothing is wrong with what is not configured.
        metrics.upstream_usable.set(1);
        registry.register(
            "proxy_requests",
            "Requests of machines that were answered, by route and status code",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "proxy_upstream_duration",
            "Time from a forwarded request to the control API's response header",
            Unit::Seconds,
            metrics.upstream_duration.clone(),
        );
        registry.register(
            "proxy_open_connections",
            "Connections of machines that are open now",
            metrics.open_connections.clone(),
        );
        registry.register(
            "proxy_rejected",
            "Requests and connections refused before anything was forwarded, by reason",
            metrics.rejected.clone(),
        );
        registry.register("proxy_tokens_minted", "Machine tokens minted", metrics.tokens_minted.clone());
        registry.register(
            "proxy_tokens_refused",
            "Machine tokens not minted or not accepted, by reason",
            metrics.tokens_refused.clone(),
        );
        registry.register(
            "proxy_upstream_errors",
            "Forwarded requests that the control API did not answer, by reason",
            metrics.upstream_errors.clone(),
        );
        registry.register(
            "proxy_upstream_usable",
            "Whether the files of the control API client (CA, certificate, key, token) are good",
            metrics.upstream_usable.clone(),
        );
        registry.register(
            "proxy_upstream_suspended",
            "Whether the control API could not be reached and is left alone for now",
            metrics.upstream_suspended.clone(),
        );
        registry.register(
            "proxy_upstream_retries",
            "Forwarded requests that were tried again",
            metrics.upstream_retries.clone(),
        );
        registry.register_with_unit(
            "proxy_certificate_expiry_timestamp",
            "When the first certificate of the control API client's file (ca, client, grpc-ca, grpc-client) expires",
            Unit::Seconds,
            metrics.certificate_expiry.clone(),
        );
        metrics
    }

    pub fn request(&self, route: &'static str, code: u16) {
        self.requests.get_or_create(&RequestLabels { route, code }).inc();
    }

    pub fn upstream_answered(&self, after: Duration) {
        self.upstream_duration.observe(after.as_secs_f64());
    }

    /// Counts a connection for as long as what is returned lives.
    pub fn connection_opened(&self, port: &PortName) -> OpenConnection {
        let gauge = self.open_connections.get_or_create(&PortLabels { port: port.to_string() }).clone();
        gauge.inc();
        OpenConnection(gauge)
    }

    /// Forgets the labels of a port that was closed.
    pub fn port_closed(&self, port: &PortName) {
        self.open_connections.remove(&PortLabels { port: port.to_string() });
    }

    pub fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub fn token_minted(&self) {
        self.tokens_minted.inc();
    }

    pub fn token_refused(&self, reason: &'static str) {
        self.tokens_refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub fn upstream_error(&self, reason: &'static str) {
        self.upstream_errors.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub fn upstream_usable(&self, usable: bool) {
        self.upstream_usable.set(i64::from(usable));
    }

    /// No control API is configured any more.
    pub fn upstream_gone(&self) {
        self.upstream_usable.set(1);
        self.upstream_suspended.set(0);
        self.certificate_expiry("ca", None);
        self.certificate_expiry("client", None);
    }

    pub fn upstream_suspended(&self, suspended: bool) {
        self.upstream_suspended.set(i64::from(suspended));
    }

    pub fn is_upstream_suspended(&self) -> bool {
        self.upstream_suspended.get() != 0
    }

    pub fn upstream_retried(&self) {
        self.upstream_retries.inc();
    }

    /// `at` is Unix time; `None` where the file is not configured.
    pub fn certificate_expiry(&self, file: &'static str, at: Option<i64>) {
        match at {
            Some(at) => {
                self.certificate_expiry.get_or_create(&FileLabels { file }).set(at);
            }
            None => {
                self.certificate_expiry.remove(&FileLabels { file });
            }
        }
    }
}

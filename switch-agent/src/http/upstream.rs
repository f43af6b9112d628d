//! The client of the control API.
//!
//! Exactly the configured roots, the name always checked, sockets in exactly the configured VRF, never an
//! address at which only the switch itself, a link or a machine can be. Files are read again when they
//! change; while a new file is broken the client made of the old ones stays.

mod attempts;
mod error;
pub mod files;
mod origin;
pub mod resolve;
mod verifier;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ::http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use switch_agent_core::desired::UpstreamSpec;
use switch_agent_core::discovery::breaker::{Admission, Breaker};
use switch_agent_core::discovery::{Limits, Target};
use switch_agent_core::service::UpstreamState;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::attempts::{Lent, Slot};
pub use self::error::UpstreamError;
use self::error::{chain, classify};
use self::files::{Credentials, Expiry, FileError, Stamp};
use self::origin::Origin;
use self::resolve::{AddressPolicy, PolicyResolver};
use crate::http::discovery::body::RequestBody;
use crate::http::listener::connection::more_fields;
use crate::metrics::Metrics;
use crate::wake::{Reason, Waker};

/// How often files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Time of a probe beyond that for its TCP connection, after which another one is made.
const TLS_TIME: Duration = Duration::from_secs(2);
const POOL_IDLE: Duration = Duration::from_secs(60);
const POOL_SIZE: usize = 16;
const H2_STREAM_WINDOW: u32 = 64 << 10;
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// What the gRPC server of metal-api is pinged by its other clients; closer than 5 s it ends the connection.
const GRPC_PING_INTERVAL: Duration = Duration::from_secs(10);
const GRPC_PING_TIMEOUT: Duration = Duration::from_secs(5);

type HyperClient = Client<HttpsConnector<HttpConnector<PolicyResolver>>, Lent>;

/// What a control API is spoken to with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// HTTP/1.1 or HTTP/2, whichever the server prefers.
    Http,
    /// HTTP/2 alone, with streams that may be silent for long.
    Grpc,
}

struct Built {
    client: Option<HyperClient>,
    /// The agent's own token, for its own calls; never a machine's.
    agent_token: Option<Arc<str>>,
    hmac_key: Option<Arc<ring::hmac::Key>>,
    expiry: Expiry,
    stamp: Stamp,
    error: Option<String>,
}

/// A configured control API.
pub struct Upstream {
    origin: Origin,
    spec: UpstreamSpec,
    transport: Transport,
    policy: Arc<AddressPolicy>,
    limits: Arc<Limits>,
    built: RwLock<Built>,
    /// One build at a time.
    building: Mutex<()>,
    breaker: Mutex<Watched>,
    started: Instant,
    metrics: Metrics,
}

/// The breaker, and how the last attempt that counted against it failed.
struct Watched {
    breaker: Breaker,
    last: &'static str,
}

/// What became of one admitted request; a probe whose outcome nobody tells is given up.
struct Admitted<'a> {
    upstream: &'a Upstream,
    probe: bool,
}

impl Admitted<'_> {
    fn reached(&mut self) {
        self.probe = false;
        self.upstream.watched(|watched, _| watched.breaker.succeeded());
    }

    /// Returns whether requests are refused now.
    fn failed(&mut self, error: &UpstreamError) -> bool {
        self.probe = false;
        self.upstream.watched(|watched, now| {
            watched.last = error.code();
            watched.breaker.failed(now);
            watched.breaker.is_open()
        })
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.upstream.watched(|watched, now| watched.breaker.abandoned(now));
        }
    }
}

impl Upstream {
    /// Reads the files and builds the client; what is wrong with them is in [`Upstream::state`].
    pub fn new(
        spec: UpstreamSpec,
        policy: Arc<AddressPolicy>,
        limits: Arc<Limits>,
        metrics: Metrics,
    ) -> Upstream {
        Upstream::over(Transport::Http, spec, policy, limits, metrics)
    }

    /// The same for a gRPC server.
    pub fn grpc(
        spec: UpstreamSpec,
        policy: Arc<AddressPolicy>,
        limits: Arc<Limits>,
        metrics: Metrics,
    ) -> Upstream {
        Upstream::over(Transport::Grpc, spec, policy, limits, metrics)
    }

    fn over(
        transport: Transport,
        spec: UpstreamSpec,
        policy: Arc<AddressPolicy>,
        limits: Arc<Limits>,
        metrics: Metrics,
    ) -> Upstream {
        let built = Built {
            client: None,
            agent_token: None,
            hmac_key: None,
            expiry: Expiry::default(),
            stamp: Stamp::default(),
            error: None,
        };
        let probe_time = limits.connect_timeout + TLS_TIME;
        let breaker = Breaker::new(limits.breaker_failures, limits.breaker_pause, probe_time);
        let upstream = Upstream {
            origin: Origin::of(&spec),
            spec,
            transport,
            policy,
            limits,
            built: RwLock::new(built),
            building: Mutex::new(()),
            breaker: Mutex::new(Watched { breaker, last: "" }),
            started: Instant::now(),
            metrics,
        };
        upstream.refresh();
        upstream
    }

    pub fn spec(&self) -> &UpstreamSpec {
        &self.spec
    }

    /// `https://host[:port]`, the audience of statements.
    pub fn origin(&self) -> &str {
        self.origin.as_str()
    }

    /// Where a target of the control API is, below the base path. `None` where that is no URL.
    pub fn uri(&self, target: &Target) -> Option<Uri> {
        self.origin.uri(&self.spec.base, target)
    }

    pub fn state(&self) -> UpstreamState {
        UpstreamState { spec: self.spec.clone(), error: self.read().error.clone() }
    }

    /// The agent's own bearer token (`control_api_token_file`).
    pub fn agent_token(&self) -> Option<Arc<str>> {
        self.read().agent_token.clone()
    }

    /// The fleet's key of HMAC type Metal-View (`metal_stack_hmac_file`).
    pub fn hmac_key(&self) -> Option<Arc<ring::hmac::Key>> {
        self.read().hmac_key.clone()
    }

    /// When the certificates in use expire.
    pub fn expiry(&self) -> Expiry {
        self.read().expiry
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Built> {
        self.built.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched<T>(&self, act: impl FnOnce(&mut Watched, Duration) -> T) -> T {
        let mut watched = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = act(&mut watched, self.started.elapsed());
        if self.transport == Transport::Http {
            self.metrics.proxy.upstream_suspended(watched.breaker.is_open());
        }
        outcome
    }

    fn admit(&self) -> Result<Admitted<'_>, UpstreamError> {
        let (admission, last) = self.watched(|watched, now| (watched.breaker.admit(now), watched.last));
        match admission {
            Admission::Pass => Ok(Admitted { upstream: self, probe: false }),
            Admission::Probe => Ok(Admitted { upstream: self, probe: true }),
            Admission::Refuse { retry_after } => Err(UpstreamError::Suspended { last, retry_after }),
        }
    }

    /// Builds the client anew if a file changed. Returns whether [`Upstream::state`] changed. Blocks on
    /// file I/O.
    pub fn refresh(&self) -> bool {
        let _one = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.spec);
        let (unchanged, was) = {
            let built = self.read();
            (built.stamp == stamp && (built.client.is_some() || built.error.is_some()), built.error.clone())
        };
        // Files that could not be used are tried again: what was missing may be a file they refer to.
        if unchanged && was.is_none() {
            return false;
        }
        let outcome = files::load(&self.spec).and_then(|credentials| {
            self.connector(credentials.tls.clone())
                .map(|client| (client, credentials))
                .map_err(FileError::Device)
        });
        let mut built = self.built.write().unwrap_or_else(PoisonError::into_inner);
        built.stamp = stamp;
        built.error = match outcome {
            Ok((client, Credentials { agent_token, hmac_key, expiry, loose, .. })) => {
                for file in loose {
                    tracing::warn!(
                        file,
                        "a secret of the control API client is readable by others; set mode 0600"
                    );
                }
                // Whatever failed before may have been the files' fault.
                self.watched(|watched, _| watched.breaker.succeeded());
                built.client = Some(client);
                built.agent_token = agent_token;
                built.hmac_key = hmac_key;
                built.expiry = expiry;
                None
            }
            Err(error) => Some(chain(&error)),
        };
        built.error != was
    }

    fn connector(&self, tls: rustls::ClientConfig) -> Result<HyperClient, String> {
        let mut http = HttpConnector::new_with_resolver(PolicyResolver(self.policy.clone()));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(self.limits.connect_timeout));
        http.set_tcp_user_timeout(Some(self.limits.upstream_header_timeout));
        if self.spec.vrf != "default" {
            http.set_interface(self.spec.vrf.clone());
        }
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
        let mut builder = Client::builder(TokioExecutor::new());
        let https = match self.transport {
            Transport::Http => {
                builder.http2_keep_alive_interval(H2_PING_INTERVAL);
                https.enable_all_versions().wrap_connector(http)
            }
            Transport::Grpc => {
                builder
                    .http2_only(true)
                    .http2_keep_alive_interval(GRPC_PING_INTERVAL)
                    .http2_keep_alive_timeout(GRPC_PING_TIMEOUT);
                https.enable_http2().wrap_connector(http)
            }
        };
        if let Some(fields) = more_fields(&self.limits) {
            builder.http1_max_headers(fields);
        }
        Ok(builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_SIZE)
            .http1_max_buf_size(self.limits.header_bytes.max(8192) * 4)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW)
            .http2_initial_connection_window_size(H2_CONNECTION_WINDOW)
            .build(https))
    }

    /// Sends a request to the end of the response header. The caller limits the time.
    ///
    /// What certainly did nothing yet is tried again, for a bounded time; while the control API cannot be
    /// reached at all, the answer is [`UpstreamError::Suspended`] at once.
    pub async fn send(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, UpstreamError> {
        // A literal address never meets the resolver.
        if let Ok(literal) = self.spec.host.parse::<IpAddr>() {
            self.policy.check(literal).map_err(|_| UpstreamError::Address)?;
        }
        let client = {
            let built = self.read();
            match (&built.client, &built.error) {
                (Some(client), _) => client.clone(),
                (None, error) => return Err(UpstreamError::Unusable(error.clone().unwrap_or_default())),
            }
        };
        let mut admitted = self.admit()?;
        let (parts, body) = request.into_parts();
        let repeatable = attempts::repeatable(&parts.method, &body);
        let slot = Slot::new(body);
        let begun = Instant::now();
        for attempt in 1.. {
            let request = Request::from_parts(parts.clone(), slot.lend());
            let error = match client.request(request).await {
                Ok(response) => {
                    admitted.reached();
                    return Ok(response);
                }
                Err(error) => classify(&error, error.is_connect()),
            };
            let suspended = if error.is_unreached() {
                admitted.failed(&error)
            } else {
                admitted.reached();
                false
            };
            let pause = attempts::pause(attempt);
            let time_left = begun.elapsed() + pause < self.limits.retry_budget;
            let more = attempt < self.limits.upstream_attempts && time_left && !suspended;
            if !more || !attempts::try_again(&error, slot.is_whole(), repeatable) {
                return Err(error);
            }
            if repeatable && !slot.is_whole() {
                slot.refill_empty();
            }
            self.metrics.proxy.upstream_retried();
            tokio::time::sleep(pause).await;
        }
        Err(UpstreamError::Timeout)
    }
}

/// Looks at the files for as long as the upstream is configured.
pub async fn watch(upstream: Arc<Upstream>, metrics: Metrics, waker: Waker, cancel: CancellationToken) {
    let watching = async {
        loop {
            let expiry = upstream.expiry();
            match upstream.transport {
                Transport::Http => {
                    metrics.proxy.upstream_usable(upstream.state().error.is_none());
                    metrics.proxy.certificate_expiry("ca", expiry.ca);
                    metrics.proxy.certificate_expiry("client", expiry.client);
                }
                Transport::Grpc => {
                    metrics.proxy.certificate_expiry("grpc-ca", expiry.ca);
                    metrics.proxy.certificate_expiry("grpc-client", expiry.client);
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
            let looked = upstream.clone();
            let changed = tokio::task::spawn_blocking(move || looked.refresh()).await.unwrap_or(false);
            if changed {
                match upstream.state().error {
                    Some(error) => tracing::warn!(%error, "control API files are not usable"),
                    None => tracing::info!("control API files are good again"),
                }
                waker.wake(Reason::Service);
            }
        }
    };
    cancel.run_until_cancelled(watching).await;
}

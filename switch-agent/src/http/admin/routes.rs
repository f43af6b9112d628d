//! Routes of the admin API. [`ROUTES`] is compared with `openapi.json` by a test.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Value, json};
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::status::PortStatus;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::events::{self, EventBody};
use super::{AdminState, Snapshot, view};
use crate::http::page;

/// Every path, as in `openapi.json`.
#[cfg(test)]
pub(super) const ROUTES: [&str; 17] = [
    "/",
    "/v1/ports",
    "/v1/ports/{port}",
    "/v1/ports/{port}/timeline",
    "/v1/macs",
    "/v1/macs/{mac}",
    "/v1/partitions",
    "/v1/status",
    "/v1/plan",
    "/v1/decisions",
    "/v1/inputs",
    "/v1/events",
    "/.well-known/jwks.json",
    "/openapi.json",
    "/metrics",
    "/livez",
    "/readyz",
];

const OPENAPI: &str = include_str!("../openapi.json");
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whole, or a stream of events.
#[derive(Debug)]
pub(super) enum AdminBody {
    Full(Full<Bytes>),
    Events(EventBody),
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            AdminBody::Full(body) => Pin::new(body).poll_frame(context),
            AdminBody::Events(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AdminBody::Full(body) => body.is_end_stream(),
            AdminBody::Events(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AdminBody::Full(body) => body.size_hint(),
            AdminBody::Events(body) => body.size_hint(),
        }
    }
}

type Answer = Response<AdminBody>;

/// Answers requests. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Router {
    state: AdminState,
    /// Whether who asks may change something: the unix socket is root's, loopback is anybody's on the switch.
    writable: bool,
    followers: Arc<Semaphore>,
    followers_age_max: Duration,
}

impl Router {
    pub(super) fn new(state: AdminState, followers_max: usize, followers_age_max: Duration) -> Router {
        Router {
            state,
            writable: false,
            followers: Arc::new(Semaphore::new(followers_max)),
            followers_age_max,
        }
    }

    /// The same, for those who may change something.
    pub(super) fn writable(&self) -> Router {
        Router { writable: true, ..self.clone() }
    }

    /// The answer to a request. Bodies of requests are not read: nothing here takes one.
    pub(super) async fn answer<B>(&self, request: &Request<B>, cancel: &CancellationToken) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/inputs") => match self.state.inspector.inputs().await {
                Ok(inputs) => answer(StatusCode::OK, JSON, inputs),
                Err(failure) => error(StatusCode::SERVICE_UNAVAILABLE, "no-answer", &failure.to_string()),
            },
            (&Method::DELETE, path) if self.writable => self.delete(path),
            _ => self.answer_at_once(request, cancel),
        }
    }

    /// Every answer that needs no pass of the reconciler.
    fn answer_at_once<B>(&self, request: &Request<B>, cancel: &CancellationToken) -> Answer {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return method_not_allowed("only GET and HEAD");
        }
        let Some(segments) = segments(request.uri().path()) else { return bad_path() };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let snapshot = self.state.snapshot();
        match segments.as_slice() {
            [""] => self.page(&snapshot),
            ["v1", "events"] => self.events(request.method(), cancel),
            ["v1", rest @ ..] => self.api(&snapshot, rest),
            [".well-known", "jwks.json"] => ok_json(&self.state.jwks),
            ["openapi.json"] => answer(StatusCode::OK, JSON, OPENAPI),
            ["metrics"] => self.metrics(&snapshot),
            ["livez"] => answer(StatusCode::OK, TEXT, "ok\n"),
            ["readyz"] => readiness(&snapshot),
            _ => not_found("there is no such path; see /openapi.json"),
        }
    }

    /// What can be cleared: the boots of a port but the last.
    fn delete(&self, path: &str) -> Answer {
        let Some(segments) = segments(path) else { return bad_path() };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["v1", "ports", port, "timeline"] => with_port(&self.state.snapshot(), port, |port| {
                let forgotten = self.state.hub.forget_past_boots(&port.port);
                ok_json(&json!({ "port": port.port, "forgotten": forgotten }))
            }),
            _ => method_not_allowed("only GET and HEAD; DELETE is for /v1/ports/{port}/timeline"),
        }
    }

    fn api(&self, snapshot: &Snapshot, path: &[&str]) -> Answer {
        let hub = &self.state.hub;
        match path {
            ["ports"] => ok_json(&view::ports(snapshot, &self.state)),
            ["ports", port] => with_port(snapshot, port, |port| ok_json(&view::port(port, &self.state))),
            ["ports", port, "timeline"] => {
                with_port(snapshot, port, |port| ok_json(&view::timeline(&port.port, hub)))
            }
            ["macs"] => ok_json(&view::macs(snapshot, &self.state)),
            ["macs", mac] => match mac.parse::<MacAddr>() {
                Err(invalid) => error(StatusCode::BAD_REQUEST, "bad-mac", &invalid.to_string()),
                Ok(mac) => match view::mac(mac, snapshot, &self.state) {
                    Some(found) => ok_json(&found),
                    None => not_found(&format!("{mac} is on no boot port")),
                },
            },
            ["partitions"] => ok_json(&view::partitions(snapshot)),
            ["status"] => ok_json(&view::status(snapshot, &self.state)),
            ["plan"] => ok_json(&view::plan(snapshot)),
            ["decisions"] => ok_json(&json!({ "decisions": self.state.decisions.all() })),
            // Only a GET waits for a pass.
            ["inputs"] => answer(StatusCode::OK, JSON, ""),
            _ => not_found("there is no such path; see /openapi.json"),
        }
    }

    fn events(&self, method: &Method, cancel: &CancellationToken) -> Answer {
        const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
        let body = if method == Method::HEAD {
            AdminBody::Full(Full::default())
        } else {
            let Ok(slot) = Arc::clone(&self.followers).try_acquire_owned() else {
                return error(StatusCode::SERVICE_UNAVAILABLE, "too-many-followers", "try again later");
            };
            let (state, cancel) = (self.state.clone(), cancel.clone());
            AdminBody::Events(events::follow(state, slot, self.followers_age_max, cancel))
        };
        let mut answer = Response::new(body);
        answer.headers_mut().insert(CONTENT_TYPE, EVENT_STREAM);
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    fn metrics(&self, snapshot: &Snapshot) -> Answer {
        // Known per boot port only here, where the boot ports are known.
        let AdminState { metrics, hub, .. } = &self.state;
        metrics.machines.set_machines(&view::machines_by_port(snapshot, hub));
        metrics.boots.set_in_flight(&hub.in_flight(snapshot.status.ports.keys()));
        answer(StatusCode::OK, OPENMETRICS, self.state.metrics.encode())
    }

    fn page(&self, snapshot: &Snapshot) -> Answer {
        const POLICY: HeaderValue =
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
        let page = page::render(&view::status(snapshot, &self.state), &view::ports(snapshot, &self.state));
        let mut answer = answer(StatusCode::OK, "text/html; charset=utf-8", page);
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
        answer
    }
}

/// 503 with the reasons until the first pass has finished, and while a source cannot be read.
fn readiness(snapshot: &Snapshot) -> Answer {
    let reasons = view::unready(snapshot);
    if reasons.is_empty() {
        return ok_json(&json!({ "ready": true, "reasons": [] }));
    }
    let body = json!({ "ready": false, "reasons": reasons });
    answer(StatusCode::SERVICE_UNAVAILABLE, JSON, body.to_string())
}

/// Finds a boot port by name or alias.
fn with_port(snapshot: &Snapshot, wanted: &str, found: impl FnOnce(&PortStatus) -> Answer) -> Answer {
    let by_name = wanted.parse::<PortName>().ok().and_then(|name| snapshot.status.ports.get(&name));
    let by_alias = || snapshot.status.ports.values().find(|port| *port.alias == *wanted);
    match by_name.or_else(by_alias) {
        Some(port) => found(port),
        None => not_found(&format!("{wanted:?} is no boot port")),
    }
}

/// Path segments, percent-decoded each (RFC 3986 section 2.1); `None` when that is not possible.
fn segments(path: &str) -> Option<Vec<String>> {
    path.strip_prefix('/')?.split('/').map(percent_decoded).collect()
}

fn percent_decoded(segment: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            octets.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        octets.push(u8::try_from(digit()? << 4 | digit()?).ok()?);
    }
    String::from_utf8(octets).ok()
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(AdminBody::Full(Full::new(body.into())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn ok_json(value: &Value) -> Answer {
    answer(StatusCode::OK, JSON, value.to_string())
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = json!({ "error": { "code": code, "message": message } });
    answer(status, JSON, body.to_string())
}

fn method_not_allowed(message: &str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

fn bad_path() -> Answer {
    error(StatusCode::BAD_REQUEST, "bad-path", "the path is not valid percent-encoded UTF-8")
}

fn not_found(message: &str) -> Answer {
    error(StatusCode::NOT_FOUND, "not-found", message)
}

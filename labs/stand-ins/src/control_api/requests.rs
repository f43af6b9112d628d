//! What the control API serves.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use switch_agent_core::identity::{IdentityClaims, MachineClaims};

use super::keys::JwksSource;
use super::machines::{Machines, Place};
use super::verify::{Refused, Verifier, unix_now};

const BODY_LEN_MAX: usize = 1 << 20;
const TICK: Duration = Duration::from_millis(200);

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) struct Api {
    verifier: Arc<Verifier>,
    base: String,
    pub(crate) machines: Machines,
}

pub(crate) fn json_reply(status: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn refusal(refused: &Refused) -> Response<Body> {
    json_reply(refused.status, &json!({ "error": { "reason": refused.reason } }))
}

/// Header fields as JSON, without what opens doors.
fn shown(headers: &HeaderMap) -> Value {
    let shown =
        headers.iter().filter(|(name, _)| !matches!(name.as_str(), "authorization" | "x-boot-identity"));
    shown
        .map(|(name, value)| (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()))))
        .collect()
}

impl Api {
    pub(crate) fn new(sources: Vec<JwksSource>, audience: String, base: String) -> Api {
        let verifier = Arc::new(Verifier::new(sources, audience));
        Api { verifier, base, machines: Machines::default() }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let headers = request.headers().clone();
        let (response, identity) = self.route(request, &method, &path).await;
        let place = identity.map(|id| json!({ "switch": id.iss, "port": id.sub, "mac": id.mac }));
        // The log of the API: one JSON object per line.
        println!(
            "{}",
            json!({
                "time": unix_now(), "method": method.as_str(), "path": path, "headers": shown(&headers),
                "status": response.status().as_u16(), "verified": place
            })
        );
        Ok(response)
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        method: &Method,
        path: &str,
    ) -> (Response<Body>, Option<IdentityClaims>) {
        let Some(path) = path.strip_prefix(self.base.as_str()) else {
            return (refusal(&Refused { status: 404, reason: "not below the base path".to_owned() }), None);
        };
        if path == "/healthz" {
            return (json_reply(200, &json!({ "status": "ok" })), None);
        }
        let (verifier, headers) = (self.verifier.clone(), request.headers().clone());
        let checked = tokio::task::spawn_blocking(move || verifier.check(&headers, unix_now())).await;
        let (identity, machine) = match checked {
            Ok(Ok(claims)) => claims,
            Ok(Err(refused)) => return (refusal(&refused), None),
            Err(_) => {
                return (refusal(&Refused { status: 500, reason: "the check failed".to_owned() }), None);
            }
        };
        let response = match (method.as_str(), path) {
            ("GET", "/v1/whoami") => json_reply(200, &whoami(&identity, &machine, request.headers())),
            ("GET" | "POST" | "PUT" | "PATCH" | "DELETE", "/v1/echo") => echo(request).await,
            ("POST", "/v1/machines") => self.register(request, &identity, &machine).await,
            ("GET", "/v1/machines") => json_reply(200, &self.machines.shown()),
            ("GET", "/v1/allocation") => replied(200, self.machines.allocation(&identity.mac.to_string())),
            ("POST", "/v1/report") => self.report(request, &identity).await,
            ("GET", "/v1/stream") => stream(request.uri().query().unwrap_or("")),
            _ => refusal(&Refused { status: 404, reason: "no such path".to_owned() }),
        };
        (response, Some(identity))
    }

    async fn register(
        &self,
        request: Request<Incoming>,
        identity: &IdentityClaims,
        machine: &MachineClaims,
    ) -> Response<Body> {
        let inventory = match read_json(request).await {
            Ok(inventory) => inventory,
            Err(refused) => return refusal(&refused),
        };
        let place = Place {
            switch: identity.iss.to_string(),
            port: identity.sub.to_string(),
            partition: identity.partition.to_string(),
        };
        let (mac, id) = (identity.mac.to_string(), machine.machine_id.as_ref().map(ToString::to_string));
        replied(201, self.machines.register(mac, place, id, inventory))
    }

    async fn report(&self, request: Request<Incoming>, identity: &IdentityClaims) -> Response<Body> {
        let report = match read_json(request).await {
            Ok(report) => report,
            Err(refused) => return refusal(&refused),
        };
        let installed = report["installed"].as_str().unwrap_or_default();
        let done = self.machines.report(&identity.mac.to_string(), installed);
        replied(200, done.map(|()| json!({})))
    }
}

fn replied(status: u16, result: Result<Value, Refused>) -> Response<Body> {
    match result {
        Ok(value) => json_reply(status, &value),
        Err(refused) => refusal(&refused),
    }
}

async fn read_json(request: Request<Incoming>) -> Result<Value, Refused> {
    let body = read(request).await?;
    let invalid = |_| Refused { status: 400, reason: "the body is no JSON".to_owned() };
    serde_json::from_slice(&body).map_err(invalid)
}

fn whoami(identity: &IdentityClaims, machine: &MachineClaims, headers: &HeaderMap) -> Value {
    json!({
        "identity": identity,
        "token": { "sub": machine.sub, "mac": machine.mac, "machine_id": machine.machine_id },
        "headers": shown(headers)
    })
}

async fn read(request: Request<Incoming>) -> Result<Bytes, Refused> {
    match Limited::new(request.into_body(), BODY_LEN_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => Err(Refused { status: 413, reason: "the body is too large or broke off".to_owned() }),
    }
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (method, uri) = (request.method().to_string(), request.uri().clone());
    let headers = shown(request.headers());
    match read(request).await {
        Ok(body) => json_reply(
            200,
            &json!({
                "method": method, "path": uri.path(), "query": uri.query(), "headers": headers,
                "body": String::from_utf8_lossy(&body)
            }),
        ),
        Err(refused) => refusal(&refused),
    }
}

/// Server-sent events, `count=N` of them or for as long as somebody listens.
fn stream(query: &str) -> Response<Body> {
    let count = query.split('&').find_map(|part| part.strip_prefix("count=")?.parse::<u64>().ok());
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        let mut number = 0;
        while count.is_none_or(|count| number < count) {
            number += 1;
            if sender.send_data(Bytes::from(format!("data: {{\"tick\": {number}}}\n\n"))).await.is_err() {
                return;
            }
            tokio::time::sleep(TICK).await;
        }
    });
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

//! REST with HMAC type Metal-View, and the door for tests.

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use ring::hmac;
use serde_json::{Value, json};

use super::state::State;
use super::{Body, full};

/// Life of a signature, seconds.
const LIFETIME_S: i64 = 15;

fn reply(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn signed(request: &Request<Incoming>, key: &hmac::Key) -> Result<(), &'static str> {
    let field = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let presented = field(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Metal-View "));
    let (Some(presented), Some(date), Some(salt)) = (presented, field("x-date"), field("x-data-salt")) else {
        return Err("no signature");
    };
    let at: jiff::Timestamp = date.parse().map_err(|_| "no date")?;
    if jiff::Timestamp::now().duration_since(at).as_secs() > LIFETIME_S {
        return Err("the signature is too old");
    }
    let bytes: Option<Vec<u8>> = (0..presented.len() / 2)
        .map(|at| u8::from_str_radix(presented.get(at * 2..at * 2 + 2)?, 16).ok())
        .collect();
    let message = [date, request.method().as_str(), salt].concat();
    hmac::verify(key, message.as_bytes(), &bytes.unwrap_or_default()).map_err(|_| "wrong signature")
}

pub(super) fn answer(
    request: &Request<Incoming>,
    base: &str,
    key: &hmac::Key,
    state: &State,
) -> Response<Body> {
    let refused = |status, why| reply(status, &json!({ "message": why }));
    if let Err(why) = signed(request, key) {
        state.note("GET machine", None, "unauthorized");
        return refused(StatusCode::UNAUTHORIZED, why);
    }
    let path = request.uri().path();
    let id = path.strip_prefix(base).and_then(|path| path.strip_prefix("/v1/machine/"));
    match id {
        Some(id) if request.method() == Method::GET && state.knows(id) => {
            state.note("GET machine", Some(id), "ok");
            let allocation = json!({ "hostname": "machine", "image": { "id": "debian-13" } });
            reply(
                StatusCode::OK,
                &json!({ "id": id, "partition": { "id": "lab" }, "allocation": allocation }),
            )
        }
        _ => refused(StatusCode::NOT_FOUND, "no such machine"),
    }
}

pub(super) fn control(request: &Request<Incoming>, state: &State) -> Response<Body> {
    let path = request.uri().path();
    match (request.method(), path.strip_prefix("/allocate/")) {
        (&Method::GET, None) if path == "/calls" => reply(StatusCode::OK, &state.shown()),
        (&Method::POST, Some(id)) if state.allocate(id) => reply(StatusCode::OK, &json!({})),
        _ => reply(StatusCode::NOT_FOUND, &json!({})),
    }
}

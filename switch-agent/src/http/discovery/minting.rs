//! A token for the machine that asks, `POST /v1/token`, and why there is none.

use std::time::Duration;

use ::http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use switch_agent_core::desired::Dialect;
use switch_agent_core::discovery::headers::tells_of_forwarding;
use switch_agent_core::identity::MintRefusal;
use switch_agent_core::machines::ProxyStep;

use super::answer::{Refusal, json, token_bearing};
use super::body;
use super::incomer::{Incomer, Outcome};
use super::reply::ReplyBody;
use crate::http::tokens::{MintError, Minted};

const TOKEN_BODY_MAX: u64 = 4 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    machine_id: Option<uuid::Uuid>,
}

/// The header keeps a browser or a confused proxy from minting; a forwarding header tells that the machine
/// itself is not the one who asks.
fn check_token_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.keys().any(|name| tells_of_forwarding(name.as_str())) {
        let message = "no token for forwarded requests; ask from the machine itself";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "forwarded-request", message));
    }
    let mut values = headers.get_all("boot-token").iter();
    match (values.next().map(::http::HeaderValue::as_bytes), values.next()) {
        (Some(b"request"), None) => Ok(()),
        _ => {
            let message = "send the header Boot-Token: request";
            Err(Refusal::new(StatusCode::BAD_REQUEST, "boot-token-header-required", message))
        }
    }
}

/// `POST /v1/token`
pub(super) async fn token(incomer: &Incomer<'_>, request: Request<Incoming>) -> Outcome {
    let port = incomer.port;
    let outcome = mint(incomer, request).await;
    if let Err(refusal) = &outcome {
        port.shared.metrics.proxy.token_refused(refusal.code);
    }
    outcome
}

async fn mint(incomer: &Incomer<'_>, request: Request<Incoming>) -> Outcome {
    let port = incomer.port;
    let upstream = port.shared.current_upstream();
    let spec = upstream.as_ref().map(|upstream| upstream.spec());
    if spec.is_some_and(|spec| spec.dialect == Dialect::MetalStackV1) {
        let message = "this control API mints its own tokens; see its own paths";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "dialect-without-tokens", message));
    }
    let machine_id = asked_machine_id(incomer, request).await?.map(|id| id.to_string());
    let mac = incomer.known_mac().await?;
    let mode = spec.map(|spec| spec.machine_token).unwrap_or_default();
    let minted = {
        let _one = port.minting.try_lock().map_err(|_| mint_in_flight())?;
        if let Some(upstream) = &upstream {
            port.shared.reach.check(upstream).await?;
        }
        let context = port.context();
        port.shared.tokens.mint(&port.listener, &context, mac, machine_id.clone(), mode)?
    };
    port.shared.metrics.proxy.token_minted();
    incomer.report(Some(mac), ProxyStep::Token { machine_id });
    Ok(token_reply(&minted))
}

/// The machine id in a request for a token, which must be one.
pub(super) async fn asked_machine_id(
    incomer: &Incomer<'_>,
    request: Request<Incoming>,
) -> Result<Option<uuid::Uuid>, Refusal> {
    check_token_headers(request.headers())?;
    let body = body::read(request.into_body(), TOKEN_BODY_MAX, &incomer.port.shared.limits).await?;
    if body.is_empty() {
        return Ok(None);
    }
    let asked: TokenRequest = serde_json::from_slice(&body).map_err(|_| {
        let message = "the body is {\"machine_id\": \"<uuid>\"} or empty";
        Refusal::new(StatusCode::BAD_REQUEST, "body-invalid", message)
    })?;
    Ok(asked.machine_id)
}

/// The reply of `POST /v1/token`.
pub(super) fn token_reply(minted: &Minted) -> Response<ReplyBody> {
    let seconds = i64::try_from(minted.expires_at).unwrap_or(i64::MAX);
    let expires_at = jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default();
    let reply = serde_json::json!({
        "token": minted.token.expose(), "token_type": "Bearer", "expires_at": expires_at,
        "handle": minted.handle
    });
    token_bearing(json(StatusCode::OK, &reply))
}

pub(super) fn mint_in_flight() -> Refusal {
    let message = "a token of this port is being made already";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "mint-in-flight", message).retry_after(Duration::from_secs(1))
}

impl From<MintRefusal> for Refusal {
    fn from(refusal: MintRefusal) -> Refusal {
        let message = refusal.to_string();
        match refusal {
            MintRefusal::Rate { retry_after } => {
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too-many-tokens", message)
                    .retry_after(retry_after)
            }
            MintRefusal::Outdated => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "port-changed", message)
                .retry_after(Duration::from_secs(1)),
        }
    }
}

impl From<MintError> for Refusal {
    fn from(error: MintError) -> Refusal {
        let internal = |code| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, code, error.to_string());
        match &error {
            MintError::Refused(refusal) => (*refusal).into(),
            MintError::Sign(_) => internal("token-unsigned"),
            MintError::Random => internal("token-unmade"),
        }
    }
}

//! What machines ask for in this dialect.

use std::sync::Arc;

use ::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use switch_agent_core::discovery::Target;
use switch_agent_core::discovery::headers::tells_of_forwarding;
use switch_agent_core::discovery::metal_stack_v2::connect::{Code, ConnectError, ErrorForm};
use switch_agent_core::discovery::metal_stack_v2::{bears_secret, config, is_procedure, is_withheld};
use switch_agent_core::machines::ProxyStep;
use tokio::time::Instant;

use super::super::answer::{Refusal, json, token_bearing};
use super::super::api::{self, Pass, exchange};
use super::super::incomer::{Incomer, Outcome};
use super::super::minting::{asked_machine_id, token_reply};
use super::super::reply::{ReplyBody, full};
use super::super::routes::machine_config;
use super::grants::{Obtained, lasting, obtain};
use super::{refresh, told};
use crate::http::tokens::binding;
use crate::http::upstream::Upstream;

const CONFIG: &str = "/config/";

/// Whether a request is one of this dialect, on a switch whose control API speaks it.
pub fn takes(incomer: &Incomer<'_>, target: &Target) -> bool {
    let path = target.path();
    let ours = path == "/v1/token" || path.starts_with(CONFIG) || is_procedure(target);
    ours && incomer.port.shared.metal_stack_v2_upstream().is_some()
}

/// Serves a request that is one: its route for the metrics, and the reply.
pub async fn serve(
    incomer: &Incomer<'_>,
    request: Request<Incoming>,
    target: &Target,
) -> (&'static str, Outcome) {
    let Some(upstream) = incomer.port.shared.metal_stack_v2_upstream() else {
        return ("other", Err(Refusal::not_found()));
    };
    let get = request.method() == Method::GET;
    let post = request.method() == Method::POST;
    match target.path().strip_prefix(CONFIG) {
        Some(uuid) if get => ("config", counted(incomer, config(incomer, &request, uuid, &upstream).await)),
        Some(_) => ("method", Err(Refusal::method("GET"))),
        None if !post => ("method", Err(Refusal::method("POST"))),
        None if target.path() == "/v1/token" => {
            ("token", counted(incomer, token(incomer, request, &upstream).await))
        }
        None => {
            let form = ErrorForm::of(content_type(request.headers()));
            let kind = request.headers().get(CONTENT_TYPE).cloned();
            let outcome = forward(incomer, request, target, &upstream).await;
            ("connect", Ok(outcome.unwrap_or_else(|refusal| error_reply(incomer, &refusal, form, kind))))
        }
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn counted(incomer: &Incomer<'_>, outcome: Outcome) -> Outcome {
    if let Err(refusal) = &outcome {
        incomer.port.shared.metrics.proxy.token_refused(refusal.code);
    }
    outcome
}

/// A refusal as Connect callers understand it.
fn error_reply(
    incomer: &Incomer<'_>,
    refusal: &Refusal,
    form: ErrorForm,
    kind: Option<HeaderValue>,
) -> Response<ReplyBody> {
    let port = &incomer.port.listener.port;
    incomer.port.shared.metrics.proxy.rejected(refusal.code);
    tracing::debug!(%port, code = refusal.code, "refused");
    let error =
        ConnectError { code: Code::of_refusal(refusal.status.as_u16()), message: refusal.message.clone() };
    match (form, kind) {
        (ErrorForm::Stream, Some(kind)) => {
            let mut response = Response::new(full(error.end_of_stream()));
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => {
            let mut response = json(refusal.status, &error);
            if let Some(after) = refusal.retry_after {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
            }
            response
        }
    }
}

fn machine_id(text: &str) -> Result<String, Refusal> {
    let parsed = uuid::Uuid::try_parse(text).ok().filter(|id| text.len() == 36 && !id.is_nil());
    parsed.map(|id| id.to_string()).ok_or_else(|| {
        Refusal::new(StatusCode::BAD_REQUEST, "machine-id-invalid", "the machine id is a UUID")
    })
}

/// `GET /config/{uuid}`. There is no header that says that a token is wanted: metal-hammer sends none.
async fn config(
    incomer: &Incomer<'_>,
    request: &Request<Incoming>,
    uuid: &str,
    upstream: &Arc<Upstream>,
) -> Outcome {
    if request.headers().keys().any(|name| tells_of_forwarding(name.as_str())) {
        let message = "no token for forwarded requests; ask from the machine itself";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "forwarded-request", message));
    }
    let uuid = machine_id(uuid)?;
    let mac = incomer.known_mac().await?;
    let shared = &incomer.port.shared;
    let more = machine_config(incomer, &incomer.port.context()).await?;
    let more = more.map(|config| config.object).unwrap_or_default();
    let Obtained { minted, fresh } = obtain(incomer, upstream, mac, &uuid).await?;
    if fresh {
        incomer.report(Some(mac), ProxyStep::Token { machine_id: Some(uuid.clone()) });
    }
    incomer.report(Some(mac), ProxyStep::Config);
    refresh::learn(shared, upstream, &incomer.port.context()).await;
    let context = told(incomer.port).context;
    let document = config::document(&context, &uuid, minted.token.expose(), &more);
    Ok(token_bearing(json(StatusCode::OK, &document)))
}

/// `POST /v1/token`: the same token, for machines that know no metal-stack.
async fn token(incomer: &Incomer<'_>, request: Request<Incoming>, upstream: &Arc<Upstream>) -> Outcome {
    let asked = asked_machine_id(incomer, request).await?;
    let mac = incomer.known_mac().await?;
    let shared = &incomer.port.shared;
    let context = incomer.port.context();
    let known = || shared.metal_stack_v2.heard(&binding(&incomer.port.listener, &context, mac));
    let Some(uuid) = asked.map(|id| id.to_string()).or_else(known) else {
        let message =
            "this control API has tokens for machines it can name: send {\"machine_id\": \"<uuid>\"}";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "machine-id-required", message));
    };
    let Obtained { minted, fresh } = obtain(incomer, upstream, mac, &uuid).await?;
    if fresh {
        incomer.report(Some(mac), ProxyStep::Token { machine_id: Some(uuid) });
    }
    Ok(token_reply(&minted))
}

/// `POST /metalstack.<package>.<Service>/<Method>`.
async fn forward(
    incomer: &Incomer<'_>,
    request: Request<Incoming>,
    target: &Target,
    upstream: &Arc<Upstream>,
) -> Outcome {
    let port = incomer.port;
    let shared = &port.shared;
    let context = port.context();
    let mac = incomer.known_mac().await?;
    let right = api::authorize(incomer, &context, mac, request.headers()).inspect_err(|refusal| {
        shared.metrics.proxy.token_refused(refusal.code);
    })?;
    if is_withheld(target) {
        let message = "tokens are made by the switch";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "path-not-allowed", message));
    }
    let at = binding(&port.listener, &context, mac);
    shared.metal_stack_v2.heard(&at);
    let right = lasting(incomer, upstream, &at, right).await?;
    let rules = api::rules(&context, upstream.spec().dialect);
    let pass = Pass { mac, right, rules, prefix: "" };
    let response = exchange(incomer, request, target, upstream, pass).await?;
    if response.status() == StatusCode::UNAUTHORIZED {
        shared.tokens.ends(&at, Instant::now());
    }
    Ok(if bears_secret(target) { token_bearing(response) } else { response })
}

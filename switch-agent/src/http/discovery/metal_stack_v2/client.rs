//! The agent's own calls: unary Connect RPC in JSON, with the agent's own token.

use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use ::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use switch_agent_core::discovery::metal_stack_v2::connect::{Code, ConnectError};
use switch_agent_core::discovery::metal_stack_v2::messages::procedure::TOKEN_CREATE;
use switch_agent_core::discovery::metal_stack_v2::messages::{TokenCreate, TokenCreated};

use super::super::answer::Refusal;
use super::super::api;
use crate::http::discovery::body::at_hand;
use crate::http::tokens::Secret;
use crate::http::upstream::{Upstream, UpstreamError};
use crate::metrics::Metrics;

/// From sending a call to the end of its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A switch with some hundred ports is tens of KiB.
const ANSWER_LEN_MAX: usize = 1 << 20;
const RETRY: Duration = Duration::from_secs(5);

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("control_api_token_file is not set: the agent has no token for its own calls")]
    NoToken,
    #[error("the agent's token is no header text")]
    Token,
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("the API refused: {0}")]
    Refused(ConnectError),
    #[error("the API's answer is longer than {ANSWER_LEN_MAX} bytes, or broke off")]
    Answer,
    #[error("the API's answer is not what the procedure answers")]
    Malformed,
}

impl CallError {
    /// Label for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            CallError::NoToken | CallError::Token => "agent-token-missing",
            CallError::Upstream(error) => error.code(),
            CallError::Refused(error) => error.code.as_str(),
            CallError::Answer | CallError::Malformed => "malformed",
        }
    }

    /// Whether it may go well later without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        match self {
            CallError::Upstream(_) | CallError::Answer => true,
            CallError::Refused(error) => error.code.is_passing(),
            CallError::NoToken | CallError::Token | CallError::Malformed => false,
        }
    }

    /// What the machine is told whose request led to the call.
    pub fn refusal(&self) -> Refusal {
        let away = |code, message: &str| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(RETRY)
        };
        match self {
            CallError::Upstream(error) => api::refusal(error),
            CallError::NoToken | CallError::Token => {
                away("agent-token-missing", "the switch has no token for the control API; see its log")
            }
            CallError::Refused(error) if error.code.is_passing() => {
                away("upstream-unavailable", "the control API is not able to answer now")
            }
            CallError::Refused(ConnectError {
                code: Code::Unauthenticated | Code::PermissionDenied, ..
            }) => away("agent-not-allowed", "the control API does not let the switch do that; see its log"),
            CallError::Refused(_) => {
                let message = "the control API refused what the switch asked for this machine";
                Refusal::new(StatusCode::BAD_GATEWAY, "upstream-refused", message)
            }
            CallError::Answer | CallError::Malformed => {
                let message = "the control API's answer cannot be used";
                Refusal::new(StatusCode::BAD_GATEWAY, "upstream-broken", message)
            }
        }
    }
}

/// Makes one call of the agent's own.
pub async fn call<Q: Serialize + Sync, A: DeserializeOwned>(
    upstream: &Upstream,
    metrics: &Metrics,
    procedure: &'static str,
    question: &Q,
) -> Result<A, CallError> {
    let asked = tokio::time::timeout(CALL_TIMEOUT, ask(upstream, procedure, question)).await;
    let answer = asked.unwrap_or(Err(CallError::Upstream(UpstreamError::Timeout)));
    let outcome = answer.as_ref().map_or_else(CallError::code, |_| "ok");
    metrics.metal_stack_v2.called(procedure.rsplit('.').next().unwrap_or(procedure), outcome);
    answer
}

async fn ask<Q: Serialize + Sync, A: DeserializeOwned>(
    upstream: &Upstream,
    procedure: &'static str,
    question: &Q,
) -> Result<A, CallError> {
    let token = upstream.agent_token().ok_or(CallError::NoToken)?;
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| CallError::Token)?;
    bearer.set_sensitive(true);
    let body = serde_json::to_vec(question).map_err(|_| CallError::Malformed)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}{}{procedure}", upstream.origin(), upstream.spec().base))
        .header(CONTENT_TYPE, "application/json")
        .header(HeaderName::from_static("connect-protocol-version"), "1")
        .header(AUTHORIZATION, bearer)
        .body(at_hand(body))
        .map_err(|error| UpstreamError::Unusable(error.to_string()))?;
    let response = upstream.send(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LEN_MAX).collect().await;
    let body = body.map_err(|_| CallError::Answer)?.to_bytes();
    if status == StatusCode::OK {
        // The error would quote the answer, which may be a token.
        serde_json::from_slice(&body).map_err(|_| CallError::Malformed)
    } else {
        Err(CallError::Refused(ConnectError::of_reply(status.as_u16(), &body)))
    }
}

/// A token that the API made.
pub struct Created {
    pub id: String,
    pub secret: Secret,
}

/// `TokenService.Create`.
pub async fn create_token(
    upstream: &Upstream,
    metrics: &Metrics,
    question: &TokenCreate,
) -> Result<Created, CallError> {
    let created: TokenCreated = call(upstream, metrics, TOKEN_CREATE, question).await?;
    let TokenCreated { token, secret } = created;
    let plain = !secret.is_empty() && secret.bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(Created { id: token.uuid, secret: secret.into() }) } else { Err(CallError::Malformed) }
}

//! Replies that the proxy makes itself.

use std::time::Duration;

use ::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use ::http::{Response, StatusCode};
use serde::Serialize;
use switch_agent_core::name::PortName;

use super::body::BodyFailure;
use super::reply::{ReplyBody, full};

/// Extension of a response that holds a secret of this machine alone: the connection's packets are not
/// forwarded from then on (hop limit 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBearing;

/// A request that is not served, and what the machine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people at the machine's console.
    pub message: String,
    pub retry_after: Option<Duration>,
    pub allow: Option<&'static str>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into(), retry_after: None, allow: None }
    }

    pub fn retry_after(self, after: Duration) -> Refusal {
        Refusal { retry_after: Some(after), ..self }
    }

    pub fn method(allow: &'static str) -> Refusal {
        let message = format!("this path takes {allow}");
        Refusal {
            allow: Some(allow),
            ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message)
        }
    }

    pub fn not_found() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "not-found", "no such path; see GET /v1/boot")
    }

    pub fn into_response(self, port: &PortName) -> Response<ReplyBody> {
        let value = serde_json::json!({
            "error": { "code": self.code, "message": self.message, "port": port }
        });
        let mut response = json(self.status, &value);
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            // At least a second, and never before the time.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<BodyFailure> for Refusal {
    fn from(failure: BodyFailure) -> Refusal {
        let (status, code) = match failure {
            BodyFailure::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"),
            BodyFailure::TooSlow => (StatusCode::REQUEST_TIMEOUT, "body-too-slow"),
            BodyFailure::Broken => (StatusCode::BAD_REQUEST, "body-broken"),
        };
        Refusal::new(status, code, failure.to_string())
    }
}

/// A reply that only its machine may keep.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<ReplyBody> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    reply(status, "application/json", text)
}

pub fn text(status: StatusCode, text: String) -> Response<ReplyBody> {
    reply(status, "text/plain; charset=utf-8", text.into_bytes())
}

/// Marks a reply as [`TokenBearing`].
pub fn token_bearing(mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    response.extensions_mut().insert(TokenBearing);
    response
}

fn reply(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<ReplyBody> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

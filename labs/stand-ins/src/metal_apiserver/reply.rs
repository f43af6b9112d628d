//! Replies as Connect has them.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Flag of the last envelope of a stream.
const END_STREAM: u8 = 0b10;

/// An error of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Refused {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Refused {
        Refused { code, message: message.into() }
    }

    fn status(&self) -> StatusCode {
        match self.code {
            "unauthenticated" => StatusCode::UNAUTHORIZED,
            "permission_denied" => StatusCode::FORBIDDEN,
            "not_found" => StatusCode::NOT_FOUND,
            "unimplemented" => StatusCode::NOT_IMPLEMENTED,
            "already_exists" | "aborted" => StatusCode::CONFLICT,
            "invalid_argument" | "failed_precondition" | "out_of_range" => StatusCode::BAD_REQUEST,
            "resource_exhausted" => StatusCode::TOO_MANY_REQUESTS,
            "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn json(&self) -> Value {
        json!({ "code": self.code, "message": self.message })
    }
}

pub(crate) fn fixed(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The reply of a unary call.
pub(crate) fn unary(answer: Result<Value, Refused>) -> Response<Body> {
    match answer {
        Ok(value) => fixed(StatusCode::OK, "application/json", value.to_string()),
        Err(refused) => fixed(refused.status(), "application/json", refused.json().to_string()),
    }
}

fn envelope(flags: u8, value: &Value) -> Bytes {
    let body = value.to_string();
    let mut bytes = vec![flags];
    bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(body.into_bytes());
    bytes.into()
}

/// One message of a stream.
pub(crate) fn message(value: &Value) -> Bytes {
    envelope(0, value)
}

/// The last envelope of a stream.
pub(crate) fn end(refused: Option<&Refused>) -> Bytes {
    let value = refused.map_or(json!({}), |refused| json!({ "error": refused.json() }));
    envelope(END_STREAM, &value)
}

/// The message in the first envelope of a streaming request, which must be its only one.
pub(crate) fn only_message(body: &[u8]) -> Option<&[u8]> {
    let (head, rest) = body.split_first_chunk::<5>()?;
    let [0, length @ ..] = *head else { return None };
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    (rest.len() == length).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_hold_one_message() {
        let bytes = message(&json!({ "uuid": "m" }));
        assert_eq!(only_message(&bytes), Some(br#"{"uuid":"m"}"#.as_slice()));
        assert_eq!(only_message(&bytes[..bytes.len() - 1]), None);
        assert_eq!(only_message(&[]), None);
        assert_eq!(only_message(&end(None)), None, "flags");
        let refused = Refused::new("unauthenticated", "no");
        assert_eq!(end(Some(&refused))[5..], br#"{"error":{"code":"unauthenticated","message":"no"}}"#[..]);
    }
}

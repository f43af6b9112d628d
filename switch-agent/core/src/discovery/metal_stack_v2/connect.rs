//! Errors of the Connect protocol (connectrpc.com, "Error codes", "Error end-stream").

use serde::{Deserialize, Serialize};

/// Longest message of the API that is kept, in characters.
const MESSAGE_LEN_MAX: usize = 512;
/// Flag of the last envelope of a stream.
const END_STREAM: u8 = 0b10;

/// Connect's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    Canceled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    /// What a reply without a Connect error means (the protocol's "HTTP to error code").
    pub fn of_reply(status: u16) -> Code {
        match status {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        }
    }

    /// How a request that is refused with an HTTP status is refused in Connect's words.
    pub fn of_refusal(status: u16) -> Code {
        match status {
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 | 405 => Code::Unimplemented,
            408 | 504 => Code::DeadlineExceeded,
            413 | 414 | 429 | 431 => Code::ResourceExhausted,
            502 | 503 => Code::Unavailable,
            400..=499 => Code::InvalidArgument,
            _ => Code::Internal,
        }
    }

    /// Whether it may go well later without anybody doing anything.
    pub fn is_passing(self) -> bool {
        matches!(self, Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted)
    }

    /// The code as the protocol spells it; label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Canceled => "canceled",
            Code::Unknown => "unknown",
            Code::InvalidArgument => "invalid_argument",
            Code::DeadlineExceeded => "deadline_exceeded",
            Code::NotFound => "not_found",
            Code::AlreadyExists => "already_exists",
            Code::PermissionDenied => "permission_denied",
            Code::ResourceExhausted => "resource_exhausted",
            Code::FailedPrecondition => "failed_precondition",
            Code::Aborted => "aborted",
            Code::OutOfRange => "out_of_range",
            Code::Unimplemented => "unimplemented",
            Code::Internal => "internal",
            Code::Unavailable => "unavailable",
            Code::DataLoss => "data_loss",
            Code::Unauthenticated => "unauthenticated",
        }
    }
}

/// An error as Connect puts it on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct ConnectError {
    pub code: Code,
    #[serde(default)]
    pub message: String,
}

impl ConnectError {
    /// What a reply that is no success says.
    pub fn of_reply(status: u16, body: &[u8]) -> ConnectError {
        let mut error = serde_json::from_slice(body).unwrap_or_else(|_| ConnectError {
            code: Code::of_reply(status),
            message: format!("HTTP status {status}"),
        });
        // It ends up in logs.
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        error.message = error.message.chars().take(MESSAGE_LEN_MAX).map(clean).collect();
        error
    }

    /// The last envelope of a stream that fails.
    pub fn end_of_stream(&self) -> Vec<u8> {
        let body = serde_json::json!({ "error": self }).to_string();
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut envelope = vec![END_STREAM];
        envelope.extend(length.to_be_bytes());
        envelope.extend(body.into_bytes());
        envelope
    }
}

/// How a caller expects to be told of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorForm {
    /// A JSON body, under the status that says the same.
    Unary,
    /// Status 200, and the error in the last envelope of a stream of the request's own content type.
    Stream,
}

impl ErrorForm {
    /// By the request's content type. gRPC callers map the HTTP status.
    pub fn of(content_type: &str) -> ErrorForm {
        if content_type.starts_with("application/connect+") { ErrorForm::Stream } else { ErrorForm::Unary }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_where_there_are_any() {
        let body = br#"{"code": "permission_denied", "message": "no\u001b[31m way", "details": []}"#;
        let error = ConnectError::of_reply(403, body);
        assert_eq!((error.code, error.message.as_str()), (Code::PermissionDenied, "no [31m way"));
        assert_eq!(error.to_string(), "permission_denied: no [31m way");
        for (status, code) in [
            (401, Code::Unauthenticated),
            (404, Code::Unimplemented),
            (503, Code::Unavailable),
            (418, Code::Unknown),
        ] {
            assert_eq!(ConnectError::of_reply(status, b"<html>").code, code, "{status}");
        }
        assert_eq!(ConnectError::of_reply(500, br#"{"code": "teapot"}"#).code, Code::Unknown);
        assert!(ConnectError::of_reply(500, &[b'"'; 9000]).message.len() < 600);
    }

    #[test]
    fn codes_are_spelled_alike_everywhere() {
        for status in 400..600 {
            for code in [Code::of_reply(status), Code::of_refusal(status)] {
                assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            }
        }
        assert!(Code::of_reply(503).is_passing() && !Code::of_reply(401).is_passing());
    }

    #[test]
    fn a_failed_stream_ends_in_an_envelope() {
        let error = ConnectError { code: Code::Unauthenticated, message: "x".to_owned() };
        let envelope = error.end_of_stream();
        let body = br#"{"error":{"code":"unauthenticated","message":"x"}}"#;
        assert_eq!(envelope[..5], [2, 0, 0, 0, u8::try_from(body.len()).unwrap()]);
        assert_eq!(envelope[5..], body[..]);
        assert_eq!(ErrorForm::of("application/connect+proto"), ErrorForm::Stream);
        assert_eq!(ErrorForm::of("application/json"), ErrorForm::Unary);
    }
}

//! Replies of gRPC: a refusal with a status, and a stream whose end is never better than it was.

use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use ::http::{HeaderMap, Response};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use switch_agent_core::discovery::headers::Hygiene;

use crate::http::discovery::body::{BoxError, filter_trailers};
use crate::http::discovery::reply::{ReplyBody, full};

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
pub const GRPC_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// Status codes of gRPC that the proxy answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    InvalidArgument = 3,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// A call that is not served.
#[derive(Debug)]
pub struct Status {
    pub code: Code,
    /// Stable; label for metrics.
    pub reason: &'static str,
    /// Plain ASCII without `%`: needs no encoding in `grpc-message`.
    pub message: String,
}

impl Status {
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into() }
    }

    fn write(&self, headers: &mut HeaderMap) {
        headers.insert(GRPC_STATUS, HeaderValue::from(self.code as u16));
        if let Ok(message) = HeaderValue::try_from(self.message.as_str()) {
            headers.insert(GRPC_MESSAGE, message);
        }
    }

    /// The reply: trailers alone.
    pub fn into_response(self) -> Response<ReplyBody> {
        let mut response = Response::new(full(Bytes::new()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        self.write(headers);
        if self.code == Code::Unimplemented {
            headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

/// The reply's messages and trailers on their way down, as they come. Where metal-api is lost before it
/// said how the call ended, the machine is told so: a call that only seems to end well would make a waiting
/// machine install.
struct Relayed {
    inner: Incoming,
    hygiene: Hygiene,
    ended: bool,
}

/// `told` says whether the reply's header has the status already.
pub fn relay(inner: Incoming, hygiene: Hygiene, told: bool) -> ReplyBody {
    if told && inner.is_end_stream() {
        return full(Bytes::new());
    }
    ReplyBody::new(Relayed { inner, hygiene, ended: false })
}

fn lost() -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    Status::new(Code::Unavailable, "upstream-broken", "the switch lost the control API").write(&mut trailers);
    Frame::trailers(trailers)
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                tracing::debug!(%error, "control API broke off a call");
                lost()
            }
            None => lost(),
        };
        let frame = match frame.into_trailers() {
            Err(data) => data,
            Ok(trailers) => {
                self.ended = true;
                if trailers.contains_key(GRPC_STATUS) {
                    filter_trailers(Frame::trailers(trailers), |name| self.hygiene.passes_down(name))
                } else {
                    lost()
                }
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

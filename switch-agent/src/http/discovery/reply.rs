//! Replies to machines: at hand, or streamed from the control API, bounded, and ended with what opened them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use switch_agent_core::discovery::headers::Hygiene;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::body::{BoxError, filter_trailers};
use crate::http::listener::wire::ActiveRequest;

/// The token that opened the stream is gone.
#[derive(Debug, thiserror::Error)]
#[error("the token of this stream was revoked")]
struct Revoked;

/// The control API's reply is longer than the switch carries.
#[derive(Debug, thiserror::Error)]
#[error("the control API's reply is too large for the switch")]
struct ReplyTooLarge;

/// Body of a reply to a machine.
pub struct ReplyBody {
    source: Source,
    /// Breaks the reply off, and the exchange with the control API with it.
    ends: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Dropped when the reply is through.
    _active: Option<ActiveRequest>,
}

enum Source {
    Full(Full<Bytes>),
    Down(Down),
    Other(UnsyncBoxBody<Bytes, BoxError>),
}

/// A body that is at hand.
pub fn full(bytes: impl Into<Bytes>) -> ReplyBody {
    Source::Full(Full::new(bytes.into())).into()
}

/// The control API's body on its way down. `length_max` is `None` for streams.
pub fn down(inner: Incoming, hygiene: Hygiene, length_max: Option<u64>) -> ReplyBody {
    Source::Down(Down { inner, hygiene, left: length_max.unwrap_or(u64::MAX) }).into()
}

impl From<Source> for ReplyBody {
    fn from(source: Source) -> ReplyBody {
        ReplyBody { source, ends: None, _active: None }
    }
}

impl ReplyBody {
    pub fn new(body: impl Body<Data = Bytes, Error = BoxError> + Send + 'static) -> ReplyBody {
        Source::Other(body.boxed_unsync()).into()
    }

    /// The same, broken off when the token is cancelled.
    pub fn ending_with(self, token: CancellationToken) -> ReplyBody {
        ReplyBody { ends: Some(Box::pin(token.cancelled_owned())), ..self }
    }

    /// The same, which keeps the mark of an active request until it is through.
    pub fn of(self, active: ActiveRequest) -> ReplyBody {
        ReplyBody { _active: Some(active), ..self }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err(Box::new(Revoked))));
        }
        match &mut self.source {
            Source::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Source::Down(body) => body.poll_frame(cx),
            Source::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(body) => body.is_end_stream(),
            Source::Down(body) => body.inner.is_end_stream(),
            Source::Other(body) => body.is_end_stream(),
        }
    }

    /// Known where the API told a length: the machine then sees one too, and can tell a torso.
    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(body) => body.size_hint(),
            Source::Down(body) => body.inner.size_hint(),
            Source::Other(body) => body.size_hint(),
        }
    }
}

struct Down {
    inner: Incoming,
    hygiene: Hygiene,
    left: u64,
}

impl Down {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()? else {
            return Poll::Ready(None);
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(left) = self.left.checked_sub(bytes) else {
            tracing::warn!("reply of the control API was cut: too large");
            return Poll::Ready(Some(Err(Box::new(ReplyTooLarge))));
        };
        self.left = left;
        let hygiene = &self.hygiene;
        Poll::Ready(Some(Ok(filter_trailers(frame, |name| hygiene.passes_down(name)))))
    }
}

//! Replies that end with what opened them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::body::{BoxError, ReplyBody};

/// The token that opened the stream is gone.
#[derive(Debug, thiserror::Error)]
#[error("the token of this stream was revoked")]
struct Revoked;

/// Breaks off when its token is cancelled: the exchange with the control API ends with it.
pub struct Ending {
    inner: ReplyBody,
    ends: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Ending {
    pub fn boxed(inner: ReplyBody, ends: CancellationToken) -> ReplyBody {
        Ending { inner, ends: Box::pin(ends.cancelled_owned()) }.boxed_unsync()
    }
}

impl Body for Ending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ends.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Box::new(Revoked))));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

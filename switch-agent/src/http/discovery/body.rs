//! Bodies of requests on their way up: streamed, bounded, and watched for progress.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use ::http::HeaderMap;
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use switch_agent_core::discovery::Limits;
use switch_agent_core::discovery::headers::Hygiene;
use tokio::time::{Instant, Sleep};

pub type BoxError = Box<dyn Error + Send + Sync>;

/// Body of a request to the control API: at hand, or a machine's on its way up.
pub type RequestBody = Either<Full<Bytes>, Box<UpBody>>;

/// A body that is at hand.
pub fn at_hand(bytes: impl Into<Bytes>) -> RequestBody {
    Either::Left(Full::new(bytes.into()))
}

/// Why a machine's body was not taken to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFailure {
    #[error("the request body is too large")]
    TooLarge,
    #[error("the request body came too slowly")]
    TooSlow,
    #[error("the request body broke off")]
    Broken,
}

/// What becomes of a machine's body while somebody else holds it.
#[derive(Debug)]
pub struct Progress {
    last: Mutex<Instant>,
    failure: OnceLock<BodyFailure>,
}

impl Progress {
    /// When the body last moved.
    pub fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn failure(&self) -> Option<BodyFailure> {
        self.failure.get().copied()
    }
}

/// A machine's body on its way up.
pub struct UpBody {
    inner: Incoming,
    hygiene: Hygiene,
    received: u64,
    length_max: u64,
    rate: u64,
    stall: std::time::Duration,
    started: Instant,
    /// From the first time that the body was waited for.
    deadline: Option<Pin<Box<Sleep>>>,
    progress: Arc<Progress>,
}

impl UpBody {
    /// `length_max` in bytes; `hygiene` is that of the request, and applies to its trailers.
    pub fn new(
        inner: Incoming,
        hygiene: Hygiene,
        length_max: u64,
        limits: &Limits,
    ) -> (UpBody, Arc<Progress>) {
        let now = Instant::now();
        let progress = Arc::new(Progress { last: Mutex::new(now), failure: OnceLock::new() });
        let body = UpBody {
            inner,
            hygiene,
            received: 0,
            length_max,
            rate: limits.body_rate,
            stall: limits.body_stall_timeout,
            started: now,
            deadline: None,
            progress: progress.clone(),
        };
        (body, progress)
    }

    fn fail(&self, failure: BodyFailure) -> BoxError {
        self.progress.failure.set(failure).ok();
        Box::new(failure)
    }

    fn took(&mut self, bytes: usize) -> Result<(), BoxError> {
        let now = Instant::now();
        self.received = self.received.saturating_add(bytes as u64);
        if self.received > self.length_max {
            return Err(self.fail(BodyFailure::TooLarge));
        }
        let elapsed = now - self.started;
        if elapsed > self.stall && self.received < self.rate.saturating_mul(elapsed.as_secs()) {
            return Err(self.fail(BodyFailure::TooSlow));
        }
        *self.progress.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
        if let Some(deadline) = &mut self.deadline {
            deadline.as_mut().reset(now + self.stall);
        }
        Ok(())
    }
}

impl Body for UpBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => {
                let end = self.progress.last() + self.stall;
                let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
                ready!(deadline.as_mut().poll(cx));
                return Poll::Ready(Some(Err(self.fail(BodyFailure::TooSlow))));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(self.fail(BodyFailure::Broken)))),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if let Err(error) = self.took(bytes) {
            return Poll::Ready(Some(Err(error)));
        }
        let hygiene = &self.hygiene;
        Poll::Ready(Some(Ok(filter_trailers(frame, |name| hygiene.passes_up(name)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reads a whole body that one of the proxy's own routes takes.
pub async fn read(body: Incoming, length_max: u64, limits: &Limits) -> Result<Bytes, BodyFailure> {
    if body.size_hint().lower() > length_max {
        return Err(BodyFailure::TooLarge);
    }
    let (body, progress) = UpBody::new(body, Hygiene::default(), length_max, limits);
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(_) => Err(progress.failure().unwrap_or(BodyFailure::Broken)),
    }
}

/// A new map of the fields whose names pass, with room for `more`.
pub fn passing(headers: HeaderMap, more: usize, passes: impl Fn(&str) -> bool) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len() + more);
    let mut current = None;
    for (name, value) in headers {
        // Further values of a field come without its name.
        if let Some(name) = name {
            current = passes(name.as_str()).then_some(name);
        }
        if let Some(name) = &current {
            kept.append(name, value);
        }
    }
    kept
}

/// The frame with those of its trailers whose names pass; data as it is.
pub fn filter_trailers(frame: Frame<Bytes>, passes: impl Fn(&str) -> bool) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(passing(trailers, 0, passes)),
        Err(frame) => frame,
    }
}

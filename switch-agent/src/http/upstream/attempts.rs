//! Which requests are tried again, and a body that can be sent again as long as nobody took of it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::Method;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use ring::rand::{SecureRandom, SystemRandom};

use super::UpstreamError;
use crate::http::discovery::body::{BoxError, RequestBody, at_hand};

/// Pause before the second attempt; it triples with each one after.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A request's body between attempts; `None` where it never had any bytes.
#[derive(Clone)]
pub(super) struct Slot(Option<Arc<Mutex<Option<RequestBody>>>>);

fn lock(slot: &Mutex<Option<RequestBody>>) -> MutexGuard<'_, Option<RequestBody>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    pub(super) fn new(body: RequestBody) -> Slot {
        Slot((!body.is_end_stream()).then(|| Arc::new(Mutex::new(Some(body)))))
    }

    /// Whether nothing of the body was taken.
    pub(super) fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|slot| lock(slot).is_some())
    }

    /// Puts back a body that never had any bytes.
    pub(super) fn refill_empty(&self) {
        if let Some(slot) = &self.0 {
            *lock(slot) = Some(at_hand(""));
        }
    }

    /// The body of one attempt.
    pub(super) fn lend(&self) -> Lent {
        Lent { slot: self.0.clone(), body: None }
    }
}

/// Takes the body out of its slot when the first byte is asked for.
pub(super) struct Lent {
    slot: Option<Arc<Mutex<Option<RequestBody>>>>,
    body: Option<RequestBody>,
}

impl Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let (None, Some(slot)) = (&self.body, &self.slot) {
            let taken = lock(slot).take();
            self.body = taken;
        }
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match (&self.body, &self.slot) {
            (Some(body), _) => body.is_end_stream(),
            (None, Some(slot)) => lock(slot).as_ref().is_none_or(Body::is_end_stream),
            (None, None) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.body, &self.slot) {
            (Some(body), _) => body.size_hint(),
            (None, Some(slot)) => lock(slot).as_ref().map(Body::size_hint).unwrap_or_default(),
            (None, None) => SizeHint::with_exact(0),
        }
    }
}

/// Whether a request may be repeated although it may have had its effect (RFC 9110 section 9.2.2). One with
/// a body is not: its bytes are gone.
pub(super) fn repeatable(method: &Method, body: &RequestBody) -> bool {
    let idempotent =
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(method);
    idempotent && (body.is_end_stream() || body.size_hint().exact() == Some(0))
}

/// Whether another attempt can succeed without doing anything twice. `whole`: nothing of the body was taken.
pub(super) fn try_again(error: &UpstreamError, whole: bool, repeatable: bool) -> bool {
    match error {
        // Nothing was sent.
        UpstreamError::Connect(_) => whole || repeatable,
        UpstreamError::Exchange(_) => repeatable,
        _ => false,
    }
}

/// How long to wait after the `failed`th attempt (from 1): half to one and a half of what the number says, so
/// that switches that lost the control API together do not come back together.
pub(super) fn pause(failed: u32) -> Duration {
    let mut random = [0; 1];
    // Without random numbers the pause is only less scattered.
    SystemRandom::new().fill(&mut random).ok();
    let whole = FIRST_PAUSE * 3u32.saturating_pow(failed.saturating_sub(1).min(4));
    whole / 2 + whole * u32::from(random[0]) / 255
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn body(bytes: &'static [u8]) -> RequestBody {
        at_hand(bytes)
    }

    #[tokio::test]
    async fn a_body_is_whole_until_it_is_asked_for() {
        let slot = Slot::new(body(b"abc"));
        let first = slot.lend();
        assert_eq!(first.size_hint().exact(), Some(3));
        drop(first);
        assert!(slot.is_whole());
        assert_eq!(slot.lend().collect().await.unwrap().to_bytes(), "abc");
        assert!(!slot.is_whole());
        let nothing = Slot::new(at_hand(""));
        assert_eq!(nothing.lend().collect().await.unwrap().to_bytes(), "");
        assert!(nothing.is_whole() && nothing.lend().is_end_stream());
        assert_eq!(nothing.lend().size_hint().exact(), Some(0));
    }

    #[test]
    fn only_what_did_nothing_is_repeated() {
        assert!(repeatable(&Method::GET, &body(b"")) && repeatable(&Method::DELETE, &body(b"")));
        assert!(!repeatable(&Method::POST, &body(b"")) && !repeatable(&Method::PUT, &body(b"a")));
        let (connect, exchange) =
            (UpstreamError::Connect(String::new()), UpstreamError::Exchange(String::new()));
        assert!(try_again(&connect, true, false));
        assert!(!try_again(&connect, false, false));
        assert!(try_again(&exchange, false, true));
        assert!(!try_again(&exchange, true, false));
        for error in [
            UpstreamError::Tls(String::new()),
            UpstreamError::Timeout,
            UpstreamError::Address,
            UpstreamError::CertificateTime(String::new()),
        ] {
            assert!(!try_again(&error, true, true), "{error}");
        }
    }

    #[test]
    fn pauses_grow_and_scatter() {
        for (failed, least, most) in [(1, 50, 150), (2, 150, 450), (3, 450, 1350)] {
            let pauses: Vec<Duration> = (0..50).map(|_| pause(failed)).collect();
            assert!(pauses.iter().all(|pause| (least..=most).contains(&pause.as_millis())), "{pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}

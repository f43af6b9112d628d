//! Whether the control API answers at all: asked before a token is minted that nobody else could take.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ::http::{Method, Request};
use tokio::time::Instant;

use super::answer::Refusal;
use super::api::refusal;
use super::body::at_hand;
use crate::http::upstream::{Upstream, UpstreamError};

/// How long it is believed that the control API answers, and that it does not.
const BELIEVED: Duration = Duration::from_secs(5);
const BELIEVED_AWAY: Duration = Duration::from_secs(1);
/// From asking to an answer of any kind.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

struct Known {
    upstream: Weak<Upstream>,
    at: Instant,
    outcome: Result<(), Refusal>,
}

/// What is known of the control API's presence.
#[derive(Default)]
pub struct Reach {
    known: Mutex<Option<Known>>,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
}

impl Reach {
    /// Takes note of how an exchange went. A failure is no verdict, only a reason to ask.
    pub fn note(&self, upstream: &Arc<Upstream>, answered: bool) {
        let upstream = Arc::downgrade(upstream);
        let known = answered.then(|| Known { upstream, at: Instant::now(), outcome: Ok(()) });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn recent(&self, upstream: &Arc<Upstream>) -> Option<Result<(), Refusal>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref()?;
        let same = std::ptr::eq(known.upstream.as_ptr(), Arc::as_ptr(upstream));
        let believed = if known.outcome.is_ok() { BELIEVED } else { BELIEVED_AWAY };
        (same && known.at.elapsed() < believed).then(|| known.outcome.clone())
    }

    /// What the machine is told where the control API is away. Any answer of it will do, whatever it says.
    pub async fn check(&self, upstream: &Arc<Upstream>) -> Result<(), Refusal> {
        if let Some(outcome) = self.recent(upstream) {
            return outcome;
        }
        let _one = self.asking.lock().await;
        if let Some(outcome) = self.recent(upstream) {
            return outcome;
        }
        let outcome = ask(upstream).await.map_err(|error| {
            tracing::warn!(%error, "control API is away: no token is minted");
            refusal(&error)
        });
        let known =
            Known { upstream: Arc::downgrade(upstream), at: Instant::now(), outcome: outcome.clone() };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        outcome
    }
}

async fn ask(upstream: &Upstream) -> Result<(), UpstreamError> {
    let uri = format!("{}{}/", upstream.origin(), upstream.spec().base);
    let request = Request::builder().method(Method::HEAD).uri(uri).body(at_hand(""));
    let request = request.map_err(|error| UpstreamError::Unusable(error.to_string()))?;
    match tokio::time::timeout(ANSWER_TIMEOUT, upstream.send(request)).await {
        Ok(answered) => answered.map(drop),
        Err(_) => Err(UpstreamError::Timeout),
    }
}

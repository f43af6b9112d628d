//! What the API is told about machines, behind their backs: first contacts, events, revoked tokens. Bounded;
//! whoever tells never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};
use switch_agent_core::discovery::metal_stack_v2::messages::procedure::{
    BOOT_DHCP, EVENT_SEND, TOKEN_REVOKE,
};
use switch_agent_core::discovery::metal_stack_v2::messages::{
    Dhcp, Event, EventSend, EventsSent, TokenRevoke,
};
use tokio::sync::mpsc;

use super::client::{CallError, call};
use crate::http::upstream::Upstream;
use crate::metrics::Metrics;

/// Messages that wait while the API is slow.
const LEN_MAX: usize = 256;
/// Machines in one `EventService.Send`.
const EVENTS_MAX: usize = 32;
/// Pauses between attempts of one message; after the last it is given up.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// One thing to tell.
#[derive(Debug)]
pub enum Message {
    Dhcp(Dhcp),
    Event { uuid: String, event: Event },
    Revoke(TokenRevoke),
}

impl Message {
    fn kind(&self) -> &'static str {
        match self {
            Message::Dhcp(_) => "dhcp",
            Message::Event { .. } => "event",
            Message::Revoke(_) => "revoke",
        }
    }
}

/// A message, and which control API it was meant for.
struct Waiting {
    epoch: u64,
    message: Message,
}

/// The queue.
pub struct Outbox {
    sender: mpsc::Sender<Waiting>,
    receiver: tokio::sync::Mutex<mpsc::Receiver<Waiting>>,
    /// Counts control APIs.
    epoch: AtomicU64,
}

impl Default for Outbox {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(LEN_MAX);
        Outbox { sender, receiver: tokio::sync::Mutex::new(receiver), epoch: AtomicU64::new(0) }
    }
}

impl Outbox {
    /// Never waits: where the queue is full, the message is lost and counted.
    pub fn tell(&self, metrics: &Metrics, message: Message) {
        let kind = message.kind();
        let epoch = self.epoch.load(Ordering::Relaxed);
        if self.sender.try_send(Waiting { epoch, message }).is_err() {
            metrics.metal_stack_v2.told(kind, "dropped");
        }
    }

    /// Forgets what waits: it was meant for another control API.
    pub fn clear(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends what is told, for as long as it is polled.
    pub async fn run(&self, upstream: &Arc<Upstream>, metrics: &Metrics) {
        let mut receiver = self.receiver.lock().await;
        let mut next = None;
        loop {
            let waiting = match next.take() {
                Some(waiting) => Some(waiting),
                None => receiver.recv().await,
            };
            let Some(Waiting { epoch, message }) = waiting else { return };
            if epoch != self.epoch.load(Ordering::Relaxed) {
                continue;
            }
            let kind = message.kind();
            let (sent, count) = match message {
                Message::Dhcp(dhcp) => {
                    (tell::<_, Map<String, Value>>(upstream, metrics, BOOT_DHCP, &dhcp).await.map(drop), 1)
                }
                Message::Revoke(revoke) => (
                    tell::<_, Map<String, Value>>(upstream, metrics, TOKEN_REVOKE, &revoke).await.map(drop),
                    1,
                ),
                Message::Event { uuid, event } => {
                    let mut events = EventSend::default();
                    events.events.insert(uuid, event);
                    next = gather(epoch, &mut events, &mut receiver);
                    let count = events.events.len();
                    let sent: Result<EventsSent, _> = tell(upstream, metrics, EVENT_SEND, &events).await;
                    let failed = sent.as_ref().map_or(0, |sent| sent.failed.len());
                    for _ in 0..failed {
                        metrics.metal_stack_v2.told(kind, "failed");
                    }
                    (sent.map(drop), count.saturating_sub(failed))
                }
            };
            if let Err(error) = &sent {
                tracing::warn!(kind, %error, "the control API could not be told");
            }
            for _ in 0..count {
                metrics.metal_stack_v2.told(kind, if sent.is_ok() { "sent" } else { "failed" });
            }
        }
    }
}

/// Adds the events of other machines that wait already, up to the first message that is no such event.
fn gather(wanted: u64, events: &mut EventSend, receiver: &mut mpsc::Receiver<Waiting>) -> Option<Waiting> {
    while events.events.len() < EVENTS_MAX {
        match receiver.try_recv().ok()? {
            Waiting { epoch, message: Message::Event { uuid, event } }
                if epoch == wanted && !events.events.contains_key(&uuid) =>
            {
                events.events.insert(uuid, event);
            }
            other => return Some(other),
        }
    }
    None
}

async fn tell<Q: serde::Serialize + Sync, A: serde::de::DeserializeOwned>(
    upstream: &Upstream,
    metrics: &Metrics,
    procedure: &'static str,
    question: &Q,
) -> Result<A, CallError> {
    let mut pauses = PAUSES.into_iter();
    loop {
        match (call(upstream, metrics, procedure, question).await, pauses.next()) {
            (Err(error), Some(pause)) if error.is_passing() => {
                tracing::debug!(procedure, %error, "control API is asked again");
                tokio::time::sleep(pause).await;
            }
            (answer, _) => return answer,
        }
    }
}

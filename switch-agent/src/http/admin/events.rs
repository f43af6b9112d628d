//! `GET /v1/events`: server-sent events (WHATWG HTML, section 9.2).
//!
//! `machine` and `timeline` come from the hub, `status` and `port` from what changed between two passes.
//! Only boot ports are told of: the neighbours of fabric ports are no machines.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{AdminState, Snapshot, view};

/// Frames between the feeding task and the connection.
const FRAMES_MAX: usize = 16;
/// A comment is sent after this long without an event, so that both ends notice a dead peer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A follower that takes nothing for this long is dropped.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The body of one follower's response.
#[derive(Debug)]
pub(super) struct EventBody(mpsc::Receiver<Bytes>);

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Starts a follower. It ends with the client, at `age_max`, or when the server stops.
pub(super) fn follow(
    state: AdminState,
    slot: OwnedSemaphorePermit,
    age_max: Duration,
    cancel: CancellationToken,
) -> EventBody {
    let (frames, body) = mpsc::channel(FRAMES_MAX);
    tokio::spawn(async move {
        let _slot = slot;
        tokio::select! {
            () = cancel.cancelled() => {}
            _ = timeout(age_max, feed(state, &frames)) => {}
            () = frames.closed() => {}
        }
    });
    EventBody(body)
}

async fn feed(mut state: AdminState, frames: &mpsc::Sender<Bytes>) -> Option<()> {
    let mut events = state.hub.subscribe();
    let mut told = Arc::clone(&state.snapshots.borrow_and_update());
    send(frames, Bytes::from_static(b"retry: 1000\n\n")).await?;
    send(frames, event("status", &view::status(&told, &state))).await?;
    loop {
        let idle = Instant::now() + KEEP_ALIVE;
        tokio::select! {
            received = events.recv() => match received {
                Ok(happened) if told.status.ports.contains_key(happened.port()) => {
                    send(frames, event(happened.name(), &happened)).await?;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => {
                    state.metrics.machines.events_dropped(count);
                    send(frames, event("lagged", &json!({ "dropped": count }))).await?;
                }
                Err(RecvError::Closed) => return None,
            },
            changed = state.snapshots.changed() => {
                changed.ok()?;
                let now = Arc::clone(&state.snapshots.borrow_and_update());
                for frame in differences(&told, &now, &state) {
                    send(frames, frame).await?;
                }
                told = now;
            }
            () = sleep_until(idle) => send(frames, Bytes::from_static(b": keep-alive\n\n")).await?,
        }
    }
}

async fn send(frames: &mpsc::Sender<Bytes>, frame: Bytes) -> Option<()> {
    timeout(STALL_TIMEOUT, frames.send(frame)).await.ok()?.ok()
}

/// What a follower is told of a pass: each port whose state changed, then the status if anything did.
fn differences(before: &Snapshot, now: &Snapshot, state: &AdminState) -> Vec<Bytes> {
    let mut frames = Vec::new();
    let at = now.pass.as_ref().map(|pass| pass.finished_at);
    for (name, port) in &now.status.ports {
        let was = before.status.ports.get(name);
        if was != Some(port) {
            let was = was.map(|port| port.phase);
            frames.push(event(
                "port",
                &json!({
                    "at": at, "port": name, "phase": port.phase, "before": was, "oper_status": view::oper_status(port),
                    "waiting_on": port.waiting_on, "error": port.error,
                }),
            ));
        }
    }
    for (name, port) in &before.status.ports {
        if !now.status.ports.contains_key(name) {
            frames.push(event(
                "port",
                &json!({
                    "at": at, "port": name, "phase": null, "before": port.phase, "oper_status": view::oper_status(port),
                    "waiting_on": null, "error": null,
                }),
            ));
        }
    }
    let acted = now.pass.as_ref().is_some_and(|pass| pass.actions > 0);
    if acted || before.pass.is_none() || before.status != now.status {
        frames.push(event("status", &view::status(now, state)));
    }
    frames
}

/// One event. JSON has no raw line feeds, so the data is one line.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

//! One connection of a machine: which protocol, how long, and when it ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use switch_agent_core::discovery::Limits;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::wire::{Activity, Protocol, Wire};
use crate::http::discovery::reply::ReplyBody;
use ::http::{Request, Response};

const H2_STREAM_WINDOW: u32 = 64 << 10;
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of responses that one HTTP/2 stream may hold.
const H2_SEND_BUFFER: usize = 64 << 10;
/// What [`switch_agent_core::discovery::frames`] takes, too.
const H2_FRAME: u32 = 16 << 10;
/// Streams that were reset before they were served, at a time; and streams that were reset for errors of the
/// peer, in the connection's life.
const H2_RESETS: usize = 16;
const H2_ERRORS: usize = 64;
const H2_PING_INTERVAL: Duration = Duration::from_secs(15);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Over TLS a machine may wait for hours on one stream whose other end must learn soon that it died.
const TLS_H2_PING_INTERVAL: Duration = Duration::from_secs(5);
const TLS_H2_PING_TIMEOUT: Duration = Duration::from_secs(5);
const H1_BUFFER: usize = 64 << 10;
/// From asking a connection to end to ending it.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the streams of an HTTP/2 connection; none outlives it.
#[derive(Clone)]
struct Streams(CancellationToken);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let cancel = self.0.clone();
        tokio::spawn(async move {
            cancel.run_until_cancelled(stream).await;
        });
    }
}

/// What the two protocols' connections have in common.
trait Connection: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

impl<S> Connection for http1::Connection<TokioIo<Wire>, S>
where
    S: Service<Request<Incoming>, Response = Response<ReplyBody>, Error = std::convert::Infallible>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Connection for http2::Connection<TokioIo<Wire>, S, Streams>
where
    S: Service<Request<Incoming>, Response = Response<ReplyBody>, Error = std::convert::Infallible>,
    S::Future: Send + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// How many header fields the library is told to take, where that is more than its own limit of 100. Told any
/// number it takes memory for so many with each message; fewer are refused when they were parsed.
pub fn more_fields(limits: &Limits) -> Option<usize> {
    (limits.header_fields > 100).then_some(limits.header_fields)
}

/// Serves a connection until the peer, a limit or `cancel` ends it.
pub async fn serve<S>(
    mut wire: Wire,
    service: S,
    activity: Arc<Activity>,
    limits: &Limits,
    cancel: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<ReplyBody>, Error = std::convert::Infallible>,
    S::Future: Send + 'static,
{
    let protocol = match cancel.run_until_cancelled(wire.detect()).await {
        Some(Ok(protocol)) => protocol,
        Some(Err(_)) | None => return,
    };
    let ended = match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                // The wire's own limits are tighter; without one here a mistake there would mean none.
                .header_read_timeout(limits.idle_timeout + limits.header_timeout)
                .max_header_size(limits.header_bytes)
                .max_buf_size(H1_BUFFER);
            if let Some(fields) = more_fields(limits) {
                builder.max_headers(fields);
            }
            let connection = builder.serve_connection(TokioIo::new(wire), service);
            drive(connection, &activity, limits, &cancel).await
        }
        Protocol::Http2 => {
            let streams = Streams(cancel.child_token());
            let _end_streams = streams.0.clone().drop_guard();
            let (ping_interval, ping_timeout) = if wire.is_tls() {
                (TLS_H2_PING_INTERVAL, TLS_H2_PING_TIMEOUT)
            } else {
                (H2_PING_INTERVAL, H2_PING_TIMEOUT)
            };
            let mut builder = http2::Builder::new(streams);
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits.streams)
                .initial_stream_window_size(H2_STREAM_WINDOW)
                .initial_connection_window_size(H2_CONNECTION_WINDOW)
                .max_send_buf_size(H2_SEND_BUFFER)
                .max_frame_size(H2_FRAME)
                .max_pending_accept_reset_streams(H2_RESETS)
                .max_local_error_reset_streams(H2_ERRORS)
                .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
                .keep_alive_interval(ping_interval)
                .keep_alive_timeout(ping_timeout);
            let connection = builder.serve_connection(TokioIo::new(wire), service);
            drive(connection, &activity, limits, &cancel).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn drive(
    connection: impl Connection,
    activity: &Activity,
    limits: &Limits,
    cancel: &CancellationToken,
) -> hyper::Result<()> {
    let mut connection = std::pin::pin!(connection);
    let opened = Instant::now();
    let (last_request, end) = (opened + limits.connection_lifetime, opened + limits.stream_lifetime);
    let mut deadline = (opened + limits.idle_timeout).min(last_request).min(end);
    let mut finishing = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(deadline) => {}
        }
        let now = Instant::now();
        let idle_end = activity.quiet_since().map(|since| since + limits.idle_timeout);
        if now >= end || finishing && idle_end.is_some() {
            return Ok(());
        }
        if idle_end.is_some_and(|end| now >= end) || now >= last_request {
            connection.as_mut().finish();
            finishing = true;
            deadline = (now + GRACE).min(end);
        } else {
            deadline = idle_end.unwrap_or(now + limits.idle_timeout).min(last_request).min(end);
        }
    }
}

//! The byte stream of one connection, between the socket and the HTTP library.
//!
//! Adds what the library lacks: a look at each HTTP/1 header block before it is parsed (see
//! [`switch_agent_core::discovery::head`]), a time limit on header blocks, a time limit on a peer that
//! takes no bytes.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use switch_agent_core::discovery::Limits;
use switch_agent_core::discovery::frames::Frames;
use switch_agent_core::discovery::head::HeadRefusal;
use switch_agent_core::discovery::scan::{Scan, Scanner};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::stream::Stream;

/// What a refused header block is replaced by: no parser takes it, so the library answers 400 and closes.
const POISON: &[u8] = b"\0\r\n\r\n";
const READ_CHUNK: usize = 4096;

/// Whether requests are being served on a connection, and since when none is.
#[derive(Debug)]
pub struct Activity {
    active: AtomicUsize,
    quiet_since: Mutex<Instant>,
    token_bearing: AtomicBool,
}

impl Default for Activity {
    fn default() -> Self {
        Activity {
            active: AtomicUsize::new(0),
            quiet_since: Mutex::new(Instant::now()),
            token_bearing: AtomicBool::new(false),
        }
    }
}

/// Held while one request is served, to the end of its response body.
#[derive(Debug)]
pub struct ActiveRequest(Arc<Activity>);

impl Activity {
    pub fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::AcqRel);
        ActiveRequest(self.clone())
    }

    /// From now on a secret may be among the bytes: they go no further than the link.
    pub fn bear_token(&self) {
        self.token_bearing.store(true, Ordering::Release);
    }

    /// Since when no request is being served; `None` while one is.
    pub fn quiet_since(&self) -> Option<Instant> {
        let quiet = self.active.load(Ordering::Acquire) == 0;
        quiet.then(|| *self.quiet_since.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        *self.0.quiet_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection's stream with its guards.
pub struct Wire {
    stream: Stream,
    scanner: Scanner,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that the library may have.
    released: usize,
    header_timeout: Duration,
    header_deadline: Option<Pin<Box<Sleep>>>,
    write_timeout: Duration,
    write_deadline: Option<Pin<Box<Sleep>>>,
    refused: Box<dyn Fn(&'static str) + Send + Sync>,
    /// Counts the frames of HTTP/2, once it is spoken.
    frames: Frames,
    counts_frames: bool,
    started: Instant,
    activity: Arc<Activity>,
    /// The hop limit is known to be 1.
    on_link: bool,
}

/// What a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 section 3.3).
    Http2,
}

impl Wire {
    /// `refused` is told of each header block that was refused, and of a flood of frames, by a label.
    pub fn new(
        stream: impl Into<Stream>,
        limits: &Limits,
        activity: Arc<Activity>,
        refused: impl Fn(&'static str) + Send + Sync + 'static,
    ) -> Wire {
        Wire {
            stream: stream.into(),
            scanner: Scanner::new(limits.header_bytes),
            buffer: Vec::new(),
            released: 0,
            header_timeout: limits.header_timeout,
            header_deadline: None,
            write_timeout: limits.write_stall_timeout,
            write_deadline: None,
            refused: Box::new(refused),
            frames: Frames::new(limits),
            counts_frames: false,
            started: Instant::now(),
            activity,
            on_link: false,
        }
    }

    /// Whether the peer speaks TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Reads enough to know the protocol; nothing is lost for the reader after.
    pub async fn detect(&mut self) -> io::Result<Protocol> {
        // No request of HTTP/1 that is served starts like the preface of HTTP/2.
        const PREFACE: &[u8] = b"PRI ";
        let started = tokio::time::timeout(self.header_timeout, async {
            while self.buffer.len() < PREFACE.len() && PREFACE.starts_with(&self.buffer) {
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
            Ok(())
        });
        started.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if self.buffer.starts_with(PREFACE) {
            self.through();
            self.counts_frames = true;
            return Ok(Protocol::Http2);
        }
        Ok(Protocol::Http1)
    }

    fn through(&mut self) {
        self.scanner.through();
        self.released = self.buffer.len();
        self.header_deadline = None;
    }

    /// Looks at what is buffered. Returns whether bytes were released.
    fn examine(&mut self) -> bool {
        match self.scanner.scan(&self.buffer) {
            Scan::Pass(bytes) => {
                self.released = bytes;
                self.header_deadline = None;
            }
            Scan::More => {}
            Scan::Refuse(refusal) => self.poison(refusal),
        }
        self.released > 0
    }

    fn poison(&mut self, refusal: HeadRefusal) {
        (self.refused)(refusal.as_str());
        self.buffer = POISON.to_vec();
        self.through();
    }

    /// Bytes on their way to the library.
    fn count_frames(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.counts_frames {
            return Ok(());
        }
        self.frames.take(bytes, self.started.elapsed()).map_err(|refusal| {
            (self.refused)(refusal.as_str());
            io::Error::other(refusal)
        })
    }

    /// Keeps a secret on the link. Fails rather than to send one further.
    fn stay_on_link(&mut self) -> io::Result<()> {
        if !self.on_link && self.activity.token_bearing.load(Ordering::Acquire) {
            SockRef::from(self.stream.socket()).set_unicast_hops_v6(1)?;
            self.on_link = true;
        }
        Ok(())
    }

    /// Reads past the buffer, which is empty, in a phase that looks at nothing.
    fn poll_direct(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = self.scanner.unseen(out.remaining());
        let mut part = ReadBuf::new(out.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        self.count_frames(part.filled())?;
        let bytes = part.filled().len();
        out.advance(bytes);
        self.scanner.passed(bytes);
        Poll::Ready(Ok(()))
    }

    /// Reads more of a header block. Ready(false) at the end of the stream.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut chunk = [MaybeUninit::uninit(); READ_CHUNK];
        let mut part = ReadBuf::uninit(&mut chunk);
        if Pin::new(&mut self.stream).poll_read(cx, &mut part)?.is_pending() {
            if !self.buffer.is_empty() {
                let timeout = self.header_timeout;
                let deadline =
                    self.header_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(deadline.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            return Poll::Pending;
        }
        self.buffer.extend_from_slice(part.filled());
        Poll::Ready(Ok(!part.filled().is_empty()))
    }

    fn poll_write_deadline<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_deadline = None;
            return written;
        }
        let timeout = self.write_timeout;
        let deadline = self.write_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.released > 0 {
                let bytes = this.released.min(out.remaining());
                let released: Vec<u8> = this.buffer.drain(..bytes).collect();
                this.count_frames(&released)?;
                out.put_slice(&released);
                this.released -= bytes;
                return Poll::Ready(Ok(()));
            }
            if !this.buffer.is_empty() && this.examine() {
                continue;
            }
            if !this.scanner.is_in_head() {
                return this.poll_direct(cx, out);
            }
            if !ready!(this.poll_more(cx))? {
                // The library sees the torso of a header block, and then the end.
                this.through();
                if this.released == 0 {
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stay_on_link()?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_write_deadline(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stay_on_link()?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.poll_write_deadline(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// TLS takes more bytes than the socket: a peer that takes none is noticed here.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if self.is_tls() { self.poll_write_deadline(cx, flushed) } else { flushed }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

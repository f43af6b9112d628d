//! Listeners and connections of the admin API, and their limits.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::AdminState;
use super::routes::Router;
use super::unix::AdminSocket;

/// Why the admin API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot serve on the unix socket {}", path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} exists and is not a socket; it is left alone", path.display())]
    NotASocket { path: PathBuf },
    #[error("another agent answers on {}", path.display())]
    InUse { path: PathBuf },
    #[error("cannot listen on {address}")]
    Tcp {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error(
        "refusing to serve the admin API on {0}: without TLS and a token it stays on loopback \
         (127.0.0.0/8 or ::1)"
    )]
    NotLoopback(SocketAddr),
}

/// Where to serve.
#[derive(Debug, Clone, Default)]
pub struct AdminListen {
    pub socket: Option<PathBuf>,
    pub address: Option<SocketAddr>,
}

/// Bounds on what clients can make the agent hold.
#[derive(Debug, Clone, Copy)]
pub struct AdminLimits {
    /// Per listener, so that nobody on loopback can lock the CLI out.
    pub connections_max: usize,
    /// Followers of `/v1/events`, over all listeners.
    pub followers_max: usize,
    pub header_timeout: Duration,
    /// Request line and headers, in bytes.
    pub head_size_max: usize,
    /// A connection ends at this age; followers reconnect.
    pub connection_age_max: Duration,
    /// What a connection may still take to end by itself.
    pub drain_timeout: Duration,
}

impl Default for AdminLimits {
    fn default() -> Self {
        AdminLimits {
            connections_max: 64,
            followers_max: 16,
            header_timeout: Duration::from_secs(10),
            head_size_max: 16 * 1024,
            connection_age_max: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Pause after an accept that failed (out of file descriptors), so that it does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);

/// Bound listeners, not yet serving.
#[derive(Debug)]
pub struct AdminServer {
    socket: Option<AdminSocket>,
    tcp: Option<TcpListener>,
    router: Router,
    limits: AdminLimits,
}

impl AdminServer {
    /// Binds what is asked for. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`AdminError`] names the listener; nothing stays bound.
    pub async fn bind(
        listen: &AdminListen,
        limits: AdminLimits,
        state: AdminState,
    ) -> Result<AdminServer, AdminError> {
        let socket = listen.socket.as_deref().map(AdminSocket::bind).transpose()?;
        let tcp = match listen.address {
            None => None,
            Some(address) if !address.ip().is_loopback() => return Err(AdminError::NotLoopback(address)),
            Some(address) => {
                Some(TcpListener::bind(address).await.map_err(|source| AdminError::Tcp { address, source })?)
            }
        };
        let router = Router::new(state, limits.followers_max, limits.connection_age_max);
        Ok(AdminServer { socket, tcp, router, limits })
    }

    /// The address that TCP clients reach, with the port the kernel chose for port 0.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Serves until cancelled, then lets requests under way end within the drain timeout.
    pub async fn run(self, cancel: CancellationToken) {
        let AdminServer { socket, tcp, router, limits } = self;
        tokio::join!(
            async {
                if let Some(socket) = &socket {
                    serve(&socket.listener, &router.writable(), limits, &cancel).await;
                }
            },
            async {
                if let Some(tcp) = &tcp {
                    serve(tcp, &router, limits, &cancel).await;
                }
            }
        );
    }
}

/// A listener of either kind.
trait Accept {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn accept_one(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Accept for UnixListener {
    type Io = UnixStream;
    async fn accept_one(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Accept for TcpListener {
    type Io = TcpStream;
    async fn accept_one(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Accepts connections of one listener. At the limit, further ones wait in the kernel's backlog.
async fn serve(listener: &impl Accept, router: &Router, limits: AdminLimits, cancel: &CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            Some((slot, listener.accept_one().await))
        };
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        match accepted {
            None => break,
            Some((slot, Ok(io))) => {
                connections.spawn(connection(io, slot, router.clone(), limits, cancel.clone()));
            }
            Some((_, Err(error))) => {
                warn!(%error, "admin connection not accepted");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    // Each connection ends by itself within the drain timeout.
    while connections.join_next().await.is_some() {}
}

async fn connection<I>(
    io: I,
    _slot: OwnedSemaphorePermit,
    router: Router,
    limits: AdminLimits,
    cancel: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = {
        let cancel = cancel.clone();
        service_fn(move |request| {
            let (router, cancel) = (router.clone(), cancel.clone());
            async move { Ok::<_, std::convert::Infallible>(router.answer(&request, &cancel).await) }
        })
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.head_size_max)
        .serve_connection(TokioIo::new(io), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = sleep(limits.connection_age_max) => None,
        () = cancel.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            match timeout(limits.drain_timeout, served).await {
                Ok(ended) => ended,
                Err(_) => return debug!("admin connection dropped: it did not end in time"),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "admin connection ended early");
    }
}

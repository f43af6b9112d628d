//! metal-api v1 as far as a booting machine meets it: gRPC with required client certificates, REST with
//! HMAC, and a door for tests.
//!
//! Like the original it believes every holder of the fleet's certificate and key, and notes who asked what:
//! whoever stands between it and the machines has to keep them apart.

mod grpc;
mod rest;
mod state;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use self::state::State;
use crate::control_api::pki;

/// metal-api's own: pings after 5 s of silence, and takes a peer for dead that answers none within 1 s.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address and port of gRPC
    #[arg(long, value_name = "ADDR:PORT")]
    grpc_listen: SocketAddr,
    /// Address and port of REST, over TLS
    #[arg(long, value_name = "ADDR:PORT")]
    rest_listen: SocketAddr,
    /// Address and port of the door for tests, plain HTTP: GET /calls, POST /allocate/UUID
    #[arg(long, value_name = "ADDR:PORT")]
    control_listen: SocketAddr,
    /// Directory with server.pem, server.key and ca.pem, as `control-api --make-ca` leaves them
    #[arg(long, value_name = "DIR")]
    pki: PathBuf,
    /// File with the key of HMAC type Metal-View on its first line
    #[arg(long, value_name = "FILE")]
    hmac_file: PathBuf,
    /// Path prefix of REST
    #[arg(long, value_name = "PATH", default_value = "/metal")]
    base: String,
}

#[derive(Debug)]
pub(crate) enum Error {
    Pki(pki::Error),
    Io(&'static str, io::Error),
    NoKey,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Pki(error) => write!(f, "{error}"),
            Error::Io(step, error) => write!(f, "cannot {step}: {error}"),
            Error::NoKey => f.write_str("--hmac-file holds no key"),
        }
    }
}

impl std::error::Error for Error {}

/// Body of every reply.
type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

pub(crate) fn run(args: Args) -> Result<(), Error> {
    let text =
        std::fs::read_to_string(&args.hmac_file).map_err(|error| Error::Io("read --hmac-file", error))?;
    let key = text.lines().next().map(str::trim).filter(|key| !key.is_empty()).ok_or(Error::NoKey)?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    let mut grpc_tls = pki::server_config_for_clients_of(&args.pki).map_err(Error::Pki)?;
    grpc_tls.alpn_protocols = vec![b"h2".to_vec()];
    let mut rest_tls = pki::server_config(&args.pki).map_err(Error::Pki)?;
    rest_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let state = Arc::new(State::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::Io("start the runtime", error))?;
    runtime.block_on(async {
        let grpc = {
            let state = state.clone();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(grpc_tls));
            serve(args.grpc_listen, move |stream| grpc_connection(stream, acceptor.clone(), state.clone()))
        };
        let rest = {
            let (state, base) = (state.clone(), Arc::<str>::from(args.base));
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(rest_tls));
            let key = Arc::new(key);
            serve(args.rest_listen, move |stream| {
                let (acceptor, state, base, key) =
                    (acceptor.clone(), state.clone(), base.clone(), key.clone());
                async move {
                    let stream = match acceptor.accept(stream).await {
                        Ok(stream) => stream,
                        Err(error) => return tracing::info!(%error, "TLS handshake failed"),
                    };
                    let answer = move |request: Request<Incoming>| {
                        let (state, base, key) = (state.clone(), base.clone(), key.clone());
                        async move { Ok(rest::answer(&request, &base, &key, &state)) }
                    };
                    plain_connection(stream, answer).await;
                }
            })
        };
        let control = serve(args.control_listen, move |stream| {
            let state = state.clone();
            plain_connection(stream, move |request: Request<Incoming>| {
                let state = state.clone();
                async move { Ok(rest::control(&request, &state)) }
            })
        });
        tokio::try_join!(grpc, rest, control).map(|_| ())
    })
}

async fn serve<F>(listen: SocketAddr, connection: impl Fn(TcpStream) -> F) -> Result<(), Error>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await.map_err(|error| Error::Io("listen", error))?;
    tracing::info!(%listen, "metal-api");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                stream.set_nodelay(true).ok();
                tokio::spawn(connection(stream));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn grpc_connection(stream: TcpStream, acceptor: tokio_rustls::TlsAcceptor, state: Arc<State>) {
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => return tracing::info!(%error, "TLS handshake failed"),
    };
    let service = service_fn(move |request| grpc::answer(request, state.clone()));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::info!(%error, "gRPC connection ended");
    }
}

async fn plain_connection<S, A, F>(stream: S, answer: A)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<Body>, std::convert::Infallible>>,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await {
        tracing::debug!(%error, "connection ended");
    }
}

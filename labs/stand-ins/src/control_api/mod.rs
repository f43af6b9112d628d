//! A control API of the generic dialect: TLS, and every claim about a machine checked by signature.
//!
//! Shows what an API has to do with what a switch sends: verify `X-Boot-Identity` and the machine's token
//! with the switch's JWKS, and refuse when the two do not speak of the same place.

mod control;
mod keys;
mod machines;
pub(crate) mod pki;
mod requests;
mod verify;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;

use self::keys::JwksSource;
use self::requests::Api;
use crate::control_socket;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make a private CA and a server certificate in DIR, and end
    #[arg(long, value_name = "DIR", conflicts_with_all = ["listen", "pki", "jwks"])]
    make_ca: Option<PathBuf>,
    /// IP address or DNS name of the server certificate (repeatable)
    #[arg(long, value_name = "ADDRESS", requires = "make_ca")]
    address: Vec<String>,
    /// Address and port to serve
    #[arg(long, value_name = "ADDR:PORT", required_unless_present = "make_ca", requires = "pki")]
    listen: Option<SocketAddr>,
    /// Directory with server.pem and server.key, as --make-ca leaves them
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// Keys of a switch: a JWKS file, or the unix socket of the switch's admin API (repeatable)
    #[arg(long, value_name = "SWITCH=PATH")]
    jwks: Vec<JwksSource>,
    /// What statements must be addressed to [default: https:// and --listen]
    #[arg(long, value_name = "URL")]
    audience: Option<String>,
    /// Path prefix of the API
    #[arg(long, value_name = "PATH", default_value = "")]
    base: String,
    /// Unix socket for those who own machines: allocate and free them, ask for the VRF of ports
    #[arg(long, value_name = "SOCKET", requires = "listen")]
    control: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) enum Error {
    Pki(pki::Error),
    Io(&'static str, io::Error),
    NoListen,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Pki(error) => write!(f, "{error}"),
            Error::Io(step, error) => write!(f, "cannot {step}: {error}"),
            Error::NoListen => f.write_str("--listen and --pki are required"),
        }
    }
}

impl std::error::Error for Error {}

pub(crate) fn run(args: Args) -> Result<(), Error> {
    if let Some(dir) = &args.make_ca {
        return pki::make(dir, &args.address).map_err(Error::Pki);
    }
    let (Some(listen), Some(dir)) = (args.listen, &args.pki) else {
        return Err(Error::NoListen);
    };
    let tls = Arc::new(pki::server_config(dir).map_err(Error::Pki)?);
    let audience = args.audience.unwrap_or_else(|| format!("https://{listen}"));
    let api = Arc::new(Api::new(args.jwks, audience, args.base));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::Io("start the runtime", error))?;
    runtime.block_on(async {
        if let Some(path) = &args.control {
            let listener =
                control_socket::bind(path).map_err(|error| Error::Io("listen on --control", error))?;
            tokio::spawn(control::serve(listener, api.clone()));
        }
        let answer = move |request| {
            let api = api.clone();
            async move { api.answer(request).await }
        };
        serve(listen, tls, answer).await
    })
}

/// Serves HTTP/1.1 and HTTP/2 over TLS until the process ends.
pub(crate) async fn serve<A, F, B>(
    listen: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    answer: A,
) -> Result<(), Error>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await.map_err(|error| Error::Io("listen", error))?;
    tracing::info!(%listen, "listening");
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        stream.set_nodelay(true).ok();
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        tokio::spawn(async move {
            let stream = match acceptor.accept(stream).await {
                Ok(stream) => stream,
                Err(error) => return tracing::info!(%error, "TLS handshake failed"),
            };
            let service = service_fn(answer);
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new());
            builder.http2().timer(TokioTimer::new());
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(error, "connection ended");
            }
        });
    }
}

//! A server of boot files: `GET` and `HEAD` of the files of one directory over plain HTTP, nothing else.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address and port to serve
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Directory whose files are served, without those below it
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Error(&'static str, io::Error);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.0, self.1)
    }
}

impl std::error::Error for Error {}

pub(crate) fn run(args: Args) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error("start the runtime", error))?;
    runtime.block_on(serve(args.listen, args.root.into()))
}

async fn serve(listen: SocketAddr, root: Arc<Path>) -> Result<(), Error> {
    let listener = TcpListener::bind(listen).await.map_err(|error| Error("listen", error))?;
    tracing::info!(%listen, root = %root.display(), "image server");
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        stream.set_nodelay(true).ok();
        let root = Arc::clone(&root);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let root = Arc::clone(&root);
                async move {
                    let (method, path) = (request.method(), request.uri().path());
                    let response = answer(method, path, &root).await;
                    tracing::info!(%peer, %method, path, status = response.status().as_u16(), "request");
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new());
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

async fn answer(method: &Method, path: &str, root: &Path) -> Response<Full<Bytes>> {
    if *method != Method::GET && *method != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let Some(name) = file_name(path) else {
        return plain(StatusCode::NOT_FOUND);
    };
    let content = match tokio::fs::read(root.join(name)).await {
        Ok(content) => Bytes::from(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return plain(StatusCode::NOT_FOUND),
        Err(error) => {
            tracing::warn!(%error, name, "cannot read");
            return plain(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    let length = HeaderValue::from(content.len());
    let mut response = Response::new(Full::new(if method == Method::HEAD { Bytes::new() } else { content }));
    // UEFI asks for the length first and boots nothing without it (UEFI 2.10, 24.7.3.3).
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
    response
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// The one segment of the path, where it can be the name of a file of the directory.
fn file_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix('/')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (!name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)).then_some(name)
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        // Registered for exactly this (RFC 5970 leaves it to UEFI 2.10, 24.7.2).
        Some((_, "efi")) => "application/efi",
        Some((_, "ipxe")) => "text/plain",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_plain_names_of_one_directory() {
        assert_eq!(file_name("/boot.efi"), Some("boot.efi"));
        assert_eq!(file_name("/snponly-arm64_1.efi"), Some("snponly-arm64_1.efi"));
        for path in ["", "/", "/../etc/passwd", "/a/b", "/.hidden", "/..", "/%2e%2e", "/a\\b"] {
            assert_eq!(file_name(path), None, "{path}");
        }
    }
}

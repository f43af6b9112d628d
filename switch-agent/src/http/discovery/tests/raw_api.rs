//! A control API that keeps every byte it got.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::control_api::Ca;

/// What it does with a request that it has read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Answer,
    /// Closes the connection.
    HangUp,
}

/// Speaks HTTP/1.1 over TLS.
pub(super) struct RawApi {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

impl Drop for RawApi {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl RawApi {
    pub(super) async fn start(ca: &Ca, manner: Manner) -> RawApi {
        let mut tls = ca.server(&["127.0.0.1"]);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stop) = (Arc::<Mutex<Vec<String>>>::default(), CancellationToken::new());
        let (sink, stopping) = (requests.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, sink) = (acceptor.clone(), sink.clone());
                tokio::spawn(stopping.clone().run_until_cancelled_owned(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut buffer = Vec::new();
                    // What follows a request in the same connection is another one, and is kept as such.
                    while let Some(end) = whole(&buffer) {
                        let request: Vec<u8> = match end {
                            0 => {
                                if !matches!(stream.read_buf(&mut buffer).await, Ok(read) if read > 0) {
                                    break;
                                }
                                continue;
                            }
                            end => buffer.drain(..end).collect(),
                        };
                        // The proxy's own question whether anybody is there.
                        if request.starts_with(b"HEAD /base/ HTTP/1.1\r\nhost:") {
                            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok();
                            continue;
                        }
                        sink.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                        if manner == Manner::HangUp {
                            return;
                        }
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok();
                    }
                    if !buffer.is_empty() {
                        sink.lock().unwrap().push(format!("torso: {}", String::from_utf8_lossy(&buffer)));
                    }
                }));
            }
        }));
        RawApi { address, requests, stop }
    }

    /// The requests since the last call, byte by byte.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

/// Where the first request ends: by its length, or by its last chunk; 0 while it is not all there. `None`
/// where it is no request.
fn whole(bytes: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Some(0) };
    let start = head.len() + 4;
    let value = |name: &str| {
        let mut values = head.lines().filter_map(|line| {
            let (have, value) = line.split_once(':')?;
            have.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        (values.next(), values.next())
    };
    match (value("content-length"), value("transfer-encoding")) {
        ((None, _), (None, _)) => Some(start),
        ((Some(length), None), (None, _)) => {
            let end = start + length.parse::<usize>().ok()?;
            Some(if bytes.len() < end { 0 } else { end })
        }
        ((None, _), (Some(coding), None)) if coding == "chunked" => {
            let last = body.find("0\r\n\r\n").filter(|at| *at == 0 || body[..*at].ends_with("\r\n"));
            Some(last.map_or(0, |at| start + at + 5))
        }
        _ => None,
    }
}

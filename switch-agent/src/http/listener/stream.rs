//! What a connection's bytes come through: the socket itself, or TLS on top of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Content type of a TLS record that opens a handshake (RFC 8446 section 5.1): no method and no preface of
/// HTTP starts with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// Why a connection that may speak TLS is not served.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the peer said nothing in time, or the handshake took too long")]
    TimedOut,
    #[error("the connection ended before it said anything")]
    Ended(#[source] io::Error),
    #[error("the handshake failed")]
    Refused(#[source] io::Error),
}

/// A connection's byte stream.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Stream {
        Stream::Plain(stream)
    }
}

impl Stream {
    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Looks at the first byte and, where the peer opens TLS, makes the handshake. Waits `timeout` for the
    /// byte and as long for the handshake.
    pub async fn detect(
        stream: TcpStream,
        tls: Arc<ServerConfig>,
        timeout: Duration,
    ) -> Result<Stream, HandshakeError> {
        let mut first = [0];
        let peeked = tokio::time::timeout(timeout, stream.peek(&mut first)).await;
        match peeked.map_err(|_| HandshakeError::TimedOut)?.map_err(HandshakeError::Ended)? {
            0 => return Err(HandshakeError::Ended(io::ErrorKind::UnexpectedEof.into())),
            _ if first[0] != TLS_HANDSHAKE => return Ok(Stream::Plain(stream)),
            _ => {}
        }
        let handshake = tokio::time::timeout(timeout, TlsAcceptor::from(tls).accept(stream)).await;
        let stream = handshake.map_err(|_| HandshakeError::TimedOut)?.map_err(HandshakeError::Refused)?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// The certificate that the peer proved to hold; `None` without TLS.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.get_ref().1.peer_certificates()?.first(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, out),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(300);

    fn server() -> Arc<ServerConfig> {
        let made = rcgen::generate_simple_self_signed(vec!["::1".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![made.cert.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
            );
        Arc::new(config.unwrap())
    }

    async fn accepted(bytes: &[u8]) -> (Result<Stream, HandshakeError>, TcpStream) {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.write_all(bytes).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (Stream::detect(stream, server(), TIMEOUT).await, peer)
    }

    #[tokio::test]
    async fn what_is_no_handshake_stays_as_it_is() {
        let (stream, _peer) = accepted(b"GET / HTTP/1.1\r\n").await;
        let mut stream = stream.unwrap();
        assert!(matches!(stream, Stream::Plain(_)));
        let mut all = [0; 16];
        stream.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"GET / HTTP/1.1\r\n");
    }

    #[tokio::test]
    async fn silence_and_slow_handshakes_end_in_time() {
        for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01"] {
            let started = std::time::Instant::now();
            let (stream, _peer) = accepted(bytes).await;
            assert!(matches!(stream, Err(HandshakeError::TimedOut)), "{bytes:?}: {stream:?}");
            assert!(started.elapsed() < TIMEOUT * 4);
        }
        assert!(matches!(accepted(b"\x16nonsense").await.0, Err(HandshakeError::Refused(_))));
    }
}

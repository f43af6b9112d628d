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
    #[error("the port had its share of handshakes for now")]
    TooMany,
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
    /// `admit` is asked before each handshake, which costs the switch far more than it costs the peer.
    pub async fn detect(
        stream: TcpStream,
        tls: Arc<ServerConfig>,
        timeout: Duration,
        admit: impl FnOnce() -> bool,
    ) -> Result<Stream, HandshakeError> {
        let mut first = [0];
        let peeked = tokio::time::timeout(timeout, stream.peek(&mut first)).await;
        match peeked.map_err(|_| HandshakeError::TimedOut)?.map_err(HandshakeError::Ended)? {
            0 => return Err(HandshakeError::Ended(io::ErrorKind::UnexpectedEof.into())),
            _ if first[0] != TLS_HANDSHAKE => return Ok(Stream::Plain(stream)),
            _ if !admit() => return Err(HandshakeError::TooMany),
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

    use super::super::wire::Wire;
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
        (Stream::detect(stream, server(), TIMEOUT, || bytes != b"\x16many").await, peer)
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
        assert!(matches!(accepted(b"\x16many").await.0, Err(HandshakeError::TooMany)));
    }

    /// Takes any certificate: these tests are about bytes.
    #[derive(Debug)]
    struct Anyone(Arc<rustls::crypto::CryptoProvider>);

    impl rustls::client::danger::ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }

    #[tokio::test]
    async fn a_peer_that_takes_no_bytes_is_noticed_behind_tls() {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        socket2::SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let name = rustls::pki_types::ServerName::try_from("::1").unwrap();
        let (stream, peer) = tokio::join!(
            Stream::detect(stream, server(), TIMEOUT * 10, || true),
            connector.connect(name, peer)
        );
        // Connected, and never reads.
        let _peer = peer.unwrap();
        let limits =
            switch_agent_core::discovery::Limits { write_stall_timeout: TIMEOUT, ..Default::default() };
        let mut wire = Wire::new(stream.unwrap(), &limits, Arc::default(), |_| {});
        assert!(wire.is_tls());
        let stuck = async {
            loop {
                wire.write_all(&[7; 1024]).await?;
                wire.flush().await?;
            }
        };
        let ended: io::Result<()> = tokio::time::timeout(TIMEOUT * 20, stuck).await.expect("never noticed");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

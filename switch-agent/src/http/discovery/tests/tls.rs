//! Whom the proxy takes for the control API, and whom not; and who the control API takes the switch for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use switch_agent_core::discovery::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::control_api::{Api, Ca, server_config};
use super::support::{Proxy, Reply, ask, bearer, fast, token};

/// A proxy with a port and its token.
struct Asker {
    proxy: Proxy,
    port: u16,
    bearer: String,
    asked: AtomicU32,
}

impl Asker {
    async fn new() -> Asker {
        let proxy = Proxy::with(Limits { breaker_failures: 1000, ..fast() });
        let port = proxy.open("Ethernet0", |_| {}).await;
        let bearer = bearer(&token(port).await);
        Asker { proxy, port, bearer, asked: AtomicU32::new(0) }
    }

    /// Asks `api` as `host`, trusting what is in `ca`.
    async fn ask(&self, api: &Api, host: &str, ca: &str) -> Reply {
        // Another file is another client.
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let ca_file = self.proxy.directory.write(&format!("ca{number}.pem"), ca);
        self.proxy.discovery.set_upstream(Some(api.spec(host, &ca_file))).await;
        assert_eq!(self.proxy.discovery.upstream().unwrap().error, None);
        ask(self.port, "GET /api/v1", &self.bearer, "").await
    }

    async fn expect_refused(&self, what: &str, api: &Api, host: &str, ca: &str, code: &str, why: &str) {
        let reply = self.ask(api, host, ca).await;
        assert_eq!((reply.status, reply.error().as_str()), (502, code), "{what}: {reply:?}");
        assert!(reply.body.contains(why), "{what}: {reply:?}");
        assert!(api.seen.lock().unwrap().is_empty(), "{what}: the request was sent");
    }
}

const IP: &[&str] = &["127.0.0.1"];
const TLS: &str = "upstream-tls";
const TIME: &str = "upstream-certificate-time";

#[tokio::test]
async fn only_the_right_server_is_asked() {
    let asker = Asker::new().await;
    let (ca, wrong) = (Ca::new(), Ca::new());
    let good = Api::with(ca.server(&["127.0.0.1", "localhost"])).await;
    assert_eq!(asker.ask(&good, "127.0.0.1", &ca.pem).await.status, 200);
    assert_eq!(asker.ask(&good, "localhost", &ca.pem).await.status, 200);
    good.seen.lock().unwrap().clear();
    asker.expect_refused("unknown CA", &good, "127.0.0.1", &wrong.pem, TLS, "UnknownIssuer").await;

    let named = Api::with(ca.server(&["other.example"])).await;
    asker.expect_refused("other name", &named, "localhost", &ca.pem, TLS, "not valid for name").await;
    asker.expect_refused("no IP SAN", &named, "127.0.0.1", &ca.pem, TLS, "not valid for name").await;

    let (cert, key) = ca.leaf(&[], |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "127.0.0.1");
    });
    let api = Api::with(server_config(&cert, &key)).await;
    asker.expect_refused("common name only", &api, "127.0.0.1", &ca.pem, TLS, "not valid for name").await;

    let (cert, key) = ca.leaf(IP, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let api = Api::with(server_config(&cert, &key)).await;
    asker.expect_refused("a client's certificate", &api, "127.0.0.1", &ca.pem, TLS, "").await;

    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let api = Api::with(server_config(&own.pem(), &key.serialize_pem())).await;
    asker.expect_refused("self-signed", &api, "127.0.0.1", &ca.pem, TLS, "UnknownIssuer").await;
}

/// A clock that is wrong looks the same from here: nothing is taken because the time might be unknown.
#[tokio::test]
async fn validity_is_kept_at_every_level() {
    let asker = Asker::new().await;
    let ca = Ca::new();
    for (what, from, until) in [("expired leaf", 2000, 2001), ("leaf of the future", 4000, 4001)] {
        let (cert, key) = ca.leaf(IP, |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
        });
        let api = Api::with(server_config(&cert, &key)).await;
        asker.expect_refused(what, &api, "127.0.0.1", &ca.pem, TIME, "is its clock right?").await;
    }

    let old = Ca::with(|params| {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let api = Api::with(old.server(IP)).await;
    asker.expect_refused("expired CA", &api, "127.0.0.1", &old.pem, TIME, "").await;
    let both = format!("{}{}", old.pem, ca.pem);
    asker.expect_refused("expired CA of two", &api, "127.0.0.1", &both, TLS, "UnknownIssuer").await;
    let good = Api::with(ca.server(IP)).await;
    assert_eq!(asker.ask(&good, "127.0.0.1", &both).await.status, 200, "the other CA goes on");
}

#[tokio::test]
async fn weak_signatures_are_refused() {
    let asker = Asker::new().await;
    let (ca, server) = (include_str!("fixtures/sha1-ca.pem"), include_str!("fixtures/sha1-server.pem"));
    let api = Api::with(server_config(server, server)).await;
    asker.expect_refused("SHA-1", &api, "127.0.0.1", ca, TLS, "SignatureAlgorithm").await;
}

#[tokio::test]
async fn revoked_certificates_are_refused() {
    let asker = Asker::new().await;
    let (ca, other) = (Ca::new(), Ca::new());
    let server = async |serial: u64| {
        let (cert, key) = ca.leaf(IP, |params| params.serial_number = Some(serial.into()));
        Api::with(server_config(&cert, &key)).await
    };
    let (revoked, good) = (server(7).await, server(8).await);
    let trusted = format!("{}{}", ca.pem, ca.revocations(&[7]));
    asker.expect_refused("revoked", &revoked, "127.0.0.1", &trusted, TLS, "Revoked").await;
    assert_eq!(asker.ask(&good, "127.0.0.1", &trusted).await.status, 200);
    good.seen.lock().unwrap().clear();
    let unheard = format!("{}{}{}", ca.pem, other.pem, other.revocations(&[]));
    asker.expect_refused("no list", &good, "127.0.0.1", &unheard, TLS, "UnknownRevocationStatus").await;
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_refused() {
    let asker = Asker::new().await;
    let ca = Ca::new();
    let mut config = ca.server(IP);
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let api = Api::with(config).await;
    asker.expect_refused("another protocol", &api, "127.0.0.1", &ca.pem, TLS, "NoApplicationProtocol").await;
}

/// A server that knows TLS 1.1 at most answers with its version (RFC 4346 section 7.4.1.3).
#[tokio::test]
async fn old_versions_of_tls_are_refused() {
    let asker = Asker::new().await;
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut api = Api::with(ca.server(IP)).await;
    api.address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.read_u8().await.ok();
            let mut hello = vec![0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
            hello.extend([7; 32]);
            // No session id, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, no compression.
            hello.extend([0, 0xc0, 0x13, 0]);
            stream.write_all(&hello).await.ok();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.ok();
        }
    });
    asker.expect_refused("TLS 1.1", &api, "127.0.0.1", &ca.pem, TLS, "").await;
}

#[tokio::test]
async fn the_switch_shows_its_certificate() {
    let asker = Asker::new().await;
    let ca = Ca::new();
    let (cert, key) = ca.leaf(IP, |_| {});
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider.clone()).build().unwrap();
    let plain = server_config(&cert, &key);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(plain.cert_resolver.clone());
    config.alpn_protocols = plain.alpn_protocols.clone();
    let api = Api::with(config).await;
    // In TLS 1.3 the server says so after the handshake, when the exchange has begun.
    assert_eq!(asker.ask(&api, "127.0.0.1", &ca.pem).await.status, 502);
    assert!(api.seen.lock().unwrap().is_empty());

    let directory = &asker.proxy.directory;
    let identity = |issuer: &Ca| {
        let (cert, key) = issuer.leaf(&["leaf1"], |_| {});
        let number = asker.asked.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("{what}{number}");
        (directory.write(&name("client.pem"), &cert), directory.write(&name("client.key"), &key))
    };
    let with = async |issuer: &Ca| {
        let (cert, key) = identity(issuer);
        let mut spec = api.spec("127.0.0.1", &directory.write("ca.pem", &ca.pem));
        (spec.client_cert_file, spec.client_key_file) = (Some(cert), Some(key));
        asker.proxy.discovery.set_upstream(Some(spec)).await;
        ask(asker.port, "GET /api/v1", &asker.bearer, "").await
    };
    assert_eq!(with(&ca).await.status, 200);
    assert_eq!(with(&Ca::new()).await.status, 502);
    assert_eq!(api.seen.lock().unwrap().len(), 1);
}

//! A control API with a private CA, in this process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, RevokedCertParams,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use switch_agent_core::desired::{ComponentType, Dialect, MachineToken, UpstreamSpec};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

static CAS: AtomicU32 = AtomicU32::new(0);

/// A private CA.
pub(super) struct Ca {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(super) fn new() -> Ca {
        Ca::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut CertificateParams)) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two CAs of one name would differ by key only, which is another error.
        let number = CAS.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("CA {number}"));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate of this CA and its key, as PEM.
    pub(super) fn leaf(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    pub(super) fn server(&self, names: &[&str]) -> rustls::ServerConfig {
        let (cert, key) = self.leaf(names, |_| {});
        server_config(&cert, &key)
    }

    /// A list of revoked serial numbers, as PEM.
    pub(super) fn revocations(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2120, 1, 1),
            crl_number: 1u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A server with a chain of certificates (PEM) and the key of the first.
pub(super) fn server_config(chain: &str, key: &str) -> rustls::ServerConfig {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// A control API, and what it saw.
pub(super) struct Api {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// Streams that ended before their time.
    pub cancelled: CancellationToken,
    stop: CancellationToken,
}

#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub line: String,
    pub headers: ::http::HeaderMap,
    pub body: Bytes,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Api {
    pub(super) async fn start(ca: &Ca, names: &[&str], http1_only: bool) -> Api {
        let mut tls = ca.server(names);
        if http1_only {
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Api::with(tls).await
    }

    pub(super) async fn with(tls: rustls::ServerConfig) -> Api {
        Api::at(tls, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn at(tls: rustls::ServerConfig, address: SocketAddr) -> Api {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, cancelled, stop) = (Arc::default(), CancellationToken::new(), CancellationToken::new());
        let api = Api { address, seen: Arc::clone(&seen), cancelled: cancelled.clone(), stop: stop.clone() };
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, seen, cancelled) = (acceptor.clone(), Arc::clone(&seen), cancelled.clone());
                tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service =
                        service_fn(move |request| answer(request, Arc::clone(&seen), cancelled.clone()));
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    builder.serve_connection(TokioIo::new(stream), service).await.ok();
                }));
            }
        }));
        api
    }

    pub(super) fn spec(&self, host: &str, ca_file: &str) -> UpstreamSpec {
        UpstreamSpec {
            host: host.to_owned(),
            port: self.address.port(),
            base: "/base".to_owned(),
            dialect: Dialect::Generic,
            machine_token: MachineToken::Token,
            component_type: ComponentType::Pixiecore,
            vrf: "default".to_owned(),
            ca_file: Some(ca_file.to_owned()),
            client_cert_file: None,
            client_key_file: None,
            token_file: None,
            metal_stack_v1: None,
        }
    }

    /// How many streams of `/wait` have a reader.
    pub(super) fn open_waits(&self) -> u32 {
        OPEN.load(Ordering::Relaxed)
    }

    pub(super) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().expect("the API was asked").clone()
    }
}

type ApiBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

fn fixed(text: impl Into<Bytes>) -> ApiBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A stream of the kind that was asked for, a piece each quarter of a second, until [`FINISH`] or until its
/// reader goes.
fn wait(content_type: Option<::http::HeaderValue>) -> Response<ApiBody> {
    let content_type = content_type.expect("a stream has a type");
    let grpc = content_type.as_bytes().starts_with(b"application/grpc");
    let (mut sender, body) = Channel::new(1);
    OPEN.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        while !FINISH.load(Ordering::Relaxed) {
            if sender.send_data(Bytes::from_static(b"\0\0\0\0\x04tick")).await.is_err() {
                OPEN.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let mut trailers = ::http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        if grpc {
            sender.send_trailers(trailers).await.ok();
        }
    });
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert("content-type", content_type);
    response
}

/// Streams of [`wait`] whose reader is there.
static OPEN: AtomicU32 = AtomicU32::new(0);
/// Ends the streams of [`wait`] as their server would.
pub(super) static FINISH: AtomicBool = AtomicBool::new(false);

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    cancelled: CancellationToken,
) -> Result<Response<ApiBody>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let line = format!("{} {}", parts.method, parts.uri.path_and_query().unwrap());
    if path == "/base/silent" {
        std::future::pending::<()>().await;
    }
    if path == "/base/echo-stream" {
        let body = body.map_err(std::io::Error::other).boxed_unsync();
        return Ok(Response::new(body));
    }
    let parts_type = parts.headers.get("content-type").cloned();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // The proxy's own question whether anybody is there.
    if parts.method == ::http::Method::HEAD {
        return Ok(Response::new(fixed("")));
    }
    seen.lock().unwrap().push(Seen { line, headers: parts.headers, body });
    let mut response = match path.as_str() {
        "/base/endless" => {
            let (mut sender, body) = Channel::new(1);
            tokio::spawn(async move {
                while sender.send_data(Bytes::from_static(b"data: tick\n\n")).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                cancelled.cancel();
            });
            let mut response = Response::new(body.boxed_unsync());
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            response
        }
        "/base/wait" => wait(parts_type),
        "/base/trailers" => {
            let mut trailers = ::http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("x-boot-port", "Ethernet9".parse().unwrap());
            let (mut sender, body) = Channel::new(2);
            sender.send_data(Bytes::from_static(b"hello")).await.unwrap();
            sender.send_trailers(trailers).await.unwrap();
            let mut response = Response::new(body.boxed_unsync());
            response.headers_mut().insert("trailer", "grpc-status, x-boot-port".parse().unwrap());
            response
        }
        "/base/large" => Response::new(fixed(vec![b'x'; 9 << 20])),
        _ => Response::new(fixed("hello")),
    };
    let headers = response.headers_mut();
    headers.insert("server", "secret/1.0".parse().unwrap());
    headers.insert("set-cookie", "a=b".parse().unwrap());
    headers.insert("etag", "\"1\"".parse().unwrap());
    headers.insert("x-request-id", "theirs".parse().unwrap());
    if path == "/base/moved" {
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert("location", "/base/v1/there".parse().unwrap());
    }
    Ok(response)
}

//! metal-api v1 in this process (gRPC with required client certificates, REST with HMAC), and a machine
//! that asks as metal-hammer does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::Value;
use switch_agent_core::desired::{ComponentType, Dialect, MachineToken, MetalStackV1Spec, UpstreamSpec};
use switch_agent_core::discovery::metal_stack_v1::hmac::{authorization, message};
use switch_agent_core::discovery::metal_stack_v1::procedure::Procedure;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::control_api::Ca;
use super::support::{Proxy, Reply, ask};

pub(super) const FLEET_KEY: &str = "the-fleets-hmac-key";

type ApiBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// What metal-api was asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Default)]
struct State {
    asked: Mutex<Vec<Asked>>,
    /// Ends waiting calls well.
    allocated: CancellationToken,
    /// A waiting call ended before its time.
    cancelled: CancellationToken,
}

pub(super) struct MetalApi {
    grpc: SocketAddr,
    rest: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
}

impl Drop for MetalApi {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    roots
}

impl MetalApi {
    /// Starts both sides, and configures the proxy for them.
    pub(super) async fn start(proxy: &Proxy) -> MetalApi {
        let ca = Ca::new();
        let (certificate, key) = ca.leaf(&["127.0.0.1"], |_| {});
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let builder = || {
            let builder = ServerConfig::builder_with_provider(provider());
            builder.with_safe_default_protocol_versions().unwrap()
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(&ca.pem).into(), provider());
        let grpc = builder().with_client_cert_verifier(verifier.build().unwrap());
        let mut grpc = grpc.with_single_cert(vec![certificate.clone()], key.clone_key()).unwrap();
        grpc.alpn_protocols = vec![b"h2".to_vec()];
        let rest = builder().with_no_client_auth();
        let rest = rest.with_single_cert(vec![certificate], key).unwrap();
        let (state, stop) = (Arc::<State>::default(), CancellationToken::new());
        let grpc = listen(grpc, state.clone(), stop.clone()).await;
        let rest = listen(rest, state.clone(), stop.clone()).await;
        let api = MetalApi { grpc, rest, state, stop };
        let (client, client_key) = ca.leaf(&["fleet"], |_| {});
        let write = |name: &str, text: &str| proxy.directory.write(name, text);
        let spec = UpstreamSpec {
            host: "127.0.0.1".to_owned(),
            port: api.rest.port(),
            base: "/metal".to_owned(),
            dialect: Dialect::MetalStackV1,
            machine_token: MachineToken::Handle,
            component_type: ComponentType::Pixiecore,
            vrf: "default".to_owned(),
            ca_file: Some(write("ca.pem", &ca.pem)),
            client_cert_file: None,
            client_key_file: None,
            token_file: None,
            metal_stack_v1: Some(Box::new(MetalStackV1Spec {
                grpc_host: "127.0.0.1".to_owned(),
                grpc_port: api.grpc.port(),
                grpc_ca_file: None,
                grpc_cert_file: write("fleet.pem", &client),
                grpc_key_file: write("fleet.key", &client_key),
                hmac_file: write("hmac", FLEET_KEY),
            })),
        };
        proxy.discovery.set_upstream(Some(spec)).await;
        assert_eq!(proxy.discovery.upstream().unwrap().error, None);
        api
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Last parts of the paths that were asked for, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.asked().iter().map(|asked| asked.path.rsplit('/').next().unwrap().to_owned()).collect()
    }

    pub(super) fn allocate(&self) {
        self.state.allocated.cancel();
    }

    /// Ends every connection at once.
    pub(super) fn kill(&self) {
        self.stop.cancel();
    }

    /// A waiting call ended before its time, within `limit`.
    pub(super) async fn cancelled_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.state.cancelled.cancelled()).await.is_ok()
    }
}

async fn listen(tls: ServerConfig, state: Arc<State>, stop: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, state, ending) = (acceptor.clone(), state.clone(), stop.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| answer(request, state.clone(), ending.clone()));
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                builder.serve_connection(TokioIo::new(stream), service).await.ok();
            }));
        }
    }));
    address
}

fn framed(message: &[u8]) -> Bytes {
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(message);
    body.into()
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
    stop: CancellationToken,
) -> Result<Response<ApiBody>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().to_string();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let metadata = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let wanted = metadata("x-test");
    state.asked.lock().unwrap().push(Asked { path: path.clone(), headers: parts.headers.clone(), body });
    if path.starts_with("/metal/") {
        let text = serde_json::json!({ "id": path.rsplit('/').next() }).to_string();
        return Ok(Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()));
    }
    if wanted.as_deref() == Some("not-found") {
        let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let (mut sender, body) = Channel::new(1);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("x-kept", "yes".parse().unwrap());
    if path == Procedure::Wait.path() {
        if wanted.as_deref() == Some("silent") {
            state.allocated.cancelled().await;
        }
        // Tasks of a connection outlive it in this server: a killed one has to fall silent by itself.
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                tokio::select! {
                    () = state.allocated.cancelled() => break,
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                }
                if sender.send_data(framed(b"")).await.is_err() {
                    state.cancelled.cancel();
                    return;
                }
            }
            if wanted.as_deref() == Some("no-status") {
                trailers.remove("grpc-status");
            }
            if wanted.as_deref() != Some("no-trailers") {
                sender.send_trailers(trailers).await.ok();
            }
        }));
    } else {
        tokio::spawn(async move {
            sender.send_data(framed(b"\x0a\x01x")).await.ok();
            sender.send_trailers(trailers).await.ok();
        });
    }
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    Ok(response)
}

/// A reply of gRPC to its end.
#[derive(Debug, Default)]
pub(super) struct Called {
    pub http: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// `None` where the stream was reset.
    pub trailers: Option<HeaderMap>,
}

impl Called {
    /// `grpc-status`, of the trailers or of a reply that is trailers alone.
    pub(super) fn status(&self) -> Option<&str> {
        let of = |headers: &'_ HeaderMap| headers.contains_key("grpc-status");
        let trailers = self.trailers.as_ref().filter(|trailers| of(trailers)).unwrap_or(&self.headers);
        trailers.get("grpc-status").map(|value| value.to_str().unwrap())
    }
}

/// metal-hammer with what `GET /certs` told it.
pub(super) struct Machine {
    pub port: u16,
    pub config: Value,
}

/// Runs a connection's tasks until the machine dies.
#[derive(Clone)]
struct Mortal(CancellationToken);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Mortal {
    fn execute(&self, task: F) {
        let life = self.0.clone();
        tokio::spawn(async move {
            life.run_until_cancelled(task).await;
        });
    }
}

pub(super) type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

impl Machine {
    pub(super) async fn boot(port: u16) -> Machine {
        let reply = ask(port, "GET /certs", "", "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        Machine { port, config: reply.json() }
    }

    fn text(&self, field: &str) -> &str {
        self.config[field].as_str().unwrap()
    }

    /// Connects to a port with the credentials, as gRPC does. Cancelling ends the process of the machine.
    pub(super) async fn connect(
        &self,
        port: u16,
        certificate: bool,
    ) -> Result<(Sender, CancellationToken), Box<dyn std::error::Error>> {
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(roots(self.text("ca_cert")));
        let mut tls = if certificate {
            let chain = vec![CertificateDer::from_pem_slice(self.text("cert").as_bytes())?];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(self.text("key").as_bytes())?)?
        } else {
            builder.with_no_client_auth()
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(("::1", port)).await?;
        // The address that the document names, which is the port's in a boot network.
        let host = self.text("address").split(']').next().unwrap().trim_start_matches('[').to_owned();
        let name = ServerName::try_from(host)?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
        let life = CancellationToken::new();
        let handshake = hyper::client::conn::http2::handshake(Mortal(life.clone()), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await?;
        Mortal(life.clone()).execute(async move {
            connection.await.ok();
        });
        sender.ready().await?;
        // With TLS 1.3 a refused certificate shows in the first answer.
        Ok((sender, life))
    }

    pub(super) async fn sender(&self) -> (Sender, CancellationToken) {
        self.connect(self.port, true).await.unwrap()
    }

    /// `GET` below `metal_api_url`, signed with `key` and a clock that stands.
    pub(super) async fn rest(&self, path: &str, salt: &str) -> Reply {
        self.rest_with(self.text("hmac"), path, salt).await
    }

    pub(super) async fn rest_with(&self, key: &str, path: &str, salt: &str) -> Reply {
        const DATE: &str = "1970-01-01T00:00:07Z";
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), &message(DATE, "GET", salt));
        let fields = format!(
            "X-Date: {DATE}\r\nX-Data-Salt: {salt}\r\nAuthorization: {}\r\n",
            authorization(tag.as_ref())
        );
        ask(self.port, &format!("GET /metal{path}"), &fields, "").await
    }
}

/// The message of a procedure that names a machine.
pub(super) fn naming(procedure: Procedure, uuid: &str) -> Bytes {
    let mut name = vec![0x0a, 36];
    name.extend_from_slice(uuid.as_bytes());
    match procedure {
        Procedure::SuperUserPassword => framed(b""),
        Procedure::Send => {
            let mut entry = vec![0x0a, u8::try_from(name.len()).unwrap()];
            entry.extend(name);
            framed(&entry)
        }
        _ => framed(&name),
    }
}

pub(super) fn request(procedure: Procedure, body: Bytes, metadata: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::post(format!("https://proxy{}", procedure.path()))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body)).unwrap()
}

/// Makes a call, and reads its reply to the end.
pub(super) async fn call(sender: &Sender, request: Request<Full<Bytes>>) -> Result<Called, hyper::Error> {
    let response = sender.clone().send_request(request).await?;
    let mut called =
        Called { http: response.status().as_u16(), headers: response.headers().clone(), ..Called::default() };
    if let Ok(collected) = response.into_body().collect().await {
        called.trailers = Some(collected.trailers().cloned().unwrap_or_default());
        called.body = collected.to_bytes();
    }
    Ok(called)
}

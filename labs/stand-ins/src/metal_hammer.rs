//! A machine that boots as metal-hammer does: fetches its configuration, calls metal-api by gRPC and by
//! REST, waits to be allocated, reports. Each step is one line of JSON on standard output.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// The configuration is fetched once, within this time.
const CONFIG_TIMEOUT: Duration = Duration::from_secs(5);
const UNARY_TIMEOUT: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the configuration is fetched
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    pixie_api_url: Option<String>,
    /// Use the configuration in FILE
    #[arg(long, value_name = "FILE", conflicts_with = "pixie_api_url")]
    config: Option<PathBuf>,
    /// Leave the configuration in FILE
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// The machine's UUID
    #[arg(long, value_name = "UUID")]
    uuid: String,
    /// Speak to the gRPC server at ADDR:PORT instead of the configured one
    #[arg(long, value_name = "ADDR:PORT")]
    address: Option<String>,
    /// What to do, in this order
    #[arg(long, value_enum, value_delimiter = ',')]
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    Send,
    Password,
    Register,
    Machine,
    Wait,
    Report,
}

#[derive(Debug)]
pub(crate) struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

trait Said<T> {
    fn said(self, what: &str) -> Result<T, Error>;
}

impl<T, E: fmt::Display> Said<T> for Result<T, E> {
    fn said(self, what: &str) -> Result<T, Error> {
        self.map_err(|error| Error(format!("{what}: {error}")))
    }
}

impl<T> Said<T> for Option<T> {
    fn said(self, what: &str) -> Result<T, Error> {
        self.ok_or_else(|| Error(what.to_owned()))
    }
}

pub(crate) fn run(args: Args) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().said("runtime")?;
    runtime.block_on(boot(args))
}

fn tell(step: &str, mut outcome: Value) {
    outcome["step"] = step.into();
    println!("{outcome}");
}

async fn boot(args: Args) -> Result<(), Error> {
    let config: Value = match (&args.config, &args.pixie_api_url) {
        (Some(path), _) => serde_json::from_slice(&std::fs::read(path).said("configuration")?),
        (None, Some(url)) => {
            let fetched = tokio::time::timeout(CONFIG_TIMEOUT, get(url, &[])).await.said("configuration")?;
            serde_json::from_slice(&fetched?.1)
        }
        (None, None) => return Err(Error("no configuration".to_owned())),
    }
    .said("configuration")?;
    if let Some(path) = &args.save {
        std::fs::write(path, config.to_string()).said("save the configuration")?;
    }
    tell("certs", json!({ "partition": config["partition"] }));
    let field = |name: &str| config[name].as_str().said(name).map(str::to_owned);
    let address = args.address.clone().map_or_else(|| field("address"), Ok)?;
    let mut sender = None;
    for step in &args.steps {
        let name = format!("{step:?}").to_lowercase();
        if *step == Step::Machine {
            let url = format!("{}/v1/machine/{}", field("metal_api_url")?, args.uuid);
            match get(&url, &signature(&field("hmac")?)).await {
                Ok((status, _)) => tell(&name, json!({ "http": status })),
                Err(error) => tell(&name, json!({ "error": error.0 })),
            }
            continue;
        }
        if sender.is_none() {
            match connect(&address, &config).await {
                Ok(made) => sender = Some(made),
                Err(error) => {
                    tell(&name, json!({ "error": error.0 }));
                    continue;
                }
            }
        }
        let Some(sender) = &sender else { continue };
        let outcome = if *step == Step::Wait {
            call(sender.clone(), *step, &args.uuid).await
        } else {
            let called = tokio::time::timeout(UNARY_TIMEOUT, call(sender.clone(), *step, &args.uuid)).await;
            called.unwrap_or_else(|_| Err(Error("timeout".to_owned())))
        };
        tell(&name, outcome.unwrap_or_else(|error| json!({ "error": error.0 })));
    }
    Ok(())
}

/// `GET` of an `http://host:port/path` URL: status and body.
async fn get(url: &str, headers: &[(&str, String)]) -> Result<(u16, Bytes), Error> {
    let rest = url.strip_prefix("http://").said("no http:// URL")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let stream = TcpStream::connect(host.parse::<SocketAddr>().said(host)?).await.said(host)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.said(url)?;
    tokio::spawn(connection);
    let mut request = Request::get(if path.is_empty() { "/" } else { path }).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::<Bytes>::default()).said(url)?;
    let response = sender.send_request(request).await.said(url)?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await.said(url)?.to_bytes()))
}

/// Signs a `GET` with a clock that nobody has set.
fn signature(key: &str) -> [(&'static str, String); 3] {
    const DATE: &str = "1970-01-01T00:01:00Z";
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let salt = format!("{:024}", nanos.as_nanos() % 1_000_000_000_000_000_000);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let tag = hmac::sign(&key, [DATE, "GET", salt.as_str()].concat().as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    [("x-date", DATE.to_owned()), ("x-data-salt", salt), ("authorization", format!("Metal-View {hex}"))]
}

type Sender = http2::SendRequest<Full<Bytes>>;

/// gRPC as metal-hammer dials it: TLS with the client certificate, the server checked by address.
async fn connect(address: &str, config: &Value) -> Result<Sender, Error> {
    let pem = |name: &str| config[name].as_str().said(name).map(str::as_bytes);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem("ca_cert")?).said("ca_cert")?).said("ca_cert")?;
    let chain = vec![CertificateDer::from_pem_slice(pem("cert")?).said("cert")?];
    let key = PrivateKeyDer::from_pem_slice(pem("key")?).said("key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .said("TLS")?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .said("cert")?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let address: SocketAddr = address.parse().said(address)?;
    let stream = TcpStream::connect(address).await.said("connect")?;
    let name = ServerName::from(address.ip());
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.said("TLS")?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.said("HTTP/2")?;
    tokio::spawn(connection);
    Ok(sender)
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[number << 3 | 2, length], content].concat()
}

fn message(step: Step, uuid: &str) -> (&'static str, Vec<u8>) {
    let name = field(1, uuid.as_bytes());
    match step {
        Step::Send => {
            let event = [name, field(2, &field(2, b"Preparing"))].concat();
            ("/api.v1.EventService/Send", field(1, &event))
        }
        Step::Password | Step::Machine => ("/api.v1.BootService/SuperUserPassword", Vec::new()),
        // Hardware of 8 cores.
        Step::Register => {
            ("/api.v1.BootService/Register", [name, field(2, &[0x10, 8]), field(6, b"lab")].concat())
        }
        Step::Wait => ("/api.v1.BootService/Wait", name),
        // success = true
        Step::Report => ("/api.v1.BootService/Report", [name, vec![0x20, 1]].concat()),
    }
}

/// `{"status"}` of a call that ended with one, with `"messages"` before it, or `{"http"}`.
async fn call(mut sender: Sender, step: Step, uuid: &str) -> Result<Value, Error> {
    let (path, message) = message(step, uuid);
    let length = u32::try_from(message.len()).said("message")?;
    let body = [&[0], &length.to_be_bytes()[..], &message].concat();
    let request = Request::post(format!("https://metal-api{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(body)))
        .said("request")?;
    let response = sender.send_request(request).await.said("call")?;
    if response.status() != 200 {
        return Ok(json!({ "http": response.status().as_u16() }));
    }
    let status = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse::<u32>().ok();
    let mut told = status(response.headers());
    let mut messages = 0;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.said("stream")?;
        if let Some(trailers) = frame.trailers_ref() {
            told = status(trailers);
        } else {
            messages += 1;
            if step == Step::Wait && messages == 1 {
                tell("waiting", json!({}));
            }
        }
    }
    Ok(json!({ "status": told, "messages": messages }))
}

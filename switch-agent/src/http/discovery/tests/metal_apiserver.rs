//! A metal-apiserver in this process: Connect RPC in JSON, with the roles that matter.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use switch_agent_core::desired::{ComponentType, Dialect, MachineToken, UpstreamSpec};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::control_api::Ca;

pub(super) const AGENT_TOKEN: &str = "eyJ-agent-token-of-leaf1";

/// A call as it came in.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub procedure: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn bearer(&self) -> &str {
        bearer(&self.headers).unwrap_or_default()
    }
}

#[derive(Default)]
pub(super) struct State {
    pub calls: Vec<Call>,
    /// Machine and id by secret.
    pub tokens: BTreeMap<String, (String, String)>,
    /// Tokens made so far.
    made: u32,
    pub switch: Value,
    pub partition: Value,
    /// Answers nothing but 503.
    pub away: bool,
    /// Pause before a token is made.
    pub slow: Duration,
}

pub(super) struct MetalApiserver {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
    /// Machine ids that were allocated.
    pub allocated: watch::Sender<Vec<String>>,
    /// Cancelled when a Wait was broken off.
    pub broken_off: CancellationToken,
    pub ca: Ca,
    stop: CancellationToken,
}

impl Drop for MetalApiserver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl MetalApiserver {
    pub(super) async fn start(http1_only: bool) -> MetalApiserver {
        let ca = Ca::new();
        let mut tls = ca.server(&["127.0.0.1"]);
        if http1_only {
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            switch: json!({ "id": "leaf1", "nics": [
                { "name": "Ethernet0", "identifier": "Eth1/1" }, { "name": "Ethernet4", "identifier": "Eth1/2" }
            ] }),
            partition: json!({
                "id": "p1",
                "bootConfiguration": {
                    "imageUrl": "https://images.example/initrd", "kernelUrl": "https://images.example/kernel",
                    "commandline": "console=ttyS0 ip=dhcp"
                },
                "dnsServers": [{ "ip": "2001:db8::53" }], "ntpServers": [{ "address": "ntp.example" }]
            }),
            ..State::default()
        };
        let server = MetalApiserver {
            address,
            state: Arc::new(Mutex::new(state)),
            allocated: watch::Sender::default(),
            broken_off: CancellationToken::new(),
            ca,
            stop: CancellationToken::new(),
        };
        let (state, allocated) = (server.state.clone(), server.allocated.clone());
        let (broken_off, stop) = (server.broken_off.clone(), server.stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, state, allocated) = (acceptor.clone(), state.clone(), allocated.clone());
                let broken_off = broken_off.clone();
                tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| {
                        answer(request, state.clone(), allocated.subscribe(), broken_off.clone())
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    builder.serve_connection(TokioIo::new(stream), service).await.ok();
                }));
            }
        }));
        server
    }

    pub(super) fn spec(&self, ca_file: &str, token_file: &str, machine_token: MachineToken) -> UpstreamSpec {
        UpstreamSpec {
            host: "127.0.0.1".to_owned(),
            port: self.address.port(),
            base: "/metal".to_owned(),
            dialect: Dialect::MetalStackV2,
            machine_token,
            component_type: ComponentType::Pixiecore,
            metal_stack_v1: None,
            vrf: "default".to_owned(),
            ca_file: Some(ca_file.to_owned()),
            client_cert_file: None,
            client_key_file: None,
            token_file: Some(token_file.to_owned()),
        }
    }

    /// Calls of a procedure (`TokenService/Create`) so far.
    pub(super) fn calls(&self, procedure: &str) -> Vec<Call> {
        let state = self.state.lock().unwrap();
        state.calls.iter().filter(|call| call.procedure.ends_with(procedure)).cloned().collect()
    }

    /// Waits until a procedure was called so many times.
    pub(super) async fn called(&self, procedure: &str, times: usize) -> Vec<Call> {
        for _ in 0..200 {
            let calls = self.calls(procedure);
            if calls.len() >= times {
                return calls;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{procedure} was called {} times", self.calls(procedure).len());
    }
}

type ApiBody = Full<Bytes>;

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn reply(status: StatusCode, value: &Value) -> Response<ApiBody> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
    response
}

fn refuse(status: StatusCode, code: &str) -> Response<ApiBody> {
    reply(status, &json!({ "code": code, "message": format!("stand-in says {code}") }))
}

pub(super) fn envelope(flags: u8, value: &Value) -> Vec<u8> {
    let body = value.to_string();
    let mut bytes = vec![flags];
    bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body.into_bytes());
    bytes
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    allocated: watch::Receiver<Vec<String>>,
    broken_off: CancellationToken,
) -> Result<Response<ApiBody>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let Some(procedure) = parts.uri.path().strip_prefix("/metal") else {
        return Ok(refuse(StatusCode::NOT_FOUND, "unimplemented"));
    };
    let (slow, away) = {
        let mut state = state.lock().unwrap();
        let call =
            Call { procedure: procedure.to_owned(), headers: parts.headers.clone(), body: body.clone() };
        state.calls.push(call);
        (state.slow, state.away)
    };
    if away {
        return Ok(refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    }
    let token = bearer(&parts.headers).unwrap_or_default().to_owned();
    let service = procedure.trim_start_matches("/metalstack.");
    let machine_call = matches!(
        service,
        "infra.v2.BootService/Register"
            | "infra.v2.BootService/SuperUserPassword"
            | "infra.v2.BootService/Wait"
    );
    if machine_call {
        return Ok(answer_machine(service, &token, &body, &state, allocated, broken_off).await);
    }
    if token != AGENT_TOKEN {
        let known = state.lock().unwrap().tokens.contains_key(&token);
        let (status, code) = if known {
            (StatusCode::FORBIDDEN, "permission_denied")
        } else {
            (StatusCode::UNAUTHORIZED, "unauthenticated")
        };
        return Ok(refuse(status, code));
    }
    let question: Value = serde_json::from_slice(&body).unwrap_or_default();
    if service == "api.v2.TokenService/Create" {
        tokio::time::sleep(slow).await;
    }
    let mut state = state.lock().unwrap();
    Ok(match service {
        "api.v2.TokenService/Create" => {
            let roles = question["machineRoles"].as_object().unwrap();
            let (machine, role) = roles.iter().next().unwrap();
            assert_eq!(role, "MACHINE_ROLE_EDITOR");
            let (id, secret) =
                (format!("token-{}", state.made), format!("eyJ-secret-{}-{machine}", state.made));
            state.made += 1;
            state.tokens.insert(secret.clone(), (machine.clone(), id.clone()));
            reply(StatusCode::OK, &json!({ "token": { "uuid": id }, "secret": secret }))
        }
        "api.v2.TokenService/Revoke" => {
            state.tokens.retain(|_, (_, id)| question["uuid"] != *id);
            reply(StatusCode::OK, &json!({}))
        }
        "api.v2.PartitionService/Get" => reply(StatusCode::OK, &json!({ "partition": state.partition })),
        "infra.v2.SwitchService/Get" if state.switch.is_null() => refuse(StatusCode::NOT_FOUND, "not_found"),
        "infra.v2.SwitchService/Get" => reply(StatusCode::OK, &json!({ "switch": state.switch })),
        "infra.v2.EventService/Send" => reply(StatusCode::OK, &json!({ "events": "1" })),
        "infra.v2.BootService/Dhcp" | "infra.v2.ComponentService/Ping" => reply(StatusCode::OK, &json!({})),
        _ => refuse(StatusCode::NOT_FOUND, "unimplemented"),
    })
}

/// Cancels when it is dropped before its time.
struct Unfinished(Option<CancellationToken>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(broken_off) = self.0.take() {
            broken_off.cancel();
        }
    }
}

async fn answer_machine(
    service: &str,
    token: &str,
    body: &[u8],
    state: &Mutex<State>,
    mut allocated: watch::Receiver<Vec<String>>,
    broken_off: CancellationToken,
) -> Response<ApiBody> {
    let machine = state.lock().unwrap().tokens.get(token).map(|(machine, _)| machine.clone());
    let Some(machine) = machine else {
        return refuse(StatusCode::UNAUTHORIZED, "unauthenticated");
    };
    let stream = service.ends_with("Wait");
    let message = if stream { body.get(5..).unwrap_or_default() } else { body };
    // Compressed bodies pass through the proxy; this stand-in does not look into them.
    if let Ok(question) = serde_json::from_slice::<Value>(message)
        && question["uuid"] != machine
    {
        return refuse(StatusCode::FORBIDDEN, "permission_denied");
    }
    if !stream {
        let password = json!({ "superUserPassword": "fleet-wide" });
        let registered = json!({ "uuid": machine, "size": "v1", "partition": "p1" });
        return reply(StatusCode::OK, if service.ends_with("Register") { &registered } else { &password });
    }
    // As connect-go does: the response header goes out with the first message.
    let mut unfinished = Unfinished(Some(broken_off));
    let found = allocated.wait_for(|machines| machines.contains(&machine)).await.is_ok();
    assert!(found);
    unfinished.0.take();
    let mut bytes = envelope(0, &json!({ "allocation": { "uuid": machine, "hostname": "m1" } }));
    bytes.extend(envelope(2, &json!({})));
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    response.headers_mut().insert(CONTENT_TYPE, "application/connect+json".parse().unwrap());
    response
}

//! Which request of a machine is answered how.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use serde::Deserialize;
use switch_agent_core::desired::Dialect;
use switch_agent_core::discovery::boot::{self, MachineConfig, MachineFacts, parse_machine_config};
use switch_agent_core::discovery::headers::tells_of_forwarding;
use switch_agent_core::discovery::{Target, TargetRefusal, ipxe};
use switch_agent_core::identity::MintRefusal;
use switch_agent_core::machines::{MachineEvent, ProxyStep};
use switch_agent_core::name::MacAddr;
use switch_agent_core::service::PortContext;

use super::PortState;
use super::answer::{Refusal, json, text, token_bearing};
use super::api;
use super::body;
use super::metal_stack_v1;
use super::metal_stack_v2::{self, Told};
use super::reply::ReplyBody;
use crate::http::tokens::{MintError, Minted};

const TOKEN_BODY_MAX: u64 = 4 << 10;
const EVENT_BODY_MAX: u64 = 16 << 10;
const STAGE_LEN_MAX: usize = 64;
const MESSAGE_LEN_MAX: usize = 2 << 10;

/// A request with what is known of where it came from.
pub struct Incomer<'a> {
    pub port: &'a Arc<PortState>,
    pub peer: SocketAddrV6,
}

impl Incomer<'_> {
    pub fn address(&self) -> Ipv6Addr {
        *self.peer.ip()
    }

    /// The machine's MAC from the neighbour table of the port. The kernel made the entry when it answered
    /// the connection; the cache of it may be a moment behind.
    pub async fn mac(&self) -> Option<MacAddr> {
        const WAITS_MS: [u64; 5] = [0, 10, 40, 100, 200];
        for wait in WAITS_MS {
            if wait > 0 {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            if let Some(mac) = self.port.shared.neighbors.mac(self.port.listener.ifindex, self.address()) {
                return Some(mac);
            }
        }
        None
    }

    pub async fn known_mac(&self) -> Result<MacAddr, Refusal> {
        self.mac().await.ok_or_else(|| {
            let message = "the switch has no neighbour entry for this machine yet";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "machine-unknown", message)
                .retry_after(Duration::from_secs(1))
        })
    }

    pub fn report(&self, mac: Option<MacAddr>, step: ProxyStep) {
        let port = self.port.listener.port.clone();
        self.port.shared.hub.observe(MachineEvent::Proxy { port, mac, address: self.address(), step });
    }
}

/// Serves one request. Never fails: a refusal is a reply too.
pub async fn serve(
    port: Arc<PortState>,
    peer: SocketAddrV6,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let incomer = Incomer { port: &port, peer };
    let last = is_last(&request);
    let (route, outcome) = dispatch(&incomer, request).await;
    finish(&port, route, outcome, last)
}

/// Refuses a request beyond the port's rate, when another would be taken again. Whoever asks too fast waits for the
/// answer, and on HTTP/1 asks no more meanwhile: refusing at once would cost the thread as much as the machine can
/// send. A machine may have hundreds of these waiting: they hold next to nothing.
pub fn limited(
    port: Arc<PortState>,
    request: Request<Incoming>,
    after: Duration,
) -> impl Future<Output = Response<ReplyBody>> + Send + 'static {
    let last = is_last(&request);
    drop(request);
    async move {
        tokio::time::sleep(after).await;
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "slow down");
        finish(&port, "limited", Err(refusal.retry_after(after)), last)
    }
}

/// After a chunked body nothing on the connection is looked at any more: it ends there.
fn is_last(request: &Request<Incoming>) -> bool {
    request.version() < Version::HTTP_2 && request.headers().contains_key("transfer-encoding")
}

fn finish(port: &PortState, route: &'static str, outcome: Outcome, last: bool) -> Response<ReplyBody> {
    let mut response = outcome.unwrap_or_else(|refusal| {
        port.shared.metrics.proxy.rejected(refusal.code);
        tracing::debug!(port = %port.listener.port, code = refusal.code, "refused");
        refusal.into_response(&port.listener.port)
    });
    if last {
        response.headers_mut().insert("connection", ::http::HeaderValue::from_static("close"));
    }
    port.shared.metrics.proxy.request(route, response.status().as_u16());
    response
}

type Outcome = Result<Response<ReplyBody>, Refusal>;

/// Boxes the futures of all routes but the one that carries the load: each request's future has room for
/// the largest of what is not boxed, and is moved several times.
async fn dispatch(incomer: &Incomer<'_>, request: Request<Incoming>) -> (&'static str, Outcome) {
    let target = match target(incomer, &request) {
        Ok(target) => target,
        Err(refusal) => return ("malformed", Err(refusal)),
    };
    if let Some(route) = metal_stack_v1::Route::of(incomer, &request, &target) {
        return Box::pin(route.serve(incomer, request, &target)).await;
    }
    if metal_stack_v2::takes(incomer, &target) {
        return Box::pin(metal_stack_v2::serve(incomer, request, &target)).await;
    }
    let get = request.method() == Method::GET;
    let post = request.method() == Method::POST;
    match target.path() {
        "/v1/boot" if get => ("boot", Box::pin(boot(incomer)).await),
        "/v1/token" if post => ("token", Box::pin(token(incomer, request)).await),
        "/v1/events" if post => ("events", Box::pin(events(incomer, request)).await),
        "/boot.ipxe" if get => ("ipxe", Box::pin(script(incomer)).await),
        "/healthz" if get => {
            let port = &incomer.port;
            let mac = port.shared.neighbors.mac(port.listener.ifindex, incomer.address());
            incomer.report(mac, ProxyStep::Seen);
            ("healthz", Ok(text(StatusCode::OK, "ok\n".to_owned())))
        }
        "/v1/boot" | "/boot.ipxe" | "/healthz" => ("method", Err(Refusal::method("GET"))),
        "/v1/token" | "/v1/events" => ("method", Err(Refusal::method("POST"))),
        path => match (target.below(api::PREFIX), path.strip_suffix("/boot.ipxe")) {
            (Some(below), _) => ("api", api::forward(incomer, request, &below).await),
            (None, Some(partition)) if get => {
                let own = partition.strip_prefix('/') == Some(incomer.port.context().partition.as_str());
                ("ipxe", if own { Box::pin(script(incomer)).await } else { Err(Refusal::not_found()) })
            }
            _ => ("other", Err(Refusal::not_found())),
        },
    }
}

fn target(incomer: &Incomer<'_>, request: &Request<Incoming>) -> Result<Target, Refusal> {
    let limits = &incomer.port.shared.limits;
    if request.method() == Method::CONNECT || request.method() == Method::TRACE {
        let message = "CONNECT and TRACE are not served";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message));
    }
    if request.headers().len() > limits.header_fields {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Refusal::new(status, "headers-too-many", "too many header fields"));
    }
    let spelled = request.uri().path_and_query().map_or("", ::http::uri::PathAndQuery::as_str);
    Target::parse(spelled, limits.target_bytes).map_err(|refusal| {
        let (status, code) = match refusal {
            TargetRefusal::TooLong => (StatusCode::URI_TOO_LONG, "target-too-long"),
            _ => (StatusCode::BAD_REQUEST, "target-refused"),
        };
        Refusal::new(status, code, refusal.to_string())
    })
}

async fn boot(incomer: &Incomer<'_>) -> Outcome {
    let port = incomer.port;
    let Told { context, age, base } = metal_stack_v2::told(port);
    let mac = incomer.mac().await;
    let config = machine_config(incomer, &context).await?;
    let mut addresses = vec![incomer.address()];
    if let Some(mac) = mac {
        addresses.extend(port.shared.neighbors.addresses(port.listener.ifindex, mac));
        addresses.sort_unstable();
        addresses.dedup();
    }
    let machine = MachineFacts { mac, addresses, id: port.shared.tokens.machine_id(&port.listener.port) };
    incomer.report(mac, ProxyStep::Config);
    let mut document = boot::document(&context, machine, config);
    document.config_age_s = document.config_age_s.max(age.unwrap_or_default().as_secs());
    document.api.base = base.unwrap_or(document.api.base);
    Ok(json(StatusCode::OK, &document))
}

/// The partition's `machine_config_file`, where it has one.
pub async fn machine_config(
    incomer: &Incomer<'_>,
    context: &PortContext,
) -> Result<Option<MachineConfig>, Refusal> {
    let Some(path) = &context.settings.machine_config_file else {
        return Ok(None);
    };
    let port = incomer.port;
    let parse = |text: &str| parse_machine_config(text).map_err(|error| error.to_string());
    let (object, age) = port.shared.configs.get(path, parse).await.map_err(|error| {
        tracing::warn!(port = %port.listener.port, error, "machine_config_file cannot be used");
        unusable_file("machine-config-unusable", "the partition's machine_config_file cannot be used")
    })?;
    Ok(Some(MachineConfig { object, age }))
}

fn unusable_file(code: &'static str, message: &str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(Duration::from_secs(10))
}

async fn script(incomer: &Incomer<'_>) -> Outcome {
    let port = incomer.port;
    let Told { context, .. } = metal_stack_v2::told(port);
    let mac = incomer.mac().await;
    let mut script = None;
    if let Some(once) = &context.settings.boot_once
        && port.shared.once.is_due(&port.listener.port, once).await
    {
        let mut context = PortContext::clone(&context);
        once.profile.apply(context.settings_mut());
        let made = rendered(port, &context, mac).await?;
        // Used up only now: a template that cannot be rendered leaves it for the next try.
        if port.shared.once.take(&port.listener.port, once).await {
            tracing::info!(port = %port.listener.port, profile = once.profile.name, "one-shot boot profile handed out");
            script = Some(made);
        }
    }
    let script = match script {
        Some(script) => script,
        None => rendered(port, &context, mac).await?,
    };
    incomer.report(mac, ProxyStep::Config);
    Ok(text(StatusCode::OK, script))
}

/// The script of a port as `context` has it.
async fn rendered(port: &PortState, context: &PortContext, mac: Option<MacAddr>) -> Result<String, Refusal> {
    let unusable = |error: String| {
        tracing::warn!(port = %port.listener.port, error, "boot template cannot be used");
        unusable_file("boot-template-unusable", "the partition's boot template cannot be used")
    };
    let template = match &context.settings.boot_template_file {
        None => None,
        Some(path) => {
            let (template, _) =
                port.shared.templates.get(path, |text| Ok(text.to_owned())).await.map_err(unusable)?;
            Some(template)
        }
    };
    let upstream = port.shared.current_upstream();
    let dialect = upstream.map(|upstream| upstream.spec().dialect).unwrap_or_default();
    ipxe::render(template.as_deref(), context, mac, dialect).map_err(|error| {
        unusable(std::error::Error::source(&error).map_or(error.to_string(), |why| format!("{error}: {why}")))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    machine_id: Option<uuid::Uuid>,
}

/// The header keeps a browser or a confused proxy from minting; a forwarding header tells that the machine
/// itself is not the one who asks.
fn check_token_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.keys().any(|name| tells_of_forwarding(name.as_str())) {
        let message = "no token for forwarded requests; ask from the machine itself";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "forwarded-request", message));
    }
    let mut values = headers.get_all("boot-token").iter();
    match (values.next().map(::http::HeaderValue::as_bytes), values.next()) {
        (Some(b"request"), None) => Ok(()),
        _ => {
            let message = "send the header Boot-Token: request";
            Err(Refusal::new(StatusCode::BAD_REQUEST, "boot-token-header-required", message))
        }
    }
}

async fn token(incomer: &Incomer<'_>, request: Request<Incoming>) -> Outcome {
    let port = incomer.port;
    let outcome = mint(incomer, request).await;
    if let Err(refusal) = &outcome {
        port.shared.metrics.proxy.token_refused(refusal.code);
    }
    outcome
}

async fn mint(incomer: &Incomer<'_>, request: Request<Incoming>) -> Outcome {
    let port = incomer.port;
    let upstream = port.shared.current_upstream();
    let spec = upstream.as_ref().map(|upstream| upstream.spec());
    if spec.is_some_and(|spec| spec.dialect == Dialect::MetalStackV1) {
        let message = "this control API mints its own tokens; see its own paths";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "dialect-without-tokens", message));
    }
    let machine_id = asked_machine_id(incomer, request).await?.map(|id| id.to_string());
    let mac = incomer.known_mac().await?;
    let mode = spec.map(|spec| spec.machine_token).unwrap_or_default();
    let minted = {
        let _one = port.minting.try_lock().map_err(|_| mint_in_flight())?;
        if let Some(upstream) = &upstream {
            port.shared.reach.check(upstream).await?;
        }
        let context = port.context();
        port.shared.tokens.mint(&port.listener, &context, mac, machine_id.clone(), mode)?
    };
    port.shared.metrics.proxy.token_minted();
    incomer.report(Some(mac), ProxyStep::Token { machine_id });
    Ok(token_reply(&minted))
}

/// The machine id in a request for a token, which must be one.
pub async fn asked_machine_id(
    incomer: &Incomer<'_>,
    request: Request<Incoming>,
) -> Result<Option<uuid::Uuid>, Refusal> {
    check_token_headers(request.headers())?;
    let body = body::read(request.into_body(), TOKEN_BODY_MAX, &incomer.port.shared.limits).await?;
    if body.is_empty() {
        return Ok(None);
    }
    let asked: TokenRequest = serde_json::from_slice(&body).map_err(|_| {
        let message = "the body is {\"machine_id\": \"<uuid>\"} or empty";
        Refusal::new(StatusCode::BAD_REQUEST, "body-invalid", message)
    })?;
    Ok(asked.machine_id)
}

/// The reply of `POST /v1/token`.
pub fn token_reply(minted: &Minted) -> Response<ReplyBody> {
    let seconds = i64::try_from(minted.expires_at).unwrap_or(i64::MAX);
    let expires_at = jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default();
    let reply = serde_json::json!({
        "token": minted.token.expose(), "token_type": "Bearer", "expires_at": expires_at,
        "handle": minted.handle
    });
    token_bearing(json(StatusCode::OK, &reply))
}

pub fn mint_in_flight() -> Refusal {
    let message = "a token of this port is being made already";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "mint-in-flight", message).retry_after(Duration::from_secs(1))
}

impl From<MintRefusal> for Refusal {
    fn from(refusal: MintRefusal) -> Refusal {
        let message = refusal.to_string();
        match refusal {
            MintRefusal::Rate { retry_after } => {
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too-many-tokens", message)
                    .retry_after(retry_after)
            }
            MintRefusal::Outdated => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "port-changed", message)
                .retry_after(Duration::from_secs(1)),
        }
    }
}

impl From<MintError> for Refusal {
    fn from(error: MintError) -> Refusal {
        let internal = |code| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, code, error.to_string());
        match &error {
            MintError::Refused(refusal) => (*refusal).into(),
            MintError::Sign(_) => internal("token-unsigned"),
            MintError::Random => internal("token-unmade"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventRequest {
    stage: String,
    message: Option<String>,
}

async fn events(incomer: &Incomer<'_>, request: Request<Incoming>) -> Outcome {
    let invalid = |message: &str| Refusal::new(StatusCode::BAD_REQUEST, "body-invalid", message);
    if request.body().size_hint().upper() == Some(0) {
        return Err(invalid("the body is {\"stage\": \"...\", \"message\": \"...\"}"));
    }
    let body = body::read(request.into_body(), EVENT_BODY_MAX, &incomer.port.shared.limits).await?;
    let event: EventRequest = serde_json::from_slice(&body)
        .map_err(|_| invalid("the body is {\"stage\": \"...\", \"message\": \"...\"}"))?;
    let stage_ok = !event.stage.is_empty()
        && event.stage.len() <= STAGE_LEN_MAX
        && event.stage.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if !stage_ok {
        return Err(invalid("stage is 1 to 64 printable ASCII characters"));
    }
    // A machine's words end up in logs and on terminals.
    let message = event.message.map(|message| {
        let printable = message.chars().map(|c| if c.is_control() { ' ' } else { c });
        let mut short: String = printable.take(MESSAGE_LEN_MAX).collect();
        while short.len() > MESSAGE_LEN_MAX {
            short.pop();
        }
        short
    });
    let mac = incomer.mac().await;
    metal_stack_v2::relay(incomer.port, mac, &event.stage, message.as_deref());
    incomer.report(mac, ProxyStep::Event { stage: event.stage, message });
    Ok(json(StatusCode::ACCEPTED, &serde_json::json!({})))
}

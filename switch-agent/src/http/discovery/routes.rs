//! Which request of a machine is answered how.

use std::net::SocketAddrV6;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use serde::Deserialize;
use switch_agent_core::discovery::boot::{self, MachineConfig, MachineFacts, parse_machine_config};
use switch_agent_core::discovery::{Target, TargetRefusal, ipxe};
use switch_agent_core::machines::ProxyStep;
use switch_agent_core::name::MacAddr;
use switch_agent_core::service::PortContext;

use super::PortState;
use super::answer::{Refusal, json, text};
use super::api;
use super::body;
use super::incomer::{Incomer, Outcome};
use super::metal_stack_v1;
use super::metal_stack_v2::{self, Told};
use super::minting::token;
use super::reply::ReplyBody;

const EVENT_BODY_MAX: u64 = 16 << 10;
const STAGE_LEN_MAX: usize = 64;
const MESSAGE_LEN_MAX: usize = 2 << 10;

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

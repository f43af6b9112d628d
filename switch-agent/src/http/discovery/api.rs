//! `ANY /api/...`: forwarding to the control API.
//!
//! A request goes on only with a live token of this very port, under the partition's path rules, and as a
//! message made anew: nothing of its framing, its hop or its claims of identity survives. The reply comes
//! back the same way, streamed, with its trailers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION, TE, WWW_AUTHENTICATE};
use ::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body, Incoming};
use switch_agent_core::desired::{Dialect, UpstreamSpec};
use switch_agent_core::discovery::headers::Hygiene;
use switch_agent_core::discovery::{PathRule, Target, allows, default_rules};
use switch_agent_core::machines::ProxyStep;
use switch_agent_core::name::MacAddr;
use switch_agent_core::service::PortContext;
use tokio::time::Instant;

use super::answer::Refusal;
use super::body::{Progress, RequestBody, UpBody, at_hand, passing};
use super::incomer::Incomer;
use super::reply::{ReplyBody, down};
use super::stamps::{Place, STAMPS};
use crate::http::request_id::{self, REQUEST_ID};
use crate::http::tokens::{Authorized, Unauthorized, unix_now};
use crate::http::upstream::{Upstream, UpstreamError};

/// Where the control API lies in the proxy's paths.
pub const PREFIX: &str = "/api";
/// What a machine is told to wait when the control API is away.
pub(super) const RETRY: Duration = Duration::from_secs(5);

pub async fn forward(
    incomer: &Incomer<'_>,
    request: Request<Incoming>,
    target: &Target,
) -> Result<Response<ReplyBody>, Refusal> {
    let port = incomer.port;
    let shared = &port.shared;
    let context = port.context();
    let mac = incomer.known_mac().await?;
    let right = authorize(incomer, &context, mac, request.headers()).inspect_err(|refusal| {
        shared.metrics.proxy.token_refused(refusal.code);
    })?;
    let upstream = shared.current_upstream().ok_or_else(|| {
        let message = "no control API is configured on this switch";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "upstream-none", message).retry_after(RETRY)
    })?;
    // The metal-stack dialects have paths of their own.
    let rules = match upstream.spec().dialect {
        Dialect::Generic => rules(&context, Dialect::Generic),
        Dialect::MetalStackV2 | Dialect::MetalStackV1 => &[],
    };
    let pass = Pass { mac, right, rules, prefix: PREFIX };
    exchange(incomer, request, target, &upstream, pass).await
}

/// A request that may go on, unless the path rules have something against it.
pub struct Pass<'a> {
    pub mac: MacAddr,
    pub right: Authorized,
    pub rules: &'a [PathRule],
    /// Where the control API lies in the proxy's paths, for redirects.
    pub prefix: &'static str,
}

/// Forwards one request, and gives the reply as the machine gets it.
pub async fn exchange(
    incomer: &Incomer<'_>,
    request: Request<Incoming>,
    target: &Target,
    upstream: &Arc<Upstream>,
    pass: Pass<'_>,
) -> Result<Response<ReplyBody>, Refusal> {
    let port = incomer.port;
    let shared = &port.shared;
    let context = port.context();
    let Pass { mac, right, rules, prefix } = pass;
    if !allows(rules, request.method().as_str(), target) {
        let message = format!("{} {} is not in the partition's api_allow", request.method(), target.path());
        return Err(Refusal::new(StatusCode::FORBIDDEN, "path-not-allowed", message));
    }
    if request.body().size_hint().lower() > shared.limits.request_body_bytes {
        return Err(super::body::BodyFailure::TooLarge.into());
    }
    let mut request_id = uuid::Uuid::encode_buffer();
    let request_id = &*request_id::fresh().hyphenated().encode_lower(&mut request_id);
    // The header of a stream's reply comes with its first message, which may be hours away.
    let timeout = (!is_stream(request.headers())).then_some(shared.limits.upstream_header_timeout);
    let place = Place { context: &context, mac, address: incomer.address(), audience: upstream.origin() };
    let (mut request, progress) = outgoing(incomer, &place, upstream, request, target, request_id)?;
    if let Some(bearer) = &right.bearer {
        let value = bearer.bearer().ok_or_else(|| {
            let message = "the token of this port is no header text";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "token-unusable", message)
        })?;
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let started = Instant::now();
    let mut sending = pin!(send(upstream, request, &progress, timeout));
    let Some(answered) = right.ends.run_until_cancelled(sending.as_mut()).await else {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "token-revoked", "the token was revoked"));
    };
    shared.reach.note(upstream, answered.is_ok());
    let mut response = match answered {
        Ok(response) => response,
        Err(error) => return Err(refusal_of(incomer, &error, &progress, request_id)),
    };
    shared.metrics.proxy.upstream_answered(started.elapsed());
    let status = response.status();
    incomer.report(Some(mac), ProxyStep::Api { status: status.as_u16() });
    tracing::debug!(port = %port.listener.port, request_id, status = status.as_u16(), "forwarded");
    let location = response.headers_mut().remove(LOCATION);
    let location =
        location.and_then(|value| own_location(value.to_str().ok()?, upstream.spec(), rules, prefix));
    let reply = incoming(response, request_id, location, shared.limits.response_body_bytes)?;
    Ok(reply.map(|body| body.ending_with(right.ends)))
}

/// The rules of the port's partition for paths of the control API.
pub fn rules(context: &PortContext, dialect: Dialect) -> &[PathRule] {
    match context.settings.api_allow.as_slice() {
        [] => default_rules(dialect),
        configured => configured,
    }
}

/// Nothing goes upstream without a live token of this port.
pub fn authorize(
    incomer: &Incomer<'_>,
    context: &PortContext,
    mac: MacAddr,
    headers: &HeaderMap,
) -> Result<Authorized, Refusal> {
    let bearer = || {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(Unauthorized::Missing)?;
        let text = value.to_str().map_err(|_| Unauthorized::Scheme)?;
        let (scheme, token) = text.split_once(' ').ok_or(Unauthorized::Scheme)?;
        let one = values.next().is_none() && scheme.eq_ignore_ascii_case("bearer");
        if one { Ok(token.trim()) } else { Err(Unauthorized::Scheme) }
    };
    let port = incomer.port;
    let checked = bearer().and_then(|token| port.shared.tokens.check(&port.listener, context, mac, token));
    checked.map_err(|why| Refusal::new(StatusCode::UNAUTHORIZED, why.code(), why.to_string()))
}

/// Waits for the reply's header, at most `timeout` from the last movement of the request's body.
async fn send(
    upstream: &Upstream,
    request: Request<RequestBody>,
    progress: &Progress,
    timeout: Option<Duration>,
) -> Result<Response<Incoming>, UpstreamError> {
    let Some(timeout) = timeout else {
        return upstream.send(request).await;
    };
    let mut answer = pin!(upstream.send(request));
    loop {
        let deadline = progress.last() + timeout;
        tokio::select! {
            answer = answer.as_mut() => return answer,
            () = tokio::time::sleep_until(deadline) => {}
        }
        if Instant::now() >= progress.last() + timeout {
            return Err(UpstreamError::Timeout);
        }
    }
}

fn refusal_of(
    incomer: &Incomer<'_>,
    error: &UpstreamError,
    progress: &Progress,
    request_id: &str,
) -> Refusal {
    // The exchange broke because the machine's own body did.
    if let Some(failure) = progress.failure() {
        return failure.into();
    }
    unanswered(incomer, error, request_id)
}

/// Notes that the control API gave no answer, and gives what the machine is told.
pub(super) fn unanswered(incomer: &Incomer<'_>, error: &UpstreamError, request_id: &str) -> Refusal {
    incomer.port.shared.metrics.proxy.upstream_error(error.code());
    tracing::warn!(port = %incomer.port.listener.port, request_id, error = %error, "control API did not answer");
    let refusal = refusal(error);
    // The machine's boot comes to a halt here: its timeline says so.
    incomer.report(None, ProxyStep::Api { status: refusal.status.as_u16() });
    refusal
}

/// What a machine is told of a control API that gave no answer.
pub fn refusal(error: &UpstreamError) -> Refusal {
    let status = match error {
        UpstreamError::Tls(_) | UpstreamError::CertificateTime(_) | UpstreamError::Exchange(_) => {
            StatusCode::BAD_GATEWAY
        }
        UpstreamError::Unusable(_)
        | UpstreamError::Address
        | UpstreamError::Connect(_)
        | UpstreamError::Suspended { .. } => StatusCode::SERVICE_UNAVAILABLE,
        UpstreamError::Timeout => StatusCode::GATEWAY_TIMEOUT,
    };
    // Addresses and names of the control plane stay in the switch's log.
    let message = match error {
        UpstreamError::Tls(why) => format!("TLS between switch and control API failed: {why}"),
        UpstreamError::CertificateTime(why) => {
            format!(
                "a certificate of the control API is not valid at the switch's time (is its clock right?): {why}"
            )
        }
        UpstreamError::Suspended { .. } => error.to_string(),
        UpstreamError::Unusable(_) => "the switch's control API client is not usable; see its log".to_owned(),
        UpstreamError::Address => "the control API's address is refused by the switch".to_owned(),
        UpstreamError::Connect(_) => "the switch cannot reach the control API".to_owned(),
        UpstreamError::Timeout => "the control API did not answer in time".to_owned(),
        UpstreamError::Exchange(_) => "the exchange with the control API broke off".to_owned(),
    };
    let retry_after = match error {
        UpstreamError::Suspended { retry_after, .. } => *retry_after,
        _ => RETRY,
    };
    Refusal { retry_after: Some(retry_after), ..Refusal::new(status, error.code(), message) }
}

pub(super) fn hygiene(headers: &HeaderMap) -> Hygiene {
    Hygiene::new(headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()))
}

/// The request as it goes to the control API.
fn outgoing(
    incomer: &Incomer<'_>,
    place: &Place<'_>,
    upstream: &Upstream,
    request: Request<Incoming>,
    target: &Target,
    request_id: &str,
) -> Result<(Request<RequestBody>, Arc<Progress>), Refusal> {
    let shared = &incomer.port.shared;
    let internal = |code| {
        move |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, code, "the request cannot be rebuilt")
    };
    let uri = upstream.uri(target).ok_or(()).map_err(internal("uri"))?;
    let (parts, body) = request.into_parts();
    let hygiene = hygiene(&parts.headers);
    // gRPC servers insist on it; nothing else of TE is end-to-end.
    let te = parts.headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    let wants_trailers = te.flat_map(|value| value.split(',')).any(|coding| coding.trim() == "trailers");
    let mut headers = passing(parts.headers, STAMPS + 2, |name| hygiene.passes_up(name));
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let stamps = incomer.port.stamps.get(place, unix_now(), |claims| shared.tokens.statement(claims));
    let stamps = stamps.map_err(|error| {
        tracing::warn!(port = %incomer.port.listener.port, error = &error as &dyn std::error::Error, "request not stamped");
        internal("stamp")(())
    })?;
    stamps.set(&mut headers);
    headers.insert(REQUEST_ID, HeaderValue::try_from(request_id).map_err(|_| internal("request-id")(()))?);
    let nothing = body.is_end_stream();
    let (body, progress) = UpBody::new(body, hygiene, shared.limits.request_body_bytes, &shared.limits);
    let body = if nothing { at_hand("") } else { RequestBody::Right(Box::new(body)) };
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok((request, progress))
}

/// The reply as it goes to the machine.
pub(super) fn incoming(
    response: Response<Incoming>,
    request_id: &str,
    location: Option<HeaderValue>,
    length_max: u64,
) -> Result<Response<ReplyBody>, Refusal> {
    let (parts, body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        let message = "the control API switched protocols unasked";
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "upstream-broken", message));
    }
    let length_max = (!is_stream(&parts.headers)).then_some(length_max);
    if length_max.is_some_and(|most| body.size_hint().lower() > most) {
        let message = "the control API's reply is too large for the switch; fetch bulk data directly";
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "reply-too-large", message));
    }
    let hygiene = hygiene(&parts.headers);
    let mut headers = passing(parts.headers, 2, |name| hygiene.passes_down(name));
    if let Some(location) = location {
        headers.insert(LOCATION, location);
    }
    if let Ok(value) = HeaderValue::try_from(request_id) {
        headers.insert(REQUEST_ID, value);
    }
    if parts.status != StatusCode::UNAUTHORIZED {
        headers.remove(WWW_AUTHENTICATE);
    }
    let mut response = Response::new(down(body, hygiene, length_max));
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Streams may last and grow: server-sent events, gRPC, Connect's streaming types.
fn is_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    ["text/event-stream", "application/grpc", "application/connect+"]
        .iter()
        .any(|kind| content_type.starts_with(kind))
}

/// A redirect within the control API, in the proxy's own paths; `None` where the machine could not follow.
fn own_location(
    location: &str,
    spec: &UpstreamSpec,
    rules: &[PathRule],
    prefix: &str,
) -> Option<HeaderValue> {
    let path = match location.parse::<Uri>().ok()? {
        uri if uri.scheme().is_none() => location.to_owned(),
        uri => {
            let same_host = uri.host().map(|host| host.trim_matches(['[', ']'])) == Some(spec.host.as_str());
            let same =
                same_host && uri.scheme_str() == Some("https") && uri.port_u16().unwrap_or(443) == spec.port;
            same.then(|| uri.path_and_query().map(ToString::to_string)).flatten()?
        }
    };
    let target = Target::parse(&path, 2048).ok()?;
    let below = if spec.base.is_empty() { target } else { target.below(&spec.base)? };
    if !allows(rules, Method::GET.as_str(), &below) {
        return None;
    }
    HeaderValue::try_from(format!("{prefix}{}", below.path_and_query())).ok()
}

#[cfg(test)]
mod tests {
    use switch_agent_core::desired::{ComponentType, MachineToken};

    use super::*;

    #[test]
    fn redirects_stay_inside_or_vanish() {
        let spec = UpstreamSpec {
            host: "api.example".to_owned(),
            port: 443,
            base: "/base".to_owned(),
            dialect: Dialect::Generic,
            machine_token: MachineToken::Handle,
            component_type: ComponentType::Pixiecore,
            vrf: "default".to_owned(),
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            token_file: None,
            metal_stack_v1: None,
        };
        let rules: Vec<PathRule> = vec!["!GET /secret/**".parse().unwrap(), "GET /**".parse().unwrap()];
        let of = |text: &str| {
            own_location(text, &spec, &rules, PREFIX).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(of("/base/v1/x?y=1").as_deref(), Some("/api/v1/x?y=1"));
        assert_eq!(of("https://api.example/base/v1").as_deref(), Some("/api/v1"));
        for bad in [
            "https://other.example/base/v1",
            "http://api.example/base/v1",
            "https://api.example:8443/base/v1",
            "//other.example/base",
            "/other/v1",
            "/base/secret/x",
            "/base/../x",
            "relative",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}

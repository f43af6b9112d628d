//! `/api.v1.*`: gRPC of metal-hammer, towards metal-api with the fleet's certificate.
//!
//! A request is read whole first, since the machine that it names has to be the port's; it is one message
//! of some hundred bytes to some kilobytes. The reply is passed on as it comes.

use std::time::Duration;

use ::http::header::{CONTENT_TYPE, HeaderValue, TE};
use ::http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use switch_agent_core::discovery::headers::Hygiene;
use switch_agent_core::discovery::metal_stack_v1::MachineId;
use switch_agent_core::discovery::metal_stack_v1::credentials::CredentialRefusal;
use switch_agent_core::discovery::metal_stack_v1::message::{
    self, MESSAGE_LEN_MAX, MessageRefusal, PREFIX_LEN,
};
use switch_agent_core::discovery::metal_stack_v1::procedure::Procedure;
use switch_agent_core::discovery::{Target, allows};
use switch_agent_core::machines::ProxyStep;

use super::credentials::Presented;
use super::reply::{Code, GRPC_CONTENT_TYPE, GRPC_STATUS, Status, relay};
use super::{Outcome, binding, only};
use crate::http::discovery::answer::Refusal;
use crate::http::discovery::api;
use crate::http::discovery::body::{BodyFailure, RequestBody, UpBody, at_hand};
use crate::http::discovery::incomer::Incomer;
use crate::http::discovery::reply::ReplyBody;
use crate::http::request_id::{self, REQUEST_ID};
use crate::http::upstream::{Upstream, UpstreamError};

/// Longest body that is held without asking for room.
const SMALL_BODY: usize = 64 << 10;
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a call waits for metal-api to be told of the machine's first contact.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// How a call is not served: with a status of gRPC, or, where nobody can say what metal-api would have
/// answered, with one of HTTP (which gRPC takes for "unavailable").
enum Failure {
    Status(Status),
    Http(Refusal),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Status(status)
    }
}

pub(super) async fn serve(incomer: &Incomer<'_>, request: Request<Incoming>, target: &Target) -> Outcome {
    match call(incomer, request, target).await {
        Ok(response) => Ok(response),
        Err(Failure::Http(refusal)) => Err(refusal),
        Err(Failure::Status(status)) => {
            let port = &incomer.port;
            port.shared.metrics.proxy.rejected(status.reason);
            tracing::debug!(port = %port.listener.port, reason = status.reason, "call refused");
            Ok(status.into_response())
        }
    }
}

async fn call(
    incomer: &Incomer<'_>,
    request: Request<Incoming>,
    target: &Target,
) -> Result<Response<ReplyBody>, Failure> {
    let port = incomer.port;
    let shared = &port.shared;
    let credentials = &shared.metal_stack_v1.credentials;
    let presented = request.extensions().get::<Presented>().cloned().ok_or_else(|| {
        let message = "gRPC is served over TLS with the certificate of GET /certs";
        Failure::Http(Refusal::new(StatusCode::FORBIDDEN, "certificate-required", message))
    })?;
    let content_type = only(request.headers(), CONTENT_TYPE.as_str()).unwrap_or("");
    if request.method() != Method::POST || !content_type.starts_with("application/grpc") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Failure::Http(Refusal::new(status, "not-grpc", "this path takes gRPC calls")));
    }
    let mac = incomer.known_mac().await.map_err(Failure::Http)?;
    let context = port.context();
    // Looked at again: what was good when the connection was made may have ended since.
    credentials
        .check_certificate(&port.listener.port, &presented.certificate)
        .and_then(|_| credentials.check_binding(&binding(incomer, &context, mac)))
        .map_err(refused)?;
    let procedure = Procedure::of_path(target.path()).filter(|_| target.query().is_none());
    let upstream = shared.metal_stack_v1.grpc();
    let rules = api::rules(&context, switch_agent_core::desired::Dialect::MetalStackV1);
    let Some(procedure) = procedure.filter(|_| allows(rules, Method::POST.as_str(), target)) else {
        let message = "the procedure is not allowed on this port";
        return Err(Status::new(Code::PermissionDenied, "path-not-allowed", message).into());
    };
    if request.headers().get_all("grpc-encoding").iter().any(|coding| coding != "identity") {
        let message = "messages are taken uncompressed";
        return Err(Status::new(Code::Unimplemented, "message-compressed", message).into());
    }
    let (parts, body) = request.into_parts();
    let body = read(incomer, body).await?;
    let machine = message::machine(procedure, &body).map_err(of_message)?;
    if let Some(machine) = &machine {
        super::pin(incomer, mac, machine).map_err(refused)?;
        if procedure == Procedure::Dhcp {
            credentials.greeted(&port.listener.port);
        } else {
            greet(incomer, machine).await;
        }
    }
    let upstream = upstream.ok_or_else(|| Failure::Http(super::unusable()))?;
    let request_id = request_id::fresh().to_string();
    let outgoing = outgoing(&upstream, procedure, &parts.headers, body, &request_id)?;
    let sent = upstream.send(outgoing);
    // A waiting call is answered when metal-api has something to say, which may be in hours.
    let answered = match procedure {
        Procedure::Wait => sent.await,
        _ => tokio::time::timeout(shared.limits.upstream_header_timeout, sent)
            .await
            .unwrap_or(Err(UpstreamError::Timeout)),
    };
    let unavailable = |error: &UpstreamError| {
        let refusal = api::unanswered(incomer, error, &request_id);
        Failure::Http(Refusal { status: StatusCode::SERVICE_UNAVAILABLE, ..refusal })
    };
    let response = answered.map_err(|error| unavailable(&error))?;
    let status = response.status();
    incomer.report(Some(mac), ProxyStep::Api { status: status.as_u16() });
    let grpc = only(response.headers(), CONTENT_TYPE.as_str()).unwrap_or("").starts_with("application/grpc");
    if status != StatusCode::OK || !grpc {
        // Some other server answered: its 404, say, is no word of metal-api's.
        let error = UpstreamError::Exchange(format!("status {status} and no gRPC"));
        return Err(unavailable(&error));
    }
    Ok(incoming(response, &request_id))
}

fn refused(refusal: CredentialRefusal) -> Failure {
    let (code, reason) = match refusal {
        CredentialRefusal::None => (Code::Unauthenticated, "credentials-revoked"),
        CredentialRefusal::Other => (Code::Unauthenticated, "credentials-other"),
        CredentialRefusal::Expired => (Code::Unauthenticated, "credentials-expired"),
        CredentialRefusal::Moved => (Code::Unauthenticated, "credentials-moved"),
        CredentialRefusal::OtherMac => (Code::Unauthenticated, "credentials-other-mac"),
        CredentialRefusal::OtherMachine => (Code::PermissionDenied, "machine-id-other"),
        CredentialRefusal::OtherPort => (Code::PermissionDenied, "machine-id-taken"),
    };
    Status::new(code, reason, refusal.to_string()).into()
}

fn of_message(refusal: MessageRefusal) -> Failure {
    let (code, reason) = match refusal {
        MessageRefusal::Compressed => (Code::Internal, "message-compressed"),
        MessageRefusal::Framing => (Code::Internal, "message-framing"),
        MessageRefusal::TooLarge => (Code::ResourceExhausted, "message-too-large"),
        MessageRefusal::Malformed => (Code::InvalidArgument, "message-malformed"),
        MessageRefusal::NoMachine => (Code::InvalidArgument, "machine-id-missing"),
        MessageRefusal::SeveralMachines => (Code::PermissionDenied, "machine-id-other"),
    };
    Status::new(code, reason, refusal.to_string()).into()
}

/// Reads the request's body, in the time that metal-hammer gives a call.
async fn read(incomer: &Incomer<'_>, body: Incoming) -> Result<Bytes, Failure> {
    let read = tokio::time::timeout(READ_TIMEOUT, read_whole(incomer, body)).await;
    read.unwrap_or_else(|_| Err(Failure::Http(BodyFailure::TooSlow.into())))
}

/// Large bodies wait for room, which is there for few at a time.
async fn read_whole(incomer: &Incomer<'_>, body: Incoming) -> Result<Bytes, Failure> {
    let shared = &incomer.port.shared;
    let too_large = || {
        let message = "the message is too large";
        Failure::from(Status::new(Code::ResourceExhausted, "message-too-large", message))
    };
    let no_room = || {
        let message = "the port has too many messages under way";
        Failure::from(Status::new(Code::Unavailable, "messages-too-many", message))
    };
    let most = MESSAGE_LEN_MAX + PREFIX_LEN;
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let room = &shared.metal_stack_v1.room;
    let mut reading = room.begin(&incomer.port.listener.port).ok_or_else(no_room)?;
    let (mut body, progress) = UpBody::new(body, Hygiene::default(), most as u64, &shared.limits);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| match progress.failure() {
            Some(BodyFailure::TooLarge) => too_large(),
            failure => Failure::Http(failure.unwrap_or(BodyFailure::Broken).into()),
        })?;
        let Some(data) = frame.data_ref() else { continue };
        let large = bytes.len() + data.len() > SMALL_BODY;
        if large && !reading.is_large() && !reading.grow().await {
            return Err(no_room());
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes.freeze())
}

/// Tells metal-api of a machine's first contact, as a DHCP server would: nothing else makes it a machine
/// that boots. A call goes on whatever comes of it.
pub(super) async fn greet(incomer: &Incomer<'_>, machine: &MachineId) {
    let port = incomer.port;
    let dialect = &port.shared.metal_stack_v1;
    let Some(upstream) = dialect.grpc() else { return };
    if !dialect.credentials.take_greeting(&port.listener.port) {
        return;
    }
    let request_id = request_id::fresh().to_string();
    let body = Bytes::from(message::naming(machine));
    let told = async {
        let request = outgoing(&upstream, Procedure::Dhcp, &HeaderMap::new(), body, &request_id).ok()?;
        let response = upstream.send(request).await.ok()?;
        let status = response.headers().get(GRPC_STATUS).cloned();
        let trailers = response.into_body().collect().await.ok()?.trailers().cloned();
        status.or_else(|| trailers?.get(GRPC_STATUS).cloned())
    };
    match tokio::time::timeout(GREETING_TIMEOUT, told).await {
        Ok(Some(status)) if status == "0" => dialect.credentials.greeted(&port.listener.port),
        Ok(status) => {
            tracing::warn!(port = %port.listener.port, %machine, request_id, ?status, "Dhcp was not taken");
        }
        Err(_) => tracing::warn!(port = %port.listener.port, %machine, request_id, "Dhcp took too long"),
    }
}

/// The call as it goes to metal-api.
fn outgoing(
    upstream: &Upstream,
    procedure: Procedure,
    headers: &HeaderMap,
    body: Bytes,
    request_id: &str,
) -> Result<Request<RequestBody>, Failure> {
    let hygiene = api::hygiene(headers);
    let mut request = Request::new(at_hand(body));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    let uri = format!("{}{}", upstream.origin(), procedure.path());
    *request.uri_mut() = uri.parse().map_err(|_| Failure::Http(super::unusable()))?;
    for (name, value) in headers.iter().filter(|(name, _)| hygiene.passes_up(name.as_str())) {
        request.headers_mut().append(name.clone(), value.clone());
    }
    let fields = request.headers_mut();
    fields.insert(TE, HeaderValue::from_static("trailers"));
    fields.entry(CONTENT_TYPE).or_insert(GRPC_CONTENT_TYPE);
    if let Ok(value) = HeaderValue::try_from(request_id) {
        fields.insert(REQUEST_ID, value);
    }
    Ok(request)
}

/// The reply as it goes to the machine.
fn incoming(response: Response<Incoming>, request_id: &str) -> Response<ReplyBody> {
    let (parts, body) = response.into_parts();
    let hygiene = api::hygiene(&parts.headers);
    let mut headers = HeaderMap::with_capacity(parts.headers.len() + 1);
    for (name, value) in parts.headers.iter().filter(|(name, _)| hygiene.passes_down(name.as_str())) {
        headers.append(name.clone(), value.clone());
    }
    if let Ok(value) = HeaderValue::try_from(request_id) {
        headers.insert(REQUEST_ID, value);
    }
    let told = headers.contains_key(GRPC_STATUS);
    let mut response = Response::new(relay(body, hygiene, told));
    *response.headers_mut() = headers;
    response
}

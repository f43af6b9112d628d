//! `/metal/...`: the REST request of metal-hammer, signed anew with the fleet's key.
//!
//! The machine signs with its port's key and its own clock; neither is worth anything at metal-api. What
//! goes up is signed with the real key and the switch's clock.

use ::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use ::http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::{Body, Incoming};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use switch_agent_core::desired::Dialect;
use switch_agent_core::discovery::metal_stack_v1::credentials::CredentialRefusal;
use switch_agent_core::discovery::metal_stack_v1::hmac::{
    HmacRefusal, SALT_LEN, Signature, authorization, message,
};
use switch_agent_core::discovery::metal_stack_v1::{MachineId, REST_PREFIX};
use switch_agent_core::discovery::{Target, allows};
use switch_agent_core::machines::ProxyStep;

use super::{Outcome, binding, only, unusable};
use crate::http::discovery::answer::Refusal;
use crate::http::discovery::api;
use crate::http::discovery::body::at_hand;
use crate::http::discovery::incomer::Incomer;
use crate::http::request_id::{self, REQUEST_ID};
use crate::http::upstream::UpstreamError;

const X_DATE: HeaderName = HeaderName::from_static("x-date");
const X_DATA_SALT: HeaderName = HeaderName::from_static("x-data-salt");

pub(super) async fn serve(incomer: &Incomer<'_>, request: Request<Incoming>, target: &Target) -> Outcome {
    let port = incomer.port;
    let shared = &port.shared;
    let credentials = &shared.metal_stack_v1.credentials;
    let below = target.below(REST_PREFIX).ok_or_else(Refusal::not_found)?;
    let context = port.context();
    let rules = api::rules(&context, Dialect::MetalStackV1);
    if !allows(rules, request.method().as_str(), &below) {
        let message = format!("{} {} is not in the partition's api_allow", request.method(), below.path());
        return Err(Refusal::new(StatusCode::FORBIDDEN, "path-not-allowed", message));
    }
    if request.method() != Method::GET {
        return Err(Refusal::method("GET"));
    }
    let machine = machine_of(&below).ok_or_else(Refusal::not_found)?;
    if !request.body().is_end_stream() {
        // The signature covers no body.
        let message = "this path takes no body";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "body-invalid", message));
    }
    let mac = incomer.known_mac().await?;
    credentials.check_binding(&binding(incomer, &context, mac)).map_err(of_credentials)?;
    let signature = signature(&request).map_err(of_signature)?;
    credentials.check_signature(&port.listener.port, &signature).map_err(of_signature)?;
    super::pin(incomer, mac, &machine).map_err(of_credentials)?;
    super::grpc::greet(incomer, &machine).await;

    let upstream = shared.current_upstream().ok_or_else(unusable)?;
    let key = upstream.hmac_key().ok_or_else(unusable)?;
    let request_id = request_id::fresh().to_string();
    let uri = upstream.uri(&below).ok_or_else(unusable)?;
    let (parts, _) = request.into_parts();
    let hygiene = api::hygiene(&parts.headers);
    let mut headers = HeaderMap::with_capacity(parts.headers.len() + 1);
    for (name, value) in parts.headers.iter().filter(|(name, _)| hygiene.passes_up(name.as_str())) {
        headers.append(name.clone(), value.clone());
    }
    sign(&mut headers, parts.method.as_str(), &key).ok_or_else(unusable)?;
    if let Ok(value) = HeaderValue::try_from(&request_id) {
        headers.insert(REQUEST_ID, value);
    }
    let mut outgoing = Request::new(at_hand(""));
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = uri;
    *outgoing.headers_mut() = headers;
    let answered = tokio::time::timeout(shared.limits.upstream_header_timeout, upstream.send(outgoing)).await;
    let response = answered
        .unwrap_or(Err(UpstreamError::Timeout))
        .map_err(|error| api::unanswered(incomer, &error, &request_id))?;
    incomer.report(Some(mac), ProxyStep::Api { status: response.status().as_u16() });
    // A redirect would lead the machine past the proxy.
    api::incoming(response, &request_id, None, shared.limits.response_body_bytes)
}

/// The machine that a path is about: `/v1/machine/<uuid>`, or below it.
fn machine_of(target: &Target) -> Option<MachineId> {
    match target.segments().as_slice() {
        [version, kind, id, ..] if version == "v1" && kind == "machine" => MachineId::parse(id),
        _ => None,
    }
}

fn signature(request: &Request<Incoming>) -> Result<Signature, HmacRefusal> {
    let field = |name: HeaderName| only(request.headers(), name.as_str()).ok_or(HmacRefusal::Shape);
    let (date, salt) = (field(X_DATE)?, field(X_DATA_SALT)?);
    Signature::parse(request.method().as_str(), field(AUTHORIZATION)?, date, salt)
}

fn of_signature(refusal: HmacRefusal) -> Refusal {
    let code = match refusal {
        HmacRefusal::Shape => "signature-required",
        HmacRefusal::Key => "signature-invalid",
        HmacRefusal::Replayed => "signature-replayed",
    };
    Refusal::new(StatusCode::UNAUTHORIZED, code, refusal.to_string())
}

fn of_credentials(refusal: CredentialRefusal) -> Refusal {
    let (status, code) = match refusal {
        CredentialRefusal::None => (StatusCode::UNAUTHORIZED, "credentials-revoked"),
        CredentialRefusal::Other => (StatusCode::UNAUTHORIZED, "credentials-other"),
        CredentialRefusal::Expired => (StatusCode::UNAUTHORIZED, "credentials-expired"),
        CredentialRefusal::Moved => (StatusCode::UNAUTHORIZED, "credentials-moved"),
        CredentialRefusal::OtherMac => (StatusCode::UNAUTHORIZED, "credentials-other-mac"),
        CredentialRefusal::OtherMachine => (StatusCode::FORBIDDEN, "machine-id-other"),
        CredentialRefusal::OtherPort => (StatusCode::FORBIDDEN, "machine-id-taken"),
    };
    Refusal::new(status, code, refusal.to_string())
}

/// Signs a request as it goes to metal-api.
fn sign(headers: &mut HeaderMap, method: &str, key: &hmac::Key) -> Option<()> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = [0; SALT_LEN];
    SystemRandom::new().fill(&mut random).ok()?;
    let salt: String = random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 64)])).collect();
    let seconds = jiff::Timestamp::now().as_second();
    let date = jiff::Timestamp::from_second(seconds).ok()?.to_string();
    let tag = hmac::sign(key, &message(&date, method, &salt));
    let mut authorization = HeaderValue::try_from(authorization(tag.as_ref())).ok()?;
    authorization.set_sensitive(true);
    headers.insert(AUTHORIZATION, authorization);
    headers.insert(X_DATE, HeaderValue::try_from(date).ok()?);
    headers.insert(X_DATA_SALT, HeaderValue::try_from(salt).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_verifies_with_the_switchs_own_clock() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"fleet");
        let mut headers = HeaderMap::new();
        headers.insert(X_DATE, HeaderValue::from_static("1970-01-01T00:00:00Z"));
        sign(&mut headers, "GET", &key).unwrap();
        let field = |name: HeaderName| only(&headers, name.as_str()).unwrap();
        let signature =
            Signature::parse("GET", field(AUTHORIZATION), field(X_DATE), field(X_DATA_SALT)).unwrap();
        hmac::verify(&key, &signature.message, &signature.tag).unwrap();
        let date: jiff::Timestamp = field(X_DATE).parse().unwrap();
        assert!((jiff::Timestamp::now().as_second() - date.as_second()).abs() <= 2);
        assert_eq!(field(X_DATA_SALT).len(), SALT_LEN);
        assert!(headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn a_path_names_its_machine() {
        const ID: &str = "00112233-4455-6677-8899-aabbccddeeff";
        let of =
            |path: &str| machine_of(&Target::parse(path, 2048).unwrap()).map(|machine| machine.to_string());
        assert_eq!(of(&format!("/v1/machine/{ID}")).as_deref(), Some(ID));
        for other in ["/v1/machine", "/v1/machine/x", "/v1/switch/00112233-4455-6677-8899-aabbccddeeff", "/"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}

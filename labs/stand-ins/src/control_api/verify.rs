//! Who is asking: the statement of the switch, and the token of the machine.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::de::DeserializeOwned;
use switch_agent_core::identity::{IdentityClaims, Jws, JwsKind, MachineClaims};

use super::keys::JwksSource;

/// How far the clocks of switch and API may be apart, in seconds.
const CLOCK_LEEWAY_S: u64 = 30;
/// Statements remembered against replay. The lab asks less often than this in a statement's life.
const SEEN_MAX: usize = 65_536;

/// A refused request: status, and a reason for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) reason: String,
}

fn unauthorized(reason: impl Into<String>) -> Refused {
    Refused {
        status: 401,
        reason: reason.into(),
    }
}

fn forbidden(reason: impl Into<String>) -> Refused {
    Refused {
        status: 403,
        reason: reason.into(),
    }
}

#[derive(Debug)]
pub(crate) struct Verifier {
    sources: Vec<JwksSource>,
    audience: String,
    seen: Mutex<VecDeque<String>>,
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok();
    if values.next().is_some() { None } else { value }
}

impl Verifier {
    pub(crate) fn new(sources: Vec<JwksSource>, audience: String) -> Verifier {
        Verifier {
            sources,
            audience,
            seen: Mutex::default(),
        }
    }

    fn claims<T: DeserializeOwned>(&self, kind: JwsKind, text: &str, switch: &str) -> Result<T, String> {
        let jws = Jws::parse(text).map_err(|error| error.to_string())?;
        let source = self.sources.iter().find(|source| source.switch == switch);
        let key = source
            .ok_or_else(|| format!("{switch} is not a known switch"))?
            .key(&jws.kid)?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(jws.signing_input.as_bytes(), &jws.signature)
            .map_err(|_| "the signature is wrong".to_owned())?;
        if jws.kind != kind {
            return Err("it is of another kind".to_owned());
        }
        jws.claims().map_err(|error| error.to_string())
    }

    /// The verified statement and token of a request. Blocks on reading keys.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        now: u64,
    ) -> Result<(IdentityClaims, MachineClaims), Refused> {
        let switch = only(headers, "x-boot-switch").ok_or_else(|| unauthorized("no X-Boot-Switch"))?;
        let statement = only(headers, "x-boot-identity").ok_or_else(|| unauthorized("no X-Boot-Identity"))?;
        let identity: IdentityClaims = self
            .claims(JwsKind::Identity, statement, switch)
            .map_err(|why| unauthorized(format!("X-Boot-Identity: {why}")))?;
        if identity.iss != switch || identity.aud != self.audience {
            return Err(forbidden(
                "the statement is of another switch, or for another API",
            ));
        }
        if now > identity.exp + CLOCK_LEEWAY_S || now + CLOCK_LEEWAY_S < identity.iat {
            return Err(unauthorized("the statement has expired, or the clocks differ"));
        }
        let authorization = only(headers, "authorization").and_then(|value| value.strip_prefix("Bearer "));
        let token = authorization.ok_or_else(|| unauthorized("no bearer token"))?;
        let machine: MachineClaims = self
            .claims(JwsKind::MachineToken, token, switch)
            .map_err(|why| unauthorized(format!("token: {why}")))?;
        if now > machine.exp {
            return Err(unauthorized("the token has expired"));
        }
        let same = machine.iss == identity.iss
            && machine.sub == identity.sub
            && machine.partition == identity.partition
            && machine.mac == identity.mac;
        if !same {
            return Err(forbidden(
                "the token belongs to another place than the request came from",
            ));
        }
        let stamps = [
            ("x-boot-port", identity.sub.to_string()),
            ("x-boot-partition", identity.partition.to_string()),
            ("x-boot-mac", identity.mac.to_string()),
        ];
        for (name, wanted) in stamps {
            if only(headers, name) != Some(wanted.as_str()) {
                return Err(forbidden(format!("{name} is not what the switch signed")));
            }
        }
        self.once(&identity.jti)?;
        Ok((identity, machine))
    }

    fn once(&self, jti: &str) -> Result<(), Refused> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.iter().any(|old| old == jti) {
            return Err(unauthorized("the statement was used before"));
        }
        if seen.len() >= SEEN_MAX {
            seen.pop_front();
        }
        seen.push_back(jti.to_owned());
        Ok(())
    }
}

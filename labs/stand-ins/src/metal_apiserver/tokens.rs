//! The token store: who holds what, until when. Secrets are opaque here; the real ones are JWTs that the
//! store can revoke just the same.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::reply::Refused;

/// Tokens kept.
const TOKENS_MAX: usize = 65_536;
const EXPIRES_MIN_S: u64 = 600;
const EXPIRES_MAX_S: u64 = 365 * 24 * 3600;
/// Role key that stands for every machine.
const ANY: &str = "*";

fn random<const LEN: usize>() -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

/// A fresh secret.
pub(crate) fn secret() -> Option<String> {
    random::<32>().map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
}

/// A fresh random UUID (RFC 9562 section 5.4).
fn uuid() -> Option<String> {
    let mut number = u128::from_be_bytes(random::<16>()?);
    number = number & !(0xf << 76) | 0x4 << 76;
    number = number & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{number:032x}");
    Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// Whether a text is a UUID in its usual form.
pub(crate) fn is_uuid(text: &str) -> bool {
    let dash = |at: usize| [8, 13, 18, 23].contains(&at);
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| if dash(at) { b == b'-' } else { b.is_ascii_hexdigit() })
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) infra_editor: bool,
    /// Machines that the token may act for as an editor.
    machines: Vec<String>,
    /// Since the start of the process.
    expires: Duration,
}

impl Token {
    /// Whether the token is one of a machine, for exactly this one or for all.
    pub(crate) fn may_act_for(&self, machine: &str) -> bool {
        self.machines.iter().any(|own| own == machine || own == ANY)
    }
}

/// Tokens by secret.
#[derive(Debug, Default)]
pub(crate) struct Tokens(BTreeMap<String, Token>);

impl Tokens {
    /// A store with the token of the switches, which never expires.
    pub(crate) fn new(infra: &str) -> Tokens {
        let token = Token {
            id: "infra".to_owned(),
            infra_editor: true,
            machines: vec![ANY.to_owned()],
            expires: Duration::MAX,
        };
        Tokens(BTreeMap::from([(infra.to_owned(), token)]))
    }

    /// The token of a secret, if it is live.
    pub(crate) fn get(&self, secret: &str, now: Duration) -> Result<&Token, Refused> {
        match self.0.get(secret) {
            Some(token) if now < token.expires => Ok(token),
            Some(_) => Err(Refused::new("unauthenticated", "token has expired")),
            None => Err(Refused::new("unauthenticated", "token was revoked")),
        }
    }

    /// `TokenService.Create`: nobody makes a token that may do more than his own.
    pub(crate) fn create(&mut self, by: &Token, question: &Value, now: Duration) -> Result<Value, Refused> {
        let invalid = |what: &str| Refused::new("invalid_argument", format!("validation error: {what}"));
        let expires =
            question["expires"].as_str().and_then(|text| text.strip_suffix('s')?.parse::<u64>().ok());
        let expires = expires.filter(|expires| (EXPIRES_MIN_S..=EXPIRES_MAX_S).contains(expires));
        let expires = expires.ok_or_else(|| invalid("expires: must be 600s to 31536000s"))?;
        let roles = question["machineRoles"].as_object().cloned().unwrap_or_default();
        if roles.iter().any(|(machine, role)| !is_uuid(machine) || role != "MACHINE_ROLE_EDITOR") {
            return Err(invalid("machine_roles: must be uuids with a role"));
        }
        if !roles.keys().all(|machine| by.may_act_for(machine)) {
            return Err(Refused::new("permission_denied", "requested machine roles: are not allowed"));
        }
        self.0.retain(|_, token| now < token.expires);
        if self.0.len() >= TOKENS_MAX {
            return Err(Refused::new("resource_exhausted", "too many tokens"));
        }
        let random = || Refused::new("internal", "no random numbers");
        let (id, secret) = (uuid().ok_or_else(random)?, secret().ok_or_else(random)?);
        let token = Token {
            id: id.clone(),
            infra_editor: false,
            machines: roles.keys().cloned().collect(),
            expires: now + Duration::from_secs(expires),
        };
        self.0.insert(secret.clone(), token);
        let description = question["description"].clone();
        let token = json!({
            "uuid": id, "description": description, "tokenType": "TOKEN_TYPE_API", "machineRoles": roles
        });
        Ok(json!({ "token": token, "secret": secret }))
    }

    /// `TokenService.Revoke`.
    pub(crate) fn revoke(&mut self, id: &str) -> Result<Value, Refused> {
        let before = self.0.len();
        self.0.retain(|_, token| token.id != id);
        if self.0.len() < before {
            Ok(json!({}))
        } else {
            Err(Refused::new("not_found", format!("no token {id}")))
        }
    }

    /// Which machines have how many live tokens.
    pub(crate) fn machines(&self, now: Duration) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for token in self.0.values().filter(|token| now < token.expires && !token.infra_editor) {
            for machine in &token.machines {
                *counts.entry(machine.as_str()).or_default() += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3f2b1c4e-0000-4000-8000-00000000000a";
    const B: &str = "3f2b1c4e-0000-4000-8000-00000000000b";

    fn question(machine: &str, expires: &str) -> Value {
        json!({ "expires": expires, "machineRoles": { machine: "MACHINE_ROLE_EDITOR" } })
    }

    #[test]
    fn tokens_are_scoped_expire_and_are_revoked() {
        let mut tokens = Tokens::new("infra-secret");
        let second = Duration::from_secs(1);
        let infra = tokens.get("infra-secret", second).unwrap().clone();
        let made = tokens.create(&infra, &question(A, "600s"), second).unwrap();
        let secret = made["secret"].as_str().unwrap();
        let own = tokens.get(secret, second).unwrap().clone();
        assert!(own.may_act_for(A) && !own.may_act_for(B) && !own.infra_editor);
        assert!(is_uuid(made["token"]["uuid"].as_str().unwrap()));
        assert_eq!(tokens.machines(second), BTreeMap::from([(A, 1)]));
        let code = |answer: Result<Value, Refused>| answer.unwrap_err().code;
        assert_eq!(code(tokens.create(&own, &question(B, "600s"), second)), "permission_denied");
        assert_eq!(code(tokens.create(&infra, &question(A, "599s"), second)), "invalid_argument");
        assert_eq!(code(tokens.create(&infra, &question("m", "600s"), second)), "invalid_argument");
        assert_eq!(tokens.get(secret, second * 601).unwrap_err().code, "unauthenticated");
        tokens.revoke(made["token"]["uuid"].as_str().unwrap()).unwrap();
        assert_eq!(tokens.get(secret, second).unwrap_err().code, "unauthenticated");
        assert_eq!(code(tokens.revoke("other")), "not_found");
    }
}

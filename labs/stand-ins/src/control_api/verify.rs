//! Who is asking: the statement of the switch, and the token of the machine.

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::de::DeserializeOwned;
use switch_agent_core::identity::{IdentityClaims, Jws, JwsKind, MachineClaims};

use super::keys::JwksSource;

/// How far the clocks of switch and API may be apart, in seconds.
const CLOCK_LEEWAY_S: u64 = 30;

/// A refused request: status, and a reason for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) reason: String,
}

fn unauthorized(reason: impl Into<String>) -> Refused {
    Refused { status: 401, reason: reason.into() }
}

fn forbidden(reason: impl Into<String>) -> Refused {
    Refused { status: 403, reason: reason.into() }
}

#[derive(Debug)]
pub(crate) struct Verifier {
    sources: Vec<JwksSource>,
    audience: String,
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok();
    if values.next().is_some() { None } else { value }
}

impl Verifier {
    pub(crate) fn new(sources: Vec<JwksSource>, audience: String) -> Verifier {
        Verifier { sources, audience }
    }

    fn claims<T: DeserializeOwned>(&self, kind: JwsKind, text: &str, switch: &str) -> Result<T, String> {
        let jws = Jws::parse(text).map_err(|error| error.to_string())?;
        let source = self.sources.iter().find(|source| source.switch == switch);
        let key = source.ok_or_else(|| format!("{switch} is not a known switch"))?.key(&jws.kid)?;
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
            return Err(forbidden("the statement is of another switch, or for another API"));
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
            return Err(forbidden("the token belongs to another place than the request came from"));
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
        Ok((identity, machine))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use switch_agent_core::identity::jws::{assemble, signing_input};

    use super::*;

    const NOW: u64 = 1_000_000;

    struct Switch {
        key: Ed25519KeyPair,
        jwks: std::path::PathBuf,
    }

    impl Drop for Switch {
        fn drop(&mut self) {
            std::fs::remove_file(&self.jwks).ok();
        }
    }

    impl Switch {
        fn new(name: &str) -> Switch {
            let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            let key = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
            let jwks = std::env::temp_dir().join(format!("stand-ins-{name}-{}.json", std::process::id()));
            let x = URL_SAFE_NO_PAD.encode(key.public_key());
            let text = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#);
            std::fs::write(&jwks, text).unwrap();
            Switch { key, jwks }
        }

        fn sign(&self, kind: JwsKind, claims: &serde_json::Value) -> String {
            let input = signing_input(kind, "k", claims).unwrap();
            let signature = self.key.sign(input.as_bytes());
            assemble(input, signature.as_ref())
        }

        fn verifier(&self) -> Verifier {
            let source = format!("leaf1={}", self.jwks.display()).parse().unwrap();
            Verifier::new(vec![source], "https://api".to_owned())
        }
    }

    fn place() -> serde_json::Value {
        serde_json::json!({
            "iss": "leaf1", "sub": "Ethernet0", "aud": "https://api", "iat": NOW, "exp": NOW + 60, "jti": "1",
            "partition": "p1", "vrf": "VrfBoot-p1", "alias": "Eth1/1", "index": 1, "mac": "52:54:00:00:00:01"
        })
    }

    fn token() -> serde_json::Value {
        serde_json::json!({
            "iss": "leaf1", "sub": "Ethernet0", "iat": NOW, "exp": NOW + 60, "jti": "t",
            "partition": "p1", "mac": "52:54:00:00:00:01"
        })
    }

    fn headers(statement: &str, token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let fields = [
            ("x-boot-switch", "leaf1".to_owned()),
            ("x-boot-partition", "p1".to_owned()),
            ("x-boot-port", "Ethernet0".to_owned()),
            ("x-boot-mac", "52:54:00:00:00:01".to_owned()),
            ("x-boot-identity", statement.to_owned()),
            ("authorization", format!("Bearer {token}")),
        ];
        for (name, value) in fields {
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn good_requests_pass() {
        let switch = Switch::new("good");
        let verifier = switch.verifier();
        let statement = switch.sign(JwsKind::Identity, &place());
        let headers = headers(&statement, &switch.sign(JwsKind::MachineToken, &token()));
        // A statement goes along with more than one.
        for now in [NOW, NOW + 20] {
            let (identity, machine) = verifier.check(&headers, now).unwrap();
            assert_eq!((identity.sub.as_str(), machine.sub.as_str()), ("Ethernet0", "Ethernet0"));
        }
    }

    #[test]
    fn whatever_does_not_fit_is_refused() {
        let (switch, other) = (Switch::new("fits"), Switch::new("other"));
        let verifier = switch.verifier();
        let changed = |mut claims: serde_json::Value, name: &str, value: serde_json::Value| {
            claims[name] = value;
            claims
        };
        let check = |statement: &serde_json::Value, token: &serde_json::Value, now: u64| {
            let statement = switch.sign(JwsKind::Identity, statement);
            let token = switch.sign(JwsKind::MachineToken, token);
            verifier.check(&headers(&statement, &token), now).unwrap_err().status
        };
        for (name, value) in
            [("sub", "Ethernet4"), ("mac", "52:54:00:00:00:02"), ("iss", "leaf2"), ("partition", "p2")]
        {
            assert_eq!(check(&place(), &changed(token(), name, value.into()), NOW), 403, "{name}");
        }
        assert_eq!(check(&changed(place(), "aud", "https://other".into()), &token(), NOW), 403);
        assert_eq!(check(&place(), &token(), NOW + 120), 401);
        assert_eq!(check(&place(), &token(), NOW - 120), 401);
        assert_eq!(check(&place(), &changed(token(), "exp", (NOW - 1).into()), NOW), 401);

        let good = switch.sign(JwsKind::MachineToken, &token());
        let forged = other.sign(JwsKind::Identity, &place());
        assert_eq!(verifier.check(&headers(&forged, &good), NOW).unwrap_err().status, 401);
        assert_eq!(verifier.check(&headers(&good, &good), NOW).unwrap_err().status, 401);
        let statement = switch.sign(JwsKind::Identity, &place());
        let mut stamped = headers(&statement, &good);
        stamped.insert("x-boot-port", "Ethernet9".parse().unwrap());
        assert_eq!(verifier.check(&stamped, NOW).unwrap_err().status, 403);
        stamped.append("x-boot-identity", "twice".parse().unwrap());
        assert_eq!(verifier.check(&stamped, NOW).unwrap_err().status, 401);
        stamped.insert("x-boot-switch", "leaf9".parse().unwrap());
        assert_eq!(verifier.check(&stamped, NOW).unwrap_err().status, 401);
    }
}

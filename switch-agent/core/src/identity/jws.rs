//! JWS compact serialization (RFC 7515 section 3.1); the signature itself comes from the shell.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest compact serialization that is looked at, in bytes.
const JWS_LEN_MAX: usize = 4096;
/// RFC 8032 section 5.1.6
const SIGNATURE_LEN: usize = 64;

/// `typ` of the protected header: keeps a statement from being taken for a token and the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwsKind {
    #[serde(rename = "boot-identity+jwt")]
    Identity,
    #[serde(rename = "boot-token+jwt")]
    MachineToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Algorithm {
    #[serde(rename = "EdDSA")]
    EdDsa,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<K> {
    alg: Algorithm,
    typ: JwsKind,
    kid: K,
}

/// Why a text is no JWS of ours.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJws {
    #[error("no compact JWS of three parts")]
    Shape,
    #[error("a part is no base64url")]
    Base64(#[source] base64::DecodeError),
    #[error("the header is none of ours (alg EdDSA, typ, kid, nothing else)")]
    Header(#[source] serde_json::Error),
    #[error("the claims are not those of its kind")]
    Claims(#[source] serde_json::Error),
    #[error("the signature is not 64 bytes")]
    Signature,
}

/// The text that is signed: header and claims.
pub fn signing_input(kind: JwsKind, kid: &str, claims: &impl Serialize) -> serde_json::Result<String> {
    let header = serde_json::to_vec(&Header { alg: Algorithm::EdDsa, typ: kind, kid })?;
    let claims = serde_json::to_vec(claims)?;
    // Room for the signature, too.
    let mut text = String::with_capacity((header.len() + claims.len()).div_ceil(3) * 4 + 2 * SIGNATURE_LEN);
    URL_SAFE_NO_PAD.encode_string(header, &mut text);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut text);
    Ok(text)
}

/// Signing input and signature as one text.
pub fn assemble(signing_input: String, signature: &[u8]) -> String {
    let mut text = signing_input;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    text
}

/// A JWS taken apart. Nothing in it is to be believed before `signature` was verified over
/// `signing_input`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jws<'a> {
    pub kind: JwsKind,
    pub kid: String,
    pub signing_input: &'a str,
    pub signature: [u8; SIGNATURE_LEN],
    payload: Vec<u8>,
}

impl<'a> Jws<'a> {
    pub fn parse(text: &'a str) -> Result<Jws<'a>, InvalidJws> {
        if text.len() > JWS_LEN_MAX {
            return Err(InvalidJws::Shape);
        }
        let (signing_input, signature) = text.rsplit_once('.').ok_or(InvalidJws::Shape)?;
        let (header, payload) = signing_input.split_once('.').ok_or(InvalidJws::Shape)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(InvalidJws::Base64);
        let header: Header<String> = serde_json::from_slice(&decode(header)?).map_err(InvalidJws::Header)?;
        let payload = decode(payload)?;
        let signature = decode(signature)?.try_into().map_err(|_| InvalidJws::Signature)?;
        Ok(Jws { kind: header.typ, kid: header.kid, signing_input, signature, payload })
    }

    /// The claims, after the signature was verified.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, InvalidJws> {
        serde_json::from_slice(&self.payload).map_err(InvalidJws::Claims)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_assembled_is_taken_apart() {
        let input = signing_input(JwsKind::Identity, "k1", &serde_json::json!({"a": 1})).unwrap();
        let text = assemble(input.clone(), &[7; 64]);
        let jws = Jws::parse(&text).unwrap();
        assert_eq!(
            (jws.kind, jws.kid.as_str(), jws.signing_input),
            (JwsKind::Identity, "k1", input.as_str())
        );
        assert_eq!(jws.signature, [7; 64]);
        assert_eq!(jws.claims::<serde_json::Value>().unwrap(), serde_json::json!({"a": 1}));
    }

    #[test]
    fn foreign_headers_are_refused() {
        let of = |header: &str| {
            let text = format!("{}.e30.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode([0; 64]));
            Jws::parse(&text).map(|_| ()).unwrap_err().to_string()
        };
        for header in [
            r#"{"alg":"none","typ":"boot-token+jwt","kid":"k"}"#,
            r#"{"alg":"HS256","typ":"boot-token+jwt","kid":"k"}"#,
            r#"{"alg":"EdDSA","typ":"JWT","kid":"k"}"#,
            r#"{"alg":"EdDSA","typ":"boot-token+jwt","kid":"k","crit":["x"]}"#,
        ] {
            assert!(of(header).contains("none of ours"), "{header}");
        }
        assert!(matches!(Jws::parse("a.b"), Err(InvalidJws::Base64(_) | InvalidJws::Shape)));
        assert!(matches!(Jws::parse(&"a".repeat(5000)), Err(InvalidJws::Shape)));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[A-Za-z0-9_.=-]{0,80}") {
            let _ = Jws::parse(&text).map(|jws| jws.kind);
        }
    }
}

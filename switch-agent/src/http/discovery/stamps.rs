//! The header fields that tell the control API where a request came in.
//!
//! What they say changes with the machine and its port, not with the request: they are made once, the signed
//! statement among them, and stamped on every request for some seconds.

use std::fmt::{self, Display, Write};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};

use ::http::header::{FORWARDED, HeaderName, HeaderValue};
use ::http::{HeaderMap, header::InvalidHeaderValue};
use bytes::Bytes;
use switch_agent_core::identity::IdentityClaims;
use switch_agent_core::name::MacAddr;
use switch_agent_core::service::PortContext;

use crate::http::request_id;

/// How many fields [`Stamps::set`] sets.
pub(super) const STAMPS: usize = 6;

/// Where a request came in, and which control API (`https://host[:port]`) it is for.
pub(super) struct Place<'a> {
    pub(super) context: &'a Arc<PortContext>,
    pub(super) mac: MacAddr,
    /// Of the machine.
    pub(super) address: Ipv6Addr,
    pub(super) audience: &'a str,
}

/// Why a request cannot be stamped.
#[derive(Debug, thiserror::Error)]
pub(super) enum StampError {
    #[error("the statement cannot be signed")]
    Sign(#[from] serde_json::Error),
    #[error("a name is no header text")]
    Name(#[from] InvalidHeaderValue),
}

/// A name with hyphens for whatever an obfuscated identifier of `Forwarded` cannot hold (RFC 7239 section 6.3).
struct PlainName<'a>(&'a str);

impl Display for PlainName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        self.0.chars().try_for_each(|c| f.write_char(if plain(c) { c } else { '-' }))
    }
}

/// The fields about one place.
#[derive(Clone)]
pub(super) struct Stamps {
    claims: IdentityClaims,
    context: Arc<PortContext>,
    address: Ipv6Addr,
    forwarded: HeaderValue,
    fields: [(HeaderName, HeaderValue); STAMPS - 1],
}

fn field_value(text: String) -> Result<HeaderValue, InvalidHeaderValue> {
    HeaderValue::from_maybe_shared(Bytes::from(text))
}

fn forwarded(place: &Place<'_>) -> Result<HeaderValue, InvalidHeaderValue> {
    let by = PlainName(&place.context.switch_id);
    field_value(format!("for=\"[{}]\";by=\"_{by}\";proto=http", place.address))
}

impl Stamps {
    fn new(claims: IdentityClaims, statement: String, place: &Place<'_>) -> Result<Self, InvalidHeaderValue> {
        let Place { context, mac, address, .. } = *place;
        let named = |name, text| field_value(text).map(|value| (HeaderName::from_static(name), value));
        let fields = [
            named("x-boot-switch", context.switch_id.clone())?,
            named("x-boot-partition", context.partition.to_string())?,
            named("x-boot-port", context.port.to_string())?,
            named("x-boot-mac", mac.to_string())?,
            named("x-boot-identity", statement)?,
        ];
        Ok(Stamps { claims, context: context.clone(), address, forwarded: forwarded(place)?, fields })
    }

    /// Whether they still say what is so at Unix time `now`, but for the address, which is not signed: a
    /// machine has several.
    fn are_of(&self, place: &Place<'_>, now: u64) -> bool {
        Arc::ptr_eq(&self.context, place.context)
            && self.claims.mac == place.mac
            && self.claims.aud == place.audience
            && self.claims.is_fresh(now)
    }

    /// Sets the fields, whatever was there before.
    pub(super) fn set(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.fields {
            headers.insert(name.clone(), value.clone());
        }
        headers.insert(FORWARDED, self.forwarded.clone());
    }
}

/// The stamps of a port, as the last request got them.
#[derive(Default)]
pub(super) struct LastStamps(Mutex<Option<Arc<Stamps>>>);

impl LastStamps {
    /// The stamps of a place at Unix time `now`; `sign` makes the statement where a new one is needed.
    pub(super) fn get(
        &self,
        place: &Place<'_>,
        now: u64,
        sign: impl FnOnce(&IdentityClaims) -> serde_json::Result<String>,
    ) -> Result<Arc<Stamps>, StampError> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = match last.as_ref().filter(|stamps| stamps.are_of(place, now)) {
            Some(stamps) if stamps.address == place.address => return Ok(stamps.clone()),
            Some(stamps) => {
                Stamps { address: place.address, forwarded: forwarded(place)?, ..Stamps::clone(stamps) }
            }
            None => {
                let id = request_id::fresh().to_string();
                let claims = IdentityClaims::new(place.context, place.mac, place.audience, &id, now);
                let statement = sign(&claims)?;
                Stamps::new(claims, statement, place)?
            }
        };
        let stamps = Arc::new(stamps);
        *last = Some(stamps.clone());
        Ok(stamps)
    }
}

#[cfg(test)]
mod tests {
    use switch_agent_core::identity::STATEMENT_REUSE;

    use super::super::tests::support::service;
    use super::*;

    #[test]
    fn a_switch_has_a_plain_name_in_forwarded() {
        assert_eq!(PlainName("leaf 1\"ä_.-Z").to_string(), "leaf-1--_.-Z");
    }

    #[test]
    fn another_address_of_the_machine_needs_no_statement_of_its_own() {
        let context = Arc::new(service("Ethernet0", 1).context);
        let mac: MacAddr = "52:54:00:00:00:01".parse().unwrap();
        let last = LastStamps::default();
        let mut signed = 0;
        for address in ["fe80::1", "fe80::2", "fe80::1"] {
            let place =
                Place { context: &context, mac, address: address.parse().unwrap(), audience: "https://a" };
            let stamps = last.get(&place, 1000, |_| {
                signed += 1;
                Ok("signed".to_owned())
            });
            let mut headers = HeaderMap::new();
            stamps.unwrap().set(&mut headers);
            assert_eq!(headers["x-boot-identity"], "signed");
            assert_eq!(headers["forwarded"], format!("for=\"[{address}]\";by=\"_leaf1\";proto=http"));
        }
        assert_eq!(signed, 1);
    }

    #[test]
    fn a_statement_is_made_anew_when_anything_it_says_changed() {
        let [here, there] = [1, 2].map(|tcp_port| Arc::new(service("Ethernet0", tcp_port).context));
        let mac: MacAddr = "52:54:00:00:00:01".parse().unwrap();
        let place =
            |context| Place { context, mac, address: "fe80::1".parse().unwrap(), audience: "https://a" };
        let last = LastStamps::default();
        let mut signed = 0;
        let mut id = |place: &Place<'_>, now| {
            let stamps = last.get(place, now, |_| {
                signed += 1;
                Ok(format!("statement {signed}"))
            });
            let mut headers = HeaderMap::new();
            stamps.unwrap().set(&mut headers);
            assert_eq!(headers.len(), STAMPS);
            headers["x-boot-identity"].to_str().unwrap().to_owned()
        };
        let end = 1000 + STATEMENT_REUSE.as_secs();
        assert_eq!(id(&place(&here), 1000), "statement 1");
        assert_eq!(id(&place(&here), end - 1), "statement 1");
        assert_eq!(id(&place(&here), end), "statement 2");
        // The switch's clock was set back.
        assert_eq!(id(&place(&here), 999), "statement 3");
        assert_eq!(id(&place(&there), 999), "statement 4");
        let other = Place { mac: "52:54:00:00:00:02".parse().unwrap(), ..place(&there) };
        assert_eq!(id(&other, 999), "statement 5");
        let other = Place { audience: "https://b", ..other };
        assert_eq!(id(&other, 999), "statement 6");
        assert_eq!(id(&other, 999), "statement 6");
    }
}

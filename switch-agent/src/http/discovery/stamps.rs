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
#[derive(Debug)]
pub(super) struct Stamps {
    claims: IdentityClaims,
    context: Arc<PortContext>,
    address: Ipv6Addr,
    fields: [(HeaderName, HeaderValue); STAMPS],
}

impl Stamps {
    fn new(claims: IdentityClaims, statement: String, place: &Place<'_>) -> Result<Self, InvalidHeaderValue> {
        let Place { context, mac, address, .. } = *place;
        let by = PlainName(&context.switch_id);
        let field = |name, value: String| {
            HeaderValue::from_maybe_shared(Bytes::from(value)).map(|value| (name, value))
        };
        let fields = [
            field(HeaderName::from_static("x-boot-switch"), context.switch_id.clone())?,
            field(HeaderName::from_static("x-boot-partition"), context.partition.to_string())?,
            field(HeaderName::from_static("x-boot-port"), context.port.to_string())?,
            field(HeaderName::from_static("x-boot-mac"), mac.to_string())?,
            field(FORWARDED, format!("for=\"[{address}]\";by=\"_{by}\";proto=http"))?,
            field(HeaderName::from_static("x-boot-identity"), statement)?,
        ];
        Ok(Stamps { claims, context: context.clone(), address, fields })
    }

    /// Whether they still say what is so at Unix time `now`.
    fn are_of(&self, place: &Place<'_>, now: u64) -> bool {
        Arc::ptr_eq(&self.context, place.context)
            && self.claims.mac == place.mac
            && self.address == place.address
            && self.claims.aud == place.audience
            && self.claims.is_fresh(now)
    }

    /// Sets the fields, whatever was there before.
    pub(super) fn set(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.fields {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// The stamps of a port, as the last request got them.
#[derive(Debug, Default)]
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
        if let Some(stamps) = last.as_ref().filter(|stamps| stamps.are_of(place, now)) {
            return Ok(stamps.clone());
        }
        let id = uuid::Uuid::new_v4().to_string();
        let claims = IdentityClaims::new(place.context, place.mac, place.audience, &id, now);
        let statement = sign(&claims)?;
        let stamps = Arc::new(Stamps::new(claims, statement, place)?);
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
        let other = Place { address: "fe80::2".parse().unwrap(), ..other };
        assert_eq!(id(&other, 999), "statement 6");
        let other = Place { audience: "https://b", ..other };
        assert_eq!(id(&other, 999), "statement 7");
        assert_eq!(id(&other, 999), "statement 7");
    }
}

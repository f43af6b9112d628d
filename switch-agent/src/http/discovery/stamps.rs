//! The header fields that tell the control API where a request came in.

use std::fmt::{self, Display, Write};
use std::net::Ipv6Addr;

use ::http::header::{HeaderName, HeaderValue};
use ::http::{HeaderMap, header};
use bytes::BytesMut;
use switch_agent_core::name::MacAddr;
use switch_agent_core::service::PortContext;

/// How many fields [`stamp`] sets.
pub(super) const STAMPS: usize = 7;
/// Room for the values beside the statement; only time is lost where they need more.
const VALUES_LEN: usize = 512;

/// Where a request came in.
pub(super) struct Place<'a> {
    pub(super) context: &'a PortContext,
    pub(super) mac: MacAddr,
    /// Of the machine.
    pub(super) address: Ipv6Addr,
}

/// A name with hyphens for whatever an obfuscated identifier of `Forwarded` cannot hold (RFC 7239 section 6.3).
struct PlainName<'a>(&'a str);

impl Display for PlainName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        self.0.chars().try_for_each(|c| f.write_char(if plain(c) { c } else { '-' }))
    }
}

/// Sets the fields about the place, whatever was there before. `None` where a name is no header text.
pub(super) fn stamp(
    headers: &mut HeaderMap,
    place: &Place<'_>,
    request_id: &str,
    statement: &str,
) -> Option<()> {
    let Place { context, mac, address } = place;
    let by = PlainName(&context.switch_id);
    let stamps: [(_, &dyn Display); STAMPS] = [
        (HeaderName::from_static("x-boot-switch"), &context.switch_id),
        (HeaderName::from_static("x-boot-partition"), &context.partition),
        (HeaderName::from_static("x-boot-port"), &context.port),
        (HeaderName::from_static("x-boot-mac"), mac),
        (HeaderName::from_static("x-request-id"), &request_id),
        (header::FORWARDED, &format_args!("for=\"[{address}]\";by=\"_{by}\";proto=http")),
        (HeaderName::from_static("x-boot-identity"), &statement),
    ];
    // One buffer for all values: the request may be sent again, and is cloned for that.
    let mut text = BytesMut::with_capacity(statement.len() + VALUES_LEN);
    for (name, value) in stamps {
        write!(text, "{value}").ok()?;
        headers.insert(name, HeaderValue::from_maybe_shared(text.split().freeze()).ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_has_a_plain_name_in_forwarded() {
        assert_eq!(PlainName("leaf 1\"ä_.-Z").to_string(), "leaf-1--_.-Z");
    }
}

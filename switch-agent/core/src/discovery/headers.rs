//! Header hygiene: which field names of a machine's request reach the control API, and which names of the
//! API's reply reach the machine.
//!
//! A name passes when it is made of letters, digits and hyphens only, is not hop-by-hop (by itself or
//! because `Connection` names it), and claims nothing about who sends it. The first rule covers the
//! spellings: `X_Forwarded_For` and `X-Forwarded-For.` are the same header to some upstreams.

use std::collections::BTreeSet;

/// Field names about the message's own hop (RFC 9110 section 7.6.1), and its framing, which is rebuilt.
const HOP_BY_HOP: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Names by which some upstream learns who is asking, or what was really asked.
const IDENTITY: [&str; 15] = [
    "boot-token",
    "cdn-loop",
    "client-cert",
    "client-cert-chain",
    "client-ip",
    "forwarded",
    "from",
    "remote-user",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-real-ip",
    "x-request-id",
    "x-rewrite-url",
];

/// The same, by what the name starts with.
const IDENTITY_PREFIXES: [&str; 15] = [
    "cf-",
    "fastly-",
    "l5d-",
    "ssl-client",
    "x-amzn-",
    "x-auth",
    "x-boot-",
    "x-client-cert",
    "x-envoy-",
    "x-forwarded",
    "x-http-method",
    "x-instance-",
    "x-method-override",
    "x-original-",
    "x-remote-",
];

/// Names that tell of a forwarding hop: a request that carries one gets no token.
const FORWARDING: [&str; 6] = ["cdn-loop", "client-ip", "forwarded", "true-client-ip", "via", "x-real-ip"];

/// Reply fields that stay on this side: they speak of the API's own host or of an identity.
const REPLY_ONLY: [&str; 6] =
    ["alt-svc", "proxy-status", "server", "set-cookie", "strict-transport-security", "x-powered-by"];

/// Longest name of the tables above, in bytes.
const KNOWN_LEN_MAX: usize = 32;

/// The start of a name, spelled in one way: lower-case, with every separator that an upstream may fold into
/// a hyphen folded, and none at the end.
struct Folded {
    bytes: [u8; KNOWN_LEN_MAX],
    /// Of the whole name.
    len: usize,
}

impl Folded {
    fn new(name: &str) -> Folded {
        let len = name.bytes().rposition(|b| b.is_ascii_alphanumeric()).map_or(0, |last| last + 1);
        let mut bytes = [0; KNOWN_LEN_MAX];
        for (folded, byte) in bytes.iter_mut().zip(&name.as_bytes()[..len]) {
            *folded = if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
        }
        Folded { bytes, len }
    }

    fn is_one_of(&self, names: &[&str]) -> bool {
        self.bytes.get(..self.len).is_some_and(|name| names.iter().any(|other| name == other.as_bytes()))
    }

    fn starts_with_one_of(&self, prefixes: &[&str]) -> bool {
        let start = &self.bytes[..self.len.min(KNOWN_LEN_MAX)];
        let same_first = |prefix: &str| start.first() == prefix.as_bytes().first();
        prefixes.iter().any(|prefix| same_first(prefix) && start.starts_with(prefix.as_bytes()))
    }

    fn claims_identity(&self) -> bool {
        self.is_one_of(&IDENTITY) || self.starts_with_one_of(&IDENTITY_PREFIXES)
    }
}

/// Of letters, digits and hyphens only, with none of these at its ends.
fn plain(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether a name, in any spelling, claims an identity or is ours to set.
pub fn claims_identity(name: &str) -> bool {
    Folded::new(name).claims_identity()
}

/// Whether a name, in any spelling, tells that the request was forwarded by somebody.
pub fn tells_of_forwarding(name: &str) -> bool {
    let folded = Folded::new(name);
    folded.is_one_of(&FORWARDING) || folded.starts_with_one_of(&["x-forwarded"])
}

/// The hygiene of one message: knows what its `Connection` fields name.
#[derive(Debug, Clone, Default)]
pub struct Hygiene {
    /// Lower-case, with hyphens only.
    named_by_connection: BTreeSet<String>,
}

impl Hygiene {
    /// `connection` are the values of the message's `Connection` fields.
    pub fn new<'a>(connection: impl IntoIterator<Item = &'a str>) -> Hygiene {
        let fold = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let named = connection
            .into_iter()
            .flat_map(|value| value.split(','))
            .map(|option| option.trim().trim_end_matches(|c: char| !c.is_ascii_alphanumeric()))
            // What never passes need not be remembered: most often it is `keep-alive`.
            .filter(|option| !option.is_empty() && !Folded::new(option).is_one_of(&HOP_BY_HOP))
            .map(|option| option.chars().map(fold).collect());
        Hygiene { named_by_connection: named.collect() }
    }

    fn end_to_end(&self, name: &str, folded: &Folded) -> bool {
        plain(name) && !folded.is_one_of(&HOP_BY_HOP) && !self.is_named_by_connection(name)
    }

    fn is_named_by_connection(&self, name: &str) -> bool {
        !self.named_by_connection.is_empty() && self.named_by_connection.contains(&name.to_ascii_lowercase())
    }

    /// Whether a field of the machine's request (or of its trailers) goes on to the control API.
    pub fn passes_up(&self, name: &str) -> bool {
        let folded = Folded::new(name);
        self.end_to_end(name, &folded) && !folded.claims_identity()
    }

    /// Whether a field of the API's reply (or of its trailers) goes on to the machine.
    pub fn passes_down(&self, name: &str) -> bool {
        let folded = Folded::new(name);
        self.end_to_end(name, &folded) && !folded.is_one_of(&REPLY_ONLY) && !folded.claims_identity()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_pass() {
        let hygiene = Hygiene::default();
        for name in
            ["Accept", "content-type", "Authorization", "grpc-timeout", "If-None-Match", "traceparent"]
        {
            assert!(hygiene.passes_up(name), "{name}");
        }
        for name in ["content-type", "etag", "grpc-status", "trailer", "www-authenticate", "location"] {
            assert!(hygiene.passes_down(name), "{name}");
        }
        for name in ["Set-Cookie", "Server", "Alt-Svc", "Transfer-Encoding", "X-Boot-Port"] {
            assert!(!hygiene.passes_down(name), "{name}");
        }
    }

    #[test]
    fn every_known_name_fits() {
        let tables: [&[&str]; 5] = [&HOP_BY_HOP, &IDENTITY, &IDENTITY_PREFIXES, &FORWARDING, &REPLY_ONLY];
        for name in tables.concat() {
            assert!(name.len() <= KNOWN_LEN_MAX, "{name}");
        }
    }

    #[test]
    fn connection_names_more_hop_by_hop_fields() {
        let hygiene = Hygiene::new(["close, X-Secret", "x_other ,"]);
        assert!(!hygiene.passes_up("x-secret"));
        assert!(!hygiene.passes_up("X-Other"));
        assert!(hygiene.passes_up("x-third"));
        assert!(!Hygiene::new(["X-Reply"]).passes_down("x-reply"));
        assert!(!Hygiene::new(["Keep-Alive"]).passes_down("keep-alive"));
    }

    #[test]
    fn forwarding_is_told_in_any_spelling() {
        for name in
            ["X-Forwarded-For", "x_forwarded_for", "Via", "FORWARDED", "x-real-ip", "X-Forwarded-Host"]
        {
            assert!(tells_of_forwarding(name), "{name}");
        }
        assert!(!tells_of_forwarding("accept"));
    }

    /// A name with random case, hyphens turned into other separators, and a tail.
    fn respelled(name: &'static str) -> impl Strategy<Value = String> {
        let letters = proptest::collection::vec((any::<bool>(), 0usize..3), name.len());
        (letters, prop_oneof![Just(""), Just("."), Just("_"), Just("-")]).prop_map(move |(choices, tail)| {
            let mut text: String = name
                .chars()
                .zip(choices)
                .map(|(c, (upper, separator))| match c {
                    '-' => ['-', '_', '.'][separator],
                    c if upper => c.to_ascii_uppercase(),
                    c => c,
                })
                .collect();
            text.push_str(tail);
            text
        })
    }

    fn forbidden() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "x-forwarded-for",
            "x-forwarded-proto",
            "forwarded",
            "x-real-ip",
            "x-boot-switch",
            "x-boot-identity",
            "x-boot-agent-authorization",
            "via",
            "true-client-ip",
            "x-instance-id",
            "x-request-id",
            "x-http-method-override",
            "connection",
            "transfer-encoding",
            "content-length",
            "proxy-authorization",
            "upgrade",
        ])
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_forbidden_name_passes(name in forbidden().prop_flat_map(respelled)) {
            prop_assert!(!Hygiene::default().passes_up(&name), "{}", name);
        }

        #[test]
        fn what_connection_names_never_passes(name in "[a-zA-Z][a-zA-Z0-9-]{0,12}[a-z]", noise in "[a-z]{0,5}") {
            let value = format!("{noise} , {}", name.to_ascii_uppercase());
            let hygiene = Hygiene::new([value.as_str()]);
            prop_assert!(!hygiene.passes_up(&name));
            prop_assert!(!hygiene.passes_down(&name));
        }

        /// Of a name of any length, and of parts of the known ones.
        #[test]
        fn folding_is_that_of_the_whole_text(
            name in prop_oneof!["[-_.A-Za-z0-9\u{e9}]{0,40}", "(x-|X_)(real|amzn|boot)[-.]?[A-Za-z]{0,3}"]
        ) {
            let separated = |b: u8| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' };
            let whole: String = name.bytes().map(separated).map(char::from).collect();
            let whole = whole.trim_end_matches('-');
            prop_assert_eq!(claims_identity(&name), claims_identity(whole));
            let known = IDENTITY.contains(&whole) || IDENTITY_PREFIXES.iter().any(|prefix| whole.starts_with(prefix));
            prop_assert_eq!(claims_identity(&name), known);
        }

        #[test]
        fn what_passes_is_plain(name in "\\PC{0,20}") {
            if Hygiene::default().passes_up(&name) {
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
            }
        }
    }
}

//! Request targets: only spellings that every parser reads alike get past this module.
//!
//! The proxy decides on a path and an upstream acts on it. Whatever the two could read differently (dot
//! segments, empty segments, encoded separators, control bytes) is refused, never repaired.

use std::borrow::Cow;

/// Why a request target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetRefusal {
    #[error("the request target is too long")]
    TooLong,
    #[error("the request target must be a path that starts with /")]
    NotOriginForm,
    #[error("the request target holds a control character, a space or a byte outside ASCII")]
    Byte,
    #[error("the request target holds a fragment")]
    Fragment,
    #[error("the path holds a dot segment")]
    DotSegment,
    #[error("the path holds an empty segment")]
    EmptySegment,
    #[error("the path holds a backslash, or an encoded slash, dot, backslash, percent or control character")]
    Encoded,
    #[error("the path holds a % that two hexadecimal digits do not follow")]
    BadEscape,
}

/// A request target in origin form (RFC 9112 section 3.2.1) that passed [`Target::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: String,
    query: Option<String>,
}

impl Target {
    /// Checks a target as it came off the wire. `length_max` is in bytes.
    pub fn parse(target: &str, length_max: usize) -> Result<Target, TargetRefusal> {
        if target.len() > length_max {
            return Err(TargetRefusal::TooLong);
        }
        if !target.starts_with('/') {
            return Err(TargetRefusal::NotOriginForm);
        }
        if !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TargetRefusal::Byte);
        }
        if target.contains('#') {
            return Err(TargetRefusal::Fragment);
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        check_path(path)?;
        if let Some(query) = &query {
            check_query(query)?;
        }
        Ok(Target { path: path.to_owned(), query })
    }

    /// The path as it was spelled.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Path segments after the first slash, percent-decoded; `/` is one empty segment.
    pub fn segments(&self) -> Vec<Cow<'_, str>> {
        self.path[1..].split('/').map(decode).collect()
    }

    /// The target below a path prefix (`/api` of `/api/v1/x?y` gives `/v1/x?y`), or `None` when the path
    /// is not below it.
    pub fn below(&self, prefix: &str) -> Option<Target> {
        let rest = self.path.strip_prefix(prefix)?;
        match rest.bytes().next() {
            None => Some(Target { path: "/".to_owned(), query: self.query.clone() }),
            Some(b'/') => Some(Target { path: rest.to_owned(), query: self.query.clone() }),
            Some(_) => None,
        }
    }

    /// Path and query, as a request line spells them.
    pub fn path_and_query(&self) -> Cow<'_, str> {
        match &self.query {
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
            None => Cow::Borrowed(&self.path),
        }
    }
}

fn hex(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    u8::try_from(digit(at)? * 16 + digit(at + 1)?).ok()
}

fn check_path(path: &str) -> Result<(), TargetRefusal> {
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => return Err(TargetRefusal::Encoded),
            b'%' => {
                let value = hex(bytes, at + 1).ok_or(TargetRefusal::BadEscape)?;
                // %25 would decode to a second escape in an upstream that decodes twice.
                let doubtful = matches!(value, b'/' | b'.' | b'\\' | b'%') || value < 0x20 || value == 0x7f;
                if doubtful {
                    return Err(TargetRefusal::Encoded);
                }
                at += 2;
            }
            _ => {}
        }
        at += 1;
    }
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        // `;` starts path parameters in some upstreams, which strip them before they look for dots.
        let name = segment.split(';').next().unwrap_or("");
        if name == "." || name == ".." {
            return Err(TargetRefusal::DotSegment);
        }
        if segment.is_empty() && segments.peek().is_some() {
            return Err(TargetRefusal::EmptySegment);
        }
    }
    Ok(())
}

fn check_query(query: &str) -> Result<(), TargetRefusal> {
    let bytes = query.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'%') {
        let value = hex(bytes, at + 1).ok_or(TargetRefusal::BadEscape)?;
        if value < 0x20 || value == 0x7f {
            return Err(TargetRefusal::Encoded);
        }
    }
    Ok(())
}

/// Percent-decodes one checked segment. Bytes that are no UTF-8 become U+FFFD, which no pattern holds.
fn decode(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(bytes, at + 1)) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(target: &str) -> TargetRefusal {
        Target::parse(target, 64).unwrap_err()
    }

    #[test]
    fn ordinary_targets_pass_unchanged() {
        for target in ["/", "/v1/boot", "/api/v1/a-b_c~d/", "/x?y=%2F..&z=/../", "/a%20b/%C3%A9", "/a.b/..c"]
        {
            assert_eq!(Target::parse(target, 64).unwrap().path_and_query(), target);
        }
        assert_eq!(Target::parse("/a%20b/c", 64).unwrap().segments(), ["a b", "c"]);
    }

    #[test]
    fn doubtful_targets_are_refused() {
        use TargetRefusal as R;
        let cases = [
            ("", R::NotOriginForm),
            ("*", R::NotOriginForm),
            ("http://x/", R::NotOriginForm),
            ("//x/", R::EmptySegment),
            ("/a//b", R::EmptySegment),
            ("/a/../b", R::DotSegment),
            ("/a/.", R::DotSegment),
            ("/a/..;x=1/b", R::DotSegment),
            ("/a%2fb", R::Encoded),
            ("/a%2Fb", R::Encoded),
            ("/%2e%2E/b", R::Encoded),
            ("/a%5cb", R::Encoded),
            ("/a%252fb", R::Encoded),
            ("/a\\b", R::Encoded),
            ("/a%00", R::Encoded),
            ("/a%7f", R::Encoded),
            ("/a?x=%0d%0a", R::Encoded),
            ("/a%", R::BadEscape),
            ("/a%2", R::BadEscape),
            ("/a%zz", R::BadEscape),
            ("/a\0", R::Byte),
            ("/a b", R::Byte),
            ("/a\tb", R::Byte),
            ("/\u{e9}", R::Byte),
            ("/a#b", R::Fragment),
        ];
        for (target, wanted) in cases {
            assert_eq!(refusal(target), wanted, "{target:?}");
        }
        assert_eq!(refusal(&format!("/{}", "a".repeat(64))), R::TooLong);
    }

    #[test]
    fn prefixes_are_cut_at_segment_borders() {
        let below = |target: &str| {
            Target::parse(target, 64).unwrap().below("/api").map(|t| t.path_and_query().into_owned())
        };
        assert_eq!(below("/api/v1?x"), Some("/v1?x".to_owned()));
        assert_eq!(below("/api"), Some("/".to_owned()));
        assert_eq!(below("/api?x"), Some("/?x".to_owned()));
        assert_eq!(below("/apix"), None);
        assert_eq!(below("/v1/api"), None);
    }

    proptest! {
        /// Whatever passes has no segment that a second decoding or a normaliser would change.
        #[test]
        fn what_passes_is_stable(target in "/([a-z./%25eEfFcC\\\\;?#]|%2e|%2F|%5C){0,24}") {
            if let Ok(target) = Target::parse(&target, 64) {
                for segment in target.segments() {
                    prop_assert!(segment != "." && segment != "..");
                    prop_assert!(!segment.contains(['/', '\\', '%']));
                }
                prop_assert!(!target.path().contains("//"));
            }
        }

        #[test]
        fn parsing_never_panics(target in "\\PC{0,40}") {
            let _ = Target::parse(&target, 64).map(|t| t.segments().len());
        }
    }
}

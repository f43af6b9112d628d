//! Path rules: `[!]VERB[,VERB] /path/*/**`, first match wins, default deny.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::target::Target;
use crate::desired::Dialect;

/// One path rule of the proxy, as in `api_allow@`: `[!]VERB[,VERB] /path/*/**`.
///
/// Paths are relative to the API base: `GET /v1/machines` is about the machine's `GET /api/v1/machines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathRule {
    pub deny: bool,
    /// Upper-case methods; empty means any.
    pub verbs: Vec<String>,
    /// Path pattern: `*` is one segment, `**` (last only) any number of segments.
    pub pattern: String,
}

/// A text that is no path rule. `Display` says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPathRule {
    #[error("{0:?} is not a path rule ([!]VERB[,VERB] /path, like `GET,POST /v1/machines/*`)")]
    Shape(String),
    #[error("{0:?} is not a method (GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, or * for any)")]
    Verb(String),
    #[error("{0:?} is not a path pattern: it starts with /, without //, dot segments, %, ? or #")]
    Pattern(String),
    #[error("{0:?}: * and ** stand alone between slashes, and ** comes last")]
    Wildcard(String),
}

/// Methods a rule may name. CONNECT and TRACE never pass.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Longest pattern, in bytes: the longest target that can match it is no longer.
const PATTERN_LEN_MAX: usize = 2048;

impl FromStr for PathRule {
    type Err = InvalidPathRule;

    fn from_str(text: &str) -> Result<Self, InvalidPathRule> {
        let shape = || InvalidPathRule::Shape(text.to_owned());
        let trimmed = text.trim();
        let (deny, rest) = match trimmed.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, trimmed),
        };
        let (verbs, pattern) = rest.split_once(' ').ok_or_else(shape)?;
        let verbs = if verbs == "*" {
            Vec::new()
        } else {
            verbs.split(',').map(parse_verb).collect::<Result<Vec<_>, _>>()?
        };
        let pattern = pattern.trim_start();
        check_pattern(pattern)?;
        Ok(PathRule { deny, verbs, pattern: pattern.to_owned() })
    }
}

fn parse_verb(verb: &str) -> Result<String, InvalidPathRule> {
    let upper = verb.trim().to_ascii_uppercase();
    if METHODS.contains(&upper.as_str()) { Ok(upper) } else { Err(InvalidPathRule::Verb(verb.to_owned())) }
}

fn check_pattern(pattern: &str) -> Result<(), InvalidPathRule> {
    let bad = || InvalidPathRule::Pattern(pattern.to_owned());
    let path = pattern.strip_prefix('/').ok_or_else(bad)?;
    let plain = pattern.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'%' | b'?' | b'#' | b'\\'));
    if !plain || pattern.len() > PATTERN_LEN_MAX {
        return Err(bad());
    }
    let segments: Vec<&str> = path.split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        match *segment {
            "" if !last => return Err(bad()),
            "." | ".." => return Err(bad()),
            "**" if !last => return Err(InvalidPathRule::Wildcard(pattern.to_owned())),
            "*" | "**" => {}
            other if other.contains('*') => return Err(InvalidPathRule::Wildcard(pattern.to_owned())),
            _ => {}
        }
    }
    Ok(())
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verbs = if self.verbs.is_empty() { "*".to_owned() } else { self.verbs.join(",") };
        write!(f, "{}{verbs} {}", if self.deny { "!" } else { "" }, self.pattern)
    }
}

impl PathRule {
    fn matches(&self, method: &str, segments: &[String]) -> bool {
        let verb = self.verbs.is_empty() || self.verbs.iter().any(|verb| verb == method);
        verb && pattern_matches(&self.pattern, segments)
    }
}

fn pattern_matches(pattern: &str, segments: &[String]) -> bool {
    let mut rest = segments.iter();
    for wanted in pattern.trim_start_matches('/').split('/') {
        if wanted == "**" {
            return true;
        }
        let Some(segment) = rest.next() else { return false };
        let same = if wanted == "*" { !segment.is_empty() } else { wanted == segment };
        if !same {
            return false;
        }
    }
    rest.next().is_none()
}

/// Whether the rules let `method` on `target` pass: the first rule that matches decides, and a request
/// that none matches is denied. The path is compared after percent-decoding, so that no spelling of a
/// denied path slips through.
pub fn allows(rules: &[PathRule], method: &str, target: &Target) -> bool {
    let segments = target.segments();
    rules.iter().find(|rule| rule.matches(method, &segments)).is_some_and(|rule| !rule.deny)
}

/// The rules of a dialect, for partitions that configure none.
///
/// `generic`: every path below the API base with the methods that REST APIs use
/// (`GET,POST,PUT,PATCH,DELETE /**`): the API checks each request itself, by the signed identity. The
/// metal-stack dialects forward nothing under `/api`; their own paths carry their own list.
pub fn default_rules(dialect: Dialect) -> Vec<PathRule> {
    match dialect {
        Dialect::Generic => vec![PathRule {
            deny: false,
            verbs: ["GET", "POST", "PUT", "PATCH", "DELETE"].map(str::to_owned).to_vec(),
            pattern: "/**".to_owned(),
        }],
        Dialect::MetalStackV2 | Dialect::MetalStackV1 => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(lines: &[&str]) -> Vec<PathRule> {
        lines.iter().map(|line| line.parse().unwrap()).collect()
    }

    fn allowed(rules: &[PathRule], method: &str, path: &str) -> bool {
        allows(rules, method, &Target::parse(path, 2048).unwrap())
    }

    #[test]
    fn rules_parse_and_print() {
        for text in ["GET /v1/x", "!GET,POST /v1/*/y", "* /**", "!* /a/**", "DELETE /"] {
            assert_eq!(text.parse::<PathRule>().unwrap().to_string(), text);
        }
        assert_eq!("get,post /x".parse::<PathRule>().unwrap().verbs, ["GET", "POST"]);
    }

    #[test]
    fn wrong_rules_say_why() {
        let cases = [
            ("", "is not a path rule"),
            ("/v1/x", "is not a path rule"),
            ("CONNECT /v1", "is not a method"),
            ("TRACE /v1", "is not a method"),
            ("GET, /v1", "is not a method"),
            ("GET v1", "is not a path pattern"),
            ("GET /a//b", "is not a path pattern"),
            ("GET /a/../b", "is not a path pattern"),
            ("GET /a%2fb", "is not a path pattern"),
            ("GET /a b", "is not a path pattern"),
            ("GET /a?x", "is not a path pattern"),
            ("GET /a/**/b", "** comes last"),
            ("GET /a*", "stand alone"),
        ];
        for (text, wanted) in cases {
            let error = text.parse::<PathRule>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_first_match_decides_and_the_default_is_deny() {
        let list = rules(&["!GET /v1/secrets/**", "GET /v1/**", "POST /v1/machines/*", "!* /v1/x"]);
        assert!(allowed(&list, "GET", "/v1/machines"));
        assert!(allowed(&list, "GET", "/v1"));
        assert!(!allowed(&list, "GET", "/v1/secrets"));
        assert!(!allowed(&list, "GET", "/v1/secrets/a"));
        assert!(allowed(&list, "POST", "/v1/machines/7?x=1"));
        assert!(!allowed(&list, "POST", "/v1/machines/"));
        assert!(!allowed(&list, "POST", "/v1/machines/7/8"));
        assert!(!allowed(&list, "PUT", "/v1/machines/7"));
        assert!(!allowed(&list, "GET", "/v2"));
        assert!(!allowed(&[], "GET", "/"));
    }

    #[test]
    fn percent_encoding_does_not_slip_past_a_deny_rule() {
        let list = rules(&["!GET /v1/secrets/**", "GET /**"]);
        assert!(!allowed(&list, "GET", "/v1/%73ecrets/a"));
        assert!(!allowed(&list, "GET", "/%761/secre%74s"));
    }

    #[test]
    fn the_generic_default_covers_rest_and_nothing_else() {
        let list = default_rules(Dialect::Generic);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            assert!(allowed(&list, method, "/"));
            assert!(allowed(&list, method, "/v1/a/b"));
        }
        assert!(!allowed(&list, "TRACE", "/v1"));
        assert!(default_rules(Dialect::MetalStackV1).is_empty());
    }
}

//! Path rules: `[!]VERB[|VERB...] /path/*/**`, first match wins, default deny.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::Serialize;

use super::metal_stack_v1::procedure::Procedure;
use super::metal_stack_v2;
use super::target::Target;
use crate::desired::{Dialect, quoted};

/// One path rule of the proxy, an item of `api_allow@`: `[!]VERB[|VERB...] /path/*/**`, `*` standing for every
/// method. Verbs are separated by `|` because the comma already separates the items of a leaf-list.
///
/// Paths are relative to the API base: `GET /v1/machines` is about the machine's `GET /api/v1/machines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathRule {
    pub deny: bool,
    /// Methods; empty means any.
    pub verbs: Vec<String>,
    /// Path pattern: `*` is one segment, `**` (last only) any number of segments.
    pub pattern: String,
}

/// A text that is no path rule. `Display` says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPathRule {
    #[error("{SHAPE}")]
    Shape,
    #[error("{SHAPE}; {:?} is none of *, {}", quoted(.0), METHODS.join(", "))]
    Verb(String),
    #[error("must have a path that starts with / and has at most {PATTERN_LEN_MAX} bytes")]
    Path,
    #[error("must have a path of plain segments, *, and ** as the last one")]
    Segment,
}

const SHAPE: &str = "must be [!]VERB[|VERB] /path, like GET|POST /v1/*/**, or * /path";
/// Methods a rule may name. CONNECT and TRACE never pass.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Longest pattern, in bytes.
const PATTERN_LEN_MAX: usize = 512;

impl FromStr for PathRule {
    type Err = InvalidPathRule;

    fn from_str(text: &str) -> Result<Self, InvalidPathRule> {
        let (deny, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let (verbs, pattern) = rest.split_once(' ').ok_or(InvalidPathRule::Shape)?;
        let verbs: Vec<&str> = if verbs == "*" { Vec::new() } else { verbs.split('|').collect() };
        if let Some(verb) = verbs.iter().find(|verb| !METHODS.contains(verb)) {
            return Err(InvalidPathRule::Verb((*verb).to_owned()));
        }
        check_pattern(pattern)?;
        let verbs = verbs.into_iter().map(str::to_owned).collect();
        Ok(PathRule { deny, verbs, pattern: pattern.to_owned() })
    }
}

fn check_pattern(pattern: &str) -> Result<(), InvalidPathRule> {
    let path = pattern.strip_prefix('/').filter(|_| pattern.len() <= PATTERN_LEN_MAX);
    let path = path.ok_or(InvalidPathRule::Path)?;
    if path.is_empty() {
        return Ok(());
    }
    let segments: Vec<&str> = path.split('/').collect();
    let literal = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()+;=:@".contains(&b))
    };
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        if !(*segment == "*" || *segment == "**" && last || literal(segment)) {
            return Err(InvalidPathRule::Segment);
        }
    }
    Ok(())
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verbs = if self.verbs.is_empty() { "*".to_owned() } else { self.verbs.join("|") };
        write!(f, "{}{verbs} {}", if self.deny { "!" } else { "" }, self.pattern)
    }
}

impl PathRule {
    fn matches(&self, method: &str, segments: &[Cow<'_, str>]) -> bool {
        let verb = self.verbs.is_empty() || self.verbs.iter().any(|verb| verb == method);
        verb && pattern_matches(&self.pattern, segments)
    }
}

fn pattern_matches(pattern: &str, segments: &[Cow<'_, str>]) -> bool {
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
/// (`GET|POST|PUT|PATCH|DELETE /**`): the API checks each request itself, by the signed identity.
/// `metal-stack-v1`: the procedures that metal-hammer calls, by their own paths, and its one REST request,
/// below the API base. `metal-stack-v2`: the procedures that booting takes, by their own paths.
pub fn default_rules(dialect: Dialect) -> &'static [PathRule] {
    static GENERIC: LazyLock<Vec<PathRule>> = LazyLock::new(|| {
        let verbs = ["GET", "POST", "PUT", "PATCH", "DELETE"].map(str::to_owned).to_vec();
        vec![PathRule { deny: false, verbs, pattern: "/**".to_owned() }]
    });
    static METAL_STACK_V1: LazyLock<Vec<PathRule>> = LazyLock::new(|| {
        let rule = |verb: &str, pattern: &str| PathRule {
            deny: false,
            verbs: vec![verb.to_owned()],
            pattern: pattern.to_owned(),
        };
        let procedures = Procedure::ALL.into_iter().map(|procedure| rule("POST", procedure.path()));
        procedures.chain([rule("GET", "/v1/machine/*")]).collect()
    });
    static METAL_STACK_V2: LazyLock<Vec<PathRule>> = LazyLock::new(metal_stack_v2::default_rules);
    match dialect {
        Dialect::Generic => &GENERIC,
        Dialect::MetalStackV2 => &METAL_STACK_V2,
        Dialect::MetalStackV1 => &METAL_STACK_V1,
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
        for text in ["GET /v1/x", "!GET|POST /v1/*/y", "* /**", "!* /a/**", "DELETE /"] {
            assert_eq!(text.parse::<PathRule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_rules_say_why() {
        let cases = [
            ("", "must be [!]VERB"),
            ("/v1/x", "must be [!]VERB"),
            ("CONNECT /v1", "\"CONNECT\" is none of"),
            ("get /v1", "\"get\" is none of"),
            ("GET| /v1", "\"\" is none of"),
            ("GET v1", "starts with /"),
            ("GET /a//b", "plain segments"),
            ("GET /a/../b", "plain segments"),
            ("GET /a%2fb", "plain segments"),
            ("GET /a b", "plain segments"),
            ("GET /a?x", "plain segments"),
            ("GET /a/**/b", "** as the last one"),
            ("GET /a*", "plain segments"),
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
            assert!(allowed(list, method, "/"));
            assert!(allowed(list, method, "/v1/a/b"));
        }
        assert!(!allowed(list, "TRACE", "/v1"));
    }

    #[test]
    fn the_default_of_metal_stack_v1_is_what_metal_hammer_asks() {
        let list = default_rules(Dialect::MetalStackV1);
        for rule in list {
            assert_eq!(rule.to_string().parse::<PathRule>().unwrap(), *rule);
        }
        assert!(allowed(list, "POST", "/api.v1.BootService/Wait"));
        assert!(allowed(list, "GET", "/v1/machine/00112233-4455-6677-8899-aabbccddeeff"));
        for (method, path) in [
            ("POST", "/api.v1.BootService/Boot"),
            ("GET", "/api.v1.BootService/Wait"),
            ("POST", "/v1/machine/x"),
            ("GET", "/v1/machine"),
            ("GET", "/v1/machine/x/consolepassword"),
            ("GET", "/v1/switch/x"),
        ] {
            assert!(!allowed(list, method, path), "{method} {path}");
        }
    }
}

//! Policy of the discovery proxy: path rules, header hygiene, limits; no HTTP types.

use serde::Serialize;

/// One path rule of the proxy, as in `api_allow@`: `[!]VERB[,VERB] /path/*/**`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathRule {
    pub deny: bool,
    /// Upper-case methods; empty means any.
    pub verbs: Vec<String>,
    /// Path pattern: `*` is one segment, `**` (last only) any number of segments.
    pub pattern: String,
}

//! Policy of the discovery proxy: path rules, header hygiene, limits, documents; no HTTP types.
//!
//! The shell asks three questions of a request, in this order: is its target spelled so that every parser
//! reads it alike ([`target`]), do the partition's rules allow it ([`rules`]), and which of its header
//! fields may pass ([`headers`]). What it answers itself is built by [`boot`] and [`ipxe`].

pub mod boot;
pub mod breaker;
pub mod bucket;
pub mod frames;
pub mod head;
pub mod headers;
pub mod ingress;
pub mod ipxe;
pub mod limits;
pub mod metal_stack_v1;
pub mod metal_stack_v2;
pub mod once;
pub mod rules;
pub mod scan;
pub mod target;
pub mod upstream;
pub mod validity;

pub use bucket::Bucket;
pub use limits::Limits;
pub use rules::{InvalidPathRule, PathRule, allows, default_rules};
pub use target::{Target, TargetRefusal};

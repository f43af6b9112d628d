//! The pure part of switch-agent.
//!
//! Everything here is a value computed from values: no I/O, no clock, no randomness, no logging. Time is
//! an argument ([`std::time::Duration`] since an arbitrary origin, or a Unix timestamp where wall time is
//! part of a contract), chance is a seeded generator handed in by the caller. `tests/run` fails when this
//! crate gains a dependency that could break that promise.

pub mod action;
pub mod desired;
pub mod dhcp6;
pub mod discovery;
pub mod frr;
pub mod identity;
pub mod isolate;
pub mod machines;
pub mod map;
pub mod name;
pub mod ndp;
pub mod observed;
pub mod ownership;
pub mod plan;
pub mod ra;
pub mod row;
pub mod service;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod status;
pub mod timeline;

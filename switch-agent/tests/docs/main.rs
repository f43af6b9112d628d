//! The documentation is true: commands run, and tables list what the code has.
//!
//! A fenced block of commands says who runs it, by the second word after the fence: `check` (this test),
//! `lab NODE` (the end-to-end case `docs`, on that node of the lab) or `ci` (`tests/run` itself).
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod commands;
mod configuration;
mod interfaces;
mod markdown;
mod restarts;

//! Subcommands other than `run`.

pub mod check;

//! Subcommands other than `run`.

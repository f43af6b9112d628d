//! Tokens of machines.

//! Why a case failed: a chain of sentences for people, nothing to match on.

use std::fmt;

#[derive(Debug)]
pub(crate) struct Failure(pub String);

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was being done when an error came up.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure(format!("{}: {error}", what())))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.ok_or_else(|| Failure(what()))
    }
}

/// Returns from the case with a reason.
macro_rules! fail {
    ($($arg:tt)*) => { return Err($crate::failure::Failure(format!($($arg)*))) };
}

/// Returns from the case with a reason unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($arg:tt)*) => {
        match $condition {
            true => {}
            false => $crate::failure::fail!($($arg)*),
        }
    };
}

pub(crate) use {ensure, fail};

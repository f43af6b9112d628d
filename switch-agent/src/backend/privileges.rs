//! Capabilities of the process: those that it uses, of those that it was given.
//!
//! A container of SONiC gets Docker's default set, of which most is of no use here and some of great use to
//! whoever takes the process over.

use std::collections::HashSet;

use caps::errors::CapsError;
use caps::{CapSet, Capability};

/// The sockets of Router Advertisements; a port of the proxy below 1024; Redis's socket and credentials, which
/// belong to others; and what NET_ADMIN is for, where it is held.
const USED: [Capability; 4] = [
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
];

/// Gives up every capability that the agent does not use, for good: also of what is permitted. Programs that it
/// starts (vtysh) are not limited, as root's capabilities are made anew with each of them.
///
/// Called once, before threads are started: each thread has capabilities of its own.
///
/// # Errors
/// The kernel refused.
pub fn keep_few() -> Result<(), CapsError> {
    let used = HashSet::from(USED);
    caps::clear(None, CapSet::Inheritable)?;
    // The effective ones first: they must be permitted at every moment.
    for set in [CapSet::Effective, CapSet::Permitted] {
        let held = caps::read(None, set)?;
        caps::set(None, set, &held.intersection(&used).copied().collect())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own, which other tests do not share.
    #[test]
    fn what_is_not_used_is_given_up() {
        let sets = [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable];
        let read = move || sets.map(|set| caps::read(None, set).unwrap());
        let (before, after) = std::thread::spawn(move || {
            let before = read();
            // What programs that it starts would inherit; taking one over needs no privilege.
            if let Some(held) = before[1].iter().next() {
                caps::raise(None, CapSet::Inheritable, *held).unwrap();
            }
            keep_few().unwrap();
            (before, read())
        })
        .join()
        .unwrap();
        let used = HashSet::from(USED);
        for set in 0..2 {
            assert_eq!(after[set], before[set].intersection(&used).copied().collect());
        }
        assert!(after[2].is_empty());
        // The thread of the test has what it had.
        assert_eq!(read(), before);
    }
}

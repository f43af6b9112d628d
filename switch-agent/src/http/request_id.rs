//! `X-Request-Id`: one for each request of a machine.

use std::cell::RefCell;

use ::http::HeaderName;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::{Builder, Uuid};

/// On the way up, and in the reply to the machine.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Ids made of random bytes that are asked for at a time: the system call takes longer than all the rest.
const BATCH: usize = 32;

struct Pool {
    bytes: [[u8; 16]; BATCH],
    left: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [[0; 16]; BATCH], left: 0 }) };
}

/// A fresh UUID of version 4 (RFC 9562 section 5.4).
pub fn fresh() -> Uuid {
    POOL.with_borrow_mut(|pool| {
        if pool.left == 0 {
            if SystemRandom::new().fill(pool.bytes.as_flattened_mut()).is_err() {
                return Uuid::new_v4();
            }
            pool.left = BATCH;
        }
        pool.left -= 1;
        Builder::from_random_bytes(pool.bytes[pool.left]).into_uuid()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_random_and_never_the_same() {
        let ids: BTreeSet<Uuid> = (0..BATCH * 3).map(|_| fresh()).collect();
        assert_eq!(ids.len(), BATCH * 3);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
    }
}

//! Which machine tokens are live: one per port, in memory only.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::discovery::bucket::Bucket;
use crate::name::{MacAddr, PortName, VrfName};

/// What a token is bound to. Any difference at use ends its worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub port: PortName,
    pub vrf: VrfName,
    /// A port that was deleted and made again is another one.
    pub ifindex: u32,
    pub mac: MacAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Live {
    binding: Binding,
    jti: String,
    expires: Duration,
    machine_id: Option<String>,
}

/// Why a presented token is not live here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenRefusal {
    #[error("no token is live on this port; ask for one with POST /v1/token")]
    None,
    #[error("a newer token was minted on this port")]
    Replaced,
    #[error("the token has expired")]
    Expired,
    #[error("the port was moved since the token was minted")]
    Moved,
    #[error("the token belongs to another machine")]
    OtherMac,
}

/// Why no token is minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many tokens were asked for on this port")]
pub struct MintRefusal {
    pub retry_after: Duration,
}

/// The live tokens of the switch. Time is since an arbitrary origin and monotonic, so that a step of the
/// wall clock neither revives nor ends a token.
#[derive(Debug, Clone)]
pub struct TokenTable {
    mints_per_minute: u32,
    live: BTreeMap<PortName, Live>,
    buckets: BTreeMap<PortName, Bucket>,
}

impl TokenTable {
    pub fn new(mints_per_minute: u32) -> TokenTable {
        TokenTable {
            mints_per_minute: mints_per_minute.max(1),
            live: BTreeMap::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// Enters a new token for the port and revokes the one before. Returns whether there was one.
    pub fn mint(
        &mut self,
        binding: Binding,
        jti: String,
        machine_id: Option<String>,
        now: Duration,
        ttl: Duration,
    ) -> Result<bool, MintRefusal> {
        let rate = self.mints_per_minute;
        let bucket = self
            .buckets
            .entry(binding.port.clone())
            .or_insert_with(|| Bucket::new(rate, Duration::from_secs(60) / rate));
        bucket.take(now).map_err(|retry_after| MintRefusal { retry_after })?;
        let live = Live { jti, expires: now + ttl, machine_id, binding };
        Ok(self.live.insert(live.binding.port.clone(), live).is_some())
    }

    /// Whether `jti` is the port's live token, presented from where it was minted. A token found expired
    /// or moved is forgotten.
    pub fn check(&mut self, at: &Binding, jti: &str, now: Duration) -> Result<Option<&str>, TokenRefusal> {
        let live = self.live.get(&at.port).ok_or(TokenRefusal::None)?;
        let moved = live.binding.vrf != at.vrf || live.binding.ifindex != at.ifindex;
        let refusal = if now >= live.expires {
            Some(TokenRefusal::Expired)
        } else if moved {
            Some(TokenRefusal::Moved)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.live.remove(&at.port);
            return Err(refusal);
        }
        let live = self.live.get(&at.port).ok_or(TokenRefusal::None)?;
        if live.jti != jti {
            Err(TokenRefusal::Replaced)
        } else if live.binding.mac != at.mac {
            Err(TokenRefusal::OtherMac)
        } else {
            Ok(live.machine_id.as_deref())
        }
    }

    /// The machine id that the port's live token was minted for.
    pub fn machine_id(&self, port: &PortName, now: Duration) -> Option<&str> {
        self.live.get(port).filter(|live| now < live.expires)?.machine_id.as_deref()
    }

    /// Ends the port's token. Returns whether there was one. The rate of mints is remembered.
    pub fn revoke(&mut self, port: &PortName) -> bool {
        self.live.remove(port).is_some()
    }

    /// Number of tokens that have not expired.
    pub fn live(&self, now: Duration) -> usize {
        self.live.values().filter(|live| now < live.expires).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TTL: Duration = Duration::from_secs(3600);

    fn binding(port: &str) -> Binding {
        Binding {
            port: port.parse().unwrap(),
            vrf: "VrfBoot-p1".parse().unwrap(),
            ifindex: 7,
            mac: "52:54:00:00:00:01".parse().unwrap(),
        }
    }

    fn minted(table: &mut TokenTable, port: &str, jti: &str, now: Duration) -> bool {
        table.mint(binding(port), jti.to_owned(), Some("m".to_owned()), now, TTL).unwrap()
    }

    #[test]
    fn one_live_token_per_port() {
        let mut table = TokenTable::new(6);
        assert!(!minted(&mut table, "Ethernet0", "a", SECOND));
        assert!(!minted(&mut table, "Ethernet4", "b", SECOND));
        assert_eq!(table.check(&binding("Ethernet0"), "a", SECOND), Ok(Some("m")));
        assert_eq!(table.check(&binding("Ethernet4"), "a", SECOND), Err(TokenRefusal::Replaced));
        assert!(minted(&mut table, "Ethernet0", "c", SECOND));
        assert_eq!(table.check(&binding("Ethernet0"), "a", SECOND), Err(TokenRefusal::Replaced));
        assert_eq!(table.check(&binding("Ethernet0"), "c", SECOND), Ok(Some("m")));
        assert_eq!(table.live(SECOND), 2);
        assert!(table.revoke(&"Ethernet0".parse().unwrap()));
        assert_eq!(table.check(&binding("Ethernet0"), "c", SECOND), Err(TokenRefusal::None));
    }

    #[test]
    fn bound_to_mac_vrf_interface_and_time() {
        let mut table = TokenTable::new(60);
        let check = |table: &mut TokenTable, change: &dyn Fn(&mut Binding), now: Duration| {
            let mut at = binding("Ethernet0");
            change(&mut at);
            table.check(&at, "a", now).map(|_| ())
        };
        minted(&mut table, "Ethernet0", "a", SECOND);
        assert_eq!(check(&mut table, &|b| b.mac.0[5] = 9, SECOND), Err(TokenRefusal::OtherMac));
        assert_eq!(check(&mut table, &|_| {}, TTL), Ok(()));
        assert_eq!(check(&mut table, &|_| {}, TTL + SECOND), Err(TokenRefusal::Expired));
        minted(&mut table, "Ethernet0", "a", SECOND * 10);
        assert_eq!(check(&mut table, &|b| b.ifindex = 8, SECOND * 11), Err(TokenRefusal::Moved));
        // A port that came back is not the port it was.
        assert_eq!(check(&mut table, &|_| {}, SECOND * 12), Err(TokenRefusal::None));
        minted(&mut table, "Ethernet0", "a", SECOND * 20);
        let moved = |b: &mut Binding| b.vrf = "VrfBoot-p2".parse().unwrap();
        assert_eq!(check(&mut table, &moved, SECOND * 21), Err(TokenRefusal::Moved));
    }

    #[test]
    fn six_mints_a_minute_then_a_wait() {
        let mut table = TokenTable::new(6);
        for n in 0..6 {
            minted(&mut table, "Ethernet0", &n.to_string(), SECOND);
        }
        let refusal = table.mint(binding("Ethernet0"), "x".to_owned(), None, SECOND, TTL).unwrap_err();
        assert_eq!(refusal.retry_after, SECOND * 10);
        // The token minted last stays good, and the other port is not held back.
        assert!(table.check(&binding("Ethernet0"), "5", SECOND).is_ok());
        assert!(!minted(&mut table, "Ethernet4", "y", SECOND));
        // Revoking does not refill the bucket.
        table.revoke(&"Ethernet0".parse().unwrap());
        assert!(table.mint(binding("Ethernet0"), "x".to_owned(), None, SECOND, TTL).is_err());
        assert!(table.mint(binding("Ethernet0"), "x".to_owned(), None, SECOND * 11, TTL).is_ok());
    }
}

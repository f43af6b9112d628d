//! Which machine tokens are live: one per port, in memory only.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::discovery::bucket::Bucket;
use crate::name::{MacAddr, PartitionId, PortName, VrfName};

/// What a token is bound to. Any difference at use ends its worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub switch_id: String,
    pub partition: PartitionId,
    pub port: PortName,
    pub vrf: VrfName,
    /// A port that was deleted and made again is another one.
    pub ifindex: u32,
    pub mac: MacAddr,
}

impl Binding {
    /// Whether the two differ in the MAC at most.
    fn is_same_place(&self, other: &Binding) -> bool {
        let Binding { switch_id, partition, port, vrf, ifindex, mac: _ } = other;
        self.switch_id == *switch_id
            && self.partition == *partition
            && self.port == *port
            && self.vrf == *vrf
            && self.ifindex == *ifindex
    }
}

/// SHA-256 of what a machine presents: all that the table needs to know of it. Compared in constant time,
/// shown to nobody.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(presented: &str) -> Digest {
        Digest(Sha256::digest(presented.as_bytes()).into())
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Digest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

/// A token to be entered: `payload` is what its owner keeps along with it.
#[derive(Debug, Clone)]
pub struct Grant<P> {
    pub binding: Binding,
    pub presented: Digest,
    pub machine_id: Option<String>,
    pub ttl: Duration,
    pub payload: P,
}

/// A live token as it is seen from where it is bound.
#[derive(Debug)]
pub struct Live<'a, P> {
    pub machine_id: Option<&'a str>,
    /// On the clock of the table.
    pub expires: Duration,
    pub payload: &'a mut P,
}

#[derive(Debug, Clone)]
struct Entry<P> {
    grant: Grant<P>,
    expires: Duration,
    /// The token that this one replaced.
    previous: Option<Digest>,
}

/// Why a presented token is not live here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenRefusal {
    #[error("no token is live on this port; ask for one with POST /v1/token")]
    None,
    #[error("this is not the live token of this port")]
    Unknown,
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
pub enum MintRefusal {
    #[error("too many tokens were asked for on this port")]
    Rate { retry_after: Duration },
    /// What was asked of the control API meanwhile is worth nothing any more.
    #[error("the port changed while its token was made")]
    Outdated,
}

/// The permission to make one token, of [`TokenTable::admit`]. Any change of the port since makes it void.
#[derive(Debug)]
pub struct Admission {
    port: PortName,
    generation: u64,
}

#[derive(Debug, Clone)]
struct History {
    bucket: Bucket,
    /// Counts what ended the port's token.
    generation: u64,
}

/// The live tokens of the switch. Time is since an arbitrary origin and monotonic, so that a step of the
/// wall clock neither revives nor ends a token.
///
/// Making a token may take a while (the control API is asked): it is admitted first and entered when it is
/// there, and what changed in between voids it.
#[derive(Debug, Clone)]
pub struct TokenTable<P> {
    mints_per_minute: u32,
    live: BTreeMap<PortName, Entry<P>>,
    /// One for each port that ever asked: as many as the switch has.
    history: BTreeMap<PortName, History>,
}

impl<P> TokenTable<P> {
    pub fn new(mints_per_minute: u32) -> TokenTable<P> {
        let mints_per_minute = mints_per_minute.max(1);
        TokenTable { mints_per_minute, live: BTreeMap::new(), history: BTreeMap::new() }
    }

    fn history(&mut self, port: &PortName) -> &mut History {
        let rate = self.mints_per_minute;
        let new = || History { bucket: Bucket::new(rate, Duration::from_secs(60) / rate), generation: 0 };
        self.history.entry(port.clone()).or_insert_with(new)
    }

    /// Counts a token against the port's rate.
    pub fn admit(&mut self, port: &PortName, now: Duration) -> Result<Admission, MintRefusal> {
        let history = self.history(port);
        history.bucket.take(now).map_err(|retry_after| MintRefusal::Rate { retry_after })?;
        Ok(Admission { port: port.clone(), generation: history.generation })
    }

    /// Enters a new token for the port and revokes the one before, whose payload it returns.
    pub fn enter(
        &mut self,
        admission: &Admission,
        grant: Grant<P>,
        now: Duration,
    ) -> Result<Option<P>, MintRefusal> {
        let port = grant.binding.port.clone();
        if admission.port != port || !self.is_current(admission) {
            return Err(MintRefusal::Outdated);
        }
        let previous = self.live.get(&port).map(|entry| entry.grant.presented);
        let entry = Entry { expires: now + grant.ttl, previous, grant };
        Ok(self.live.insert(port, entry).map(|entry| entry.grant.payload))
    }

    /// Whether nothing changed at the port since the admission.
    pub fn is_current(&self, admission: &Admission) -> bool {
        self.history.get(&admission.port).is_some_and(|history| history.generation == admission.generation)
    }

    /// The live token of the place, if it is bound to exactly this place. One found expired or moved is
    /// forgotten.
    pub fn at(&mut self, at: &Binding, now: Duration) -> Result<Live<'_, P>, TokenRefusal> {
        let entry = self.live.get(&at.port).ok_or(TokenRefusal::None)?;
        let bound = &entry.grant.binding;
        let refusal = if now >= entry.expires {
            Some(TokenRefusal::Expired)
        } else if !bound.is_same_place(at) {
            Some(TokenRefusal::Moved)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.live.remove(&at.port);
            return Err(refusal);
        }
        let entry = self.live.get_mut(&at.port).ok_or(TokenRefusal::None)?;
        if entry.grant.binding.mac != at.mac {
            return Err(TokenRefusal::OtherMac);
        }
        Ok(Live {
            machine_id: entry.grant.machine_id.as_deref(),
            expires: entry.expires,
            payload: &mut entry.grant.payload,
        })
    }

    /// Whether `presented` is the port's live token, presented from where it was minted.
    pub fn check(
        &mut self,
        at: &Binding,
        presented: &Digest,
        now: Duration,
    ) -> Result<Live<'_, P>, TokenRefusal> {
        if let Some(entry) = self.live.get(&at.port)
            && now < entry.expires
            && entry.grant.presented != *presented
        {
            let replaced = entry.previous.as_ref() == Some(presented);
            return Err(if replaced { TokenRefusal::Replaced } else { TokenRefusal::Unknown });
        }
        self.at(at, now)
    }

    /// The machine id that the port's live token was minted for.
    pub fn machine_id(&self, port: &PortName, now: Duration) -> Option<&str> {
        self.live.get(port).filter(|entry| now < entry.expires)?.grant.machine_id.as_deref()
    }

    /// Ends the port's token and whatever is being made for it; returns what was kept with it. The rate of
    /// mints is remembered.
    pub fn revoke(&mut self, port: &PortName) -> Option<P> {
        if let Some(history) = self.history.get_mut(port) {
            history.generation += 1;
        }
        self.live.remove(port).map(|entry| entry.grant.payload)
    }

    /// Ends the tokens of all ports.
    pub fn revoke_all(&mut self) -> Vec<P> {
        for history in self.history.values_mut() {
            history.generation += 1;
        }
        std::mem::take(&mut self.live).into_values().map(|entry| entry.grant.payload).collect()
    }

    /// Number of tokens that have not expired.
    pub fn live(&self, now: Duration) -> usize {
        self.live.values().filter(|entry| now < entry.expires).count()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TTL: Duration = Duration::from_secs(3600);

    /// A machine on a port of partition p1.
    pub(crate) fn binding(port: &str) -> Binding {
        Binding {
            switch_id: "leaf1".to_owned(),
            partition: "p1".parse().unwrap(),
            port: port.parse().unwrap(),
            vrf: "VrfBoot-p1".parse().unwrap(),
            ifindex: 7,
            mac: "52:54:00:00:00:01".parse().unwrap(),
        }
    }

    fn grant(port: &str, token: &str) -> Grant<&'static str> {
        let machine_id = Some("m".to_owned());
        Grant { binding: binding(port), presented: Digest::of(token), machine_id, ttl: TTL, payload: "kept" }
    }

    /// Whether a token was there before.
    fn minted(table: &mut TokenTable<&'static str>, port: &str, token: &str, now: Duration) -> bool {
        let admission = table.admit(&port.parse().unwrap(), now).unwrap();
        table.enter(&admission, grant(port, token), now).unwrap().is_some()
    }

    fn check(
        table: &mut TokenTable<&'static str>,
        at: &Binding,
        token: &str,
        now: Duration,
    ) -> Result<(), TokenRefusal> {
        let live = table.check(at, &Digest::of(token), now)?;
        assert_eq!((live.machine_id, *live.payload), (Some("m"), "kept"));
        Ok(())
    }

    #[test]
    fn one_live_token_per_port() {
        let mut table = TokenTable::new(6);
        assert!(!minted(&mut table, "Ethernet0", "a", SECOND));
        assert!(!minted(&mut table, "Ethernet4", "b", SECOND));
        assert_eq!(check(&mut table, &binding("Ethernet0"), "a", SECOND), Ok(()));
        assert_eq!(check(&mut table, &binding("Ethernet4"), "a", SECOND), Err(TokenRefusal::Unknown));
        assert!(minted(&mut table, "Ethernet0", "c", SECOND));
        assert_eq!(check(&mut table, &binding("Ethernet0"), "a", SECOND), Err(TokenRefusal::Replaced));
        assert_eq!(check(&mut table, &binding("Ethernet0"), "c", SECOND), Ok(()));
        assert_eq!(table.live(SECOND), 2);
        assert_eq!(table.revoke(&"Ethernet0".parse().unwrap()), Some("kept"));
        assert_eq!(check(&mut table, &binding("Ethernet0"), "c", SECOND), Err(TokenRefusal::None));
        assert_eq!(table.revoke_all().len(), 1);
        assert_eq!(check(&mut table, &binding("Ethernet4"), "b", SECOND), Err(TokenRefusal::None));
    }

    #[test]
    fn bound_to_mac_vrf_interface_and_time() {
        let mut table = TokenTable::new(60);
        let changed = |table: &mut TokenTable<_>, change: &dyn Fn(&mut Binding), now: Duration| {
            let mut at = binding("Ethernet0");
            change(&mut at);
            check(table, &at, "a", now)
        };
        minted(&mut table, "Ethernet0", "a", SECOND);
        assert_eq!(changed(&mut table, &|b| b.mac.0[5] = 9, SECOND), Err(TokenRefusal::OtherMac));
        assert_eq!(changed(&mut table, &|_| {}, TTL), Ok(()));
        assert_eq!(changed(&mut table, &|_| {}, TTL + SECOND), Err(TokenRefusal::Expired));
        let moves: [&dyn Fn(&mut Binding); 4] = [
            &|b| b.ifindex = 8,
            &|b| b.vrf = "VrfBoot-p2".parse().unwrap(),
            &|b| b.partition = "p2".parse().unwrap(),
            &|b| b.switch_id = "leaf2".to_owned(),
        ];
        for (n, change) in (1..).zip(moves) {
            let now = SECOND * 10 * n;
            minted(&mut table, "Ethernet0", "a", now);
            assert_eq!(changed(&mut table, change, now), Err(TokenRefusal::Moved));
            // A port that came back is not the port it was.
            assert_eq!(changed(&mut table, &|_| {}, now), Err(TokenRefusal::None));
        }
    }

    #[test]
    fn a_port_that_changed_meanwhile_gets_no_token() {
        let mut table = TokenTable::new(60);
        let port: PortName = "Ethernet0".parse().unwrap();
        let admission = table.admit(&port, SECOND).unwrap();
        table.revoke(&port);
        let entered = table.enter(&admission, grant("Ethernet0", "a"), SECOND);
        assert_eq!(entered, Err(MintRefusal::Outdated));
        let admission = table.admit(&port, SECOND).unwrap();
        table.revoke_all();
        assert!(table.enter(&admission, grant("Ethernet0", "a"), SECOND).is_err());
        let admission = table.admit(&port, SECOND).unwrap();
        assert!(table.enter(&admission, grant("Ethernet4", "a"), SECOND).is_err());
        assert_eq!(table.enter(&admission, grant("Ethernet0", "a"), SECOND), Ok(None));
    }

    #[test]
    fn six_mints_a_minute_then_a_wait() {
        let mut table = TokenTable::new(6);
        let port: PortName = "Ethernet0".parse().unwrap();
        for n in 0..6 {
            minted(&mut table, "Ethernet0", &n.to_string(), SECOND);
        }
        let refusal = table.admit(&port, SECOND).unwrap_err();
        assert_eq!(refusal, MintRefusal::Rate { retry_after: SECOND * 10 });
        // The token minted last stays good, and the other port is not held back.
        assert!(check(&mut table, &binding("Ethernet0"), "5", SECOND).is_ok());
        assert!(!minted(&mut table, "Ethernet4", "y", SECOND));
        // Revoking does not refill the bucket.
        table.revoke(&port);
        assert!(table.admit(&port, SECOND).is_err());
        assert!(table.admit(&port, SECOND * 11).is_ok());
    }

    #[test]
    fn digests_are_not_shown() {
        assert_eq!(format!("{:?}", Digest::of("a")), "Digest(..)");
        assert_eq!(Digest::of("a"), Digest::of("a"));
        assert_ne!(Digest::of("a"), Digest::of("b"));
    }
}

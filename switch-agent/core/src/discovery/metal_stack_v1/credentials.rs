//! Which credentials are live: for each port one generation of them.
//!
//! A generation is the client certificates, the HMAC key (kept by the shell) and the pinned machine of one
//! stay of one machine at one port. It ends with the stay: another MAC, VRF, interface or partition, a cable
//! out for [`CARRIER_GRACE`], or a machine that asks anew after the cable was out at all. Shorter losses of
//! carrier leave it alone by themselves: metal-hammer causes them when it sets up its interfaces, after it
//! fetched its credentials for good. For the same reason credentials outlive a restart of the agent
//! ([`KeptCredentials`]), which takes it for a loss of carrier: the cable may have been out meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::MachineId;
use super::hmac::{HmacRefusal, Seen};
use crate::identity::Binding;
use crate::name::{MacAddr, PartitionId, PortName, VrfName};

/// Life of a client certificate: metal-hammer fetches one at boot and reboots after at most two days.
pub const CERTIFICATE_TTL: Duration = Duration::from_secs(72 * 3600);
/// Longest loss of carrier that a machine's stay survives, as in the table of machines.
pub const CARRIER_GRACE: Duration = Duration::from_secs(10);
/// Certificates of one port: a machine that asks again (from its console, say) does not end those it uses.
const CERTIFICATES_MAX: usize = 8;

/// SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

/// Number of a generation, unique in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

/// Why presented credentials open nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CredentialRefusal {
    #[error("this port was given no credentials; ask for some with GET /certs")]
    None,
    #[error("the certificate is not one that this port was given")]
    Other,
    #[error("the certificate has expired")]
    Expired,
    #[error("the port was moved since the certificate was made")]
    Moved,
    #[error("the credentials belong to another machine")]
    OtherMac,
    #[error("the port is pinned to another machine id")]
    OtherMachine,
    #[error("the machine id is that of a machine on another port")]
    OtherPort,
}

/// What a machine id was to its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    pub first_sight: bool,
    /// The port that lost it: its carrier is away, so that the machine may well be here.
    pub left: Option<PortName>,
}

/// A port's live credentials, as they are kept over a restart of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptCredentials {
    pub switch_id: String,
    pub port: PortName,
    pub vrf: VrfName,
    pub ifindex: u32,
    pub mac: MacAddr,
    pub partition: PartitionId,
    pub machine: Option<String>,
    /// Fingerprints, and how long each is still good, in seconds.
    pub certificates: Vec<(Fingerprint, u64)>,
}

#[derive(Debug, Clone)]
struct Live {
    generation: Generation,
    binding: Binding,
    certificates: VecDeque<(Fingerprint, Duration)>,
    machine: Option<MachineId>,
    seen: Seen,
    down_since: Option<Duration>,
    /// The carrier was lost since the generation began.
    interrupted: bool,
}

/// The live credentials of the switch. Time is since an arbitrary origin and monotonic.
#[derive(Debug, Clone, Default)]
pub struct CredentialTable {
    live: BTreeMap<PortName, Live>,
    generations: u64,
}

impl CredentialTable {
    /// Enters a new certificate of the machine at `binding`. Its generation is a new one where the port's
    /// stay is.
    pub fn issue(&mut self, binding: Binding, certificate: Fingerprint, now: Duration) -> Generation {
        let port = binding.port.clone();
        self.drop_overdue(&port, now);
        let same = |live: &Live| live.binding == binding && !live.interrupted;
        if !self.live.get(&port).is_some_and(same) {
            self.generations += 1;
            let live = Live {
                generation: Generation(self.generations),
                binding,
                certificates: VecDeque::new(),
                machine: None,
                seen: Seen::default(),
                down_since: None,
                interrupted: false,
            };
            self.live.insert(port.clone(), live);
        }
        let Some(live) = self.live.get_mut(&port) else { return Generation(self.generations) };
        if live.certificates.len() >= CERTIFICATES_MAX {
            live.certificates.pop_front();
        }
        live.certificates.push_back((certificate, now + CERTIFICATE_TTL));
        live.generation
    }

    /// The port's generation, whose stay has not ended.
    pub fn generation(&mut self, port: &PortName, now: Duration) -> Option<Generation> {
        self.drop_overdue(port, now);
        self.live.get(port).map(|live| live.generation)
    }

    fn live(&mut self, port: &PortName, now: Duration) -> Result<&mut Live, CredentialRefusal> {
        self.drop_overdue(port, now);
        self.live.get_mut(port).ok_or(CredentialRefusal::None)
    }

    /// Whether a certificate is one that the port was given.
    pub fn check_certificate(
        &mut self,
        port: &PortName,
        certificate: &Fingerprint,
        now: Duration,
    ) -> Result<Generation, CredentialRefusal> {
        let live = self.live(port, now)?;
        let found = live.certificates.iter().find(|(known, _)| known == certificate);
        match found {
            None => Err(CredentialRefusal::Other),
            Some((_, expires)) if now >= *expires => Err(CredentialRefusal::Expired),
            Some(_) => Ok(live.generation),
        }
    }

    /// Whether the port's credentials are presented from where they were made for.
    pub fn check_binding(&mut self, at: &Binding, now: Duration) -> Result<Generation, CredentialRefusal> {
        let live = self.live(&at.port, now)?;
        if (Binding { mac: at.mac, ..live.binding.clone() }) != *at {
            Err(CredentialRefusal::Moved)
        } else if live.binding.mac != at.mac {
            Err(CredentialRefusal::OtherMac)
        } else {
            Ok(live.generation)
        }
    }

    /// Pins the port to a machine at first sight, and holds every later one against it. A machine is on one
    /// port of the switch: its id is nobody else's while that port has its carrier.
    pub fn pin(
        &mut self,
        port: &PortName,
        machine: &MachineId,
        now: Duration,
    ) -> Result<Pinned, CredentialRefusal> {
        match &self.live(port, now)?.machine {
            Some(pinned) if pinned == machine => return Ok(Pinned { first_sight: false, left: None }),
            Some(_) => return Err(CredentialRefusal::OtherMachine),
            None => {}
        }
        let held = |(_, live): &(&PortName, &Live)| live.machine.as_ref() == Some(machine);
        let holder = self.live.iter().find(held).map(|(holder, live)| (holder.clone(), live.down_since));
        let left = match holder {
            None => None,
            Some((_, None)) => return Err(CredentialRefusal::OtherPort),
            Some((holder, Some(_))) => {
                self.live.remove(&holder);
                Some(holder)
            }
        };
        self.live(port, now)?.machine = Some(machine.clone());
        Ok(Pinned { first_sight: true, left })
    }

    /// The machine that the port is pinned to.
    pub fn machine(&mut self, port: &PortName, now: Duration) -> Option<MachineId> {
        self.drop_overdue(port, now);
        self.live.get(port)?.machine.clone()
    }

    /// Takes a signature that was verified with the port's key; each is good once.
    pub fn take_signature(
        &mut self,
        port: &PortName,
        tag: &[u8; 32],
        now: Duration,
    ) -> Result<(), HmacRefusal> {
        let live = self.live(port, now).map_err(|_| HmacRefusal::Key)?;
        if live.seen.first(tag) { Ok(()) } else { Err(HmacRefusal::Replayed) }
    }

    /// The port lost or gained its carrier.
    pub fn carrier(&mut self, port: &PortName, up: bool, now: Duration) {
        self.drop_overdue(port, now);
        if let Some(live) = self.live.get_mut(port) {
            if up {
                live.down_since = None;
            } else {
                live.interrupted = true;
                live.down_since.get_or_insert(now);
            }
        }
    }

    /// Ends the port's credentials where its carrier has been away for [`CARRIER_GRACE`].
    fn drop_overdue(&mut self, port: &PortName, now: Duration) {
        let overdue = |live: &Live| live.down_since.is_some_and(|since| now >= since + CARRIER_GRACE);
        if self.live.get(port).is_some_and(overdue) {
            self.live.remove(port);
        }
    }

    /// All credentials, as they are kept over a restart.
    pub fn kept(&self, now: Duration) -> Vec<KeptCredentials> {
        let kept = self.live.values().map(|live| {
            let left = |(certificate, expires): &(Fingerprint, Duration)| {
                (*certificate, expires.saturating_sub(now).as_secs())
            };
            KeptCredentials {
                switch_id: live.binding.switch_id.clone(),
                port: live.binding.port.clone(),
                vrf: live.binding.vrf.clone(),
                ifindex: live.binding.ifindex,
                mac: live.binding.mac,
                partition: live.binding.partition.clone(),
                machine: live.machine.as_ref().map(ToString::to_string),
                certificates: live.certificates.iter().map(left).collect(),
            }
        });
        kept.collect()
    }

    /// Takes back credentials that were kept, for a port that has none.
    pub fn restore(&mut self, kept: &KeptCredentials, now: Duration) -> Option<Generation> {
        let machine = match &kept.machine {
            None => None,
            Some(text) => Some(MachineId::parse(text)?),
        };
        if self.live.contains_key(&kept.port) {
            return None;
        }
        self.generations += 1;
        let expiry = |seconds: u64| now + Duration::from_secs(seconds).min(CERTIFICATE_TTL);
        let live = Live {
            generation: Generation(self.generations),
            binding: Binding {
                switch_id: kept.switch_id.clone(),
                partition: kept.partition.clone(),
                port: kept.port.clone(),
                vrf: kept.vrf.clone(),
                ifindex: kept.ifindex,
                mac: kept.mac,
            },
            certificates: kept
                .certificates
                .iter()
                .take(CERTIFICATES_MAX)
                .map(|(certificate, seconds)| (*certificate, expiry(*seconds)))
                .collect(),
            machine,
            seen: Seen::default(),
            down_since: None,
            interrupted: true,
        };
        self.live.insert(kept.port.clone(), live);
        Some(Generation(self.generations))
    }

    /// Ends the port's credentials. Returns whether there were any.
    pub fn revoke(&mut self, port: &PortName) -> bool {
        self.live.remove(port).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::table::tests::binding;

    const SECOND: Duration = Duration::from_secs(1);
    const FIRST: Pinned = Pinned { first_sight: true, left: None };

    fn issue(table: &mut CredentialTable, port: &str, certificate: u8, now: Duration) -> Generation {
        table.issue(binding(port), [certificate; 32], now)
    }

    fn port(name: &str) -> PortName {
        name.parse().unwrap()
    }

    fn machine(last: char) -> MachineId {
        MachineId::parse(&format!("00112233-4455-6677-8899-aabbccddeef{last}")).unwrap()
    }

    #[test]
    fn a_certificate_is_good_on_its_own_port_for_its_time() {
        let mut table = CredentialTable::default();
        let (a, b) = (port("Ethernet0"), port("Ethernet4"));
        assert_eq!(table.check_certificate(&a, &[1; 32], SECOND), Err(CredentialRefusal::None));
        let first = issue(&mut table, "Ethernet0", 1, SECOND);
        let second = issue(&mut table, "Ethernet4", 2, SECOND);
        assert_ne!(first, second);
        assert_eq!(table.check_certificate(&a, &[1; 32], SECOND), Ok(first));
        assert_eq!(table.check_certificate(&b, &[1; 32], SECOND), Err(CredentialRefusal::Other));
        let end = SECOND + CERTIFICATE_TTL;
        assert_eq!(table.check_certificate(&a, &[1; 32], end - SECOND), Ok(first));
        assert_eq!(table.check_certificate(&a, &[1; 32], end), Err(CredentialRefusal::Expired));
    }

    #[test]
    fn asking_again_keeps_what_is_in_use_within_bounds() {
        let mut table = CredentialTable::default();
        let a = port("Ethernet0");
        let generation = issue(&mut table, "Ethernet0", 0, SECOND);
        table.pin(&a, &machine('0'), SECOND).unwrap();
        for certificate in 1..8 {
            assert_eq!(issue(&mut table, "Ethernet0", certificate, SECOND), generation);
        }
        assert_eq!(table.check_certificate(&a, &[0; 32], SECOND), Ok(generation));
        issue(&mut table, "Ethernet0", 8, SECOND);
        assert_eq!(table.check_certificate(&a, &[0; 32], SECOND), Err(CredentialRefusal::Other));
        assert_eq!(table.check_certificate(&a, &[8; 32], SECOND), Ok(generation));
        assert_eq!(table.machine(&a, SECOND), Some(machine('0')));
    }

    #[test]
    fn another_mac_vrf_interface_or_partition_is_another_stay() {
        type Change<'a> = &'a dyn Fn(&mut Binding);
        let changes: [Change<'_>; 5] = [
            &|binding| binding.mac.0[5] = 9,
            &|binding| binding.vrf = "VrfBoot-p2".parse().unwrap(),
            &|binding| binding.ifindex = 8,
            &|binding| binding.partition = "p2".parse().unwrap(),
            &|binding| binding.switch_id = "leaf2".to_owned(),
        ];
        for change in changes {
            let mut table = CredentialTable::default();
            let a = port("Ethernet0");
            let before = issue(&mut table, "Ethernet0", 1, SECOND);
            table.pin(&a, &machine('0'), SECOND).unwrap();
            let mut at = binding("Ethernet0");
            change(&mut at);
            assert_ne!(table.issue(at, [2; 32], SECOND), before);
            assert_eq!(table.check_certificate(&a, &[1; 32], SECOND), Err(CredentialRefusal::Other));
            assert_eq!(table.pin(&a, &machine('1'), SECOND), Ok(FIRST));
        }
    }

    #[test]
    fn a_request_comes_from_where_the_credentials_are_bound_to() {
        let mut table = CredentialTable::default();
        let generation = issue(&mut table, "Ethernet0", 1, SECOND);
        let check = |table: &mut CredentialTable, change: &dyn Fn(&mut Binding)| {
            let mut at = binding("Ethernet0");
            change(&mut at);
            table.check_binding(&at, SECOND)
        };
        assert_eq!(check(&mut table, &|_| {}), Ok(generation));
        assert_eq!(check(&mut table, &|at| at.mac.0[5] = 9), Err(CredentialRefusal::OtherMac));
        assert_eq!(check(&mut table, &|at| at.ifindex = 8), Err(CredentialRefusal::Moved));
        let moved = |at: &mut Binding| at.vrf = "VrfBoot-p2".parse().unwrap();
        assert_eq!(check(&mut table, &moved), Err(CredentialRefusal::Moved));
        assert_eq!(check(&mut table, &|at| at.port = port("Ethernet4")), Err(CredentialRefusal::None));
        let other_partition = |at: &mut Binding| at.partition = "p2".parse().unwrap();
        assert_eq!(check(&mut table, &other_partition), Err(CredentialRefusal::Moved));
    }

    #[test]
    fn the_first_machine_is_the_one() {
        let mut table = CredentialTable::default();
        let a = port("Ethernet0");
        assert_eq!(table.pin(&a, &machine('0'), SECOND), Err(CredentialRefusal::None));
        issue(&mut table, "Ethernet0", 1, SECOND);
        assert_eq!(table.pin(&a, &machine('0'), SECOND), Ok(FIRST));
        assert_eq!(table.pin(&a, &machine('0'), SECOND), Ok(Pinned { first_sight: false, left: None }));
        assert_eq!(table.pin(&a, &machine('1'), SECOND), Err(CredentialRefusal::OtherMachine));
        assert!(table.revoke(&a));
        issue(&mut table, "Ethernet0", 2, SECOND);
        assert_eq!(table.pin(&a, &machine('1'), SECOND), Ok(FIRST));
    }

    #[test]
    fn a_short_loss_of_carrier_ends_the_stay_only_for_who_asks_anew() {
        let mut table = CredentialTable::default();
        let a = port("Ethernet0");
        let before = issue(&mut table, "Ethernet0", 1, SECOND);
        table.carrier(&a, false, SECOND * 2);
        table.carrier(&a, true, SECOND * 8);
        assert_eq!(table.check_certificate(&a, &[1; 32], SECOND * 60), Ok(before));
        let after = issue(&mut table, "Ethernet0", 2, SECOND * 61);
        assert_ne!(after, before);
        assert_eq!(table.check_certificate(&a, &[1; 32], SECOND * 61), Err(CredentialRefusal::Other));
        // The new stay was not interrupted.
        assert_eq!(issue(&mut table, "Ethernet0", 3, SECOND * 62), after);
    }

    #[test]
    fn a_long_loss_of_carrier_ends_the_stay() {
        let mut table = CredentialTable::default();
        let a = port("Ethernet0");
        issue(&mut table, "Ethernet0", 1, SECOND);
        table.carrier(&a, false, SECOND * 2);
        // Told again, the loss is as old as before.
        table.carrier(&a, false, SECOND * 9);
        let end = SECOND * 2 + CARRIER_GRACE;
        assert!(table.generation(&a, end - SECOND).is_some());
        table.carrier(&a, true, end);
        assert_eq!(table.check_certificate(&a, &[1; 32], end), Err(CredentialRefusal::None));
    }

    #[test]
    fn a_signature_opens_once_and_on_its_own_port() {
        let mut table = CredentialTable::default();
        let a = port("Ethernet0");
        assert_eq!(table.take_signature(&a, &[1; 32], SECOND), Err(HmacRefusal::Key));
        issue(&mut table, "Ethernet0", 1, SECOND);
        assert_eq!(table.take_signature(&a, &[1; 32], SECOND), Ok(()));
        assert_eq!(table.take_signature(&a, &[1; 32], SECOND), Err(HmacRefusal::Replayed));
    }

    #[test]
    fn a_machine_is_on_one_port() {
        let mut table = CredentialTable::default();
        let (a, b) = (port("Ethernet0"), port("Ethernet4"));
        issue(&mut table, "Ethernet0", 1, SECOND);
        issue(&mut table, "Ethernet4", 2, SECOND);
        assert_eq!(table.pin(&a, &machine('0'), SECOND), Ok(FIRST));
        assert_eq!(table.pin(&b, &machine('0'), SECOND), Err(CredentialRefusal::OtherPort));
        assert_eq!(table.machine(&b, SECOND), None);
        // Its cable is out: it may be here.
        table.carrier(&a, false, SECOND);
        let moved = Pinned { first_sight: true, left: Some(a.clone()) };
        assert_eq!(table.pin(&b, &machine('0'), SECOND * 2), Ok(moved));
        assert_eq!(table.generation(&a, SECOND * 2), None);
    }

    #[test]
    fn credentials_are_kept_over_a_restart_as_after_a_loss_of_carrier() {
        let mut before = CredentialTable::default();
        let a = port("Ethernet0");
        issue(&mut before, "Ethernet0", 1, SECOND);
        before.pin(&a, &machine('0'), SECOND).unwrap();
        let kept = before.kept(SECOND * 11);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].certificates, [([1; 32], CERTIFICATE_TTL.as_secs() - 10)]);
        let text = serde_json::to_string(&kept[0]).unwrap();
        let kept: KeptCredentials = serde_json::from_str(&text).unwrap();
        let mut after = CredentialTable::default();
        let restored = after.restore(&kept, SECOND * 100).unwrap();
        assert_eq!(after.restore(&kept, SECOND * 100), None);
        assert_eq!(after.check_certificate(&a, &[1; 32], SECOND * 100), Ok(restored));
        assert_eq!(after.pin(&a, &machine('1'), SECOND * 100), Err(CredentialRefusal::OtherMachine));
        let end = SECOND * 90 + CERTIFICATE_TTL;
        assert_eq!(after.check_certificate(&a, &[1; 32], end), Err(CredentialRefusal::Expired));
        assert_ne!(issue(&mut after, "Ethernet0", 2, SECOND * 101), restored);
        let long = KeptCredentials { certificates: vec![([1; 32], u64::MAX)], ..kept.clone() };
        let mut table = CredentialTable::default();
        table.restore(&long, SECOND).unwrap();
        let end = SECOND + CERTIFICATE_TTL;
        assert_eq!(table.check_certificate(&a, &[1; 32], end), Err(CredentialRefusal::Expired));
        let broken = KeptCredentials { machine: Some("x".to_owned()), ..kept };
        assert_eq!(CredentialTable::default().restore(&broken, SECOND), None);
    }
}

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
mod tests;

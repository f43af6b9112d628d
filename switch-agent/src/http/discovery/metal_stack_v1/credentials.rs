//! The live credentials of all ports, with their secrets, behind a lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use switch_agent_core::discovery::metal_stack_v1::MachineId;
use switch_agent_core::discovery::metal_stack_v1::credentials::{
    CredentialRefusal, CredentialTable, Fingerprint, Generation,
};
use switch_agent_core::discovery::metal_stack_v1::hmac::{HmacRefusal, Signature};
use switch_agent_core::identity::Binding;
use switch_agent_core::name::{PartitionId, PortName};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const KEY_LEN: usize = 32;
/// How often a machine's first contact is told to metal-api before it is left at that.
const GREETINGS_MAX: u8 = 5;

/// The system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandom;

/// Proof that a connection presented a certificate of its port.
#[derive(Debug, Clone)]
pub struct Presented {
    pub certificate: Fingerprint,
    /// Cancelled when the credentials end.
    pub ended: CancellationToken,
}

/// The secrets of one generation.
struct Secrets {
    generation: Generation,
    hmac: hmac::Key,
    hmac_text: String,
    ended: CancellationToken,
    greetings_left: u8,
}

#[derive(Default)]
struct Inner {
    table: CredentialTable,
    secrets: BTreeMap<PortName, Secrets>,
}

impl Inner {
    /// Drops the port's secrets where their generation has ended.
    fn settle(&mut self, port: &PortName, now: Duration) {
        let generation = self.table.generation(port, now);
        if let Some(secrets) = self.secrets.get(port)
            && Some(secrets.generation) != generation
        {
            secrets.ended.cancel();
            self.secrets.remove(port);
        }
    }
}

/// The credentials of all ports. They live in memory only.
pub struct Credentials {
    inner: Mutex<Inner>,
    origin: Instant,
}

impl Default for Credentials {
    fn default() -> Credentials {
        Credentials { inner: Mutex::default(), origin: Instant::now() }
    }
}

impl Credentials {
    fn at(&self, port: &PortName) -> (MutexGuard<'_, Inner>, Duration) {
        let now = self.origin.elapsed();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.settle(port, now);
        (inner, now)
    }

    /// Enters a certificate made for the machine at `binding`, and gives the HMAC key that goes with it.
    pub fn issue(
        &self,
        binding: Binding,
        partition: &PartitionId,
        certificate: Fingerprint,
    ) -> Result<String, NoRandom> {
        let mut key = [0; KEY_LEN];
        SystemRandom::new().fill(&mut key).map_err(|_| NoRandom)?;
        let port = binding.port.clone();
        let (mut inner, now) = self.at(&port);
        let generation = inner.table.issue(binding, partition, certificate, now);
        inner.settle(&port, now);
        let secrets = inner.secrets.entry(port).or_insert_with(|| {
            let hmac_text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            Secrets {
                generation,
                hmac: hmac::Key::new(hmac::HMAC_SHA256, hmac_text.as_bytes()),
                hmac_text,
                ended: CancellationToken::new(),
                greetings_left: GREETINGS_MAX,
            }
        });
        Ok(secrets.hmac_text.clone())
    }

    /// Whether a certificate is one that the port was given.
    pub fn check_certificate(
        &self,
        port: &PortName,
        certificate: &Fingerprint,
    ) -> Result<Presented, CredentialRefusal> {
        let (mut inner, now) = self.at(port);
        inner.table.check_certificate(port, certificate, now)?;
        let secrets = inner.secrets.get(port).ok_or(CredentialRefusal::None)?;
        Ok(Presented { certificate: *certificate, ended: secrets.ended.clone() })
    }

    /// Whether the port's credentials are presented from where they were made for.
    pub fn check_binding(&self, at: &Binding) -> Result<(), CredentialRefusal> {
        let (mut inner, now) = self.at(&at.port);
        inner.table.check_binding(at, now).map(|_| ())
    }

    /// Verifies a signature with the port's key; each is good once.
    pub fn check_signature(&self, port: &PortName, signature: &Signature) -> Result<(), HmacRefusal> {
        let (mut inner, now) = self.at(port);
        let secrets = inner.secrets.get(port).ok_or(HmacRefusal::Key)?;
        // Compares in constant time.
        hmac::verify(&secrets.hmac, &signature.message, &signature.tag).map_err(|_| HmacRefusal::Key)?;
        inner.table.take_signature(port, &signature.tag, now)
    }

    /// Pins the port to a machine at first sight, and holds every later one against it.
    pub fn pin(&self, port: &PortName, machine: &MachineId) -> Result<(), CredentialRefusal> {
        let (mut inner, now) = self.at(port);
        let first = inner.table.pin(port, machine, now)?;
        drop(inner);
        if first {
            tracing::info!(%port, %machine, "port is pinned to its machine");
        }
        Ok(())
    }

    /// The machine that the port is pinned to.
    pub fn machine(&self, port: &PortName) -> Option<MachineId> {
        let (mut inner, now) = self.at(port);
        inner.table.machine(port, now)
    }

    /// Whether metal-api is to be told now of the machine's first contact; each asking counts as one try.
    pub fn take_greeting(&self, port: &PortName) -> bool {
        let (mut inner, _) = self.at(port);
        let Some(secrets) = inner.secrets.get_mut(port) else { return false };
        let left = secrets.greetings_left;
        secrets.greetings_left = left.saturating_sub(1);
        left > 0
    }

    /// metal-api knows of the machine's first contact.
    pub fn greeted(&self, port: &PortName) {
        let (mut inner, _) = self.at(port);
        if let Some(secrets) = inner.secrets.get_mut(port) {
            secrets.greetings_left = 0;
        }
    }

    /// The port lost or gained its carrier. Returns whether the port has credentials.
    pub fn carrier(&self, port: &PortName, up: bool) -> bool {
        let (mut inner, now) = self.at(port);
        inner.table.carrier(port, up, now);
        inner.settle(port, now);
        inner.secrets.contains_key(port)
    }

    /// Ends credentials whose time has come.
    pub fn settle(&self, port: &PortName) {
        drop(self.at(port));
    }

    /// Ends the port's credentials. Returns whether there were any.
    pub fn revoke(&self, port: &PortName) -> bool {
        let (mut inner, now) = self.at(port);
        let revoked = inner.table.revoke(port);
        inner.settle(port, now);
        revoked
    }

    /// Ends all credentials.
    pub fn revoke_all(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, secrets) in std::mem::take(&mut inner.secrets) {
            secrets.ended.cancel();
        }
        inner.table = CredentialTable::default();
    }
}

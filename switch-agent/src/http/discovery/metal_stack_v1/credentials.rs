//! The live credentials of all ports, with their secrets, behind a lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use switch_agent_core::discovery::metal_stack_v1::MachineId;
use switch_agent_core::discovery::metal_stack_v1::credentials::{
    CredentialRefusal, CredentialTable, Fingerprint, Generation, KeptCredentials, Pinned,
};
use switch_agent_core::discovery::metal_stack_v1::hmac::{HmacRefusal, Signature};
use switch_agent_core::identity::Binding;
use switch_agent_core::name::PortName;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::state_dir::{StateDir, StateDirError};
use crate::http::tokens::unix_now;

const KEY_LEN: usize = 32;
/// How often a machine's first contact is told to metal-api before it is left at that.
const GREETINGS_MAX: u8 = 5;
const TELL_INTERVAL: Duration = Duration::from_secs(60);
const FILE_NAME: &str = "machine-credentials.json";
/// Names the boot of the kernel: after another one every carrier was lost.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How long a machine waits for its credentials to be kept before it is given them.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

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

/// One port of [`FILE_NAME`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptPort {
    credentials: KeptCredentials,
    hmac: String,
    greetings_left: u8,
}

/// Content of [`FILE_NAME`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    boot_id: String,
    /// Unix time, seconds.
    at: u64,
    ports: Vec<KeptPort>,
}

fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// The secrets of one generation.
struct Secrets {
    generation: Generation,
    hmac: hmac::Key,
    hmac_text: String,
    ended: CancellationToken,
    greetings_left: u8,
    /// When the log last told of a refusal.
    told: Option<Duration>,
}

impl Secrets {
    fn new(generation: Generation, hmac_text: String, greetings_left: u8) -> Secrets {
        Secrets {
            generation,
            hmac: hmac::Key::new(hmac::HMAC_SHA256, hmac_text.as_bytes()),
            hmac_text,
            ended: CancellationToken::new(),
            greetings_left,
            told: None,
        }
    }
}

#[derive(Default)]
struct Inner {
    table: CredentialTable,
    secrets: BTreeMap<PortName, Secrets>,
    /// Counts changes of what is kept.
    version: u64,
}

impl Inner {
    /// Drops the port's secrets where their generation has ended. Returns whether it had.
    fn settle(&mut self, port: &PortName, now: Duration) -> bool {
        let generation = self.table.generation(port, now);
        let over = self.secrets.get(port).is_some_and(|secrets| Some(secrets.generation) != generation);
        if over && let Some(secrets) = self.secrets.remove(port) {
            secrets.ended.cancel();
        }
        over
    }
}

/// The credentials of all ports.
pub struct Credentials {
    inner: Mutex<Inner>,
    changed: Notify,
    /// The version that the state directory has.
    written: watch::Sender<u64>,
    origin: Instant,
}

impl Default for Credentials {
    fn default() -> Credentials {
        let written = watch::Sender::new(0);
        Credentials { inner: Mutex::default(), changed: Notify::new(), written, origin: Instant::now() }
    }
}

impl Credentials {
    fn at(&self, port: &PortName) -> (MutexGuard<'_, Inner>, Duration) {
        let now = self.origin.elapsed();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.settle(port, now) {
            self.touch(&mut inner);
        }
        (inner, now)
    }

    /// What is kept has changed.
    fn touch(&self, inner: &mut Inner) {
        inner.version += 1;
        self.changed.notify_one();
    }

    /// Enters a certificate made for the machine at `binding`, and gives the HMAC key that goes with it.
    pub fn issue(&self, binding: Binding, certificate: Fingerprint) -> Result<String, NoRandom> {
        let mut key = [0; KEY_LEN];
        SystemRandom::new().fill(&mut key).map_err(|_| NoRandom)?;
        let port = binding.port.clone();
        let (mut inner, now) = self.at(&port);
        let generation = inner.table.issue(binding, certificate, now);
        inner.settle(&port, now);
        let secrets = inner.secrets.entry(port).or_insert_with(|| {
            let hmac_text = key.iter().map(|byte| format!("{byte:02x}")).collect();
            Secrets::new(generation, hmac_text, GREETINGS_MAX)
        });
        let hmac_text = secrets.hmac_text.clone();
        self.touch(&mut inner);
        Ok(hmac_text)
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

    /// Whether the log may tell of a refusal on the port now: a machine does not get to fill it.
    pub fn may_tell(&self, port: &PortName) -> bool {
        let (mut inner, now) = self.at(port);
        let Some(secrets) = inner.secrets.get_mut(port) else { return false };
        let may = secrets.told.is_none_or(|told| now >= told + TELL_INTERVAL);
        if may {
            secrets.told = Some(now);
        }
        may
    }

    /// Pins the port to a machine at first sight, and holds every later one against it. Returns whether
    /// this was the first sight.
    pub fn pin(&self, port: &PortName, machine: &MachineId) -> Result<bool, CredentialRefusal> {
        let (mut inner, now) = self.at(port);
        let Pinned { first_sight, left } = inner.table.pin(port, machine, now)?;
        if let Some(left) = &left {
            inner.settle(left, now);
        }
        if first_sight {
            self.touch(&mut inner);
            drop(inner);
            let left = left.as_ref().map(PortName::as_str);
            tracing::info!(%port, %machine, left, "port is pinned to its machine");
        }
        Ok(first_sight)
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
            self.touch(&mut inner);
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
        if revoked {
            self.touch(&mut inner);
        }
        revoked
    }

    /// Ends all credentials.
    pub fn revoke_all(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, secrets) in std::mem::take(&mut inner.secrets) {
            secrets.ended.cancel();
        }
        inner.table = CredentialTable::default();
        self.touch(&mut inner);
    }

    /// Takes back what a process before this one kept. Blocks on file I/O.
    pub fn restore(&self, state_dir: &StateDir) -> Result<(), StateDirError> {
        let Some(bytes) = state_dir.load(FILE_NAME)? else { return Ok(()) };
        let kept: Kept = match serde_json::from_slice(&bytes) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, file = FILE_NAME, "set aside; machines have to boot anew");
                return state_dir.set_aside(FILE_NAME);
            }
        };
        if kept.boot_id != boot_id() {
            return Ok(());
        }
        let away = unix_now().saturating_sub(kept.at);
        let now = self.origin.elapsed();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for mut port in kept.ports {
            for (_, seconds) in &mut port.credentials.certificates {
                *seconds = seconds.saturating_sub(away);
            }
            if let Some(generation) = inner.table.restore(&port.credentials, now) {
                let secrets = Secrets::new(generation, port.hmac, port.greetings_left);
                inner.secrets.insert(port.credentials.port, secrets);
            }
        }
        Ok(())
    }

    /// Keeps every change in the state directory, for the process after this one.
    pub async fn keep(&self, state_dir: StateDir) {
        loop {
            self.changed.notified().await;
            let (version, kept) = self.kept();
            let state_dir = state_dir.clone();
            let written = tokio::task::spawn_blocking(move || match serde_json::to_vec(&kept) {
                Ok(bytes) => state_dir.store(FILE_NAME, &bytes).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            });
            match written.await {
                Ok(Err(error)) => {
                    tracing::warn!(error, "credentials of machines are not kept; a restart would end them");
                }
                Ok(Ok(())) | Err(_) => {
                    self.written.send_replace(version);
                }
            }
        }
    }

    /// Waits until what was issued so far is kept, for a moment at most.
    pub async fn written(&self) {
        let version = self.inner.lock().unwrap_or_else(PoisonError::into_inner).version;
        let mut written = self.written.subscribe();
        let waiting = written.wait_for(|written| *written >= version);
        tokio::time::timeout(WRITE_TIMEOUT, waiting).await.map(drop).ok();
    }

    fn kept(&self) -> (u64, Kept) {
        let now = self.origin.elapsed();
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = inner.table.kept(now).into_iter().filter_map(|credentials| {
            let secrets = inner.secrets.get(&credentials.port)?;
            let (hmac, greetings_left) = (secrets.hmac_text.clone(), secrets.greetings_left);
            Some(KeptPort { credentials, hmac, greetings_left })
        });
        (inner.version, Kept { boot_id: boot_id(), at: unix_now(), ports: ports.collect() })
    }
}

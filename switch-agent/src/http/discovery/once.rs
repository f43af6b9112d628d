//! One-shot boot profiles: what was handed out is remembered, over restarts too.

use switch_agent_core::desired::BootOnce;
use switch_agent_core::discovery::once::UsedProfiles;
use switch_agent_core::name::PortName;
use tokio::sync::{Mutex, MutexGuard};

use crate::backend::state_dir::StateDir;

const FILE: &str = "boot-once.json";

/// Which ports' one-shot profiles are used up.
pub struct OnceProfiles {
    /// `None`: in memory only.
    state_dir: Option<StateDir>,
    /// `None`: not read yet.
    used: Mutex<Option<UsedProfiles>>,
}

impl OnceProfiles {
    pub fn new(state_dir: Option<StateDir>) -> OnceProfiles {
        OnceProfiles { state_dir, used: Mutex::new(None) }
    }

    async fn load(&self) -> UsedProfiles {
        let Some(state_dir) = self.state_dir.clone() else { return UsedProfiles::default() };
        let reading = state_dir.clone();
        let loaded = tokio::task::spawn_blocking(move || reading.load(FILE)).await;
        let text = match loaded {
            Ok(Ok(text)) => text.unwrap_or_default(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "one-shot boot profiles that were used are not known");
                return UsedProfiles::default();
            }
            Err(_) => return UsedProfiles::default(),
        };
        if text.is_empty() {
            return UsedProfiles::default();
        }
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, file = FILE, "set aside; one-shot boot profiles that were used are not known");
            if let Err(error) = state_dir.set_aside(FILE) {
                tracing::warn!(%error, "not set aside");
            }
            UsedProfiles::default()
        })
    }

    async fn loaded<'a>(&self, used: &'a mut MutexGuard<'_, Option<UsedProfiles>>) -> &'a mut UsedProfiles {
        if used.is_none() {
            **used = Some(self.load().await);
        }
        used.get_or_insert_default()
    }

    /// Returns whether the disk has it.
    async fn store(&self, used: &UsedProfiles) -> bool {
        let Some(state_dir) = self.state_dir.clone() else { return true };
        let Ok(text) = serde_json::to_vec(used) else { return false };
        let stored = tokio::task::spawn_blocking(move || state_dir.store(FILE, &text)).await;
        match stored {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a used one-shot boot profile cannot be recorded");
                false
            }
            Err(_) => false,
        }
    }

    /// Whether a machine on the port still has to get the profile.
    pub async fn is_due(&self, port: &PortName, once: &BootOnce) -> bool {
        let mut used = self.used.lock().await;
        self.loaded(&mut used).await.is_due(port, &once.value)
    }

    /// Uses the profile up. `false`: somebody else got it, or that it is used could not be recorded; a
    /// profile that might be handed out twice (it may wipe disks) is not handed out.
    pub async fn take(&self, port: &PortName, once: &BootOnce) -> bool {
        let mut used = self.used.lock().await;
        let used = self.loaded(&mut used).await;
        if !used.is_due(port, &once.value) {
            return false;
        }
        let mut after = used.clone();
        after.used(port, &once.value);
        if !self.store(&after).await {
            return false;
        }
        *used = after;
        true
    }

    /// Takes note of what the port's row says: a value that went away may come again.
    pub async fn wanted(&self, port: &PortName, once: Option<&BootOnce>) {
        let mut used = self.used.lock().await;
        let used = self.loaded(&mut used).await;
        if used.wanted(port, once.map(|once| once.value.as_str())) {
            self.store(used).await;
        }
    }
}

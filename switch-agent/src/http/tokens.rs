//! Machine tokens: the table behind a lock, a clock, and the identity key.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switch_agent_core::desired::MachineToken;
use switch_agent_core::discovery::Limits;
use switch_agent_core::identity::{
    Admission, Binding, ClaimRefusal, Digest, Grant, IdentityClaims, JwsKind, Live, MachineClaims,
    MintRefusal, TokenRefusal, TokenTable, check_machine,
};
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::service::{ListenerSpec, PortContext};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::secret::Secret;
use crate::backend::keys::Signer;

pub mod secret;

/// A token or handle as it is handed to a machine.
#[derive(Debug)]
pub struct Minted {
    pub token: Secret,
    /// Unix time, seconds.
    pub expires_at: u64,
    pub handle: bool,
}

/// What the agent keeps along with a live token.
#[derive(Debug)]
pub struct Kept {
    /// What opens the control API: goes there in place of the handle. `None` where the machine holds it.
    pub inner: Option<Secret>,
    /// What the machine presents, where it may be told again.
    pub presented: Option<Secret>,
    /// The token's name and end at the control API, where that made it.
    pub remote: Option<Remote>,
    /// Ends what was opened with the token when it is gone.
    ends: DropGuard,
}

/// A token as the control API knows it.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Id by which it is revoked.
    pub id: String,
    pub expires: Instant,
}

/// A request's right to pass.
#[derive(Debug)]
pub struct Authorized {
    /// In place of what the machine presented; `None`: that goes on as it is.
    pub bearer: Option<Secret>,
    /// What the token was minted for.
    pub machine_id: Option<String>,
    /// When the token behind the handle expires, where the control API made it.
    pub inner_expires: Option<Instant>,
    /// Cancelled when the token is revoked.
    pub ends: CancellationToken,
}

/// Why a presented token opens nothing. `Display` is fit for the machine's console.
#[derive(Debug, thiserror::Error)]
pub enum Unauthorized {
    #[error("present the token of this port as Authorization: Bearer; POST /v1/token mints one")]
    Missing,
    #[error("Authorization must be one Bearer token")]
    Scheme,
    #[error(transparent)]
    Claims(#[from] ClaimRefusal),
    #[error(transparent)]
    Table(#[from] TokenRefusal),
}

impl Unauthorized {
    /// Error code of the reply, and label for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Unauthorized::Missing => "token-required",
            Unauthorized::Scheme | Unauthorized::Table(TokenRefusal::Unknown) => "token-invalid",
            Unauthorized::Claims(ClaimRefusal::OtherSwitch) => "token-other-switch",
            Unauthorized::Claims(ClaimRefusal::OtherPort) => "token-other-port",
            Unauthorized::Claims(ClaimRefusal::OtherPartition) => "token-other-partition",
            Unauthorized::Claims(ClaimRefusal::OtherMac) | Unauthorized::Table(TokenRefusal::OtherMac) => {
                "token-other-mac"
            }
            Unauthorized::Table(TokenRefusal::None) => "token-revoked",
            Unauthorized::Table(TokenRefusal::Replaced) => "token-replaced",
            Unauthorized::Table(TokenRefusal::Expired) => "token-expired",
            Unauthorized::Table(TokenRefusal::Moved) => "token-moved",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error(transparent)]
    Refused(#[from] MintRefusal),
    #[error("the token cannot be signed")]
    Sign(#[source] serde_json::Error),
    #[error("the system gives no random numbers")]
    Random,
}

/// The live tokens of all ports. Kept in memory only: a restart ends them, and machines ask again.
#[derive(Debug)]
pub struct Tokens {
    table: Mutex<TokenTable<Kept>>,
    signer: Arc<Signer>,
    origin: Instant,
    ttl: Duration,
}

/// Unix time in seconds.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Tokens {
    pub fn new(signer: Arc<Signer>, limits: &Limits) -> Tokens {
        Tokens {
            table: Mutex::new(TokenTable::new(limits.mints_per_minute)),
            signer,
            origin: Instant::now(),
            ttl: limits.token_ttl,
        }
    }

    fn table(&self) -> MutexGuard<'_, TokenTable<Kept>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Mints a token of the switch's own for the port; the one before is revoked.
    pub fn mint(
        &self,
        listener: &ListenerSpec,
        port: &PortContext,
        mac: MacAddr,
        machine_id: Option<String>,
        mode: MachineToken,
    ) -> Result<Minted, MintError> {
        let admission = self.admit(&listener.port)?;
        let now = unix_now();
        let claims = MachineClaims {
            iss: port.switch_id.clone(),
            sub: port.port.clone(),
            iat: now,
            exp: now + self.ttl.as_secs(),
            jti: uuid::Uuid::new_v4().simple().to_string(),
            partition: port.partition.clone(),
            mac,
            machine_id: machine_id.clone(),
        };
        let token = self.signer.sign_jws(JwsKind::MachineToken, &claims).map_err(MintError::Sign)?;
        let made = Made { token: token.into(), remote: None, machine_id, ttl: self.ttl, mode };
        let (minted, _) = self.enter(&admission, binding(listener, port, mac), made)?;
        Ok(minted)
    }

    /// Counts a token against the port's rate.
    pub fn admit(&self, port: &PortName) -> Result<Admission, MintRefusal> {
        self.table().admit(port, self.now())
    }

    /// Enters a token that was made for the port, and returns what was kept with the one that it replaces.
    pub fn enter(
        &self,
        admission: &Admission,
        binding: Binding,
        made: Made,
    ) -> Result<(Minted, Option<Kept>), MintError> {
        let Made { token, remote, machine_id, ttl, mode } = made;
        let (presented, inner) = match mode {
            MachineToken::Handle => (Secret::handle().ok_or(MintError::Random)?, Some(token)),
            MachineToken::Token => (token, None),
        };
        // What the control API made may be told again; a token of our own is made anew.
        let again = remote.as_ref().map(|_| presented.clone());
        let ends = CancellationToken::new().drop_guard();
        let mut kept = Kept { inner, presented: again, remote, ends };
        let now = self.now();
        let mut table = self.table();
        if table.is_current(admission)
            && let Ok(live) = table.at(&binding, now)
        {
            // What the same machine opened with the token before goes on, and ends with this one.
            std::mem::swap(&mut live.payload.ends, &mut kept.ends);
        }
        let presented_digest = presented.digest();
        let grant = Grant { binding, presented: presented_digest, machine_id, ttl, payload: kept };
        let replaced = table.enter(admission, grant, now)?;
        let expires_at = unix_now() + ttl.as_secs();
        Ok((Minted { token: presented, expires_at, handle: mode == MachineToken::Handle }, replaced))
    }

    /// The live token of a place, where it may be told again: for the machine id that it was minted for.
    pub fn again(&self, at: &Binding, machine_id: &str, margin: Duration) -> Option<Minted> {
        let now = self.now();
        let mut table = self.table();
        let live = table.at(at, now).ok()?;
        let left = live.expires.saturating_sub(now);
        // A token that the control API refused is nothing to tell again; one behind a handle is exchanged.
        let remote = live.payload.remote.as_ref();
        let refused =
            live.payload.inner.is_none() && remote.is_some_and(|remote| remote.expires <= Instant::now());
        if live.machine_id != Some(machine_id) || left <= margin || refused {
            return None;
        }
        let expires_at = unix_now() + left.as_secs();
        let handle = live.payload.inner.is_some();
        Some(Minted { token: live.payload.presented.clone()?, expires_at, handle })
    }

    /// The right that the live token of a place gives.
    pub fn at(&self, at: &Binding) -> Result<Authorized, TokenRefusal> {
        let now = self.now();
        self.table().at(at, now).map(authorized)
    }

    /// Exchanges the token behind the handle of a place; the handle stays. The new one comes back where the
    /// place has no handle any more.
    pub fn renew(
        &self,
        admission: &Admission,
        at: &Binding,
        token: &Secret,
        remote: Remote,
    ) -> Result<(), Remote> {
        let now = self.now();
        let mut table = self.table();
        if !table.is_current(admission) {
            return Err(remote);
        }
        match table.at(at, now) {
            Ok(live) if live.payload.inner.is_some() => {
                live.payload.inner = Some(token.clone());
                live.payload.remote = Some(remote);
                Ok(())
            }
            _ => Err(remote),
        }
    }

    /// Takes note of when the control API's token of a place ends: earlier than it said, where it refused it.
    pub fn ends(&self, at: &Binding, when: Instant) {
        let now = self.now();
        if let Ok(Live { payload: Kept { remote: Some(remote), .. }, .. }) = self.table().at(at, now) {
            remote.expires = when;
        }
    }

    /// Checks what a request on the port presents.
    pub fn check(
        &self,
        listener: &ListenerSpec,
        port: &PortContext,
        mac: MacAddr,
        presented: &str,
    ) -> Result<Authorized, Unauthorized> {
        let refusal = {
            let now = self.now();
            let mut table = self.table();
            match table.check(&binding(listener, port, mac), &Digest::of(presented), now) {
                Ok(live) => return Ok(authorized(live)),
                Err(refusal) => refusal,
            }
        };
        // A token of this switch's own tells by itself what is wrong with it, in better words.
        if let Ok(claims) = self.signer.verify::<MachineClaims>(JwsKind::MachineToken, presented) {
            check_machine(&claims, port, mac)?;
        }
        Err(refusal.into())
    }

    /// Signs the statement that goes along with forwarded requests.
    pub fn statement(&self, claims: &IdentityClaims) -> serde_json::Result<String> {
        self.signer.sign_jws(JwsKind::Identity, claims)
    }

    /// The machine id claimed for the port's live token.
    pub fn machine_id(&self, port: &PortName) -> Option<String> {
        let now = self.now();
        self.table().machine_id(port, now).map(str::to_owned)
    }

    /// Ends the port's token, everything opened with it, and whatever is being made for the port.
    pub fn revoke(&self, port: &PortName) -> Option<Kept> {
        self.table().revoke(port)
    }

    /// Ends the tokens of all ports.
    pub fn revoke_all(&self) -> Vec<Kept> {
        self.table().revoke_all()
    }
}

/// A token that was made, before it is bound to its place.
#[derive(Debug)]
pub struct Made {
    pub token: Secret,
    pub remote: Option<Remote>,
    pub machine_id: Option<String>,
    /// Life of what the machine holds.
    pub ttl: Duration,
    pub mode: MachineToken,
}

fn authorized(live: Live<'_, Kept>) -> Authorized {
    Authorized {
        bearer: live.payload.inner.clone(),
        machine_id: live.machine_id.map(str::to_owned),
        inner_expires: live.payload.remote.as_ref().map(|remote| remote.expires),
        ends: live.payload.ends.token().clone(),
    }
}

/// The place that a token is good at.
pub fn binding(listener: &ListenerSpec, port: &PortContext, mac: MacAddr) -> Binding {
    Binding {
        switch_id: port.switch_id.clone(),
        partition: port.partition.clone(),
        port: listener.port.clone(),
        vrf: listener.vrf.clone(),
        ifindex: listener.ifindex,
        mac,
    }
}

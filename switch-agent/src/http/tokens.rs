//! Machine tokens: the table behind a lock, a clock, and the identity key.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switch_agent_core::discovery::Limits;
use switch_agent_core::identity::{
    Binding, ClaimRefusal, IdentityClaims, JwsKind, MachineClaims, MintRefusal, TokenRefusal, TokenTable,
    check_machine,
};
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::service::{ListenerSpec, PortContext};
use tokio::time::Instant;

use crate::backend::keys::{Signer, VerifyError};

/// A token as it is handed to a machine.
pub struct Minted {
    pub token: String,
    /// Unix time, seconds.
    pub expires_at: u64,
}

/// Why a presented token opens nothing. `Display` is fit for the machine's console.
#[derive(Debug, thiserror::Error)]
pub enum Unauthorized {
    #[error("present the token of this port as Authorization: Bearer; POST /v1/token mints one")]
    Missing,
    #[error("Authorization must be one Bearer token")]
    Scheme,
    #[error(transparent)]
    Verify(#[from] VerifyError),
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
            Unauthorized::Scheme | Unauthorized::Verify(_) => "token-invalid",
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
    Rate(#[from] MintRefusal),
    #[error("the token cannot be signed")]
    Sign(#[source] serde_json::Error),
}

/// The live tokens of all ports. Kept in memory only: a restart ends them, and machines ask again.
#[derive(Debug)]
pub struct Tokens {
    table: Mutex<TokenTable>,
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

    fn table(&self) -> MutexGuard<'_, TokenTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Mints the port's token; the one before is revoked.
    pub fn mint(
        &self,
        listener: &ListenerSpec,
        port: &PortContext,
        mac: MacAddr,
        machine_id: Option<String>,
    ) -> Result<Minted, MintError> {
        let jti = uuid::Uuid::new_v4().simple().to_string();
        let now = unix_now();
        let claims = MachineClaims {
            iss: port.switch_id.clone(),
            sub: port.port.clone(),
            iat: now,
            exp: now + self.ttl.as_secs(),
            jti: jti.clone(),
            partition: port.partition.clone(),
            mac,
            machine_id: machine_id.clone(),
        };
        let token = self.signer.sign_jws(JwsKind::MachineToken, &claims).map_err(MintError::Sign)?;
        self.table().mint(binding(listener, mac), jti, machine_id, self.now(), self.ttl)?;
        Ok(Minted { token, expires_at: claims.exp })
    }

    /// Checks the token that a request on the port presents.
    pub fn check(
        &self,
        listener: &ListenerSpec,
        port: &PortContext,
        mac: MacAddr,
        token: &str,
    ) -> Result<MachineClaims, Unauthorized> {
        let claims: MachineClaims = self.signer.verify(JwsKind::MachineToken, token)?;
        check_machine(&claims, port, mac)?;
        self.table().check(&binding(listener, mac), &claims.jti, self.now())?;
        Ok(claims)
    }

    /// Signs the statement that goes along with one forwarded request.
    pub fn statement(&self, claims: &IdentityClaims) -> serde_json::Result<String> {
        self.signer.sign_jws(JwsKind::Identity, claims)
    }

    /// The machine id claimed for the port's live token.
    pub fn machine_id(&self, port: &PortName) -> Option<String> {
        let now = self.now();
        self.table().machine_id(port, now).map(str::to_owned)
    }

    /// Ends the port's token.
    pub fn revoke(&self, port: &PortName) -> bool {
        self.table().revoke(port)
    }
}

fn binding(listener: &ListenerSpec, mac: MacAddr) -> Binding {
    Binding { port: listener.port.clone(), vrf: listener.vrf.clone(), ifindex: listener.ifindex, mac }
}

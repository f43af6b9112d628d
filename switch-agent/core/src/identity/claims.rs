//! Claims of the two kinds of JWS.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{MacAddr, PartitionId, PortName, VrfName};
use crate::service::PortContext;

/// Life of a statement. Long enough for clocks that differ by seconds, too short to be of use elsewhere.
pub const STATEMENT_TTL: Duration = Duration::from_secs(60);
/// How long one statement goes along with the requests of a machine: whenever it is used, most of its life is
/// left for the control API to read it in.
pub const STATEMENT_REUSE: Duration = Duration::from_secs(20);

/// `X-Boot-Identity`: where requests enter the network, as the kernel of the switch sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityClaims {
    /// The switch (`switch_id`).
    pub iss: String,
    /// The port.
    pub sub: PortName,
    /// The control API's `https://host[:port]`, so that a statement for one API is none for another.
    pub aud: String,
    pub iat: u64,
    pub exp: u64,
    /// Of the statement; another one for each that is signed.
    pub jti: String,
    pub partition: PartitionId,
    pub vrf: VrfName,
    pub alias: String,
    pub index: u64,
    /// The machine's MAC.
    pub mac: MacAddr,
}

impl IdentityClaims {
    /// `now_s` is Unix time.
    pub fn new(context: &PortContext, mac: MacAddr, audience: &str, id: &str, now_s: u64) -> Self {
        IdentityClaims {
            iss: context.switch_id.clone(),
            sub: context.port.clone(),
            aud: audience.to_owned(),
            iat: now_s,
            exp: now_s + STATEMENT_TTL.as_secs(),
            jti: id.to_owned(),
            partition: context.partition.clone(),
            vrf: context.vrf.clone(),
            alias: context.alias.to_string(),
            index: context.index,
            mac,
        }
    }

    /// Whether the statement may go along with one more request at Unix time `now_s`.
    pub fn is_fresh(&self, now_s: u64) -> bool {
        now_s.checked_sub(self.iat).is_some_and(|age| age < STATEMENT_REUSE.as_secs())
    }
}

/// A machine token of the generic dialect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineClaims {
    /// The switch (`switch_id`).
    pub iss: String,
    /// The port.
    pub sub: PortName,
    pub iat: u64,
    pub exp: u64,
    pub jti: String,
    pub partition: PartitionId,
    pub mac: MacAddr,
    /// What the machine said its id is; a claim for the API to check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
}

/// Why a well-signed token is not one for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ClaimRefusal {
    #[error("the token was minted by another switch")]
    OtherSwitch,
    #[error("the token belongs to another port")]
    OtherPort,
    #[error("the token belongs to another partition")]
    OtherPartition,
    #[error("the token belongs to another machine")]
    OtherMac,
}

/// Checks that a token speaks of the port and machine that present it. Time is the table's business,
/// which counts by the monotonic clock.
pub fn check_machine(claims: &MachineClaims, port: &PortContext, mac: MacAddr) -> Result<(), ClaimRefusal> {
    if claims.iss != port.switch_id {
        Err(ClaimRefusal::OtherSwitch)
    } else if claims.sub != port.port {
        Err(ClaimRefusal::OtherPort)
    } else if claims.partition != port.partition {
        Err(ClaimRefusal::OtherPartition)
    } else if claims.mac != mac {
        Err(ClaimRefusal::OtherMac)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::context;

    #[test]
    fn a_token_is_good_for_its_own_place_only() {
        let port = context("Ethernet4");
        let mac: MacAddr = "52:54:00:00:00:01".parse().unwrap();
        let good = MachineClaims {
            iss: "leaf1".to_owned(),
            sub: port.port.clone(),
            iat: 1,
            exp: 2,
            jti: "a".to_owned(),
            partition: port.partition.clone(),
            mac,
            machine_id: None,
        };
        let check = |change: &dyn Fn(&mut MachineClaims)| {
            let mut claims = good.clone();
            change(&mut claims);
            check_machine(&claims, &port, mac)
        };
        assert_eq!(check(&|_| {}), Ok(()));
        assert_eq!(check(&|c| c.iss = "leaf2".to_owned()), Err(ClaimRefusal::OtherSwitch));
        assert_eq!(check(&|c| c.sub = "Ethernet8".parse().unwrap()), Err(ClaimRefusal::OtherPort));
        assert_eq!(check(&|c| c.partition = "p2".parse().unwrap()), Err(ClaimRefusal::OtherPartition));
        assert_eq!(check(&|c| c.mac.0[5] = 9), Err(ClaimRefusal::OtherMac));
    }

    #[test]
    fn a_statement_lives_a_minute() {
        let mac = "52:54:00:00:00:01".parse().unwrap();
        let claims = IdentityClaims::new(&context("Ethernet4"), mac, "https://api", "r1", 100);
        let value = serde_json::to_value(&claims).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "iss": "leaf1", "sub": "Ethernet4", "aud": "https://api", "iat": 100, "exp": 160,
                "jti": "r1", "partition": "p1", "vrf": "VrfBoot-p1", "alias": "Eth2/1", "index": 2,
                "mac": "52:54:00:00:00:01"
            })
        );
        assert_eq!(serde_json::from_value::<IdentityClaims>(value).unwrap(), claims);
        let fresh = [99, 100, 119, 120].map(|now| claims.is_fresh(now));
        assert_eq!(fresh, [false, true, true, false]);
    }
}

//! The dialect `metal-stack-v2`: the metal-stack API v2, spoken by Connect RPC.
//!
//! What is asked of the API and what it answers ([`messages`]), errors as Connect puts them ([`connect`]),
//! who may have a token ([`pins`]), what partitions boot ([`facts`], kept on disk by [`store`]), and what
//! machines are told ([`config`]).

pub mod config;
pub mod connect;
pub mod events;
pub mod facts;
pub mod messages;
pub mod pins;
pub mod store;

use super::rules::PathRule;
use super::target::Target;

/// What a machine may call where `api_allow` says nothing: the calls of a booting machine, and reading what
/// every machine may know.
const PROCEDURES: [&str; 8] = [
    "/metalstack.infra.v2.BootService/SuperUserPassword",
    "/metalstack.infra.v2.BootService/Register",
    "/metalstack.infra.v2.BootService/Wait",
    "/metalstack.infra.v2.BootService/InstallationSucceeded",
    "/metalstack.api.v2.HealthService/Get",
    "/metalstack.api.v2.ImageService/Get",
    "/metalstack.api.v2.PartitionService/Get",
    "/metalstack.api.v2.VersionService/Get",
];

/// Below this no rule lets a machine: what it returns are tokens, which stay on the switch.
const TOKEN_SERVICE: &str = "metalstack.api.v2.TokenService";

/// The path rules of partitions that configure none.
pub fn default_rules() -> Vec<PathRule> {
    let rule = |pattern: &&str| PathRule {
        deny: false,
        verbs: vec!["POST".to_owned()],
        pattern: (*pattern).to_owned(),
    };
    PROCEDURES.iter().map(rule).collect()
}

/// Whether a path is one of the API's: `/metalstack.<package>.<Service>/<Method>`.
pub fn is_procedure(target: &Target) -> bool {
    target.path().starts_with("/metalstack.")
}

/// Whether a machine never gets there, whatever the partition allows.
pub fn is_withheld(target: &Target) -> bool {
    target.segments().first().is_some_and(|service| service == TOKEN_SERVICE)
}

/// Whether the reply to a call holds a secret: the password of the BMCs, an allocation with its user data.
pub fn bears_secret(target: &Target) -> bool {
    target.segments().last().is_some_and(|method| method == "SuperUserPassword" || method == "Wait")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::allows;

    #[test]
    fn machines_may_call_exactly_what_booting_takes() {
        let allowed =
            |method: &str, path: &str| allows(&default_rules(), method, &Target::parse(path, 2048).unwrap());
        for procedure in PROCEDURES {
            assert!(allowed("POST", procedure), "{procedure}");
            assert!(!allowed("GET", procedure), "{procedure}");
            assert!(!allowed("POST", &format!("{procedure}/x")), "{procedure}");
        }
        for procedure in [
            "/metalstack.infra.v2.BootService/Dhcp",
            "/metalstack.infra.v2.BootService/Boot",
            "/metalstack.infra.v2.EventService/Send",
            "/metalstack.infra.v2.SwitchService/Get",
            "/metalstack.api.v2.TokenService/Create",
            "/metalstack.api.v2.TokenService/Refresh",
            "/metalstack.admin.v2.MachineService/List",
            "/metalstack.infra.v2.BootService",
        ] {
            assert!(!allowed("POST", procedure), "{procedure}");
        }
    }

    #[test]
    fn tokens_are_withheld_in_any_spelling() {
        let target = |path: &str| Target::parse(path, 2048).unwrap();
        assert!(is_withheld(&target("/metalstack.api.v2.TokenService/Refresh")));
        assert!(is_withheld(&target("/metalstack.api.v2.%54okenService/Refresh")));
        assert!(!is_withheld(&target("/metalstack.infra.v2.BootService/Wait")));
        assert!(bears_secret(&target("/metalstack.infra.v2.BootService/SuperUserPassword")));
        assert!(bears_secret(&target("/metalstack.infra.v2.BootService/Wait")));
        assert!(!bears_secret(&target("/metalstack.infra.v2.BootService/Register")));
    }
}

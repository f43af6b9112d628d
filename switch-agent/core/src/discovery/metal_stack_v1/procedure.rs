//! The gRPC procedures of metal-api v1 that machines call (metal-api `proto/api/v1/{boot,event}.proto`).

/// A procedure whose request is known well enough to tell which machine it is about. Every other one is
/// refused, whatever `api_allow` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Procedure {
    /// `EventService/Send`: provisioning events, by machine.
    Send,
    Dhcp,
    /// The one request that names no machine: it is empty.
    SuperUserPassword,
    Register,
    /// A stream that ends well when, and only when, the machine is allocated.
    Wait,
    Report,
    AbortReinstall,
}

impl Procedure {
    pub const ALL: [Procedure; 7] = [
        Procedure::Send,
        Procedure::Dhcp,
        Procedure::SuperUserPassword,
        Procedure::Register,
        Procedure::Wait,
        Procedure::Report,
        Procedure::AbortReinstall,
    ];

    /// The request path of the procedure.
    pub fn path(self) -> &'static str {
        match self {
            Procedure::Send => "/api.v1.EventService/Send",
            Procedure::Dhcp => "/api.v1.BootService/Dhcp",
            Procedure::SuperUserPassword => "/api.v1.BootService/SuperUserPassword",
            Procedure::Register => "/api.v1.BootService/Register",
            Procedure::Wait => "/api.v1.BootService/Wait",
            Procedure::Report => "/api.v1.BootService/Report",
            Procedure::AbortReinstall => "/api.v1.BootService/AbortReinstall",
        }
    }

    pub fn of_path(path: &str) -> Option<Procedure> {
        Procedure::ALL.into_iter().find(|procedure| procedure.path() == path)
    }

    /// Whether a path is one of a gRPC service of metal-api v1, of a known procedure or not.
    pub fn is_service_path(path: &str) -> bool {
        path.starts_with("/api.v1.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_exact() {
        for procedure in Procedure::ALL {
            assert_eq!(Procedure::of_path(procedure.path()), Some(procedure));
            assert!(Procedure::is_service_path(procedure.path()));
        }
        for other in ["/api.v1.BootService/Boot", "/api.v1.BootService/wait", "/api.v1.BootService/Wait/"] {
            assert_eq!(Procedure::of_path(other), None, "{other}");
        }
    }
}

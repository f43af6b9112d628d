//! Times in which SONiC's rows are nobody's to write: swss is not there to take them, or a reboot carries
//! them over.

use super::view::View;
use crate::action::Action;
use crate::observed::Reboot;
use crate::status::{ALL_ROWS, Waiting};

/// Why rows wait, whatever they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// A warm or fast reboot is under way: what was saved has to be what is there afterwards, and STATE_DB
    /// is emptied and filled anew meanwhile. What runs goes on, and what is found complete is served.
    Reboot(Reboot),
    /// swss has not made its ports (cold boot, `config reload`, restart of swss): a row written now is not
    /// seen to take effect, and one deleted now leaves its traces behind.
    Ports,
}

impl Hold {
    pub(super) fn of(view: &View<'_>) -> Option<Hold> {
        match view.state.reboot {
            Some(reboot) => Some(Hold::Reboot(reboot)),
            None => (!view.appl.port_init_done).then_some(Hold::Ports),
        }
    }

    /// Whether the action may be carried out meanwhile. Named are those that may, so that a new kind of row
    /// waits as well.
    pub(super) fn permits(self, action: &Action) -> bool {
        match action {
            // Makes something that is not there, outside of CONFIG_DB.
            Action::AddUnreachableDefault { .. }
            | Action::AddConvenienceLinkLocal { .. }
            | Action::SetUpstream(_)
            | Action::SetService(_)
            | Action::SetAdvertiser(_)
            | Action::ApplyLeak(_) => true,
            // Ends something: in a reboot what is missing comes back.
            Action::WithdrawLeak(_)
            | Action::CeaseAdvertiser { .. }
            | Action::CloseService { .. }
            | Action::RemoveConvenienceLinkLocal { .. }
            | Action::RemoveUnreachableDefault { .. } => self == Hold::Ports,
            _ => false,
        }
    }

    pub(super) fn waiting(self) -> Waiting {
        let on = match self {
            Hold::Reboot(Reboot::Warm) => {
                "the warm reboot to finish (STATE_DB WARM_RESTART_ENABLE_TABLE|system enable = \"false\")"
            }
            Hold::Reboot(Reboot::Fast) => {
                "the fast reboot to finish (STATE_DB FAST_RESTART_ENABLE_TABLE|system enable = \"false\")"
            }
            Hold::Ports => "swss: APPL_DB PORT_TABLE:PortInitDone",
        };
        Waiting { object: ALL_ROWS.to_owned(), port: None, on: on.to_owned() }
    }
}

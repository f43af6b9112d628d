//! Stages of machines as the API's `MachineProvisioningEventType`.

const PREFIX: &str = "MACHINE_PROVISIONING_EVENT_TYPE_";

/// What a machine in the boot network may say of itself. `PHONED_HOME` and `MACHINE_RECLAIM` are what a
/// switch finds out about machines that left it.
const EVENTS: [&str; 9] = [
    "MACHINE_PROVISIONING_EVENT_TYPE_ALIVE",
    "MACHINE_PROVISIONING_EVENT_TYPE_CRASHED",
    "MACHINE_PROVISIONING_EVENT_TYPE_PXE_BOOTING",
    "MACHINE_PROVISIONING_EVENT_TYPE_PLANNED_REBOOT",
    "MACHINE_PROVISIONING_EVENT_TYPE_PREPARING",
    "MACHINE_PROVISIONING_EVENT_TYPE_REGISTERING",
    "MACHINE_PROVISIONING_EVENT_TYPE_WAITING",
    "MACHINE_PROVISIONING_EVENT_TYPE_INSTALLING",
    "MACHINE_PROVISIONING_EVENT_TYPE_BOOTING_NEW_KERNEL",
];

/// The API's name of a stage, in any of the usual spellings (`PXE Booting`, `pxe-booting`, `PXE_BOOTING`,
/// the whole name); `None` for stages that the API does not know.
pub fn event_type(stage: &str) -> Option<&'static str> {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = stage.trim().chars().map(word).collect();
    let name = name.strip_prefix(PREFIX).unwrap_or(&name);
    EVENTS.into_iter().find(|event| event.strip_prefix(PREFIX) == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_found_in_their_usual_spellings() {
        for stage in ["PXE Booting", "pxe-booting", "PXE_BOOTING", " pxe booting ", EVENTS[2]] {
            assert_eq!(event_type(stage), Some(EVENTS[2]), "{stage}");
        }
        assert_eq!(event_type("Alive"), Some(EVENTS[0]));
        assert_eq!(event_type("Booting New Kernel"), Some(EVENTS[8]));
        for stage in ["", "kernel", "Phoned Home", "MACHINE_RECLAIM", "alive!", "UNSPECIFIED"] {
            assert_eq!(event_type(stage), None, "{stage}");
        }
    }
}

//! The machines that have registered, and what users do with them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::verify::Refused;

/// Registrations kept.
const MACHINES_MAX: usize = 4096;

/// What a user wants of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allocation {
    pub(crate) hostname: String,
    /// Where the machine fetches its image from by itself.
    pub(crate) image_url: String,
    /// SHA-256 of the image in hexadecimal.
    pub(crate) image_sha256: String,
    /// The VRF that its port is bound to once the machine is installed.
    pub(crate) vrf: String,
}

/// Where a machine registered from, as the switch signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    pub(crate) switch: String,
    pub(crate) port: String,
    pub(crate) partition: String,
}

/// One machine.
#[derive(Debug, Serialize)]
struct Machine {
    #[serde(flatten)]
    place: Place,
    mac: String,
    machine_id: Option<String>,
    inventory: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocation: Option<Allocation>,
    /// SHA-256 of the image that the machine has reported to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    installed: Option<String>,
}

/// Machines by MAC.
#[derive(Debug, Default)]
pub(crate) struct Machines(Mutex<BTreeMap<String, Machine>>);

fn refused(status: u16, reason: impl Into<String>) -> Refused {
    Refused { status, reason: reason.into() }
}

impl Machines {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Machine>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn with_machine<T>(
        &self,
        mac: &str,
        work: impl FnOnce(&mut Machine) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.with(|machines| match machines.get_mut(mac) {
            Some(machine) => work(machine),
            None => Err(refused(404, "the machine has not registered")),
        })
    }

    /// Enters the machine, or what has become of it since; an allocation stays.
    pub(crate) fn register(
        &self,
        mac: String,
        place: Place,
        machine_id: Option<String>,
        inventory: Value,
    ) -> Result<Value, Refused> {
        self.with(|machines| {
            if machines.len() >= MACHINES_MAX && !machines.contains_key(&mac) {
                return Err(refused(507, "too many machines"));
            }
            let allocation = machines.remove(&mac).and_then(|machine| machine.allocation);
            let machine =
                Machine { place, mac: mac.clone(), machine_id, inventory, allocation, installed: None };
            let entry = json!(machine);
            machines.insert(mac, machine);
            Ok(entry)
        })
    }

    pub(crate) fn shown(&self) -> Value {
        self.with(|machines| json!({ "machines": machines.values().collect::<Vec<_>>() }))
    }

    /// What the machine is to become.
    pub(crate) fn allocation(&self, mac: &str) -> Result<Value, Refused> {
        self.with_machine(mac, |machine| {
            let allocation = machine.allocation.as_ref();
            allocation.map(|it| json!(it)).ok_or_else(|| refused(404, "the machine is not allocated"))
        })
    }

    /// The machine reports the image that it has installed.
    pub(crate) fn report(&self, mac: &str, installed: &str) -> Result<(), Refused> {
        self.with_machine(mac, |machine| match &machine.allocation {
            Some(allocation) if allocation.image_sha256 == installed => {
                machine.installed = Some(installed.to_owned());
                Ok(())
            }
            Some(_) => Err(refused(409, "that is not the image of the allocation")),
            None => Err(refused(409, "the machine is not allocated")),
        })
    }

    pub(crate) fn allocate(&self, mac: &str, allocation: Allocation) -> Result<(), Refused> {
        self.with_machine(mac, |machine| {
            if machine.allocation.is_some() {
                return Err(refused(409, "the machine is allocated: free it first"));
            }
            machine.allocation = Some(allocation);
            Ok(())
        })
    }

    /// The machine is nobody's again, and is known again once it has registered.
    pub(crate) fn free(&self, mac: &str) -> Result<(), Refused> {
        let freed = self.with(|machines| machines.remove(mac));
        freed.map(drop).ok_or_else(|| refused(404, "the machine has not registered"))
    }

    /// The VRF of every port of a switch that has a machine with an installed image: `{port: vrf}`.
    pub(crate) fn ports(&self, switch: &str) -> Value {
        self.with(|machines| {
            let here = machines.values().filter(|it| it.place.switch == switch && it.installed.is_some());
            let bound =
                here.filter_map(|it| Some((it.place.port.clone(), json!(it.allocation.as_ref()?.vrf))));
            Value::Object(bound.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: &str = "52:54:00:00:00:09";

    fn place() -> Place {
        Place { switch: "leaf1".into(), port: "Ethernet8".into(), partition: "p1".into() }
    }

    fn allocation() -> Allocation {
        let text = |text: &str| text.to_owned();
        Allocation {
            hostname: text("h"),
            image_url: text("http://x"),
            image_sha256: text("ab"),
            vrf: text("VrfT"),
        }
    }

    #[test]
    fn a_port_is_bound_from_report_to_release() {
        let machines = Machines::default();
        assert_eq!(machines.allocation(MAC).unwrap_err().status, 404);
        assert_eq!(machines.allocate(MAC, allocation()).unwrap_err().status, 404);
        machines.register(MAC.into(), place(), None, json!({})).unwrap();
        assert_eq!(machines.allocation(MAC).unwrap_err().status, 404);
        assert_eq!(machines.report(MAC, "ab").unwrap_err().status, 409);
        machines.allocate(MAC, allocation()).unwrap();
        assert_eq!(machines.allocate(MAC, allocation()).unwrap_err().status, 409);
        assert_eq!(machines.ports("leaf1"), json!({}));
        assert_eq!(machines.report(MAC, "cd").unwrap_err().status, 409);
        machines.report(MAC, "ab").unwrap();
        assert_eq!(machines.ports("leaf1"), json!({ "Ethernet8": "VrfT" }));
        assert_eq!(machines.ports("leaf2"), json!({}));
        machines.free(MAC).unwrap();
        assert_eq!(machines.ports("leaf1"), json!({}));
        assert_eq!(machines.free(MAC).unwrap_err().status, 404);
    }

    #[test]
    fn an_allocation_outlives_another_boot_of_the_disc() {
        let machines = Machines::default();
        machines.register(MAC.into(), place(), None, json!({})).unwrap();
        machines.allocate(MAC, allocation()).unwrap();
        machines.report(MAC, "ab").unwrap();
        machines.register(MAC.into(), place(), None, json!({})).unwrap();
        assert_eq!(machines.allocation(MAC).unwrap()["hostname"], "h");
        // It runs the disc: the port belongs to the boot network until the image is reported anew.
        assert_eq!(machines.ports("leaf1"), json!({}));
    }
}

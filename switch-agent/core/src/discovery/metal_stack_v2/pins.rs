//! Which machine a port speaks for. The uuid in a request is a claim: it is believed where the API knows the
//! machine on the port, and otherwise where nothing speaks against it, from first sight on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::messages::{Nic, Switch};
use crate::identity::Binding;
use crate::name::PortName;

/// How long a machine is remembered that is not heard of.
pub const PIN_TTL: Duration = Duration::from_secs(24 * 3600);

/// What the API says of one port of a switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortFacts {
    /// The machine that is connected to it.
    pub machine: Option<String>,
    /// The nic is in a VRF: the machine is allocated, and none of ours.
    pub allocated: bool,
    /// Machines that are connected to other ports of the switch, and not to this one.
    pub elsewhere: Vec<String>,
}

impl PortFacts {
    /// The facts about the port called `name` with `alias`. The API has either of them for a nic's name and
    /// identifier, depending on the site's naming schema: what fits in both is taken before what fits in one.
    pub fn of(switch: &Switch, name: &str, alias: &str) -> PortFacts {
        let fit = |nic: &Nic| {
            let pair = (nic.name.as_str(), nic.identifier.as_str());
            let fits: [bool; 4] = [
                pair == (name, alias) || pair == (alias, name),
                nic.name == name,
                nic.identifier == alias,
                nic.name == alias,
            ];
            fits.iter().position(|fits| *fits)
        };
        let nics = switch.nics.iter().filter_map(|nic| Some((fit(nic)?, nic)));
        let own = nics.min_by_key(|(rank, _)| *rank).map(|(_, nic)| nic);
        let is_own = |nic: &Nic| match own {
            Some(own) => own.name == nic.name,
            None => fit(nic).is_some(),
        };
        let machine = |uuid: &str| uuid.to_ascii_lowercase();
        let connections = &switch.machine_connections;
        let here = connections.iter().find(|connection| is_own(&connection.nic));
        let here = here.map(|connection| machine(&connection.machine_id)).filter(|id| !id.is_empty());
        let elsewhere = connections.iter().filter(|connection| !is_own(&connection.nic));
        let elsewhere = elsewhere.map(|connection| machine(&connection.machine_id));
        PortFacts {
            elsewhere: elsewhere.filter(|id| Some(id) != here.as_ref()).collect(),
            machine: here,
            allocated: own.and_then(|nic| nic.vrf.as_deref()).is_some_and(|vrf| !vrf.is_empty()),
        }
    }
}

/// Why a claimed uuid is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefusal {
    #[error("the machine on this port is allocated")]
    Allocated,
    #[error("another machine is connected to this port")]
    OtherMachine { known: String },
    #[error("the machine is connected to another port of this switch")]
    OtherPort { port: Option<PortName> },
}

impl ClaimRefusal {
    /// Error code of the reply, and label for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            ClaimRefusal::Allocated => "machine-allocated",
            ClaimRefusal::OtherMachine { .. } => "machine-id-mismatch",
            ClaimRefusal::OtherPort { .. } => "machine-id-other-port",
        }
    }
}

#[derive(Debug, Clone)]
struct Pin {
    at: Binding,
    uuid: String,
    until: Duration,
}

/// The machines of all ports. Time is since an arbitrary origin and monotonic.
#[derive(Debug, Clone, Default)]
pub struct Pins(BTreeMap<PortName, Pin>);

impl Pins {
    fn live(&self, at: &Binding, now: Duration) -> Option<&Pin> {
        self.0.get(&at.port).filter(|pin| pin.at == *at && now < pin.until)
    }

    /// The machine of a place.
    pub fn get(&self, at: &Binding, now: Duration) -> Option<&str> {
        self.live(at, now).map(|pin| pin.uuid.as_str())
    }

    /// The machine of a place, which was heard of just now.
    pub fn heard(&mut self, at: &Binding, now: Duration) -> Option<&str> {
        let pin = self.0.get_mut(&at.port).filter(|pin| pin.at == *at && now < pin.until)?;
        pin.until = now + PIN_TTL;
        Some(&pin.uuid)
    }

    /// Whether `uuid` is to be believed at a place, as far as the API's facts (`None`: it knows nothing of
    /// the switch) and what was seen so far tell.
    pub fn judge(
        &self,
        at: &Binding,
        uuid: &str,
        facts: Option<&PortFacts>,
        now: Duration,
    ) -> Result<(), ClaimRefusal> {
        let none = PortFacts::default();
        let facts = facts.unwrap_or(&none);
        if facts.allocated {
            return Err(ClaimRefusal::Allocated);
        }
        if let Some(known) = &facts.machine {
            let same = known == uuid;
            return if same { Ok(()) } else { Err(ClaimRefusal::OtherMachine { known: known.clone() }) };
        }
        match self.live(at, now) {
            Some(pin) if pin.uuid != uuid => {
                return Err(ClaimRefusal::OtherMachine { known: pin.uuid.clone() });
            }
            _ => {}
        }
        if facts.elsewhere.iter().any(|machine| machine == uuid) {
            return Err(ClaimRefusal::OtherPort { port: None });
        }
        let elsewhere = |pin: &&Pin| pin.uuid == uuid && pin.at.port != at.port && now < pin.until;
        match self.0.values().find(elsewhere) {
            Some(pin) => Err(ClaimRefusal::OtherPort { port: Some(pin.at.port.clone()) }),
            None => Ok(()),
        }
    }

    /// Remembers a machine that was believed, and returns whether it is new at the place.
    pub fn pin(&mut self, at: Binding, uuid: &str, now: Duration) -> bool {
        let new = self.get(&at, now) != Some(uuid);
        self.0.insert(at.port.clone(), Pin { at, uuid: uuid.to_owned(), until: now + PIN_TTL });
        new
    }

    /// Forgets the machine of a port.
    pub fn forget(&mut self, port: &PortName) {
        self.0.remove(port);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::metal_stack_v2::messages::MachineConnection;
    use crate::identity::table::tests::binding as place;

    const HOUR: Duration = Duration::from_secs(3600);

    fn nic(name: &str, identifier: &str, vrf: &str) -> Nic {
        let vrf = Some(vrf.to_owned()).filter(|vrf| !vrf.is_empty());
        Nic { name: name.to_owned(), identifier: identifier.to_owned(), vrf }
    }

    fn connection(uuid: &str, name: &str, identifier: &str) -> MachineConnection {
        MachineConnection { machine_id: uuid.to_owned(), nic: nic(name, identifier, "") }
    }

    #[test]
    fn ports_are_found_under_every_naming_schema() {
        // Name and identifier of the nics of Ethernet0 (alias Eth1/1) and Ethernet4 (alias Eth1/2).
        let schemas = [
            [("Ethernet0", "Eth1/1"), ("Ethernet4", "Eth1/2")],
            [("Eth1/1", "Ethernet0"), ("Eth1/2", "Ethernet4")],
            [("Ethernet0", "Ethernet0"), ("Ethernet4", "Ethernet4")],
            [("Eth1/1", "Eth1/1"), ("Eth1/2", "Eth1/2")],
        ];
        for (at, [a, b]) in schemas.into_iter().enumerate() {
            let switch = Switch {
                nics: vec![nic(b.0, b.1, "vrf7"), nic(a.0, a.1, "")],
                machine_connections: vec![connection("M2", b.0, b.1), connection("M1", a.0, a.1)],
            };
            let facts = PortFacts::of(&switch, "Ethernet0", "Eth1/1");
            let wanted = PortFacts {
                machine: Some("m1".to_owned()),
                allocated: false,
                elsewhere: vec!["m2".to_owned()],
            };
            assert_eq!(facts, wanted, "schema {at}");
            assert!(PortFacts::of(&switch, "Ethernet4", "Eth1/2").allocated, "schema {at}");
            let spare = PortFacts::of(&switch, "Ethernet8", "Eth1/3");
            assert_eq!((spare.machine, spare.elsewhere.len()), (None, 2), "schema {at}");
        }
    }

    #[test]
    fn what_the_api_knows_decides() {
        let mut pins = Pins::default();
        let at = place("Ethernet0");
        pins.pin(at.clone(), "m9", HOUR);
        let facts = PortFacts { machine: Some("m1".to_owned()), ..PortFacts::default() };
        assert_eq!(pins.judge(&at, "m1", Some(&facts), HOUR), Ok(()));
        let mismatch = Err(ClaimRefusal::OtherMachine { known: "m1".to_owned() });
        assert_eq!(pins.judge(&at, "m9", Some(&facts), HOUR), mismatch);
        let allocated = PortFacts { allocated: true, ..facts };
        assert_eq!(pins.judge(&at, "m1", Some(&allocated), HOUR), Err(ClaimRefusal::Allocated));
        let elsewhere = PortFacts { elsewhere: vec!["m3".to_owned()], ..PortFacts::default() };
        let other = place("Ethernet4");
        let refused = Err(ClaimRefusal::OtherPort { port: None });
        assert_eq!(pins.judge(&other, "m3", Some(&elsewhere), HOUR), refused);
        assert_eq!(pins.judge(&other, "m4", Some(&elsewhere), HOUR), Ok(()));
    }

    #[test]
    fn first_sight_pins_until_the_place_changes() {
        let mut pins = Pins::default();
        let at = place("Ethernet0");
        assert_eq!(pins.judge(&at, "m1", None, HOUR), Ok(()));
        assert!(pins.pin(at.clone(), "m1", HOUR), "new");
        assert!(!pins.pin(at.clone(), "m1", HOUR), "known");
        let mismatch = Err(ClaimRefusal::OtherMachine { known: "m1".to_owned() });
        assert_eq!(pins.judge(&at, "m2", None, HOUR), mismatch.clone());
        let there = Err(ClaimRefusal::OtherPort { port: Some(at.port.clone()) });
        assert_eq!(pins.judge(&place("Ethernet4"), "m1", None, HOUR), there);

        let changes: [&dyn Fn(&mut Binding); 4] =
            [&|b| b.mac.0[5] = 9, &|b| b.ifindex = 8, &|b| b.vrf = "VrfBoot-p2".parse().unwrap(), &|b| {
                b.partition = "p2".parse().unwrap()
            }];
        for change in changes {
            let mut changed = at.clone();
            change(&mut changed);
            assert_eq!(pins.judge(&changed, "m2", None, HOUR), Ok(()));
            assert_eq!(pins.get(&changed, HOUR), None);
        }
        assert_eq!(pins.judge(&at, "m2", None, HOUR + PIN_TTL), Ok(()));
        assert_eq!(pins.heard(&at, HOUR * 2), Some("m1"));
        assert_eq!(pins.heard(&place("Ethernet4"), HOUR * 2), None);
        assert_eq!(pins.judge(&at, "m2", None, HOUR + PIN_TTL), mismatch, "it was heard of since");
        assert_eq!(pins.heard(&at, HOUR * 2 + PIN_TTL), None);
        pins.forget(&at.port);
        assert_eq!(pins.judge(&at, "m2", None, HOUR), Ok(()));
        assert_eq!(pins.judge(&place("Ethernet4"), "m1", None, HOUR), Ok(()));
    }
}

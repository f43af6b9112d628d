//! What the API keeps: switches, partitions, machines and their events.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::{Value, json};
use switch_agent_core::discovery::metal_stack_v2::events::event_type;

use super::reply::Refused;

/// Machines kept, and events of one.
const MACHINES_MAX: usize = 4096;
const EVENTS_MAX: usize = 128;

/// The file of `--data`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    #[serde(default)]
    pub(crate) switches: Vec<Value>,
    #[serde(default)]
    pub(crate) partitions: Vec<Value>,
}

/// One machine.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    partition: String,
    /// Names of events, newest last.
    events: VecDeque<String>,
    registered: bool,
    /// Calls of Wait that hang now.
    pub(crate) waiting: u32,
    pub(crate) allocation: Option<Value>,
    installed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    switches: BTreeMap<String, Value>,
    partitions: BTreeMap<String, Value>,
    machines: BTreeMap<String, Machine>,
    pings: BTreeMap<String, Value>,
}

fn id(value: &Value) -> Option<String> {
    value["id"].as_str().map(str::to_owned)
}

impl State {
    pub(crate) fn new(data: Data) -> State {
        let by_id = |values: Vec<Value>| values.into_iter().filter_map(|value| Some((id(&value)?, value)));
        State {
            switches: by_id(data.switches).collect(),
            partitions: by_id(data.partitions).collect(),
            ..State::default()
        }
    }

    pub(crate) fn switch(&self, id: &str) -> Result<Value, Refused> {
        let switch = self.switches.get(id);
        switch.cloned().ok_or_else(|| Refused::new("not_found", format!("no switch with id {id:?} found")))
    }

    pub(crate) fn set_switch(&mut self, switch: Value) -> Result<(), Refused> {
        let id = id(&switch).ok_or_else(|| Refused::new("invalid_argument", "a switch has an id"))?;
        self.switches.insert(id, switch);
        Ok(())
    }

    pub(crate) fn partition(&self, id: &str) -> Result<Value, Refused> {
        let partition = self.partitions.get(id);
        partition
            .cloned()
            .ok_or_else(|| Refused::new("not_found", format!("no partition with id {id:?} found")))
    }

    /// The machine, made where it is new.
    pub(crate) fn machine(&mut self, uuid: &str) -> Result<&mut Machine, Refused> {
        if self.machines.len() >= MACHINES_MAX && !self.machines.contains_key(uuid) {
            return Err(Refused::new("resource_exhausted", "too many machines"));
        }
        Ok(self.machines.entry(uuid.to_owned()).or_default())
    }

    /// The machine, if it is known.
    pub(crate) fn known(&mut self, uuid: &str) -> Result<&mut Machine, Refused> {
        let machine = self.machines.get_mut(uuid);
        machine.ok_or_else(|| Refused::new("not_found", format!("no machine with id {uuid:?} found")))
    }

    /// `ComponentService.Ping`.
    pub(crate) fn ping(&mut self, question: Value) -> Result<Value, Refused> {
        let seconds =
            question["interval"].as_str().and_then(|text| text.strip_suffix('s')?.parse::<u64>().ok());
        if !seconds.is_some_and(|seconds| (5..=3600).contains(&seconds)) {
            return Err(Refused::new("invalid_argument", "validation error: interval: must be 5s to 3600s"));
        }
        let identifier = question["identifier"].as_str().unwrap_or_default().to_owned();
        self.pings.insert(identifier, question);
        Ok(json!({}))
    }

    /// Enters the connections of a machine as its nics see their neighbours; those it had before go.
    pub(crate) fn connect(&mut self, uuid: &str, nics: &[Value]) {
        let neighbors: Vec<&Value> =
            nics.iter().filter_map(|nic| nic["neighbors"].as_array()).flatten().collect();
        for (id, switch) in &mut self.switches {
            let connections = switch["machineConnections"].as_array().cloned().unwrap_or_default();
            let others = connections.into_iter().filter(|connection| connection["machineId"] != uuid);
            let mut connections: Vec<Value> = others.collect();
            let nics = switch["nics"].as_array().cloned().unwrap_or_default();
            for neighbor in neighbors.iter().filter(|neighbor| neighbor["hostname"] == **id) {
                let nic = nics.iter().find(|nic| nic["identifier"] == neighbor["identifier"]);
                if let Some(nic) = nic {
                    connections.push(json!({ "machineId": uuid, "nic": nic }));
                }
            }
            switch["machineConnections"] = Value::Array(connections);
        }
    }

    /// Everything that is kept, without secrets.
    pub(crate) fn shown(&self) -> Value {
        let machines = self.machines.iter().map(|(uuid, machine)| {
            let shown = json!({
                "partition": machine.partition, "events": machine.events, "registered": machine.registered,
                "waiting": machine.waiting > 0, "allocated": machine.allocation.is_some(),
                "installed": machine.installed
            });
            (uuid.clone(), shown)
        });
        let machines: serde_json::Map<String, Value> = machines.collect();
        json!({ "machines": machines, "switches": self.switches, "pings": self.pings })
    }
}

impl Machine {
    /// Enters an event by its name in the API.
    pub(crate) fn event(&mut self, name: &str) -> Result<(), Refused> {
        if event_type(name) != Some(name) {
            return Err(Refused::new("invalid_argument", format!("validation error: event: {name:?}")));
        }
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(name.to_owned());
        Ok(())
    }

    /// A machine keeps the partition that it was first seen in.
    pub(crate) fn seen_in(&mut self, partition: &str) {
        if self.partition.is_empty() {
            partition.clone_into(&mut self.partition);
        }
    }

    pub(crate) fn register(&mut self) {
        self.registered = true;
    }

    pub(crate) fn install(&mut self) -> Result<(), Refused> {
        if self.allocation.is_none() {
            return Err(Refused::new("failed_precondition", "the machine is not allocated"));
        }
        self.installed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registering_connects_a_machine_to_its_switches() {
        let switch = json!({ "id": "leaf1", "nics": [{ "name": "Ethernet0", "identifier": "Eth1/1" }] });
        let mut state = State::new(Data { switches: vec![switch], partitions: Vec::new() });
        let nics = [json!({ "neighbors": [
            { "hostname": "leaf1", "identifier": "Eth1/1" }, { "hostname": "leaf9", "identifier": "Eth1/1" }
        ] })];
        state.connect("m1", &nics);
        state.connect("m1", &nics);
        let connections = state.switch("leaf1").unwrap()["machineConnections"].clone();
        assert_eq!(connections.as_array().unwrap().len(), 1);
        assert_eq!(connections[0]["nic"]["name"], "Ethernet0");
        state.connect("m1", &[]);
        assert_eq!(state.switch("leaf1").unwrap()["machineConnections"], json!([]));
        assert_eq!(state.switch("leaf2").unwrap_err().code, "not_found");
    }

    #[test]
    fn events_are_those_of_the_api() {
        let mut machine = Machine::default();
        machine.event("MACHINE_PROVISIONING_EVENT_TYPE_ALIVE").unwrap();
        assert_eq!(machine.event("Alive").unwrap_err().code, "invalid_argument");
        assert!(machine.install().is_err());
    }
}

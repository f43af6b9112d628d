//! How many request messages are held at one time: of one port, and large ones of the whole switch.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use switch_agent_core::name::PortName;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Messages that one port may have under way; metal-hammer has three at most.
const PORT_MAX: u32 = 8;
/// Messages above the usual size, on the whole switch; one port has one.
const LARGE_MAX: usize = 2;

#[derive(Debug, Default)]
struct Load {
    messages: u32,
    large: bool,
}

/// Room for messages that are read.
#[derive(Debug)]
pub struct Room {
    ports: Mutex<BTreeMap<PortName, Load>>,
    large: Semaphore,
}

impl Default for Room {
    fn default() -> Room {
        Room { ports: Mutex::default(), large: Semaphore::new(LARGE_MAX) }
    }
}

/// Room that one message has taken.
#[derive(Debug)]
pub struct Reading<'a> {
    room: &'a Room,
    port: PortName,
    large: Option<SemaphorePermit<'a>>,
}

impl Room {
    fn change<T>(&self, port: &PortName, change: impl FnOnce(&mut Load) -> T) -> T {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let load = ports.entry(port.clone()).or_default();
        let outcome = change(load);
        if load.messages == 0 {
            ports.remove(port);
        }
        outcome
    }

    /// Room for a message of the usual size; `None` where the port has its share.
    pub fn begin(&self, port: &PortName) -> Option<Reading<'_>> {
        let begun = self.change(port, |load| {
            let begun = load.messages < PORT_MAX;
            load.messages += u32::from(begun);
            begun
        });
        begun.then(|| Reading { room: self, port: port.clone(), large: None })
    }
}

impl Reading<'_> {
    pub fn is_large(&self) -> bool {
        self.large.is_some()
    }

    /// Waits for room for a large message. False where the port has one under way.
    pub async fn grow(&mut self) -> bool {
        if self.large.is_some() {
            return true;
        }
        let Ok(permit) = self.room.large.acquire().await else { return false };
        let first = self.room.change(&self.port, |load| !std::mem::replace(&mut load.large, true));
        if first {
            self.large = Some(permit);
        }
        first
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let large = self.large.is_some();
        self.room.change(&self.port, |load| {
            load.messages -= 1;
            load.large &= !large;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_port_has_its_share_and_no_more() {
        let room = Room::default();
        let (a, b): (PortName, PortName) = ("Ethernet0".parse().unwrap(), "Ethernet4".parse().unwrap());
        let mut held: Vec<_> = (0..PORT_MAX).map(|_| room.begin(&a).unwrap()).collect();
        assert!(room.begin(&a).is_none());
        let mut other = room.begin(&b).unwrap();
        assert!(held[0].grow().await && held[0].grow().await);
        assert!(!held[1].grow().await);
        assert!(other.grow().await);
        // Nobody else gets one before one of the two is through.
        let c: PortName = "Ethernet8".parse().unwrap();
        let mut third = room.begin(&c).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), third.grow()).await.is_err());
        held.remove(0);
        assert!(tokio::time::timeout(Duration::from_secs(5), third.grow()).await.unwrap());
        drop((held, other, third));
        assert!(room.ports.lock().unwrap().is_empty());
        assert!(room.begin(&a).unwrap().large.is_none());
    }
}

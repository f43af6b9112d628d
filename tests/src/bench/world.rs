//! The ports of one size, and everything that is sent and heard at their far ends.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::failure::{Context, Result};
use crate::many_ports::Plan;
use crate::ns::Ns;
use crate::sys;
use crate::wire::{self, Advert, Arrival, Injector, RsFrame, Tap};

/// The NIC at the far end of a port.
#[derive(Debug, Clone)]
pub(crate) struct Nic {
    pub ns: Ns,
    pub name: String,
    pub mac: [u8; 6],
    place: usize,
    ifindex: u32,
}

/// A Router Advertisement that reached a NIC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    pub port: usize,
    pub at: Duration,
    /// To all nodes, in a multicast frame.
    pub multicast: bool,
}

pub(crate) struct World {
    pub nics: Vec<Nic>,
    by_interface: HashMap<(usize, u32), usize>,
    injectors: Vec<Injector>,
    arrivals: Receiver<Arrival>,
    _tap: Tap,
}

impl World {
    pub(crate) fn open(plan: &Plan<'_>) -> Result<Self> {
        let mut places: Vec<Ns> = plan.machines.to_vec();
        places.push(plan.rack);
        let mut nics = Vec::new();
        for port in 0..plan.ports {
            let (ns, name) = plan.far_end(port);
            let place = places.iter().position(|place| *place == ns).context(|| ns.0.to_owned())?;
            let ifindex = wire::ifindex(ns, &name)?;
            nics.push(Nic { ns, name, mac: Plan::far_mac(port), place, ifindex });
        }
        let by_interface =
            nics.iter().enumerate().map(|(port, nic)| ((nic.place, nic.ifindex), port)).collect();
        let injectors = places.iter().map(|place| Injector::open(*place)).collect::<Result<_>>()?;
        let (sender, arrivals) = mpsc::channel();
        let tap = Tap::start(&places, &sender)?;
        Ok(Self { nics, by_interface, injectors, arrivals, _tap: tap })
    }

    /// The next advertisement that arrives within `limit`.
    pub(crate) fn hear(&self, limit: Duration) -> Result<Option<Heard>> {
        match self.arrivals.recv_timeout(limit) {
            Ok(arrival) => {
                let port = self.by_interface.get(&(arrival.place, arrival.ifindex)).copied();
                let port = port.context(|| format!("an advertisement at {}", arrival.ifindex))?;
                let advert = Advert::parse(&arrival.frame)?;
                Ok(Some(Heard { port, at: arrival.at, multicast: advert.is_multicast_frame() }))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => crate::failure::fail!("the tap ended"),
        }
    }

    /// Everything heard until `deadline`, unless `take` has had enough (`false`) before. What arrived while
    /// the last was taken is left for the next call.
    pub(crate) fn listen(&self, deadline: Duration, mut take: impl FnMut(Heard) -> bool) -> Result<()> {
        loop {
            let limit = deadline.saturating_sub(wire::now());
            match self.hear(limit)? {
                Some(heard) if !take(heard) || heard.at > deadline => return Ok(()),
                Some(_) => {}
                None if limit.is_zero() => return Ok(()),
                None => {}
            }
        }
    }

    /// Forgets what was heard so far.
    pub(crate) fn forget(&self) {
        while self.arrivals.try_recv().is_ok() {}
    }

    pub(crate) fn rest(&self, span: Duration) -> Result<()> {
        self.listen(wire::now() + span, |_| true)
    }

    /// Sends one frame from the far end of a port; the time just before.
    pub(crate) fn send(&self, port: usize, frame: &[u8]) -> Result<Duration> {
        let nic = &self.nics[port];
        let at = wire::now();
        self.injectors[nic.place].send(nic.ifindex, frame)?;
        Ok(at)
    }

    /// One frame from each port, at once.
    pub(crate) fn send_from_all(&self, frames: &[Vec<u8>]) -> Result<()> {
        for (place, injector) in self.injectors.iter().enumerate() {
            let group: Vec<(u32, &[u8])> = self
                .nics
                .iter()
                .zip(frames)
                .filter(|(nic, _)| nic.place == place)
                .map(|(nic, frame)| (nic.ifindex, frame.as_slice()))
                .collect();
            injector.send_all(&group)?;
        }
        Ok(())
    }

    /// Drops or raises the carrier of a port, at its far end; the time just before.
    pub(crate) fn set_carrier(&self, port: usize, up: bool) -> Result<Duration> {
        let nic = &self.nics[port];
        nic.ns.run(|| {
            let at = wire::now();
            sys::set_link_up(&nic.name, up).context(|| format!("{} up={up}", nic.name))?;
            Ok(at)
        })
    }

    pub(crate) fn solicitation(&self, port: usize, kind: Source) -> Vec<u8> {
        let mac = self.nics[port].mac;
        match kind {
            Source::LinkLocal => RsFrame::link_local(mac),
            Source::Unspecified => RsFrame::unspecified(mac),
        }
        .bytes()
    }

    /// An injector of its own for a port: for a thread that floods it.
    pub(crate) fn injector(&self, port: usize) -> Result<(Injector, u32)> {
        let nic = &self.nics[port];
        Ok((Injector::open(nic.ns)?, nic.ifindex))
    }
}

/// From where a machine solicits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// As Linux and iPXE do, with the source link-layer address option.
    LinkLocal,
    /// As UEFI does.
    Unspecified,
}

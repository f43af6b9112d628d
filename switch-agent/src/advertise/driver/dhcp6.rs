//! DHCPv6 beside the advertisements: the same socket, the same ports, and an advertisement for each machine
//! that asks.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use switch_agent_core::dhcp6::{
    ALL_DHCP_SERVERS_MAC, Answer, AnswerType, Dhcp6Config, PortFacts, Server, write_frame,
};
use switch_agent_core::machines::MachineEvent;
use switch_agent_core::ra::{AdvertiserSpec, Trigger};

use super::{Driver, Received, Wire};

/// DHCPv6 of one port.
#[derive(Debug)]
pub(super) struct Dhcp6 {
    server: Server,
    /// The device that takes in frames to ff02::1:2 for us.
    joined: Option<u32>,
}

/// One answer in the outbox.
#[derive(Debug)]
pub(super) struct Answering {
    slot: usize,
    kind: AnswerType,
    arrived: Duration,
}

impl<W: Wire> Driver<W> {
    /// What the advertiser of a port may tell: M and O stay clear where DHCPv6 cannot be served.
    pub(super) fn told(&self, mut spec: Arc<AdvertiserSpec>) -> Arc<AdvertiserSpec> {
        self.set_flags(&mut spec, false);
        spec
    }

    /// The spec as it was asked for, from what the advertiser has.
    pub(super) fn configured(&self, mut spec: Arc<AdvertiserSpec>) -> Arc<AdvertiserSpec> {
        self.set_flags(&mut spec, true);
        spec
    }

    fn set_flags(&self, spec: &mut Arc<AdvertiserSpec>, flags: bool) {
        if spec.dhcp6.is_some() && !self.wire.carries_datagrams() {
            let config = &mut Arc::make_mut(spec).config;
            config.adv_managed_flag = flags;
            config.adv_other_config_flag = flags;
        }
    }

    /// Serves what the port was set to.
    pub(super) fn set_dhcp6(&mut self, slot: usize, ifindex: u32, config: Option<Dhcp6Config>) {
        let Some(entry) = self.entries.get_mut(slot).and_then(Option::as_mut) else { return };
        if config.is_some() && !self.wire.carries_datagrams() {
            if !std::mem::replace(&mut self.unserved, true) {
                tracing::warn!("DHCPv6 is not served: the socket carries Neighbor Discovery only");
            }
            return;
        }
        let joined = entry.dhcp6.as_ref().and_then(|dhcp6| dhcp6.joined);
        let wanted = config.is_some().then_some(ifindex);
        let joined = if joined == wanted {
            joined
        } else {
            if let Some(former) = joined {
                // A device that is gone took its membership with it.
                self.wire.join(former, ALL_DHCP_SERVERS_MAC, false).ok();
            }
            wanted.filter(|ifindex| {
                let result = self.wire.join(*ifindex, ALL_DHCP_SERVERS_MAC, true);
                if let Err(error) = &result {
                    tracing::warn!(port = %entry.port, error = %error, "the port may not take in DHCPv6");
                }
                result.is_ok()
            })
        };
        entry.dhcp6 = config.map(|config| match entry.dhcp6.take() {
            Some(mut served) => {
                served.server.reconfigure(config);
                served.joined = joined;
                served
            }
            None => Box::new(Dhcp6 { server: Server::new(config), joined }),
        });
    }

    /// The port is done.
    pub(super) fn leave_dhcp6(&self, dhcp6: Option<&Dhcp6>) {
        if let Some(ifindex) = dhcp6.and_then(|dhcp6| dhcp6.joined) {
            self.wire.join(ifindex, ALL_DHCP_SERVERS_MAC, false).ok();
        }
    }

    /// Takes in one frame with UDP in it.
    pub(super) fn dhcp6_frame(&mut self, now: Duration, slot: usize, received: &Received<'_>) {
        let Some(entry) = self.entries.get_mut(slot).and_then(Option::as_mut) else { return };
        let Some(dhcp6) = entry.dhcp6.as_mut().filter(|_| !entry.advertiser.is_ceasing()) else { return };
        let metrics = &self.outputs.metrics.dhcp6;
        let spec = entry.advertiser.spec();
        let facts = PortFacts { mac: spec.mac, link_local: spec.link_local };
        let ifindex = spec.ifindex;
        let handled = dhcp6.server.handle(now, facts, received.frame, received.offload);
        if let Some(kind) = handled.received {
            metrics.received(&entry.port, kind);
        }
        let answer = match handled.outcome {
            Ok(answer) => answer,
            Err(refusal) => {
                metrics.refused(&entry.port, refusal);
                tracing::debug!(port = %entry.port, reason = %refusal, "DHCPv6 message refused");
                return;
            }
        };
        metrics.client(&entry.port, &answer);
        if answer.request.opens() {
            entry.advertiser.handle_trigger(now, Trigger::Dhcp6Solicit, answer.addresses.destination_mac);
            self.schedule.set(slot, entry.advertiser.next_deadline());
        }
        self.answers.push(ifindex, |frame| write_frame(frame, &answer.addresses, &answer.message));
        self.answering.push(Answering { slot, kind: answer.kind, arrived: now.saturating_sub(received.age) });
        let port = entry.port.clone();
        let Answer { request, addresses, architecture, ipxe, boot_url, .. } = answer;
        // An offer may still be declined; a reply is what the machine boots with.
        let boot_url = boot_url.filter(|_| answer.kind == AnswerType::Reply);
        self.heard.push(MachineEvent::Dhcp6 {
            port,
            mac: addresses.destination_mac,
            address: addresses.destination,
            request,
            architecture,
            ipxe,
            boot_url,
        });
    }

    /// Sends the answers to the frames that were taken in.
    pub(super) fn send_answers(&mut self, clock: impl Fn() -> Duration) {
        if self.answering.is_empty() {
            return;
        }
        self.wire.send(&mut self.answers);
        let after = clock();
        let metrics = &self.outputs.metrics.dhcp6;
        for (at, Answering { slot, kind, arrived }) in self.answering.drain(..).enumerate() {
            let Some(entry) = self.entries.get(slot).and_then(Option::as_ref) else { continue };
            match self.answers.error(at..at + 1) {
                None => metrics.sent(&entry.port, kind, after.saturating_sub(arrived)),
                Some(errno) => metrics.send_failed(&entry.port, format!("{:?}", Errno::from_raw(errno))),
            }
        }
        self.answers.clear();
    }

    /// Tells of the machines that asked.
    pub(super) fn tell_dhcp6(&mut self) {
        for event in self.heard.drain(..) {
            self.outputs.hub.observe(event);
        }
    }
}

//! Listeners and advertisers: what runs on a port follows from what was observed of it, never from hope.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::binding::Progress;
use super::view::View;
use super::wanted::{Wanted, WantedSet};
use crate::action::Action;
use crate::dhcp6::Dhcp6Config;
use crate::name::{PortName, router_interface_address};
use crate::observed::{AdvertiserState, CONVENIENCE_LINK_LOCAL, Link};
use crate::ra::{AdvPrefix, AdvertiserSpec, Cease};
use crate::service::{ListenerSpec, PortContext, PortService};

/// What one port's services need next.
pub(super) struct ServiceStep {
    pub(super) actions: Vec<Action>,
    pub(super) waiting: Option<String>,
    /// Every role of the partition runs on the port.
    pub(super) complete: bool,
}

/// Ends what runs on ports that no longer carry it. Ports that are held keep what they have.
pub(super) fn end(view: &View<'_>, wanted: &WantedSet<'_>, kept: &BTreeSet<PortName>) -> Vec<Action> {
    let mut actions = Vec::new();
    let leaves = |port: &&PortName| !kept.contains(*port) && !wanted.held.contains(*port);
    for port in view.runtime.advertisers.keys().filter(leaves) {
        if let Some(AdvertiserState::Running(_)) = view.runtime.advertisers.get(port) {
            let cease = cease(view, wanted, port);
            actions.push(Action::CeaseAdvertiser { port: port.clone(), cease });
        }
    }
    for port in view.runtime.services.keys().filter(leaves) {
        actions.push(Action::CloseService { port: port.clone() });
    }
    for (port, entry) in &view.ledger.ports {
        let Some(link) = view.kernel.links.get(port.as_str()) else {
            continue;
        };
        let ours = has_convenience(link) && link.master.as_deref() == Some(entry.vrf.as_str());
        let unwanted = leaves(&port) && !wanted.interfaces.contains_key(port);
        if ours && unwanted && view.kernel.net_admin && view.free(&format!("fe80::1 of {port}")) {
            actions.push(Action::RemoveConvenienceLinkLocal {
                port: port.clone(),
                ifindex: link.ifindex,
                address: CONVENIENCE_LINK_LOCAL,
            });
        }
    }
    actions
}

/// Final advertisements belong on the wire only while the port is still the boot VRF's and really leaves:
/// in a tenant VRF the same link-local may already be somebody else's router, and a port that swss merely
/// rebuilds comes back.
fn cease(view: &View<'_>, wanted: &WantedSet<'_>, port: &PortName) -> Cease {
    let vrf = view.ledger.ports.get(port).map(|entry| &entry.vrf);
    let still_ours = vrf.is_some_and(|vrf| view.enslaved(port, vrf.as_str()));
    let rebuilt = wanted.interfaces.get(port).is_some_and(|wanted| {
        view.interface(port).row_vrf == Some(wanted.vrf.as_str())
            && !stale_address(view, port, wanted)
            && wanted.partition.advertise
    });
    if still_ours && !rebuilt { Cease::Final } else { Cease::Silent }
}

/// The port's advertiser announces a prefix that is no longer the port's.
fn stale_address(view: &View<'_>, port: &PortName, wanted: &Wanted<'_>) -> bool {
    view.ledger
        .ports
        .get(port)
        .is_some_and(|entry| entry.addresses.iter().any(|address| !wanted.addresses.contains(address)))
}

fn has_convenience(link: &Link) -> bool {
    link.addresses.iter().any(|net| net.addr() == CONVENIENCE_LINK_LOCAL)
}

/// Ports whose services may stay: addressed, in the right VRF, and the roles still on.
pub(super) fn kept(wanted: &WantedSet<'_>, progress: impl Fn(&PortName) -> Progress) -> BTreeSet<PortName> {
    let serving = |(port, wanted): (&PortName, &Wanted<'_>)| {
        (wanted.port.is_some() && progress(port) == Progress::Addressed).then(|| port.clone())
    };
    wanted.interfaces.iter().filter_map(serving).collect()
}

/// Brings the services of one addressed port up to date.
pub(super) fn start(
    view: &View<'_>,
    port: &PortName,
    wanted: &Wanted<'_>,
    listeners_frozen: bool,
) -> ServiceStep {
    let mut step = ServiceStep { actions: Vec::new(), waiting: None, complete: false };
    let Some(link) = view.kernel.links.get(port.as_str()) else {
        return step;
    };
    if view.kernel.net_admin && !has_convenience(link) && view.free(&format!("fe80::1 of {port}")) {
        step.actions.push(Action::AddConvenienceLinkLocal {
            port: port.clone(),
            ifindex: link.ifindex,
            address: CONVENIENCE_LINK_LOCAL,
        });
    }
    let proxy = proxy(view, port, wanted, link, listeners_frozen, &mut step);
    let advertiser = advertiser(view, port, wanted, link, proxy, &mut step);
    step.complete = proxy && advertiser;
    step
}

/// The listener; returns whether it runs as wanted (or is not wanted).
fn proxy(
    view: &View<'_>,
    port: &PortName,
    wanted: &Wanted<'_>,
    link: &Link,
    frozen: bool,
    step: &mut ServiceStep,
) -> bool {
    let running = view.runtime.services.get(port);
    if !wanted.partition.proxy {
        if running.is_some() {
            step.actions.push(Action::CloseService { port: port.clone() });
        }
        return true;
    }
    if running.is_some_and(|running| frozen || is_current(running, view, wanted, link)) {
        return true;
    }
    let Some(service) = service(view, port, wanted, link) else {
        step.waiting = Some(format!("kernel: MAC address of {port}"));
        return false;
    };
    if let Some(error) = view.runtime.service_errors.get(port) {
        step.waiting = Some(format!("listener {port}: {error}"));
    }
    if view.free(&format!("listener {port}")) {
        step.actions.push(Action::SetService(Box::new(service)));
    }
    false
}

/// What [`service`] would build, without building it: a converged switch asks this for every port of every
/// pass.
fn is_current(running: &PortService, view: &View<'_>, wanted: &Wanted<'_>, link: &Link) -> bool {
    let (listener, context, global) = (&running.listener, &running.context, &view.desired.global);
    let vrf_ifindex = view.vrf_device(wanted.vrf).map(|device| device.ifindex);
    let Some(desired) = wanted.port else { return false };
    listener.ifindex == link.ifindex
        && Some(listener.vrf_ifindex) == vrf_ifindex
        && listener.vrf == *wanted.vrf
        && listener.tcp_port == global.proxy_port
        && context.switch_id == global.switch_id
        && context.chassis_mac == global.chassis_mac
        && context.partition == desired.partition
        && context.alias == desired.alias
        && context.index == desired.index
        && Some(context.mac) == link.mac
        && context.prefix == desired.prefix
        && context.settings == *wanted.partition
}

fn service(view: &View<'_>, port: &PortName, wanted: &Wanted<'_>, link: &Link) -> Option<PortService> {
    let desired = wanted.port?;
    let global = &view.desired.global;
    let listener = ListenerSpec {
        port: port.clone(),
        ifindex: link.ifindex,
        vrf: wanted.vrf.clone(),
        vrf_ifindex: view.vrf_device(wanted.vrf)?.ifindex,
        tcp_port: global.proxy_port,
    };
    let context = PortContext {
        switch_id: global.switch_id.clone(),
        chassis_mac: global.chassis_mac,
        partition: desired.partition.clone(),
        port: port.clone(),
        alias: desired.alias.clone(),
        index: desired.index,
        mac: link.mac?,
        vrf: wanted.vrf.clone(),
        prefix: desired.prefix,
        router: router_interface_address(desired.prefix).addr(),
        tcp_port: global.proxy_port,
        settings: wanted.partition.clone(),
    };
    Some(PortService { listener, context: Arc::new(context) })
}

/// The advertiser; returns whether it runs as wanted (or is not wanted).
///
/// It comes after the listener: a machine that gets an address asks for its configuration once and at once.
/// Both may be in one plan, whose executor leaves the advertiser out where the listener did not open; so a
/// restarted agent advertises in its first pass.
fn advertiser(
    view: &View<'_>,
    port: &PortName,
    wanted: &Wanted<'_>,
    link: &Link,
    proxy_ready: bool,
    step: &mut ServiceStep,
) -> bool {
    let running = view.runtime.advertisers.get(port);
    if !wanted.partition.advertise {
        if let Some(AdvertiserState::Running(_)) = running {
            step.actions.push(Action::CeaseAdvertiser { port: port.clone(), cease: Cease::Final });
        }
        return running.is_none();
    }
    if matches!(running, Some(AdvertiserState::Running(spec)) if advertises(view, spec, wanted, link)) {
        return true;
    }
    let Some(spec) = spec(view, port, wanted, link) else {
        step.waiting.get_or_insert_with(|| format!("kernel: link-local address of {port}"));
        // A running advertiser survives the moment in which a flap regenerates the address.
        return matches!(running, Some(AdvertiserState::Running(_)));
    };
    if let Some(AdvertiserState::Ceasing) = running {
        step.waiting.get_or_insert_with(|| format!("final advertisements on {port}"));
        return false;
    }
    let opening = step.actions.iter().any(|action| matches!(action, Action::SetService(_)));
    if !proxy_ready && !opening && !view.runtime.services.contains_key(port) {
        step.waiting.get_or_insert_with(|| format!("listener {port}"));
    } else if view.free(&format!("advertiser {port}")) {
        step.actions.push(Action::SetAdvertiser(Arc::new(spec)));
    }
    false
}

/// What [`spec`] would build, without building it.
fn advertises(view: &View<'_>, running: &AdvertiserSpec, wanted: &Wanted<'_>, link: &Link) -> bool {
    let link_local = link.link_local().or_else(|| expected_link_local(link));
    running.ifindex == link.ifindex
        && Some(running.mac) == link.mac
        && Some(running.link_local) == link_local
        && running.forwarding == forwards(link)
        && adv_prefix(wanted).is_some_and(|prefix| running.config.adv_prefix_list == [prefix])
        && running.config.equals_but_for_prefixes(&wanted.partition.ra)
        && running.dhcp6 == dhcp6(view, wanted, link)
}

fn adv_prefix(wanted: &Wanted<'_>) -> Option<AdvPrefix> {
    Some(AdvPrefix { prefix: wanted.port?.prefix, variables: wanted.partition.adv_prefix })
}

fn dhcp6(view: &View<'_>, wanted: &Wanted<'_>, link: &Link) -> Option<Dhcp6Config> {
    let (global, prefix) = (&view.desired.global, wanted.port?.prefix);
    Some(Dhcp6Config {
        server_mac: global.chassis_mac.or(link.mac)?,
        prefix,
        router: router_interface_address(prefix).addr(),
        proxy_port: wanted.partition.proxy.then_some(global.proxy_port),
        options: wanted.partition.dhcp6.clone()?,
    })
}

fn spec(view: &View<'_>, port: &PortName, wanted: &Wanted<'_>, link: &Link) -> Option<AdvertiserSpec> {
    let mut config = wanted.partition.ra.clone();
    config.adv_prefix_list = vec![adv_prefix(wanted)?];
    Some(AdvertiserSpec {
        port: port.clone(),
        ifindex: link.ifindex,
        mac: link.mac?,
        link_local: link.link_local().or_else(|| expected_link_local(link))?,
        forwarding: forwards(link),
        config,
        dhcp6: dhcp6(view, wanted, link),
    })
}

/// A port whose setting could not be read counts as forwarding: SONiC's ports do.
fn forwards(link: &Link) -> bool {
    link.forwarding != Some(false)
}

/// A port that never had carrier has no link-local yet; it will be the one made of the MAC, as SONiC's
/// netdevs generate it. With carrier the kernel's own word counts.
fn expected_link_local(link: &Link) -> Option<std::net::Ipv6Addr> {
    link.mac.filter(|_| !link.carrier).map(crate::name::MacAddr::eui64_link_local)
}

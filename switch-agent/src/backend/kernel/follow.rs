//! Following the kernel: subscribe, dump, then take events until they are lost, and dump again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use ipnet::Ipv6Net;
use nix::libc;
use switch_agent_core::machines::MachineEvent;
use switch_agent_core::ra::LinkEvent;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::decode::{self, Event, RawRoute};
use super::socket::{NetlinkSocket, messages};
use super::track::{Report, Tracker};
use super::{KernelError, KernelHandle, snapshot};
use crate::hub::Hub;
use crate::wake::{Reason, Waker};

/// Settings of IPv6 on a link, forwarding among them (linux/rtnetlink.h).
pub(super) const RTNLGRP_IPV6_NETCONF: u32 = 25;
const GROUPS: [u32; 4] =
    [libc::RTNLGRP_LINK, libc::RTNLGRP_NEIGH, libc::RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_NETCONF];
/// Room for the events of some thousand ports flapping at once.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Route events come on a socket of their own, so that a converging fabric never delays a carrier.
const ROUTE_RECEIVE_BUFFER: usize = 1 << 20;
/// A link whose neighbours flood, as they do for invented sources where the kernel hears them, is not heard of
/// for this long: at most so many links at a time, for the program in the kernel is as long as they are many.
const QUIET_TIME: Duration = Duration::from_secs(2);
const QUIET_MAX: usize = 64;
/// Pause after an error, and after lost events: a dump costs more than the events it replaces. It doubles
/// while sessions end sooner than the longest pause.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

impl KernelHandle {
    /// Follows links, IPv6 addresses, neighbours and default routes until cancelled.
    ///
    /// Begins with the present state. `links` gets every change of a link's carrier, link-local address or
    /// existence at once, `machines` every neighbour that is new, moved or was heard of again; neither may
    /// block. `routes` gets every change of a route that the kernel did not make
    /// by itself, and `None` where changes were missed; `hub` the carrier and the neighbours of front-panel
    /// ports; `waker` is woken when anything changed that a snapshot shows.
    pub async fn follow(
        self,
        links: impl Fn(LinkEvent) + Send + Sync,
        machines: impl Fn(&MachineEvent) + Send + Sync,
        routes: impl Fn(Option<RouteEvent>) + Send + Sync,
        hub: Hub,
        waker: Waker,
        cancel: CancellationToken,
    ) {
        let pass_on = |(reports, changed): (Vec<Report>, bool)| {
            for report in reports {
                match report {
                    Report::Link(event) => links(event),
                    Report::Machine(event) => {
                        machines(&event);
                        hub.observe(event);
                    }
                }
            }
            if changed {
                waker.wake(Reason::Kernel);
            }
        };
        let mut tracker = Tracker::new(self.neighbors.clone());
        let following = async {
            let mut delay = RETRY_DELAY_MIN;
            loop {
                let started = Instant::now();
                let error = match session(&mut tracker, &pass_on).await {
                    Ok(never) => match never {},
                    Err(error) => error,
                };
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    retry_in = ?delay,
                    "netlink events interrupted"
                );
                tokio::time::sleep(delay).await;
                let lasted = started.elapsed() > RETRY_DELAY_MAX;
                delay = if lasted { RETRY_DELAY_MIN } else { (delay * 2).min(RETRY_DELAY_MAX) };
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = following => {}
            () = follow_routes(&routes, &waker) => {}
        }
    }
}

/// One subscription. What came while the dumps ran is applied after them; each message carries the whole
/// state of its object, so doing so twice does no harm.
pub(super) async fn session(
    tracker: &mut Tracker,
    pass_on: &impl Fn((Vec<Report>, bool)),
) -> Result<Infallible, KernelError> {
    let events = NetlinkSocket::subscribe(&GROUPS, RECEIVE_BUFFER)?;
    let requests = NetlinkSocket::open()?;
    let links = snapshot::links(&requests).await?;
    let neighbors = snapshot::neighbors(&requests, None).await?;
    drop(requests);
    tracker.replace(links, neighbors);
    pass_on(tracker.take());
    let mut buffer = Vec::new();
    // Links that flood, and until when nobody listens to word of their neighbours.
    let mut quiet: BTreeMap<u32, Instant> = BTreeMap::new();
    loop {
        let loud_again = quiet.values().min().copied();
        let before = quiet.len();
        tokio::select! {
            received = events.receive(&mut buffer) => {
                received.map_err(|source| KernelError::Socket { step: "receive from", source })?;
                for event in messages(&buffer).filter_map(decode::event) {
                    tracker.apply(event);
                }
                pass_on(tracker.take());
                let until = Instant::now() + QUIET_TIME;
                let room = QUIET_MAX.saturating_sub(quiet.len());
                quiet.extend(tracker.take_flooded().into_iter().map(|link| (link, until)).take(room));
            }
            () = sleep_until(loud_again.unwrap_or_else(Instant::now)), if loud_again.is_some() => {
                let now = Instant::now();
                quiet.retain(|_, until| *until > now);
            }
        }
        if quiet.len() != before {
            // Refused, every event is looked at: slower, no worse.
            events.quiet_neighbors(quiet.keys().copied()).ok();
        }
    }
}

/// A route that somebody added, changed or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteEvent {
    pub table: u32,
    pub destination: Ipv6Net,
}

/// Passes changes of routes on, and wakes on those of default routes outside the main table: the deny routes
/// of VRFs.
async fn follow_routes(pass_on: &impl Fn(Option<RouteEvent>), waker: &Waker) {
    let main = u32::from(libc::RT_TABLE_MAIN);
    let mut buffer = Vec::new();
    loop {
        if let Ok(events) = NetlinkSocket::subscribe(&[libc::RTNLGRP_IPV6_ROUTE], ROUTE_RECEIVE_BUFFER) {
            while events.receive(&mut buffer).await.is_ok() {
                for event in messages(&buffer).filter_map(decode::event) {
                    let Event::Route(RawRoute { table, destination, of_kernel, .. }) = event else {
                        continue;
                    };
                    if !of_kernel {
                        pass_on(Some(RouteEvent { table, destination }));
                    }
                    if destination.prefix_len() == 0 && table != main {
                        waker.wake(Reason::Kernel);
                    }
                }
            }
            pass_on(None);
            waker.wake(Reason::Kernel);
        }
        tokio::time::sleep(RETRY_DELAY_MIN).await;
    }
}

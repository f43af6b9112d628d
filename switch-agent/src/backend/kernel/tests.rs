//! Against the running kernel, each test in a network namespace of its own.

mod decode;
mod track;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::libc;
use switch_agent_core::machines::MachineEvent;
use switch_agent_core::name::PortName;
use switch_agent_core::ra::LinkEvent;

use super::decode::Event;
use super::socket::messages;
use super::track::{Report, Tracker};
use super::*;
use crate::backend::namespace::{self, ip, ip_output, require_ip};

fn in_namespace<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    namespace::in_namespace(module_path!(), name, body);
}

/// A veth pair, the first end up, the other one down: no carrier.
fn add_port(name: &str, mac: &str) {
    std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
    require_ip(&format!("link add {name} address {mac} type veth peer name p-{name}"));
    require_ip(&format!("link set {name} up"));
}

/// A snapshot in which `ready` holds: carrier and DAD (even where it is off) are the work of kernel threads.
async fn snapshot_when(kernel: &KernelHandle, ready: impl Fn(&Kernel) -> bool) -> Kernel {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let snapshot = kernel.snapshot().await.unwrap();
        if ready(&snapshot) {
            return snapshot;
        }
        assert!(Instant::now() < deadline, "{snapshot:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn has_link_local(kernel: &Kernel) -> bool {
    let link = &kernel.links["Ethernet0"];
    link.carrier && link.tentative.is_empty() && link.link_local().is_some()
}

#[test]
fn a_snapshot_shows_links_and_addresses() {
    in_namespace("a_snapshot_shows_links_and_addresses", async || {
        add_port("Ethernet0", "52:54:00:00:00:01");
        let kernel = KernelHandle::new();
        let before = kernel.snapshot().await.unwrap();
        let link = &before.links["Ethernet0"];
        assert!(link.admin_up && !link.carrier);
        assert_eq!(link.mac, Some("52:54:00:00:00:01".parse().unwrap()));
        assert!(link.addresses.is_empty());
        assert!(!link.is_vrf && link.master.is_none() && link.vrf_table.is_none());
        assert!(before.net_admin);

        require_ip("link set p-Ethernet0 up");
        std::fs::write("/proc/sys/net/ipv6/conf/Ethernet0/forwarding", "1").unwrap();
        require_ip("address add 2001:db8::1/64 dev Ethernet0");
        std::fs::write("/proc/sys/net/ipv6/conf/p-Ethernet0/accept_dad", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/p-Ethernet0/dad_transmits", "5").unwrap();
        require_ip("address add 2001:db8::2/64 dev p-Ethernet0");
        require_ip("address add 192.0.2.1/24 dev Ethernet0");
        let after = snapshot_when(&kernel, has_link_local).await;
        let (link, peer) = (&after.links["Ethernet0"], &after.links["p-Ethernet0"]);
        assert!(link.carrier);
        assert_eq!(link.forwarding, Some(true));
        assert_eq!(peer.forwarding, Some(false));
        let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["2001:db8::1/64", "fe80::5054:ff:fe00:1/64"]);
        assert!(link.tentative.is_empty());
        assert_eq!(link.link_local().unwrap().to_string(), "fe80::5054:ff:fe00:1");
        assert!(peer.tentative.contains(&"2001:db8::2/64".parse().unwrap()), "{peer:?}");
        assert_eq!(after.links["lo"].ifindex, 1);
    });
}

#[test]
fn five_hundred_links_are_read_quickly() {
    in_namespace("five_hundred_links_are_read_quickly", async || {
        let batch: String = (0..256)
            .map(|n| format!("link add Ethernet{n} type veth peer name p{n}\naddress add 2001:db8:{n:x}::1/64 dev Ethernet{n}\n"))
            .collect();
        let dir = crate::backend::redis::testing::TempDir::new();
        std::fs::write(dir.path().join("batch"), batch).unwrap();
        require_ip(&format!("-batch {}", dir.path().join("batch").display()));
        let kernel = KernelHandle::new();
        assert_eq!(kernel.snapshot().await.unwrap().links.len(), 513);
        let started = Instant::now();
        for _ in 0..10 {
            kernel.snapshot().await.unwrap();
        }
        let each = started.elapsed() / 10;
        println!("snapshot of 513 links: {each:?}");
        // Some milliseconds; the bound only catches work per link that does not belong there.
        assert!(each < Duration::from_millis(200), "{each:?}");
    });
}

#[test]
fn writes_can_be_repeated() {
    in_namespace("writes_can_be_repeated", async || {
        add_port("Ethernet0", "52:54:00:00:00:01");
        require_ip("link set p-Ethernet0 up");
        require_ip("link set lo up");
        let kernel = KernelHandle::new();
        let ifindex = snapshot_when(&kernel, has_link_local).await.links["Ethernet0"].ifindex;
        for _ in 0..2 {
            kernel.add_unreachable_default(1001).await.unwrap();
            kernel.add_link_local(ifindex, CONVENIENCE_LINK_LOCAL).await.unwrap();
        }
        let routes = ip_output("-6 route show table 1001");
        assert!(routes.contains("unreachable default") && routes.contains("metric 4278198272"), "{routes}");
        let link = snapshot_when(&kernel, has_link_local).await.links["Ethernet0"].clone();
        assert!(link.addresses.contains(&"fe80::1/64".parse().unwrap()));
        assert_eq!(link.link_local().unwrap().to_string(), "fe80::5054:ff:fe00:1");
        for _ in 0..2 {
            kernel.remove_unreachable_default(1001).await.unwrap();
            kernel.remove_link_local(ifindex).await.unwrap();
        }
        assert_eq!(ip_output("-6 route show table 1001"), "");
        let link = kernel.snapshot().await.unwrap().links["Ethernet0"].clone();
        assert!(!link.addresses.contains(&"fe80::1/64".parse().unwrap()));
        kernel.remove_link_local(4711).await.unwrap();
        let error = kernel.add_link_local(4711, CONVENIENCE_LINK_LOCAL).await.unwrap_err();
        assert_eq!(error.to_string(), "the kernel refused to add a link-local address");
        assert!(error.is(Errno::ENODEV), "{error:?}");
    });
}

/// What a followed kernel reported so far.
#[derive(Default)]
struct Seen {
    reports: Mutex<Vec<Report>>,
    changes: Mutex<u32>,
}

impl Seen {
    fn pass_on(&self, (reports, changed): (Vec<Report>, bool)) {
        self.reports.lock().unwrap().extend(reports);
        *self.changes.lock().unwrap() += u32::from(changed);
    }

    /// Waits for a report and forgets those up to it.
    async fn expect(&self, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            {
                let mut reports = self.reports.lock().unwrap();
                if let Some(at) = reports.iter().position(&wanted) {
                    return reports.drain(..=at).next_back().unwrap();
                }
                assert!(Instant::now() < deadline, "no {what} in {reports:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn link(&self, what: &str, wanted: impl Fn(&LinkEvent) -> bool) {
        self.expect(what, |report| matches!(report, Report::Link(event) if wanted(event))).await;
    }

    async fn machine(&self, event: MachineEvent) {
        self.expect(&format!("{event:?}"), |report| *report == Report::Machine(event.clone())).await;
    }
}

#[test]
fn changes_are_followed_as_they_happen() {
    in_namespace("changes_are_followed_as_they_happen", async || {
        add_port("Ethernet0", "52:54:00:00:00:01");
        let port: PortName = "Ethernet0".parse().unwrap();
        let kernel = KernelHandle::new();
        let ifindex = kernel.snapshot().await.unwrap().links["Ethernet0"].ifindex;
        let seen = Seen::default();
        let mut tracker = Tracker::new(kernel.neighbors.clone());
        let pass_on = |news| seen.pass_on(news);
        let body = async {
            seen.machine(MachineEvent::Carrier { port: port.clone(), up: false }).await;
            seen.link("present link", |event| event.name == "Ethernet0" && !event.carrier).await;

            require_ip("link set p-Ethernet0 up");
            seen.machine(MachineEvent::Carrier { port: port.clone(), up: true }).await;
            seen.link("carrier and address", |event| event.carrier && event.link_local.is_some()).await;

            let (address, mac) = ("fe80::2".parse().unwrap(), "52:54:00:00:00:02".parse().unwrap());
            require_ip("neigh add fe80::2 lladdr 52:54:00:00:00:02 nud stale dev Ethernet0");
            seen.machine(MachineEvent::Neighbor { port: port.clone(), mac, address }).await;
            assert_eq!(kernel.neighbor_mac(ifindex, address), Some(mac));
            assert_eq!(kernel.neighbors(ifindex).await.unwrap(), BTreeMap::from([(address, mac)]));
            assert!(kernel.neighbors(ifindex + 1).await.unwrap().is_empty());
            require_ip("neigh del fe80::2 dev Ethernet0");
            seen.machine(MachineEvent::NeighborGone { port: port.clone(), address }).await;
            assert_eq!(kernel.neighbor_mac(ifindex, address), None);

            let changes = *seen.changes.lock().unwrap();
            require_ip("address add 2001:db8::1/64 dev Ethernet0");
            let deadline = Instant::now() + Duration::from_secs(5);
            while *seen.changes.lock().unwrap() == changes {
                assert!(Instant::now() < deadline, "no change for an address");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }

            require_ip("link set p-Ethernet0 down");
            seen.machine(MachineEvent::Carrier { port: port.clone(), up: false }).await;
            require_ip("link del Ethernet0");
            seen.link("deletion", |event| event.name == "Ethernet0" && event.gone).await;
        };
        tokio::select! {
            result = follow::session(&mut tracker, &pass_on) => panic!("{result:?}"),
            () = body => {}
        }
    });
}

#[test]
fn forwarding_switched_off_is_told_of() {
    in_namespace("forwarding_switched_off_is_told_of", async || {
        add_port("Ethernet0", "52:54:00:00:00:01");
        let ifindex = KernelHandle::new().snapshot().await.unwrap().links["Ethernet0"].ifindex;
        let events = NetlinkSocket::subscribe(&[follow::RTNLGRP_IPV6_NETCONF], 1 << 16).unwrap();
        let mut buffer = Vec::new();
        // For one link, and for all of them.
        for (setting, on) in [("Ethernet0", true), ("Ethernet0", false), ("all", true)] {
            let value = if on { "1" } else { "0" };
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{setting}/forwarding"), value).unwrap();
            let told = async {
                loop {
                    events.receive(&mut buffer).await.unwrap();
                    let wanted = Event::Forwarding { ifindex, on };
                    if messages(&buffer).filter_map(super::decode::event).any(|event| event == wanted) {
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(5), told).await.expect("nothing told");
        }
    });
}

#[test]
fn neighbours_of_a_quiet_link_are_not_told_of_and_everything_else_is() {
    in_namespace("neighbours_of_a_quiet_link_are_not_told_of_and_everything_else_is", async || {
        add_port("Ethernet0", "52:54:00:00:00:01");
        add_port("Ethernet4", "52:54:00:00:00:05");
        let links = KernelHandle::new().snapshot().await.unwrap().links;
        let (flooded, other) = (links["Ethernet0"].ifindex, links["Ethernet4"].ifindex);
        let events = NetlinkSocket::subscribe(&[libc::RTNLGRP_NEIGH, libc::RTNLGRP_LINK], 1 << 16).unwrap();
        events.quiet_neighbors([9999, flooded].into_iter()).unwrap();
        require_ip("neigh add fe80::2 lladdr 52:54:00:00:00:02 nud stale dev Ethernet0");
        require_ip("neigh del fe80::2 dev Ethernet0");
        require_ip("neigh add fe80::3 lladdr 52:54:00:00:00:02 nud stale dev Ethernet4");
        require_ip("link set Ethernet0 mtu 1400");
        let mut buffer = Vec::new();
        let (mut neighbor, mut link) = (false, false);
        let told = async {
            while !neighbor || !link {
                events.receive(&mut buffer).await.unwrap();
                for event in messages(&buffer).filter_map(super::decode::event) {
                    match event {
                        Event::Neighbor(raw) | Event::NeighborGone(raw) => {
                            assert_eq!(raw.ifindex, other, "{raw:?}");
                            neighbor = true;
                        }
                        Event::Link(raw) => link |= raw.name == "Ethernet0",
                        _ => {}
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), told).await.expect("nothing told");
        events.quiet_neighbors(std::iter::empty()).unwrap();
        require_ip("neigh add fe80::4 lladdr 52:54:00:00:00:02 nud stale dev Ethernet0");
        tokio::time::timeout(Duration::from_secs(5), events.receive(&mut buffer)).await.unwrap().unwrap();
    });
}

#[test]
fn lost_events_are_noticed() {
    in_namespace("lost_events_are_noticed", async || {
        add_port("Ethernet0", "52:54:00:00:00:01");
        let events = NetlinkSocket::subscribe(&[libc::RTNLGRP_NEIGH], 1).unwrap();
        for n in 1..50 {
            require_ip(&format!("neigh add fe80::{n:x} lladdr 52:54:00:00:00:02 nud stale dev Ethernet0"));
        }
        let mut buffer = Vec::new();
        let lost = async {
            loop {
                match events.receive(&mut buffer).await {
                    Ok(()) => assert!(messages(&buffer).count() > 0),
                    Err(error) => return error,
                }
            }
        };
        let error = tokio::time::timeout(Duration::from_secs(5), lost).await.expect("no overflow reported");
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
    });
}

/// Needs a kernel with VRF devices, which not every build machine has; the lab's has.
#[test]
fn vrf_devices_and_their_deny_routes() {
    in_namespace("vrf_devices_and_their_deny_routes", async || {
        if !ip("link add VrfBoot-p1 type vrf table 1001") {
            println!("this kernel has no VRF devices");
            return;
        }
        require_ip("link add VrfTwo type vrf table 1002");
        require_ip("link set VrfBoot-p1 up");
        add_port("Ethernet0", "52:54:00:00:00:01");
        require_ip("link set p-Ethernet0 up");
        require_ip("link set Ethernet0 master VrfBoot-p1");
        require_ip("link set VrfTwo up");
        require_ip("-6 route add blackhole default table 1002");
        let kernel = KernelHandle::new();
        let before = kernel.snapshot().await.unwrap();
        let vrf = &before.links["VrfBoot-p1"];
        assert!(vrf.is_vrf && vrf.admin_up);
        assert_eq!(vrf.vrf_table, Some(1001));
        let port = &before.links["Ethernet0"];
        assert_eq!(port.master.as_deref(), Some("VrfBoot-p1"));
        assert!(!port.is_vrf && port.vrf_table.is_none());
        let now = kernel.link(port.ifindex).await.unwrap();
        assert_eq!(now, Some(("Ethernet0".to_owned(), Some(vrf.ifindex))));
        assert!(before.unreachable_defaults.is_empty(), "{:?}", before.unreachable_defaults);

        kernel.add_unreachable_default(1001).await.unwrap();
        let denied = kernel.snapshot().await.unwrap().unreachable_defaults;
        assert_eq!(denied.into_iter().collect::<Vec<_>>(), ["VrfBoot-p1"]);
        kernel.remove_unreachable_default(1001).await.unwrap();
        assert!(kernel.snapshot().await.unwrap().unreachable_defaults.is_empty());
        println!("VRF devices verified");
    });
}

/// Wakes come from the whole of [`KernelHandle::follow`], and it ends when cancelled.
#[test]
fn follow_wakes_and_ends() {
    in_namespace("follow_wakes_and_ends", async || {
        let (waker, cancel) = (crate::wake::Waker::default(), tokio_util::sync::CancellationToken::new());
        let links = Arc::new(Mutex::new(Vec::new()));
        let sink = links.clone();
        let routes = Arc::new(Mutex::new(Vec::new()));
        let routes_sink = routes.clone();
        let follow = KernelHandle::new().follow(
            move |event| sink.lock().unwrap().push(event),
            |_: &_| {},
            move |event| routes_sink.lock().unwrap().push(event),
            crate::hub::Hub::default(),
            waker.clone(),
            cancel.clone(),
        );
        let task = tokio::spawn(follow);
        let limit = Duration::from_secs(5);
        tokio::time::timeout(limit, waker.woken()).await.expect("no first wake");
        while tokio::time::timeout(Duration::from_millis(200), waker.woken()).await.is_ok() {}
        add_port("Ethernet0", "52:54:00:00:00:01");
        tokio::time::timeout(limit, waker.woken()).await.expect("no wake for a link");
        let ifindex = nix::net::if_::if_nametoindex("Ethernet0").unwrap();
        let now = KernelHandle::new().link(ifindex).await.unwrap();
        assert_eq!(now, Some(("Ethernet0".to_owned(), None)));
        assert_eq!(KernelHandle::new().link(9999).await.unwrap(), None);
        require_ip("link set lo up");
        while tokio::time::timeout(Duration::from_millis(200), waker.woken()).await.is_ok() {}
        KernelHandle::new().add_unreachable_default(1001).await.unwrap();
        tokio::time::timeout(limit, waker.woken()).await.expect("no wake for a deny route");
        assert!(links.lock().unwrap().iter().any(|event: &LinkEvent| event.name == "Ethernet0"));
        let deny = RouteEvent { table: 1001, destination: "::/0".parse().unwrap() };
        assert_eq!(*routes.lock().unwrap(), [Some(deny)], "the kernel's own routes are not told");
        cancel.cancel();
        tokio::time::timeout(limit, task).await.expect("follow did not end").unwrap();
    });
}

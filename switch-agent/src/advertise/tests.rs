//! Against the running kernel: real sockets on veth pairs, in a network namespace.

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use switch_agent_core::name::MacAddr;
use switch_agent_core::ndp::{FrameAddresses, write_frame};
use switch_agent_core::ra::RaConfig;
use tokio::time::timeout;

use super::*;
use crate::backend::namespace::{self, ip_output, require_ip};
use crate::backend::nftables::{self, tests::supported};
use crate::backend::packet::{Batch, Outbox};

const PATIENCE: Duration = Duration::from_secs(5);

/// One at a time: the kernel's neighbour table is one for all namespaces.
static ALONE: Mutex<()> = Mutex::new(());

fn in_namespace<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    namespace::in_namespace(module_path!(), name, body);
}

/// Ports `Ethernet0`, `Ethernet1`, ... of a router, each with a machine's end `m0`, `m1`, ... behind it.
struct Rig {
    handle: AdvertiseHandle,
    metrics: Metrics,
    hub: Hub,
    cancel: CancellationToken,
    /// The machines' network cards.
    cards: PacketSocket,
    batch: Batch,
    outbox: Outbox,
}

fn port(number: u32) -> PortName {
    format!("Ethernet{number}").parse().unwrap()
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

fn machine_mac(number: u32) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 1, u8::try_from(number).unwrap()])
}

fn port_mac(number: u32) -> MacAddr {
    MacAddr([0x22, 0, 0, 0, 1, u8::try_from(number).unwrap()])
}

fn spec(number: u32) -> AdvertiserSpec {
    AdvertiserSpec {
        port: port(number),
        ifindex: index(&format!("Ethernet{number}")),
        mac: port_mac(number),
        link_local: port_mac(number).eui64_link_local(),
        forwarding: true,
        config: RaConfig { min_rtr_adv_interval: Duration::from_secs(3), ..RaConfig::default() },
        dhcp6: None,
    }
}

impl Rig {
    async fn new(choice: SocketChoice, ports: u32) -> Rig {
        std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        for number in 0..ports {
            let (mac, machine) = (port_mac(number), machine_mac(number));
            require_ip(&format!(
                "link add Ethernet{number} address {mac} type veth peer name m{number} address {machine}"
            ));
            require_ip(&format!("link set Ethernet{number} up"));
            require_ip(&format!("link set m{number} up"));
        }
        let metrics = Metrics::default();
        let hub = Hub::new(metrics.clone(), Default::default());
        let cancel = CancellationToken::new();
        let (handle, running) =
            start(choice, hub.clone(), metrics.clone(), Waker::default(), cancel.clone()).unwrap();
        tokio::spawn(running);
        let cards = PacketSocket::open(SocketChoice::Packet).unwrap();
        // It would hear the ports as well.
        let ends: Vec<u32> = (0..ports).map(|number| index(&format!("Ethernet{number}"))).collect();
        cards.set_muted(&ends).unwrap();
        let mut rig = Rig {
            handle,
            metrics,
            hub,
            cancel,
            cards,
            batch: Batch::default(),
            outbox: Outbox::with_buffers(),
        };
        // The kernel gives each port its link-local address a moment after carrier.
        let deadline = Instant::now() + PATIENCE;
        let ready = |number| ip_output(&format!("-6 addr show dev Ethernet{number}")).contains("fe80::");
        while !(0..ports).all(ready) {
            assert!(Instant::now() < deadline, "no link-local address");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for number in 0..ports {
            rig.handle.set([spec(number)]);
        }
        for number in 0..ports {
            rig.advertisement(number).await;
        }
        rig
    }

    fn queue(&mut self, number: u32, mac: MacAddr, from: Option<Ipv6Addr>) {
        let addresses = FrameAddresses {
            source_mac: mac,
            destination_mac: MacAddr([0x33, 0x33, 0, 0, 0, 2]),
            source: from.unwrap_or(Ipv6Addr::UNSPECIFIED),
            destination: "ff02::2".parse().unwrap(),
        };
        let mut message = vec![133, 0, 0, 0, 0, 0, 0, 0];
        if from.is_some() {
            message.extend_from_slice(&[1, 1]);
            message.extend_from_slice(&mac.0);
        }
        let ifindex = index(&format!("m{number}"));
        self.outbox.push(ifindex, |frame| write_frame(frame, &addresses, &message));
    }

    fn solicit(&mut self, number: u32, mac: MacAddr, from: Option<Ipv6Addr>) -> Instant {
        self.outbox.clear();
        self.queue(number, mac, from);
        let sent = Instant::now();
        self.cards.send(&mut self.outbox);
        assert_eq!(self.outbox.error(0..1), None);
        sent
    }

    /// Waits for an advertisement that the machine's card takes: where its frame and its packet are sent to.
    async fn advertisement(&mut self, number: u32) -> (MacAddr, Ipv6Addr) {
        let ifindex = index(&format!("m{number}"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.cards.receive(&mut self.batch).unwrap();
            if self.batch.frames().next().is_none() {
                assert!(Instant::now() < deadline, "no advertisement\n{}", self.metrics.encode());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            for received in self.batch.frames().filter(|received| received.ifindex == ifindex) {
                if received.frame.get(54) == Some(&134) {
                    assert_eq!(received.frame[21], 255);
                    let destination: [u8; 16] = received.frame[38..54].try_into().unwrap();
                    return (MacAddr(*received.frame.first_chunk().unwrap()), destination.into());
                }
            }
        }
    }

    /// Solicitations that a port has taken.
    fn solicited(&self, number: u32) -> u64 {
        let counted = self.metrics.advertise.read(&port(number));
        counted.map_or(0, |counted| counted.solicited.values().sum())
    }

    async fn metric(&self, line: &str) {
        let shown = async {
            while !self.metrics.encode().contains(line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(PATIENCE, shown).await.is_err() {
            panic!("no {line}\n{}", self.metrics.encode());
        }
    }
}

/// The report of a machine that joins its solicited-node group, as Linux sends it from `::`.
#[rustfmt::skip]
const MLD_REPORT: [u8; 90] = [
    0x33, 0x33, 0x00, 0x00, 0x00, 0x16, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0x86, 0xdd,
    0x60, 0x00, 0x00, 0x00, 0x00, 0x24, 0x00, 0x01,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16,
    0x3a, 0x00, 0x05, 0x02, 0x00, 0x00, 0x01, 0x00,
    0x8f, 0x00, 0x3b, 0x22, 0, 0, 0, 1,
    0x04, 0, 0, 0, 0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56,
];

#[test]
fn a_machine_that_reports_its_groups_is_greeted() {
    in_namespace("a_machine_that_reports_its_groups_is_greeted", || async {
        let mut rig = Rig::new(SocketChoice::Packet, 1).await;
        let ifindex = index("m0");
        // The kernel behind this card says nothing by itself.
        std::fs::write("/proc/sys/net/ipv6/conf/m0/disable_ipv6", "1").unwrap();
        require_ip("link set m0 address 52:54:00:12:34:56");
        // A report just after an advertisement to all is not answered: another one then.
        let greeted = async {
            loop {
                rig.outbox.clear();
                rig.outbox.push(ifindex, |frame| {
                    frame.clear();
                    frame.extend_from_slice(&MLD_REPORT);
                });
                rig.cards.send(&mut rig.outbox);
                let next = timeout(Duration::from_millis(120), rig.advertisement(0)).await;
                if next == Ok((MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]), "ff02::1".parse().unwrap())) {
                    break;
                }
            }
        };
        timeout(PATIENCE, greeted).await.expect("a greeting");
        rig.metric(r#"switch_agent_ra_sent_total{port="Ethernet0",type="triggered"}"#).await;
    });
}

fn neighbors() -> usize {
    ip_output("-6 neigh show nud all dev Ethernet0").lines().filter(|line| line.contains("lladdr")).count()
}

/// The spoofed source of a flood.
fn spoofed(number: u32) -> (MacAddr, Ipv6Addr) {
    let [_, b, c, d] = number.to_be_bytes();
    let mac = MacAddr([2, 0xbb, 0, b, c, d]);
    (mac, mac.eui64_link_local())
}

#[test]
fn spoofed_solicitations_leave_no_neighbours_and_are_answered() {
    in_namespace("spoofed_solicitations_leave_no_neighbours_and_are_answered", || async {
        if !supported().await {
            return;
        }
        let mut rig = Rig::new(SocketChoice::Packet, 2).await;
        rig.metric(r#"switch_agent_nd_socket_info{socket="packet",drop_rule="active"} 1"#).await;
        let before = neighbors();
        for number in 0..100 {
            let (mac, source) = spoofed(number);
            rig.solicit(0, mac, Some(source));
        }
        // Machines are answered, and firmware into its own frame.
        rig.metric(r#"switch_agent_ra_sent_total{port="Ethernet0",type="unicast"}"#).await;
        rig.solicit(1, machine_mac(1), None);
        while rig.advertisement(1).await.1 != "ff02::1".parse::<Ipv6Addr>().unwrap() {}
        rig.metric(r#"switch_agent_rs_received_total{port="Ethernet0",source="link_local"} 100"#).await;
        assert_eq!(neighbors(), before, "{}", ip_output("-6 neigh show nud all dev Ethernet0"));

        // Somebody flushes, as firewalls do: the rule comes back.
        assert!(std::process::Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        let restored = async {
            while nftables::read().await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, restored).await.expect("the rule was not restored");

        // A stop leaves it; the last port that leaves takes it along.
        rig.handle.cease(port(1), Cease::Silent);
        let shrunk = async {
            while nftables::read().await.unwrap().is_none_or(|ports| ports.len() != 1) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, shrunk).await.expect("Ethernet1 is still covered");
        rig.cancel.cancel();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(nftables::read().await.unwrap().is_some());
    });
}

#[test]
fn without_the_rule_the_kernel_makes_neighbours() {
    in_namespace("without_the_rule_the_kernel_makes_neighbours", || async {
        let mut rig = Rig::new(SocketChoice::Raw, 1).await;
        let before = neighbors();
        for number in 0..50 {
            let (mac, source) = spoofed(number);
            rig.solicit(0, mac, Some(source));
        }
        rig.metric(r#"switch_agent_rs_received_total{port="Ethernet0",source="link_local"} 50"#).await;
        assert!(neighbors() > before, "the other tests prove nothing");
    });
}

#[test]
fn the_raw_socket_answers_too() {
    in_namespace("the_raw_socket_answers_too", || async {
        let mut rig = Rig::new(SocketChoice::Raw, 2).await;
        rig.metric(r#"switch_agent_nd_socket_info{socket="raw",drop_rule="unavailable"} 1"#).await;
        let mac = machine_mac(1);
        rig.solicit(1, mac, Some(mac.eui64_link_local()));
        while rig.advertisement(1).await != (mac, mac.eui64_link_local()) {}
        let known = async {
            while rig.hub.lookup(mac) != Some(port(1)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, known).await.expect("the machine is not known");
        rig.solicit(0, machine_mac(0), None);
        assert_eq!(rig.advertisement(0).await.0, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
        assert_eq!(rig.hub.lookup(machine_mac(0)), None, "the frame's source is not known");
        rig.metric(r#"switch_agent_rs_received_total{port="Ethernet0",source="unspecified"} 1"#).await;
    });
}

/// A flood as fast as this thread can send, from 4095 sources, while another port solicits.
async fn flood(choice: SocketChoice) {
    let rule = choice == SocketChoice::Packet && supported().await;
    let mut rig = Rig::new(choice, 2).await;
    if rule {
        rig.metric(r#"switch_agent_nd_socket_info{socket="packet",drop_rule="active"} 1"#).await;
    }
    let flooding = Arc::new(AtomicBool::new(true));
    let sent = Arc::new(AtomicU32::new(0));
    let flooder = {
        let (flooding, total) = (flooding.clone(), sent.clone());
        std::thread::spawn(move || {
            let cards = PacketSocket::open(SocketChoice::Packet).unwrap();
            let (mut outbox, mut sent) = (Outbox::with_buffers(), 0u32);
            let ifindex = index("m0");
            // The kernel makes a neighbour of each that it hears, in a table of all namespaces.
            let sources = if choice == SocketChoice::Raw { 300 } else { 4095 };
            while flooding.load(Ordering::Relaxed) {
                outbox.clear();
                while !outbox.is_full() {
                    let (mac, source) = spoofed(sent % sources);
                    let addresses = FrameAddresses {
                        source_mac: mac,
                        destination_mac: MacAddr([0x33, 0x33, 0, 0, 0, 2]),
                        source,
                        destination: "ff02::2".parse().unwrap(),
                    };
                    let mut message = vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1];
                    message.extend_from_slice(&mac.0);
                    outbox.push(ifindex, |frame| write_frame(frame, &addresses, &message));
                    sent += 1;
                }
                cards.send(&mut outbox);
                total.store(sent, Ordering::Relaxed);
            }
        })
    };
    rig.metric(r#"switch_agent_ndp_mutes_total{port="Ethernet0"} 2"#).await;
    let mut worst = Duration::ZERO;
    let source = machine_mac(1).eui64_link_local();
    let mut lost = 0;
    for _ in 0..10 {
        // On a busy host the socket may be full at the moment between a mute's end and the next.
        loop {
            let before = rig.solicited(1);
            let sent = rig.solicit(1, machine_mac(1), Some(source));
            let answered = async {
                if choice == SocketChoice::Raw {
                    // What becomes of the answer is a matter of the kernel's neighbour table.
                    while rig.solicited(1) == before {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                } else {
                    while rig.advertisement(1).await.1 != source {}
                }
            };
            if timeout(Duration::from_millis(500), answered).await.is_ok() {
                worst = worst.max(sent.elapsed());
                break;
            }
            lost += 1;
            assert!(lost < 5, "{}", rig.metrics.encode());
        }
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
    // Each end of a mute lets in what the socket holds, however slowly a busy host floods: what counts is
    // what becomes of many frames.
    let many = Instant::now() + PATIENCE * 4;
    while sent.load(Ordering::Relaxed) < 30_000 && Instant::now() < many {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    flooding.store(false, Ordering::Relaxed);
    flooder.join().unwrap();
    let frames = sent.load(Ordering::Relaxed);
    let taken = rig.metrics.advertise.read(&port(0)).unwrap();
    println!(
        "{frames} frames; taken {:?}, dropped {:?}; worst answer {worst:?}",
        taken.solicited, taken.dropped
    );
    let handled: u64 = taken.solicited.values().chain(taken.dropped.values()).sum();
    assert!(frames > 2000 && handled < u64::from(frames) / 4, "{handled} of {frames} reached the process");
}

#[test]
fn a_flood_on_one_port_is_cut_off_in_the_kernel() {
    in_namespace("a_flood_on_one_port_is_cut_off_in_the_kernel", || flood(SocketChoice::Packet));
}

#[test]
fn a_flood_on_one_port_is_cut_off_in_the_kernel_raw() {
    in_namespace("a_flood_on_one_port_is_cut_off_in_the_kernel_raw", || flood(SocketChoice::Raw));
}

use std::cell::{Cell, RefCell};
use std::io;

use switch_agent_core::name::MacAddr;
use switch_agent_core::ndp::{ALL_NODES_MAC, ChecksumOffload, FrameAddresses};
use switch_agent_core::ra::{Cease, RaConfig};

use super::*;
use crate::advertise::inbox::Inbox;

mod dhcp6;

const MACHINE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const PORT_MAC: MacAddr = MacAddr([0x22, 0, 0, 0, 0, 9]);

/// Keeps what leaves; ports in `broken` fail with ENETDOWN.
#[derive(Default)]
struct FakeWire {
    sent: RefCell<Vec<(u32, Vec<u8>)>>,
    broken: RefCell<Vec<u32>>,
    muted: RefCell<Vec<u32>>,
    joined: RefCell<Vec<(u32, MacAddr, bool)>>,
    raw: Cell<bool>,
}

impl Wire for FakeWire {
    fn send(&self, outbox: &mut Outbox) {
        for frame in outbox.frames_mut() {
            if self.broken.borrow().contains(&frame.ifindex()) {
                frame.fail(&io::Error::from_raw_os_error(Errno::ENETDOWN as i32));
            } else {
                self.sent.borrow_mut().push((frame.ifindex(), frame.bytes().to_vec()));
            }
        }
    }

    fn set_muted(&self, ifindexes: &[u32]) -> io::Result<()> {
        *self.muted.borrow_mut() = ifindexes.to_vec();
        Ok(())
    }

    fn join(&self, ifindex: u32, group: MacAddr, member: bool) -> io::Result<()> {
        self.joined.borrow_mut().push((ifindex, group, member));
        Ok(())
    }

    fn carries_datagrams(&self) -> bool {
        !self.raw.get()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn port(number: u32) -> PortName {
    format!("Ethernet{number}").parse().unwrap()
}

fn spec(number: u32, ifindex: u32) -> AdvertiserSpec {
    AdvertiserSpec {
        port: port(number),
        ifindex,
        mac: PORT_MAC,
        link_local: PORT_MAC.eui64_link_local(),
        forwarding: true,
        config: RaConfig::default(),
        dhcp6: None,
    }
}

struct Bench {
    driver: Driver<FakeWire>,
    inbox: Inbox,
    snapshot: Snapshot,
    metrics: Metrics,
    waker: Waker,
}

impl Bench {
    fn new() -> Self {
        let (snapshot, metrics, waker) = (Snapshot::default(), Metrics::default(), Waker::default());
        let outputs = Outputs {
            hub: Hub::default(),
            metrics: metrics.clone(),
            waker: waker.clone(),
            snapshot: snapshot.clone(),
            ports: watch::Sender::default(),
        };
        let driver = Driver::new(FakeWire::default(), outputs, 1);
        Bench { driver, inbox: Inbox::new().unwrap(), snapshot, metrics, waker }
    }

    fn set(&mut self, now: Duration, spec: AdvertiserSpec) {
        self.inbox.command(spec.port.clone(), Command::Set(spec.into()));
        self.at(now);
    }

    fn link(&mut self, now: Duration, ifindex: u32, carrier: bool, gone: bool) {
        let name = "Ethernet4".to_owned();
        self.inbox.link(switch_agent_core::ra::LinkEvent {
            ifindex,
            name,
            carrier,
            master: None,
            link_local: None,
            gone,
        });
        self.at(now);
    }

    fn at(&mut self, now: Duration) {
        self.driver.inbox(now, self.inbox.take());
        self.driver.flush(|| now);
    }

    fn solicit(&mut self, now: Duration, ifindex: u32, mac: MacAddr) {
        let mut frame = vec![];
        let addresses = FrameAddresses {
            source_mac: mac,
            destination_mac: MacAddr([0x33, 0x33, 0, 0, 0, 2]),
            source: mac.eui64_link_local(),
            destination: "ff02::2".parse().unwrap(),
        };
        write_frame(&mut frame, &addresses, &[133, 0, 0, 0, 0, 0, 0, 0]);
        let offload = ChecksumOffload::Complete;
        self.driver.frame(now, &Received { ifindex, frame: &frame, offload, age: ms(1) });
        self.driver.flush(|| now);
    }

    /// Takes what left: ifindex and Ethernet destination.
    fn sent(&mut self) -> Vec<(u32, [u8; 6])> {
        let frames = self.driver.wire.sent.take();
        frames.iter().map(|(ifindex, frame)| (*ifindex, *frame.first_chunk().unwrap())).collect()
    }

    fn observed(&self, number: u32) -> Option<AdvertiserState> {
        self.snapshot.lock().unwrap().get(&port(number)).cloned()
    }
}

#[test]
fn answers_on_the_port_that_was_asked_and_on_no_other() {
    let mut bench = Bench::new();
    bench.set(ms(0), spec(4, 7));
    bench.set(ms(0), spec(8, 9));
    assert_eq!(bench.sent(), [(7, ALL_NODES_MAC.0), (9, ALL_NODES_MAC.0)]);
    bench.solicit(ms(50), 9, MACHINE);
    bench.solicit(ms(50), 11, MACHINE);
    bench.solicit(ms(50), 7, PORT_MAC);
    assert_eq!(bench.sent(), [(9, MACHINE.0)]);

    let text = bench.metrics.encode();
    for line in [
        r#"switch_agent_ra_sent_total{port="Ethernet8",type="unicast"} 1"#,
        r#"switch_agent_rs_received_total{port="Ethernet8",source="link_local"} 1"#,
        r#"switch_agent_ndp_dropped_total{port="Ethernet4",reason="own_address"} 1"#,
        "switch_agent_ra_answer_seconds_count 1",
        r#"switch_agent_ra_last_multicast_timestamp_seconds{port="Ethernet4"}"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn a_broken_port_is_its_own_trouble() {
    let mut bench = Bench::new();
    bench.driver.wire.broken.borrow_mut().push(7);
    bench.set(ms(0), spec(4, 7));
    bench.set(ms(0), spec(8, 9));
    assert_eq!(bench.sent(), [(9, ALL_NODES_MAC.0)]);
    let failed = r#"switch_agent_ra_send_errors_total{port="Ethernet4",errno="ENETDOWN"} 1"#;
    assert!(bench.metrics.encode().contains(failed));
    bench.driver.wire.broken.borrow_mut().clear();
    bench.at(ms(99));
    assert!(bench.sent().is_empty());
    bench.at(ms(100));
    assert_eq!(bench.sent(), [(7, ALL_NODES_MAC.0), (9, ALL_NODES_MAC.0)]);
}

#[test]
fn a_link_event_is_answered_at_once_and_a_dead_link_is_left_alone() {
    let mut bench = Bench::new();
    bench.link(ms(0), 7, false, false);
    bench.set(ms(10), spec(4, 7));
    assert!(bench.sent().is_empty(), "carrier was told before the port was set");
    bench.link(ms(500), 7, true, false);
    assert_eq!(bench.sent(), [(7, ALL_NODES_MAC.0)]);
    bench.link(ms(700), 7, false, true);
    bench.at(ms(60_000));
    assert!(bench.sent().is_empty());

    // The device came back under another index, as after a restart of swss.
    bench.set(ms(60_000), spec(4, 12));
    assert_eq!(bench.sent(), [(12, ALL_NODES_MAC.0)]);
    bench.solicit(ms(60_050), 12, MACHINE);
    bench.solicit(ms(60_051), 7, MACHINE);
    assert_eq!(bench.sent(), [(12, MACHINE.0)]);
}

#[test]
fn a_port_is_ceasing_until_its_final_advertisements_are_out() {
    let mut bench = Bench::new();
    bench.set(ms(0), spec(4, 7));
    assert_eq!(bench.observed(4), Some(AdvertiserState::Running(spec(4, 7).into())));
    bench.at(ms(1600));
    bench.waker.take();
    bench.sent();

    bench.inbox.command(port(4), Command::Cease(Cease::Final));
    bench.at(ms(2000));
    assert_eq!(bench.observed(4), Some(AdvertiserState::Ceasing));
    bench.at(ms(2100));
    assert!(bench.waker.take().is_empty());
    bench.at(ms(2200));
    assert_eq!(bench.sent().len(), 3);
    assert_eq!(bench.observed(4), None);
    assert!(bench.waker.take().contains(&Reason::Service));
    assert_eq!(bench.driver.deadline(), None);
    assert!(!bench.metrics.encode().contains("ra_last_multicast_timestamp_seconds{"));

    bench.set(ms(3000), spec(4, 7));
    bench.sent();
    bench.inbox.command(port(4), Command::Cease(Cease::Silent));
    bench.at(ms(3001));
    assert_eq!((bench.sent().len(), bench.observed(4)), (0, None));
}

/// A port that moves into another VRF flaps just then: nobody is left to hear the rest.
#[test]
fn a_port_that_loses_its_carrier_while_ceasing_has_ceased() {
    for gone in [false, true] {
        let mut bench = Bench::new();
        bench.set(ms(0), spec(4, 7));
        bench.at(ms(1600));
        bench.inbox.command(port(4), Command::Cease(Cease::Final));
        bench.at(ms(2000));
        assert_eq!(bench.observed(4), Some(AdvertiserState::Ceasing));
        bench.waker.take();

        bench.link(ms(2010), 7, false, gone);
        assert_eq!(bench.observed(4), None);
        assert!(bench.waker.take().contains(&Reason::Service));
        bench.link(ms(2020), 7, true, false);
        assert_eq!((bench.observed(4), bench.driver.deadline()), (None, None));
    }
}

#[test]
fn a_foreign_router_is_counted_and_not_believed() {
    let mut bench = Bench::new();
    bench.set(ms(0), spec(4, 7));
    bench.sent();
    let mut frame = vec![];
    let addresses = FrameAddresses {
        source_mac: MACHINE,
        destination_mac: ALL_NODES_MAC,
        source: MACHINE.eui64_link_local(),
        destination: "ff02::1".parse().unwrap(),
    };
    // Another Cur Hop Limit and M.
    let advert = [134, 0, 0, 0, 32, 0x80, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    write_frame(&mut frame, &addresses, &advert);
    let received =
        Received { ifindex: 7, frame: &frame, offload: ChecksumOffload::Complete, age: Duration::ZERO };
    bench.driver.frame(ms(10), &received);
    bench.driver.flush(|| ms(10));
    assert!(bench.sent().is_empty());
    let metrics = bench.metrics.encode();
    assert!(metrics.contains(r#"switch_agent_foreign_ra_total{port="Ethernet4"} 1"#));
    for field in ["adv_cur_hop_limit", "adv_managed_flag"] {
        let counter = format!(r#"foreign_ra_inconsistent_total{{port="Ethernet4",field="{field}"}} 1"#);
        assert!(metrics.contains(&counter), "{metrics}");
    }
}

#[test]
fn a_flooded_port_is_muted_and_others_are_answered() {
    let mut bench = Bench::new();
    bench.set(ms(0), spec(4, 7));
    bench.set(ms(0), spec(8, 9));
    for source in 0..1000u32 {
        let [a, b, c, d] = source.to_be_bytes();
        bench.solicit(ms(10), 7, MacAddr([2, 1, a, b, c, d]));
    }
    bench.sent();
    assert_eq!(*bench.driver.wire.muted.borrow(), [7]);
    bench.solicit(ms(11), 9, MACHINE);
    assert_eq!(bench.sent(), [(9, MACHINE.0)]);
    let text = bench.metrics.encode();
    for line in [
        r#"switch_agent_ndp_mutes_total{port="Ethernet4"} 1"#,
        r#"switch_agent_ndp_dropped_total{port="Ethernet4",reason="over_budget"} 872"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }

    bench.at(ms(499));
    assert_eq!(*bench.driver.wire.muted.borrow(), [7]);
    let sent = bench.sent();
    assert!(sent.contains(&(7, ALL_NODES_MAC.0)), "its machine still has a router: {sent:?}");
    bench.at(ms(500));
    assert!(bench.driver.wire.muted.borrow().is_empty());
    (6..60).for_each(|tenth| bench.at(ms(tenth * 100)));
    bench.sent();
    bench.solicit(ms(6000), 7, MACHINE);
    assert_eq!(bench.sent(), [(7, MACHINE.0)]);
}

#[test]
fn hundreds_of_ports_leave_by_a_few_calls_each_port_once() {
    let mut bench = Bench::new();
    for number in 0..300 {
        bench.inbox.command(port(number), Command::Set(spec(number, number + 1).into()));
    }
    bench.at(ms(0));
    let mut sent = bench.sent();
    sent.sort_unstable();
    assert_eq!(sent, (1..=300).map(|ifindex| (ifindex, ALL_NODES_MAC.0)).collect::<Vec<_>>());
    assert_eq!(bench.driver.deadline(), Some(ms(100)));
    for number in 0..300 {
        bench.inbox.command(port(number), Command::Cease(Cease::Silent));
    }
    bench.at(ms(50));
    assert_eq!(bench.driver.deadline(), None);
    bench.set(ms(60), spec(4, 7));
    assert_eq!(bench.driver.entries.len(), 300, "slots are used again");
}

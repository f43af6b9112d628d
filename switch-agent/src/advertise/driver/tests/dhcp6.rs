//! DHCPv6 beside the advertisements.

use switch_agent_core::dhcp6::{
    ALL_DHCP_SERVERS, ALL_DHCP_SERVERS_MAC, Dhcp6Config, Dhcp6Options, write_frame,
};

use super::*;

/// A spec with the role `dhcp6`.
fn dhcp6_spec(number: u32, ifindex: u32) -> AdvertiserSpec {
    let mut spec = spec(number, ifindex);
    spec.config.adv_managed_flag = true;
    spec.config.adv_other_config_flag = true;
    spec.dhcp6 = Some(Dhcp6Config {
        server_mac: PORT_MAC,
        prefix: "2001:db8:0:2::/64".parse().unwrap(),
        router: "2001:db8:0:2::1".parse().unwrap(),
        proxy_port: None,
        options: Arc::new(Dhcp6Options {
            valid_s: 3600,
            preferred_s: 1800,
            dns_servers: vec![],
            domain_search: vec![],
            ntp_servers: vec![],
            boot_urls: vec![],
            boot_params: vec![],
        }),
    });
    spec
}

/// A frame with a DHCPv6 message of the machine; the server's codec wrote it, so the ports change places.
fn dhcp6_frame(message: &[u8]) -> Vec<u8> {
    let addresses = FrameAddresses {
        source_mac: MACHINE,
        destination_mac: ALL_DHCP_SERVERS_MAC,
        source: MACHINE.eui64_link_local(),
        destination: ALL_DHCP_SERVERS,
    };
    let mut frame = vec![];
    write_frame(&mut frame, &addresses, message);
    frame[54..58].copy_from_slice(&[0x02, 0x22, 0x02, 0x23]);
    frame
}

impl Bench {
    fn dhcp6(&mut self, now: Duration, ifindex: u32, message: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let frame = dhcp6_frame(message);
        let received = Received { ifindex, frame: &frame, offload: ChecksumOffload::Complete, age: ms(1) };
        self.driver.frame(now, &received);
        self.driver.flush(|| now);
        std::mem::take(&mut *self.driver.wire.sent.borrow_mut())
    }
}

const SOLICIT: [u8; 11] = [1, 0, 0, 9, 0, 1, 0, 3, 0, 4, 1];

#[test]
fn a_dhcpv6_solicit_gets_an_offer_and_an_advertisement() {
    let mut bench = Bench::new();
    bench.set(ms(0), dhcp6_spec(4, 7));
    bench.set(ms(0), spec(8, 9));
    assert_eq!(*bench.driver.wire.joined.borrow(), [(7, ALL_DHCP_SERVERS_MAC, true)]);
    bench.at(ms(200));
    bench.sent();
    let sent = bench.dhcp6(ms(300), 7, &SOLICIT);
    let kinds: Vec<(u32, u8, u8)> = sent.iter().map(|(port, frame)| (*port, frame[20], frame[62])).collect();
    assert_eq!((kinds[0], sent.len()), ((7, 17, 2), 2), "Advertise, and");
    assert_eq!((sent[1].1[20], sent[1].1[54]), (58, 134), "a Router Advertisement");
    assert_eq!(sent[1].1[..6], MACHINE.0);
    let silent = bench.dhcp6(ms(600), 9, &SOLICIT);
    assert!(silent.iter().all(|(_, frame)| frame[20] != 17), "the role is off");
    bench.dhcp6(ms(900), 7, &[12, 0, 0, 0]);
    let text = bench.metrics.encode();
    for line in [
        r#"switch_agent_dhcp6_received_total{port="Ethernet4",type="solicit"} 1"#,
        r#"switch_agent_dhcp6_sent_total{port="Ethernet4",type="advertise"} 1"#,
        r#"switch_agent_dhcp6_refused_total{port="Ethernet4",reason="relay"} 1"#,
        r#"switch_agent_dhcp6_clients_total{client="none"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn dhcpv6_goes_with_the_role_and_with_the_port() {
    let mut bench = Bench::new();
    bench.set(ms(0), dhcp6_spec(4, 7));
    bench.set(ms(100), dhcp6_spec(4, 8));
    bench.set(ms(200), spec(4, 8));
    let at = |ifindex, member| (ifindex, ALL_DHCP_SERVERS_MAC, member);
    assert_eq!(*bench.driver.wire.joined.borrow(), [at(7, true), at(7, false), at(8, true), at(8, false)]);
    bench.sent();
    let silent = bench.dhcp6(ms(300), 8, &SOLICIT);
    assert!(silent.iter().all(|(_, frame)| frame[20] != 17), "the role is off");
    bench.set(ms(400), dhcp6_spec(4, 8));
    bench.inbox.command(port(4), Command::Cease(Cease::Silent));
    bench.at(ms(500));
    assert_eq!(bench.driver.wire.joined.borrow()[4..], [at(8, true), at(8, false)]);
}

#[test]
fn without_a_packet_socket_nothing_is_promised() {
    let mut bench = Bench::new();
    bench.driver.wire.raw.set(true);
    let wanted = dhcp6_spec(4, 7);
    bench.set(ms(0), wanted.clone());
    let frames = std::mem::take(&mut *bench.driver.wire.sent.borrow_mut());
    assert_eq!(frames[0].1[54 + 5] & 0xc0, 0, "M and O are clear");
    let observed = bench.snapshot.lock().unwrap()[&port(4)].clone();
    assert_eq!(observed, AdvertiserState::Running(wanted.into()), "there is nothing to change");
    assert!(bench.driver.wire.joined.borrow().is_empty());
}

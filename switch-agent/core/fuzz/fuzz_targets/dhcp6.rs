//! DHCPv6: frames and messages of machines, parsed and answered.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use switch_agent_core::dhcp6::{
    ALL_DHCP_SERVERS, ANSWER_LEN_MAX, Answer, BootUrl, Datagram, Dhcp6Config, Dhcp6Options, Message,
    PortFacts, Server, parse_frame, respond, write_frame,
};
use switch_agent_core::name::MacAddr;
use switch_agent_core::ndp::ChecksumOffload;

const MACHINE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const PORT: MacAddr = MacAddr([0x22, 0, 0, 0, 0, 9]);

fn boot_url(client: &str, url: &str) -> BootUrl {
    BootUrl { client: client.parse().unwrap(), url: url.to_owned() }
}

static CONFIG: LazyLock<Dhcp6Config> = LazyLock::new(|| Dhcp6Config {
    server_mac: MacAddr([0x52, 0x54, 0, 0x0f, 0, 1]),
    prefix: "2001:db8:0:2::/64".parse().unwrap(),
    router: "2001:db8:0:2::1".parse().unwrap(),
    proxy_port: Some(18090),
    options: Arc::new(Dhcp6Options {
        valid_s: 3600,
        preferred_s: 1800,
        dns_servers: vec!["2001:db8::53".parse().unwrap()],
        domain_search: vec!["boot.example".to_owned()],
        ntp_servers: vec!["2001:db8::123".to_owned(), "ntp.example".to_owned()],
        boot_urls: vec![
            boot_url("x64-uefi-http", "http://[{router}]:{proxy_port}/x64.efi"),
            boot_url("default", "tftp://[2001:db8::1]/default"),
        ],
        boot_params: vec!["quiet".to_owned()],
    }),
});

fn check(answer: &Answer, source: std::net::Ipv6Addr, frame: &mut Vec<u8>) {
    assert!(answer.message.len() <= ANSWER_LEN_MAX);
    assert_eq!(answer.addresses.destination, source);
    assert!(source.is_unicast_link_local(), "answers stay on the link");
    assert!(answer.address.is_none_or(|address| CONFIG.prefix.contains(&address)));
    write_frame(frame, &answer.addresses, &answer.message);
    assert_eq!(frame.len(), 62 + answer.message.len());
}

fuzz_target!(|data: &[u8]| {
    let port = PortFacts { mac: PORT, link_local: PORT.eui64_link_local() };
    let mut written = Vec::new();
    // A message, and the whole input as a frame.
    let source = MACHINE.eui64_link_local();
    let datagram = Datagram { mac: MACHINE, source, destination: ALL_DHCP_SERVERS, payload: data };
    if let Ok(message) = Message::parse(data) {
        assert!(message.ias().count() <= 8);
        if let Ok(answer) = respond(&CONFIG, port, &datagram, &message) {
            assert_eq!(answer.message[1..4], data[1..4], "the transaction id is the client's");
            check(&answer, source, &mut written);
        }
    }
    parse_frame(data, ChecksumOffload::Complete).ok();
    let mut server = Server::new(CONFIG.clone());
    let handled = server.handle(Duration::ZERO, port, data, ChecksumOffload::NotReady);
    if let Ok(answer) = handled.outcome {
        let source = parse_frame(data, ChecksumOffload::NotReady).unwrap().source;
        check(&answer, source, &mut written);
    }
});

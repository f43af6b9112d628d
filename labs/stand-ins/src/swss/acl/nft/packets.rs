//! Rulesets against the running kernel, with packets: what a port lets in is what its IP stack counts.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};
use serde_json::Value;
use switch_agent_core::row::{ConfigDb, Fields, fields};

use super::super::rules::translate;
use super::*;

/// Set in the process that runs inside a network namespace of its own.
const INSIDE: &str = "STAND_INS_TEST_NAMESPACE";
const PORT: &str = "Ethernet0";
const FAR: &str = "far";
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x0f, 0, 1];
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the test of this module once more, below `unshare`. Works as root, and without where user namespaces
/// are allowed.
fn in_namespace(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut unshare = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let path = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let arguments = ["--exact", &path, "--nocapture"];
    let program = std::env::current_exe().unwrap();
    let output = unshare.arg("--net").arg(program).args(arguments).env(INSIDE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{path} did not run: {text}");
}

fn nft(arguments: &[&str], text: &str) -> Result<(), String> {
    let mut nft = Command::new("nft")
        .args(arguments)
        .args(["--file", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    std::io::Write::write_all(&mut nft.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = nft.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn ip(words: &str) {
    assert!(Command::new("ip").args(words.split_whitespace()).status().unwrap().success(), "ip {words}");
}

/// The far end of a cable whose near end is the port.
struct Cable {
    socket: OwnedFd,
    far: LinkAddr,
}

impl Cable {
    /// `None`, and said, where the kernel has no nftables for ports.
    fn plug() -> Option<Cable> {
        if let Err(error) = nft(&["--check"], PROBE) {
            println!("skipped: {error}");
            return None;
        }
        ip(&format!("link add {PORT} address 52:54:00:0f:00:01 type veth peer name {FAR}"));
        // Silence: what arrives is what is sent here.
        std::fs::write("/proc/sys/net/ipv6/conf/far/disable_ipv6", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/Ethernet0/accept_dad", "0").unwrap();
        ip("link set far up");
        ip("link set Ethernet0 up");
        let family = AddressFamily::Packet;
        let socket = socket(family, SockType::Raw, SockFlag::empty(), None).unwrap();
        let interfaces = nix::ifaddrs::getifaddrs().unwrap();
        let far = interfaces
            .filter(|interface| interface.interface_name == FAR)
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .unwrap();
        Some(Cable { socket, far })
    }

    fn send(&self, packet: &[u8]) {
        let ether_type: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        let mut frame = [MAC, [0x52, 0x54, 0, 0, 0, 1]].concat();
        frame.extend(ether_type);
        frame.extend(packet);
        let sent = sendto(self.socket.as_raw_fd(), &frame, &self.far, MsgFlags::empty()).unwrap();
        assert_eq!(sent, frame.len());
    }

    /// Sends all of them, and returns how many were let in and how many the rules have dropped, by their own
    /// counters.
    fn exchange(&self, packets: &[Vec<u8>]) -> (usize, usize) {
        let (let_in, denied) = (let_in(), denied());
        packets.iter().for_each(|packet| self.send(packet));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = (self::let_in() - let_in, self::denied() - denied);
            if now.0 + now.1 >= packets.len() {
                return now;
            }
            assert!(Instant::now() < deadline, "{now:?} of {}", packets.len());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Packets that the port's IP stack has taken in (RFC 4293, `ipIfStatsInReceives`); of IPv4 on any port.
fn let_in() -> usize {
    let v6 = std::fs::read_to_string(format!("/proc/self/net/dev_snmp6/{PORT}")).unwrap();
    let v6 = v6.lines().find_map(|line| line.strip_prefix("Ip6InReceives")).unwrap();
    let v4 = std::fs::read_to_string("/proc/self/net/snmp").unwrap();
    let mut rows = v4.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let column = rows.next().unwrap().split(' ').position(|name| name == "InReceives").unwrap();
    let v4 = rows.next().unwrap().split(' ').nth(column).unwrap();
    v6.trim().parse::<usize>().unwrap() + v4.parse::<usize>().unwrap()
}

fn listed() -> Value {
    let output = Command::new("nft").args(["--json", "list", "ruleset"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn denied() -> usize {
    let listed = listed();
    let rules =
        listed["nftables"].as_array().unwrap().iter().filter_map(|item| item["rule"]["expr"].as_array());
    let dropping = rules.filter(|expressions| expressions.iter().any(|e| e.get("drop").is_some()));
    let counters = dropping.flatten().filter_map(|e| e["counter"]["packets"].as_u64());
    counters.sum::<u64>().try_into().unwrap()
}

fn row(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// One table at the port, of this type and with these rules.
fn install(kind: &str, rules: &[&[(&str, &str)]]) {
    let mut config = ConfigDb::default();
    config.insert("ACL_TABLE", "A", fields([("type", kind), ("ports@", PORT)]));
    for (number, rule) in rules.iter().enumerate() {
        config.insert("ACL_RULE", &format!("A|{number}"), row(rule));
    }
    install_rows(&config);
}

fn install_rows(config: &ConfigDb) {
    let translation = translate(config);
    assert_eq!(translation.complaints, Vec::<String>::new());
    let ports = translation.ports.iter().map(|(port, tables)| (port.as_str(), tables.as_slice()));
    let text = ruleset(ports);
    nft(&[], &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
}

fn packet(source: &str, destination: &str, protocol: u8, head: &[u8]) -> Vec<u8> {
    let mut payload = head.to_vec();
    payload.resize(40, 0);
    let length = |header: usize| u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let mut packet = Vec::new();
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length(0));
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, 0]);
            packet.extend(length(20));
            packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        mixed => panic!("{mixed:?}"),
    }
    packet.extend(payload);
    packet
}

const MACHINE: &str = "2001:db8:1::2";
const ROUTER: &str = "2001:db8:1::1";

fn with_ports(protocol: u8, source: u16, destination: u16) -> Vec<u8> {
    packet(MACHINE, ROUTER, protocol, &[source.to_be_bytes(), destination.to_be_bytes()].concat())
}

fn icmp(kind: u8, code: u8) -> Vec<u8> {
    packet(MACHINE, ROUTER, 58, &[kind, code])
}

fn between(source: &str, destination: &str) -> Vec<u8> {
    packet(source, destination, 17, &[])
}

/// Fields of a rule that drops, packets that it drops, and others.
type Case<'a> = (&'a [(&'a str, &'a str)], Vec<Vec<u8>>, Vec<Vec<u8>>);

const DROP: (&str, &str) = ("PACKET_ACTION", "DROP");

#[test]
fn every_field_drops_what_it_names_and_nothing_else() {
    in_namespace("every_field_drops_what_it_names_and_nothing_else", || {
        let Some(cable) = Cable::plug() else { return };
        let (tcp, udp) = (|to| with_ports(6, 40000, to), |to| with_ports(17, 40000, to));
        let v4 = || between("192.0.2.2", "192.0.2.1");
        // Behind a hop-by-hop header.
        let options = packet(MACHINE, ROUTER, 0, &[17, 0, 1, 4, 0, 0, 0, 0, 0x9c, 0x40, 0, 22]);
        let v6: [Case; 13] = [
            (&[("IP_TYPE", "IPV6ANY")], vec![tcp(22), icmp(128, 0), options.clone()], vec![v4()]),
            (&[("ETHER_TYPE", "0x86dd")], vec![udp(1)], vec![v4()]),
            (
                &[("SRC_IPV6", "2001:db8:1::/64")],
                vec![between(MACHINE, "2001:db8:2::1")],
                vec![between("2001:db8:2::2", ROUTER), v4()],
            ),
            (&[("DST_IPV6", ROUTER)], vec![between("fe80::1", ROUTER)], vec![between(ROUTER, MACHINE)]),
            (&[("DST_IPV6", "::/0")], vec![between(MACHINE, ROUTER)], vec![v4()]),
            (&[("IP_PROTOCOL", "89")], vec![packet(MACHINE, ROUTER, 89, &[])], vec![udp(22), tcp(22)]),
            (&[("NEXT_HEADER", "17")], vec![udp(22), options.clone()], vec![tcp(22), v4()]),
            (&[("ICMPV6_TYPE", "135")], vec![icmp(135, 0)], vec![icmp(136, 0), with_ports(6, 135 << 8, 1)]),
            (
                &[("IP_PROTOCOL", "58"), ("ICMPV6_TYPE", "1"), ("ICMPV6_CODE", "4")],
                vec![icmp(1, 4)],
                vec![icmp(1, 3), icmp(2, 4)],
            ),
            (
                &[("IP_PROTOCOL", "17"), ("L4_SRC_PORT", "53")],
                vec![with_ports(17, 53, 1)],
                vec![with_ports(17, 54, 53), with_ports(6, 53, 1)],
            ),
            (&[("L4_DST_PORT", "22")], vec![tcp(22), udp(22), options], vec![tcp(23), with_ports(6, 22, 1)]),
            (
                &[("L4_DST_PORT_RANGE", "22-24"), ("IP_PROTOCOL", "6")],
                vec![tcp(22), tcp(23), tcp(24)],
                vec![tcp(21), tcp(25), udp(23)],
            ),
            (
                &[("L4_SRC_PORT_RANGE", "1-2"), ("DST_IPV6", ROUTER)],
                vec![with_ports(17, 2, 9)],
                vec![with_ports(17, 3, 2), between(ROUTER, MACHINE)],
            ),
        ];
        let expect = |kind, matches: &[(&str, &str)], dropped: &[Vec<u8>], passed: &[Vec<u8>]| {
            install(kind, &[&[&[DROP], matches].concat()]);
            let all = cable.exchange(&[passed, dropped].concat());
            assert_eq!(all, (passed.len(), dropped.len()), "{matches:?}: let in, denied");
        };
        for (matches, dropped, passed) in &v6 {
            expect("L3V6", matches, dropped, passed);
        }
        let other = || between("198.51.100.2", "198.51.100.1");
        expect("L3", &[("ETHER_TYPE", "2048")], &[v4(), other()], &[tcp(22)]);
        expect("L3", &[("SRC_IP", "192.0.2.0/24")], &[v4()], &[other()]);
        expect("L3", &[("DST_IP", "192.0.2.1")], &[v4()], &[other()]);
        nft(&[], &remove()).unwrap();
        assert_eq!(cable.exchange(&[v4(), tcp(22)]), (2, 0), "removed");
        assert_eq!(listed()["nftables"].as_array().unwrap().len(), 1, "nothing but what nft says of itself");
    });
}

#[test]
fn the_first_rule_decides_within_a_table_and_every_table_of_the_port_must_let_in() {
    in_namespace("the_first_rule_decides_within_a_table_and_every_table_of_the_port_must_let_in", || {
        let Some(cable) = Cable::plug() else { return };
        // One that nothing comes in by: the far end hears what the port's own stack says, at any time.
        ip("link add Ethernet4 type veth peer name far4");
        let tcp = with_ports(6, 40000, 22);
        let forward = [("PRIORITY", "9000"), ("PACKET_ACTION", "FORWARD"), ("IP_PROTOCOL", "6")].as_slice();
        let deny = [("PRIORITY", "1"), DROP, ("IP_TYPE", "IPV6ANY")].as_slice();
        let packets = [tcp.clone(), with_ports(17, 1, 1)];
        // Replaced as a whole, so whatever was there before.
        install("L3V6", &[deny, forward]);
        assert_eq!(cable.exchange(&packets), (1, 1));
        install("L3V6", &[&[&[("PRIORITY", "9001")], &deny[1..]].concat(), forward]);
        assert_eq!(cable.exchange(&packets), (0, 2));
        let mut config = ConfigDb::default();
        for (name, rules) in [("A", [deny, forward].as_slice()), ("B", &[]), ("C \" drop", &[deny])] {
            config.insert("ACL_TABLE", name, fields([("type", "L3V6"), ("ports@", "Ethernet0,Ethernet4")]));
            for (number, rule) in rules.iter().enumerate() {
                config.insert("ACL_RULE", &format!("{name}|{number}"), row(rule));
            }
        }
        install_rows(&config);
        assert_eq!(cable.exchange(&packets), (0, 2), "the last table denies");
        config.remove("ACL_RULE", "C \" drop|0");
        install_rows(&config);
        assert_eq!(cable.exchange(&packets), (1, 1));
    });
}

//! One machine, one port; messages written by hand here, by another codec in `wire`.

use super::*;

mod answers;
mod refusals;
mod wire;

const MACHINE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const PORT: MacAddr = MacAddr([0x22, 0, 0, 0, 0, 9]);
const CHASSIS: MacAddr = MacAddr([0x52, 0x54, 0, 0x0f, 0, 1]);
/// The server's DUID: DUID-LL of the chassis.
const SERVER_DUID: [u8; 10] = [0, 3, 0, 1, 0x52, 0x54, 0, 0x0f, 0, 1];
const CLIENT_DUID: [u8; 18] = [0, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const IAID: [u8; 4] = [1, 2, 3, 4];
const OWN: &str = "2001:db8:0:2:5054:ff:fe00:1";

fn options() -> Dhcp6Options {
    Dhcp6Options {
        valid_s: 3600,
        preferred_s: 1800,
        dns_servers: vec!["2001:db8::53".parse().unwrap()],
        domain_search: vec!["boot.example".to_owned()],
        ntp_servers: vec!["2001:db8::123".to_owned(), "192.0.2.1".to_owned(), "ntp.example".to_owned()],
        boot_urls: vec![],
        boot_params: vec![],
    }
}

fn config(options: Dhcp6Options) -> Dhcp6Config {
    Dhcp6Config {
        server_mac: CHASSIS,
        prefix: "2001:db8:0:2::/64".parse().unwrap(),
        router: "2001:db8:0:2::1".parse().unwrap(),
        proxy_port: Some(18090),
        options: Arc::new(options),
    }
}

fn boot_url(client: &str, url: &str) -> BootUrl {
    BootUrl { client: client.parse().unwrap(), url: url.to_owned() }
}

fn facts() -> PortFacts {
    PortFacts { mac: PORT, link_local: PORT.eui64_link_local() }
}

/// A message of options.
struct Draft(Vec<u8>);

impl Draft {
    fn new(kind: u8) -> Draft {
        Draft(vec![kind, 0xa, 0xb, 0xc])
    }

    fn with(mut self, code: u16, data: &[u8]) -> Draft {
        self.0.extend_from_slice(&code.to_be_bytes());
        self.0.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        self.0.extend_from_slice(data);
        self
    }

    fn client(self) -> Draft {
        self.with(1, &CLIENT_DUID)
    }

    fn server(self) -> Draft {
        self.with(2, &SERVER_DUID)
    }

    fn asks(self, codes: &[u16]) -> Draft {
        let data: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
        self.with(6, &data)
    }

    fn ia_na(self, addresses: &[&str]) -> Draft {
        let mut data = [&IAID[..], &[0; 8]].concat();
        for address in addresses {
            let address: Ipv6Addr = address.parse().unwrap();
            data.extend_from_slice(&[0, 5, 0, 24]);
            data.extend_from_slice(&address.octets());
            data.extend_from_slice(&[0; 8]);
        }
        self.with(3, &data)
    }

    fn firmware(self, arch: u16) -> Draft {
        let class = b"\0\0\x01\x57\0\x21HTTPClient:Arch:00016:UNDI:003001";
        self.with(61, &arch.to_be_bytes()).with(62, &[1, 3, 0]).with(16, class)
    }
}

fn solicit() -> Draft {
    Draft::new(1).client()
}

fn datagram(payload: &[u8]) -> Datagram<'_> {
    Datagram { mac: MACHINE, source: MACHINE.eui64_link_local(), destination: ALL_DHCP_SERVERS, payload }
}

fn answer_to(config: &Dhcp6Config, draft: &Draft) -> Result<Answer, Refusal> {
    let message = Message::parse(&draft.0)?;
    respond(config, facts(), &datagram(&draft.0), &message)
}

fn answer(draft: &Draft) -> Answer {
    answer_to(&config(options()), draft).unwrap()
}

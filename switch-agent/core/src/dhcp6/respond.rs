//! From a request to its answer (RFC 8415 section 18.3), without memory of any other.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::boot::{Architecture, expand, select};
use super::encode::{self, Writer, duid_ll, push_address, push_option};
use super::frame::Datagram;
use super::message::{Ia, IaKind, Message, MessageType};
use super::option;
use super::refusal::Refusal;
use super::{ALL_DHCP_SERVERS, Dhcp6Config};
use crate::name::MacAddr;
use crate::ndp::FrameAddresses;

const INFINITY: u32 = u32::MAX;

/// The highest preference: the client takes the offer at once (RFC 8415 section 18.2.1).
const PREFERENCE: u8 = 255;
/// Least Information Refresh Time in seconds (RFC 8415 section 7.6, IRT_MINIMUM).
const IRT_MINIMUM: u32 = 600;
/// SOL_MAX_RT and INF_MAX_RT in seconds: the least that RFC 8415 sections 21.24 and 21.25 allow, so that a
/// machine whose switch was away asks again within a minute instead of an hour.
const MAX_RT: u32 = 60;

/// First pieces of vendor classes that firmware wants to see in an offer meant for it (UEFI specification
/// 2.10 section 24.7.2, and its PXE section).
const BOOT_CLASSES: [&[u8]; 2] = [b"HTTPClient", b"PXEClient"];

/// A status (RFC 8415 section 21.13), with words for people.
type Status = (u16, &'static str);
const SUCCESS: Status = (0, "");
const NO_ADDRS_AVAIL: Status = (2, "one address per machine, in one IA_NA");
const NO_BINDING: Status = (3, "nothing bound to this IA");
const NOT_ON_LINK: Status = (4, "not of this port's /64");
const USE_MULTICAST: Status = (5, "use ff02::1:2");
const NO_PREFIX_AVAIL: Status = (6, "no prefixes are delegated");

/// The addresses of the port itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortFacts {
    pub mac: MacAddr,
    pub link_local: Ipv6Addr,
}

/// What kind of message an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnswerType {
    Advertise,
    Reply,
}

impl AnswerType {
    fn code(self) -> u8 {
        match self {
            AnswerType::Advertise => 2,
            AnswerType::Reply => 7,
        }
    }

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            AnswerType::Advertise => "advertise",
            AnswerType::Reply => "reply",
        }
    }
}

/// One answer to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub kind: AnswerType,
    /// What it answers.
    pub request: MessageType,
    pub addresses: FrameAddresses,
    /// At most [`super::ANSWER_LEN_MAX`] bytes, for [`super::write_frame`].
    pub message: Vec<u8>,
    /// The address that the machine is offered or told to keep.
    pub address: Option<Ipv6Addr>,
    pub boot_url: Option<String>,
    pub architecture: Option<Architecture>,
    /// User class iPXE.
    pub ipxe: bool,
}

/// The address of a machine: the port's prefix and the modified EUI-64 of its MAC, which is also what SLAAC
/// makes of the advertised prefix. Never `::1`, the router's, as an EUI-64 has `ff:fe` in its middle; none
/// where the interface identifier is reserved (RFC 5453: that of an IANA Ethernet block, as VRRP has).
pub fn machine_address(prefix: Ipv6Net, mac: MacAddr) -> Option<Ipv6Addr> {
    let mut octets = prefix.network().octets();
    octets[8..].copy_from_slice(&mac.eui64_link_local().octets()[8..]);
    let reserved = octets[8..].starts_with(&[0x02, 0x00, 0x5e, 0xff, 0xfe]);
    (mac.is_unicast() && !reserved && prefix.prefix_len() == 64).then(|| Ipv6Addr::from(octets))
}

/// Answers a message.
///
/// # Errors
/// Why it must not be answered.
pub fn respond(
    config: &Dhcp6Config,
    port: PortFacts,
    datagram: &Datagram<'_>,
    message: &Message<'_>,
) -> Result<Answer, Refusal> {
    if datagram.mac == port.mac {
        return Err(Refusal::EthernetSource);
    }
    let duid = duid_ll(config.server_mac);
    if message.server_id.is_some_and(|server| server != duid) {
        return Err(Refusal::OtherServer);
    }
    let multicast = datagram.destination == ALL_DHCP_SERVERS;
    if !multicast && datagram.destination != port.link_local {
        return Err(Refusal::Destination);
    }
    // RFC 8415 section 16, 18.4: the Server Unicast option is never sent.
    if !multicast && !message.kind.is_for_one_server() {
        return Err(Refusal::Unicast);
    }
    let kind = match message.kind {
        MessageType::Solicit if !message.rapid_commit => AnswerType::Advertise,
        _ => AnswerType::Reply,
    };
    let mut draft = Draft {
        config,
        message,
        writer: Writer::new(kind.code(), message.transaction_id),
        available: machine_address(config.prefix, datagram.mac),
        address: None,
        boot_url: None,
    };
    draft.write_identifiers(&duid)?;
    if multicast {
        draft.write(kind)?
    } else {
        draft.status(USE_MULTICAST)?
    }
    Ok(Answer {
        kind,
        request: message.kind,
        addresses: FrameAddresses {
            source_mac: port.mac,
            destination_mac: datagram.mac,
            source: port.link_local,
            destination: datagram.source,
        },
        address: draft.address,
        boot_url: draft.boot_url,
        architecture: message.architectures().next(),
        ipxe: message.is_ipxe(),
        message: draft.writer.finish(),
    })
}

struct Draft<'a> {
    config: &'a Dhcp6Config,
    message: &'a Message<'a>,
    writer: Writer,
    /// The machine's address until an identity association has it.
    available: Option<Ipv6Addr>,
    address: Option<Ipv6Addr>,
    boot_url: Option<String>,
}

impl Draft<'_> {
    /// Appends what the answer makes no sense without.
    fn must(&mut self, code: u16, data: &[u8]) -> Result<(), Refusal> {
        if self.writer.option(code, data) { Ok(()) } else { Err(Refusal::TooLong) }
    }

    fn status(&mut self, status: Status) -> Result<(), Refusal> {
        self.must(option::STATUS_CODE, &status_data(status))
    }

    fn write_identifiers(&mut self, duid: &[u8]) -> Result<(), Refusal> {
        if let Some(client_id) = self.message.client_id {
            self.must(option::CLIENT_ID, client_id)?;
        }
        self.must(option::SERVER_ID, duid)
    }

    fn write(&mut self, kind: AnswerType) -> Result<(), Refusal> {
        match self.message.kind {
            MessageType::Confirm => return self.confirm(),
            // Nothing was remembered, nothing is forgotten.
            MessageType::Release | MessageType::Decline => return self.status(SUCCESS),
            MessageType::Solicit if kind == AnswerType::Advertise => {
                self.must(option::PREFERENCE, &[PREFERENCE])?;
            }
            MessageType::Solicit => self.must(option::RAPID_COMMIT, &[])?,
            _ => {}
        }
        for ia in self.message.ias() {
            self.identity_association(ia)?;
        }
        self.information();
        Ok(())
    }

    /// RFC 8415 section 18.3.3.
    fn confirm(&mut self) -> Result<(), Refusal> {
        let mut addresses = self.message.ias().flat_map(Ia::addresses).peekable();
        if addresses.peek().is_none() {
            return Err(Refusal::NoAddress);
        }
        let on_link = addresses.all(|address| self.config.prefix.contains(&address));
        self.status(if on_link { SUCCESS } else { NOT_ON_LINK })
    }

    fn identity_association(&mut self, ia: Ia<'_>) -> Result<(), Refusal> {
        // RFC 8415 sections 18.3.4, 18.3.5: what is extended must be known.
        let extends = matches!(self.message.kind, MessageType::Renew | MessageType::Rebind);
        let off_link = || ia.addresses().any(|address| !self.config.prefix.contains(&address));
        let refusal = match ia.kind {
            IaKind::Temporary | IaKind::PrefixDelegation if extends => Some(NO_BINDING),
            IaKind::Temporary => Some(NO_ADDRS_AVAIL),
            IaKind::PrefixDelegation => Some(NO_PREFIX_AVAIL),
            IaKind::NonTemporary if self.message.kind == MessageType::Request && off_link() => {
                Some(NOT_ON_LINK)
            }
            IaKind::NonTemporary if self.available.is_none() => {
                Some(if extends { NO_BINDING } else { NO_ADDRS_AVAIL })
            }
            IaKind::NonTemporary => None,
        };
        let (code, timed) = match ia.kind {
            IaKind::NonTemporary => (option::IA_NA, true),
            IaKind::Temporary => (option::IA_TA, false),
            IaKind::PrefixDelegation => (option::IA_PD, true),
        };
        let mut data = ia.iaid.to_vec();
        match (refusal, self.available) {
            (None, Some(address)) => {
                let options = &self.config.options;
                let (t1, t2) = renewal_times(options.preferred_s);
                data.extend_from_slice(&t1.to_be_bytes());
                data.extend_from_slice(&t2.to_be_bytes());
                push_address(&mut data, address, options.preferred_s, options.valid_s);
                for other in ia.addresses().filter(|other| extends && *other != address) {
                    push_address(&mut data, other, 0, 0);
                }
                self.address = self.available.take();
            }
            (refusal, _) => {
                if timed {
                    data.extend_from_slice(&[0; 8]);
                }
                let status = status_data(refusal.unwrap_or(NO_ADDRS_AVAIL));
                push_option(&mut data, option::STATUS_CODE, &status);
            }
        }
        self.must(code, &data)
    }

    /// What the client asked for by Option Request (RFC 8415 section 18.3.2 and others), the boot file first.
    /// Configuration was checked to fit; what does not beside an excess of identity associations is left out.
    fn information(&mut self) {
        let Draft { config, message, .. } = *self;
        let options = &config.options;
        let wanted = |code: u16| message.requests(code);
        let class = message.vendor_classes().find_map(|(enterprise, class)| {
            let named = BOOT_CLASSES.into_iter().find(|named| class.starts_with(named))?;
            Some((enterprise, named))
        });
        if let Some((enterprise, named)) = class {
            let data = encode::pieces(&enterprise, std::iter::once(named));
            self.writer.option(option::VENDOR_CLASS, &data);
        }
        let proxy_port = config.proxy_port;
        let url =
            select(&options.boot_urls, message.is_ipxe(), message.architectures(), proxy_port.is_some());
        if let Some(url) = url.filter(|_| wanted(option::BOOTFILE_URL)) {
            let url = expand(url, config.router, proxy_port.unwrap_or_default());
            if self.writer.option(option::BOOTFILE_URL, url.as_bytes()) {
                self.boot_url = Some(url);
            }
            self.unless_empty(option::BOOTFILE_PARAM, &encode::boot_params(&options.boot_params));
        }
        self.unless_empty(option::DNS_SERVERS, &encode::addresses(&options.dns_servers));
        self.unless_empty(option::DOMAIN_LIST, &encode::domains(&options.domain_search));
        for server in options.ntp_servers.iter().filter(|_| wanted(option::NTP_SERVER)) {
            self.unless_empty(option::NTP_SERVER, &encode::ntp_server(server).unwrap_or_default());
        }
        if message.kind == MessageType::InformationRequest {
            let refresh_s = options.valid_s.max(IRT_MINIMUM);
            self.unless_empty(option::INFORMATION_REFRESH_TIME, &refresh_s.to_be_bytes());
        }
        self.unless_empty(option::SOL_MAX_RT, &MAX_RT.to_be_bytes());
        self.unless_empty(option::INF_MAX_RT, &MAX_RT.to_be_bytes());
    }

    fn unless_empty(&mut self, code: u16, data: &[u8]) {
        if !data.is_empty() && self.message.requests(code) {
            self.writer.option(code, data);
        }
    }
}

fn status_data((code, words): Status) -> Vec<u8> {
    [&code.to_be_bytes(), words.as_bytes()].concat()
}

/// T1 and T2 in seconds: 0.5 and 0.8 of the preferred lifetime (RFC 8415 section 21.4).
fn renewal_times(preferred_s: u32) -> (u32, u32) {
    match preferred_s {
        INFINITY => (INFINITY, INFINITY),
        _ => (preferred_s / 2, preferred_s - preferred_s / 5),
    }
}

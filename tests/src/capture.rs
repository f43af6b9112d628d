//! What a boot says on the wire, read from a packet capture: neighbour discovery, DHCPv6, HTTP over IPv6.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use crate::failure::{Context, Result, ensure};

/// One frame that means something to a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Since the epoch of the capture's clock, exact to 1 us.
    pub at: Duration,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub message: Message,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    RouterSolicitation,
    RouterAdvertisement,
    /// A neighbour solicitation from the unspecified address: the target is looked for duplicates.
    DuplicateProbe(Ipv6Addr),
    Dhcp6(Dhcp6),
    /// First line of a request.
    HttpRequest(String),
    /// First line of a response.
    HttpResponse(String),
}

/// Message types of DHCPv6 (RFC 8415 7.3) that pass between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dhcp6 {
    Solicit,
    Advertise,
    Request,
    Reply,
    Release,
    Decline,
    InformationRequest,
    Other(u8),
}

impl From<u8> for Dhcp6 {
    fn from(kind: u8) -> Self {
        match kind {
            1 => Self::Solicit,
            2 => Self::Advertise,
            3 => Self::Request,
            7 => Self::Reply,
            8 => Self::Release,
            9 => Self::Decline,
            11 => Self::InformationRequest,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RouterSolicitation => f.write_str("Router Solicitation"),
            Self::RouterAdvertisement => f.write_str("Router Advertisement"),
            Self::DuplicateProbe(_) => f.write_str("probe for a duplicate address"),
            Self::Dhcp6(message) => write!(f, "DHCPv6 {message:?}"),
            Self::HttpRequest(line) | Self::HttpResponse(line) => write!(f, "HTTP {line}"),
        }
    }
}

/// Every event of a capture file, in the order of the file.
pub(crate) fn read(path: &Path) -> Result<Vec<Event>> {
    let bytes = std::fs::read(path).context(|| path.display().to_string())?;
    parse(&bytes).context(|| path.display().to_string())
}

/// The classic format of libpcap in little-endian byte order with microseconds, Ethernet frames
/// (draft-ietf-opsawg-pcap): what QEMU writes.
fn parse(bytes: &[u8]) -> Result<Vec<Event>> {
    let (header, mut rest) = bytes.split_first_chunk::<24>().context(|| "no header".into())?;
    ensure!(header[..4] == 0xa1b2_c3d4_u32.to_le_bytes(), "the format is not libpcap's with microseconds");
    ensure!(header[20..22] == [1, 0], "link type {} is not Ethernet", header[20]);
    let mut events = Vec::new();
    // The last record may be cut short by a power-off.
    while let Some((record, more)) = rest.split_first_chunk::<16>() {
        let word =
            |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        let (seconds, microseconds, length) = (word(0), word(4), word(8));
        let Some((frame, more)) =
            usize::try_from(length).ok().and_then(|length| more.split_at_checked(length))
        else {
            break;
        };
        rest = more;
        if let Some((source, destination, message)) = message_of(frame) {
            let at = Duration::from_secs(seconds.into()) + Duration::from_micros(microseconds.into());
            events.push(Event { at, source, destination, message });
        }
    }
    Ok(events)
}

fn message_of(frame: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr, Message)> {
    const IPV6: [u8; 2] = [0x86, 0xdd];
    if frame.get(12..14)? != IPV6 {
        return None;
    }
    let (header, rest) = frame.get(14..)?.split_first_chunk::<40>()?;
    // Ethernet pads short frames.
    let payload = rest.get(..usize::from(u16::from_be_bytes([header[4], header[5]])))?;
    let (source, destination) = (address(&header[8..24])?, address(&header[24..40])?);
    let message = match header[6] {
        6 => http(payload)?,
        17 => dhcp6(payload)?,
        58 => discovery(payload, source)?,
        _ => return None,
    };
    Some((source, destination, message))
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
}

fn discovery(icmp: &[u8], source: Ipv6Addr) -> Option<Message> {
    match icmp.first()? {
        133 => Some(Message::RouterSolicitation),
        134 => Some(Message::RouterAdvertisement),
        135 if source.is_unspecified() => Some(Message::DuplicateProbe(address(icmp.get(8..24)?)?)),
        _ => None,
    }
}

fn dhcp6(udp: &[u8]) -> Option<Message> {
    const CLIENT: u16 = 546;
    const SERVER: u16 = 547;
    let ports =
        [u16::from_be_bytes([*udp.first()?, *udp.get(1)?]), u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?])];
    let known = ports == [CLIENT, SERVER] || ports == [SERVER, CLIENT];
    known.then_some(Message::Dhcp6(Dhcp6::from(*udp.get(8)?)))
}

/// The segment that begins a request or a response; what follows in the stream says nothing.
fn http(tcp: &[u8]) -> Option<Message> {
    let words = usize::from(tcp.get(12)? >> 4);
    let payload = tcp.get(words * 4..)?;
    let line = payload.split(|byte| *byte == b'\r').next()?;
    let line = String::from_utf8_lossy(line.get(..line.len().min(120))?).into_owned();
    if line.starts_with("HTTP/1.") {
        Some(Message::HttpResponse(line))
    } else if ["GET ", "HEAD ", "POST "].iter().any(|method| line.starts_with(method)) {
        Some(Message::HttpRequest(line))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(next_header: u8, source: [u8; 16], payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend([next_header, 255]);
        bytes.extend(source);
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend(payload);
        // Padding to the shortest frame.
        bytes.resize(bytes.len().max(60), 0);
        bytes
    }

    fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        bytes.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0]);
        for (second, frame) in (1_u32..).zip(frames) {
            let length = u32::try_from(frame.len()).unwrap();
            for word in [second, 250_000, length, length] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(frame);
        }
        bytes
    }

    #[test]
    fn reads_solicitations_dhcp_and_http() {
        let unspecified = [0; 16];
        let mut probe = vec![135, 0, 0, 0, 0, 0, 0, 0];
        probe.extend(Ipv6Addr::LOCALHOST.octets());
        let mut tcp = vec![0; 20];
        tcp[12] = 5 << 4;
        tcp.extend(b"HEAD /boot.efi HTTP/1.1\r\nHost: [::1]\r\n\r\n");
        let bytes = capture(&[
            frame(58, unspecified, &[133, 0, 0, 0, 0, 0, 0, 0]),
            frame(58, unspecified, &probe),
            // Neighbour solicitation of somebody who has an address: no event.
            frame(58, Ipv6Addr::LOCALHOST.octets(), &probe),
            frame(17, unspecified, &[0x02, 0x22, 0x02, 0x23, 0, 12, 0, 0, 1, 0, 0, 1]),
            // DNS: no event.
            frame(17, unspecified, &[0x02, 0x22, 0, 53, 0, 12, 0, 0, 1, 0, 0, 1]),
            frame(6, unspecified, &tcp),
        ]);
        let events = parse(&bytes).unwrap();
        let messages: Vec<Message> = events.iter().map(|event| event.message.clone()).collect();
        assert_eq!(
            messages,
            [
                Message::RouterSolicitation,
                Message::DuplicateProbe(Ipv6Addr::LOCALHOST),
                Message::Dhcp6(Dhcp6::Solicit),
                Message::HttpRequest("HEAD /boot.efi HTTP/1.1".into()),
            ]
        );
        assert_eq!(events[0].at, Duration::from_micros(1_250_000));
        assert!(events[0].source.is_unspecified());
    }

    #[test]
    fn a_capture_may_end_anywhere() {
        let bytes = capture(&vec![frame(58, [0; 16], &[133, 0, 0, 0, 0, 0, 0, 0]); 2]);
        for length in 0..bytes.len() {
            match parse(&bytes[..length]) {
                Ok(events) => assert!(length >= 24 && events.len() < 2),
                Err(_) => assert!(length < 24),
            }
        }
        assert!(parse(&[0; 24]).is_err());
    }
}

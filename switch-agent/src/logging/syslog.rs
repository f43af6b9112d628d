//! RFC 3164 over UDP, as rsyslog of a SONiC host listens for it.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::sonic;

/// Facility daemon (RFC 3164 section 4.1.1).
const FACILITY_DAEMON: u8 = 3;
/// A syslog packet must be no longer (RFC 3164 section 4.1).
pub(super) const PACKET_MAX: usize = 1024;
/// What stands where a line was cut.
const CUT: &str = "...";
/// A name of the container that is no name at all would push the line out of its packet.
const CONTAINER_LEN_MAX: usize = 64;

/// Where the host's rsyslog listens: SONiC tells its containers.
pub(super) fn rsyslog() -> SocketAddr {
    let told = std::env::var("SYSLOG_TARGET_IP").ok();
    let address = told.and_then(|address| address.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    SocketAddr::new(address, 514)
}

/// The sender of datagrams.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: UdpSocket,
    /// `leaf1 boot-network#switch-agent[7]: `. There is no timestamp (RFC 3164 section 4.3.2): rsyslog puts
    /// that of the packet's arrival in its place, in the time zone of the host, which a container need not
    /// know, and to the microsecond.
    header: String,
}

impl Syslog {
    /// # Errors
    /// No UDP socket.
    pub(super) fn open(rsyslog: SocketAddr) -> io::Result<Syslog> {
        let any = if rsyslog.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(rsyslog)?;
        socket.set_nonblocking(true)?;
        let container = sonic::container().unwrap_or_default();
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let header = header(&host.unwrap_or_default(), &container, std::process::id());
        Ok(Syslog { socket, header })
    }
}

/// HOSTNAME and TAG. SONiC's tags are `<container>#<program>[<pid>]`.
fn header(host: &str, container: &str, process: u32) -> String {
    let word = |text: &str, otherwise: &str| -> String {
        let named = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let word: String = text.chars().filter(named).take(CONTAINER_LEN_MAX).collect();
        if word.is_empty() { otherwise.to_owned() } else { word }
    };
    format!("{} {}#switch-agent[{process}]: ", word(host, "sonic"), word(container, "boot-network"))
}

/// Numerical severity (RFC 3164 section 4.1.1).
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 5,
        Level::DEBUG => 6,
        Level::TRACE => 7,
    }
}

/// One packet. A control character would end the line or forge another one, so none is in it.
pub(super) fn packet(severity: u8, header: &str, line: &str) -> String {
    let mut packet = format!("<{}>{header}", FACILITY_DAEMON * 8 + severity);
    for c in line.trim_end().chars() {
        let escaped = c.is_control().then(|| c.escape_default().to_string());
        let len = escaped.as_ref().map_or(c.len_utf8(), String::len);
        if packet.len() + len > PACKET_MAX - CUT.len() {
            packet.push_str(CUT);
            break;
        }
        match escaped {
            Some(escaped) => packet.push_str(&escaped),
            None => packet.push(c),
        }
    }
    packet
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { syslog: self, severity: severity(Level::INFO), text: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { syslog: self, severity: severity(*meta.level()), text: Vec::new() }
    }
}

/// One line; sent when it is complete. A lost one is lost: logging never blocks the agent.
pub(super) struct Line<'a> {
    syslog: &'a Syslog,
    severity: u8,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = String::from_utf8_lossy(&self.text);
        if !line.trim().is_empty() {
            self.syslog.socket.send(packet(self.severity, &self.syslog.header, &line).as_bytes()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "leaf1 boot-network#switch-agent[7]: ";

    #[test]
    fn a_packet_has_priority_host_and_tag() {
        assert_eq!(header("leaf1", "boot-network", 7), HEADER);
        assert_eq!(packet(5, HEADER, "started\n"), format!("<29>{HEADER}started"));
        assert_eq!(header("", "", 1), "sonic boot-network#switch-agent[1]: ");
        let odd = header("leaf 1\n<3>", &"x".repeat(2000), 1);
        assert!(odd.starts_with("leaf13 xxx") && odd.len() < 100, "{odd}");
    }

    #[test]
    fn severities_are_those_of_syslog() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(severity), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_line_stays_one_line() {
        let forged = packet(4, HEADER, "name=a\n<3>leaf1 kernel: Oops\r\u{1b}[2J\u{85}\0");
        assert!(!forged.contains(char::is_control), "{forged:?}");
        assert!(forged.contains(r"name=a\n<3>leaf1 kernel: Oops\r\u{1b}[2J"), "{forged}");
    }

    #[test]
    fn a_packet_is_never_longer_than_it_may_be() {
        for line in ["x".repeat(5000), "\n".repeat(5000) + "x", "\u{20ac}".repeat(2000)] {
            let packet = packet(5, HEADER, &line);
            assert!((PACKET_MAX - 12..=PACKET_MAX).contains(&packet.len()), "{}", packet.len());
            assert!(packet.ends_with(CUT));
        }
        let fits = "x".repeat(PACKET_MAX - CUT.len() - HEADER.len() - 4);
        assert!(packet(5, HEADER, &fits).ends_with("xxx"));
    }
}

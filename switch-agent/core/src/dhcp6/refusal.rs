//! Why a message gets no answer.

use thiserror::Error;

/// Why a frame is not answered. Most are what RFC 8415 section 16 tells a server to discard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Refusal {
    #[error("the frame is shorter than its headers say")]
    Truncated,
    #[error("no UDP datagram to port 547 directly after the IPv6 header")]
    NotDhcp,
    #[error("the Ethernet source is no unicast address, or the port's own")]
    EthernetSource,
    #[error("the UDP checksum is missing or does not match")]
    Checksum,
    #[error("the source is no link-local address")]
    Source,
    #[error("sent neither to ff02::1:2 nor to the port")]
    Destination,
    #[error("sent by a relay agent; a boot port has none")]
    Relay,
    #[error("no message that clients send")]
    MessageType,
    #[error("an option reaches past its end, or past that of the message")]
    OptionOverrun,
    #[error("an option has a length that it cannot have")]
    OptionLength,
    #[error("an option that may appear once appears twice")]
    Repeated,
    #[error("more options, or more identity associations, than any client sends")]
    TooManyOptions,
    #[error("a DUID has 3 to 130 bytes")]
    Duid,
    #[error("without a Client Identifier")]
    NoClientId,
    #[error("without a Server Identifier")]
    NoServerId,
    #[error("with a Server Identifier, which the message may not have")]
    UnexpectedServerId,
    #[error("for another server")]
    OtherServer,
    #[error("an Information-request with an identity association")]
    UnexpectedIa,
    #[error("sent to a unicast address, which only ff02::1:2 may receive")]
    Unicast,
    #[error("a Confirm without an address")]
    NoAddress,
    #[error("the answer would not fit into 1280 bytes")]
    TooLong,
    #[error("the port has had its share of answers for now")]
    RateLimited,
}

impl Refusal {
    /// Short constant name, for a metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Truncated => "truncated",
            Refusal::NotDhcp => "not_dhcp",
            Refusal::EthernetSource => "ethernet_source",
            Refusal::Checksum => "checksum",
            Refusal::Source => "source",
            Refusal::Destination => "destination",
            Refusal::Relay => "relay",
            Refusal::MessageType => "message_type",
            Refusal::OptionOverrun => "option_overrun",
            Refusal::OptionLength => "option_length",
            Refusal::Repeated => "repeated",
            Refusal::TooManyOptions => "too_many_options",
            Refusal::Duid => "duid",
            Refusal::NoClientId => "no_client_id",
            Refusal::NoServerId => "no_server_id",
            Refusal::UnexpectedServerId => "unexpected_server_id",
            Refusal::OtherServer => "other_server",
            Refusal::UnexpectedIa => "unexpected_ia",
            Refusal::Unicast => "unicast",
            Refusal::NoAddress => "no_address",
            Refusal::TooLong => "too_long",
            Refusal::RateLimited => "rate_limited",
        }
    }
}

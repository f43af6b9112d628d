//! Messages of clients, checked as RFC 8415 section 16 demands.

use std::net::Ipv6Addr;

use super::boot::Architecture;
use super::option::{self, Options};
use super::refusal::Refusal;

/// Most identity associations of one message. A client has one per network interface (RFC 8415 section 12).
const IAS_MAX: usize = 8;
/// Most addresses of one identity association.
const ADDRESSES_MAX: usize = 8;

/// What a client may send (RFC 8415 section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageType {
    Solicit,
    Request,
    Confirm,
    Renew,
    Rebind,
    Release,
    Decline,
    InformationRequest,
}

const RELAY_FORW: u8 = 12;
const RELAY_REPL: u8 = 13;

impl MessageType {
    fn from_code(code: u8) -> Result<Self, Refusal> {
        Ok(match code {
            1 => MessageType::Solicit,
            3 => MessageType::Request,
            4 => MessageType::Confirm,
            5 => MessageType::Renew,
            6 => MessageType::Rebind,
            8 => MessageType::Release,
            9 => MessageType::Decline,
            11 => MessageType::InformationRequest,
            RELAY_FORW | RELAY_REPL => return Err(Refusal::Relay),
            _ => return Err(Refusal::MessageType),
        })
    }

    /// As metrics and timelines name it.
    pub fn name(self) -> &'static str {
        match self {
            MessageType::Solicit => "solicit",
            MessageType::Request => "request",
            MessageType::Confirm => "confirm",
            MessageType::Renew => "renew",
            MessageType::Rebind => "rebind",
            MessageType::Release => "release",
            MessageType::Decline => "decline",
            MessageType::InformationRequest => "information-request",
        }
    }

    /// Whether it opens an exchange: the machine is new on the link, or thinks it might be.
    pub fn opens(self) -> bool {
        matches!(self, MessageType::Solicit | MessageType::Confirm | MessageType::InformationRequest)
    }

    /// Whether it names the server that it is for (RFC 8415 sections 16.4, 16.6, 16.8, 16.9).
    pub(super) fn is_for_one_server(self) -> bool {
        use MessageType::{Decline, Release, Renew, Request};
        matches!(self, Request | Renew | Release | Decline)
    }
}

/// A kind of identity association (RFC 8415 sections 21.4, 21.5, 21.21).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IaKind {
    NonTemporary,
    Temporary,
    PrefixDelegation,
}

/// One identity association of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ia<'a> {
    pub kind: IaKind,
    pub iaid: [u8; 4],
    options: Options<'a>,
}

impl<'a> Ia<'a> {
    fn parse(code: u16, data: &'a [u8]) -> Option<Result<Self, Refusal>> {
        let (kind, header_len) = match code {
            option::IA_NA => (IaKind::NonTemporary, 12),
            option::IA_TA => (IaKind::Temporary, 4),
            option::IA_PD => (IaKind::PrefixDelegation, 12),
            _ => return None,
        };
        Some(Ia::read(kind, header_len, data))
    }

    fn read(kind: IaKind, header_len: usize, data: &'a [u8]) -> Result<Self, Refusal> {
        let (header, block) = data.split_at_checked(header_len).ok_or(Refusal::OptionLength)?;
        let iaid = *header.first_chunk().ok_or(Refusal::OptionLength)?;
        let ia = Ia { kind, iaid, options: Options::parse(block)? };
        for (count, data) in ia.options.all(option::IAADDR).enumerate() {
            // Address, two lifetimes, options (RFC 8415 section 21.6).
            let block = data.get(24..).ok_or(Refusal::OptionLength)?;
            Options::parse(block)?;
            if count >= ADDRESSES_MAX {
                return Err(Refusal::TooManyOptions);
            }
        }
        Ok(ia)
    }

    /// The addresses in it; lifetimes that a client wishes for mean nothing.
    pub fn addresses(self) -> impl Iterator<Item = Ipv6Addr> {
        let addresses = self.options.all(option::IAADDR);
        addresses.filter_map(|data| data.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets)))
    }
}

/// A message that passed the checks which need no knowledge of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: MessageType,
    pub transaction_id: [u8; 3],
    /// DUID of the client; only an Information-request may be without.
    pub client_id: Option<&'a [u8]>,
    /// DUID of the server that it is for, as it stands in the message.
    pub server_id: Option<&'a [u8]>,
    /// Rapid Commit (RFC 8415 section 21.14).
    pub rapid_commit: bool,
    options: Options<'a>,
}

impl<'a> Message<'a> {
    /// # Errors
    /// What makes it no message that a client may send.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Refusal> {
        let (header, block) = payload.split_first_chunk::<4>().ok_or(Refusal::Truncated)?;
        let [code, transaction_id @ ..] = *header;
        let kind = MessageType::from_code(code)?;
        let options = Options::parse(block)?;
        let message = Message {
            kind,
            transaction_id,
            client_id: duid(options.one(option::CLIENT_ID)?)?,
            server_id: duid(options.one(option::SERVER_ID)?)?,
            rapid_commit: options.one(option::RAPID_COMMIT)?.is_some(),
            options,
        };
        message.check_options()?;
        message.check_identifiers()?;
        Ok(message)
    }

    /// Contents of the options that are read later on.
    fn check_options(&self) -> Result<(), Refusal> {
        let mut ias = 0;
        for (code, data) in self.options.iter() {
            match code {
                option::ORO | option::CLIENT_ARCH_TYPE if data.len() % 2 != 0 => {
                    return Err(Refusal::OptionLength);
                }
                option::VENDOR_CLASS if data.len() < 4 => return Err(Refusal::OptionLength),
                option::NII if data.len() != 3 => return Err(Refusal::OptionLength),
                _ => {}
            }
            if let Some(ia) = Ia::parse(code, data) {
                ia?;
                ias += 1;
            }
        }
        if ias > IAS_MAX { Err(Refusal::TooManyOptions) } else { Ok(()) }
    }

    /// RFC 8415 sections 16.2 to 16.12.
    fn check_identifiers(&self) -> Result<(), Refusal> {
        let kind = self.kind;
        let information = kind == MessageType::InformationRequest;
        if self.client_id.is_none() && !information {
            return Err(Refusal::NoClientId);
        }
        match (kind.is_for_one_server(), self.server_id) {
            (true, None) => return Err(Refusal::NoServerId),
            (false, Some(_)) if !information => return Err(Refusal::UnexpectedServerId),
            _ => {}
        }
        if information && self.ias().next().is_some() {
            return Err(Refusal::UnexpectedIa);
        }
        Ok(())
    }

    pub fn ias(self) -> impl Iterator<Item = Ia<'a>> {
        self.options.iter().filter_map(|(code, data)| Ia::parse(code, data)?.ok())
    }

    /// Whether the Option Request option names the code.
    pub fn requests(self, code: u16) -> bool {
        self.options.all(option::ORO).any(|data| pairs(data).any(|requested| requested == code))
    }

    /// Client System Architecture Types, the preferred one first (RFC 5970 section 3.3).
    pub fn architectures(self) -> impl Iterator<Item = Architecture> {
        self.options.all(option::CLIENT_ARCH_TYPE).flat_map(pairs).map(Architecture)
    }

    /// Whether a user class is `iPXE` (RFC 8415 section 21.15).
    pub fn is_ipxe(self) -> bool {
        self.options.all(option::USER_CLASS).any(|data| items(data).any(|class| class == b"iPXE"))
    }

    /// Enterprise number and first piece of each vendor class (RFC 8415 section 21.16).
    pub(super) fn vendor_classes(self) -> impl Iterator<Item = ([u8; 4], &'a [u8])> {
        self.options.all(option::VENDOR_CLASS).filter_map(|data| {
            let (enterprise, classes) = data.split_first_chunk::<4>()?;
            Some((*enterprise, items(classes).next()?))
        })
    }
}

/// A DUID's type and 1 to 128 bytes (RFC 8415 section 11.1).
fn duid(data: Option<&[u8]>) -> Result<Option<&[u8]>, Refusal> {
    match data {
        Some(data) if !(3..=super::encode::DUID_LEN_MAX).contains(&data.len()) => Err(Refusal::Duid),
        data => Ok(data),
    }
}

fn pairs(data: &[u8]) -> impl Iterator<Item = u16> {
    data.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair))
}

/// Opaque pieces, each behind its length; what does not add up ends the list.
fn items(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<2>()?;
        let (item, after) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        data = after;
        Some(item)
    })
}

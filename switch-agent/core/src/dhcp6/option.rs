//! Option codes, and the walk through a block of options (RFC 8415 section 21.1).

use super::Refusal;

pub(super) const CLIENT_ID: u16 = 1;
pub(super) const SERVER_ID: u16 = 2;
pub(super) const IA_NA: u16 = 3;
pub(super) const IA_TA: u16 = 4;
pub(super) const IAADDR: u16 = 5;
pub(super) const ORO: u16 = 6;
pub(super) const PREFERENCE: u16 = 7;
pub(super) const STATUS_CODE: u16 = 13;
pub(super) const RAPID_COMMIT: u16 = 14;
pub(super) const USER_CLASS: u16 = 15;
pub(super) const VENDOR_CLASS: u16 = 16;
pub(super) const DNS_SERVERS: u16 = 23;
pub(super) const DOMAIN_LIST: u16 = 24;
pub(super) const IA_PD: u16 = 25;
pub(super) const INFORMATION_REFRESH_TIME: u16 = 32;
pub(super) const NTP_SERVER: u16 = 56;
pub(super) const BOOTFILE_URL: u16 = 59;
pub(super) const BOOTFILE_PARAM: u16 = 60;
pub(super) const CLIENT_ARCH_TYPE: u16 = 61;
pub(super) const NII: u16 = 62;
pub(super) const SOL_MAX_RT: u16 = 82;
pub(super) const INF_MAX_RT: u16 = 83;

/// Most options of one block; real clients send some ten.
const OPTIONS_MAX: usize = 64;

/// A block of options whose lengths add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// # Errors
    /// An option that reaches past the block, or too many of them.
    pub(super) fn parse(block: &'a [u8]) -> Result<Self, Refusal> {
        let mut rest = block;
        for _ in 0..OPTIONS_MAX {
            match split(rest) {
                Some((_, _, after)) => rest = after,
                None if rest.is_empty() => return Ok(Options(block)),
                None => return Err(Refusal::OptionOverrun),
            }
        }
        if rest.is_empty() { Ok(Options(block)) } else { Err(Refusal::TooManyOptions) }
    }

    /// Codes and contents, in order.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (code, data, after) = split(rest)?;
            rest = after;
            Some((code, data))
        })
    }

    /// All options with this code.
    pub(super) fn all(self, code: u16) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(found, _)| *found == code).map(|(_, data)| data)
    }

    /// The only option with this code.
    pub(super) fn one(self, code: u16) -> Result<Option<&'a [u8]>, Refusal> {
        let mut all = self.all(code);
        let first = all.next();
        if all.next().is_some() { Err(Refusal::Repeated) } else { Ok(first) }
    }
}

/// Code, content and what follows of the first option.
fn split(block: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (header, rest) = block.split_first_chunk::<4>()?;
    let [c0, c1, l0, l1] = *header;
    let (data, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
    Some((u16::from_be_bytes([c0, c1]), data, after))
}

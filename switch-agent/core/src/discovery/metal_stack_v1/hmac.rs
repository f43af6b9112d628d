//! HMAC of metal-api's REST side, type `Metal-View` (metal-stack `security`, `mac.go`): HMAC-SHA256 over
//! date, method and salt, in three header fields. Path and body are not signed.

use std::collections::VecDeque;

/// Scheme of `Authorization`: the HMAC type, which is a role of metal-api.
pub const SCHEME: &str = "Metal-View";
/// Life of a signature at metal-api, seconds.
pub const LIFETIME_S: u64 = 15;
pub const SALT_LEN: usize = 24;
/// Salts longer than this are refused; metal-hammer's are [`SALT_LEN`].
const SALT_LEN_MAX: usize = 64;
/// Signatures remembered for one port.
const SEEN_MAX: usize = 256;
/// `2006-01-02T15:04:05Z`
const DATE_SHAPE: &[u8; 20] = b"0000-00-00T00:00:00Z";

/// Why a request is not taken for one signed with the port's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HmacRefusal {
    #[error("sign the request: X-Date, X-Data-Salt and Authorization: Metal-View <hex>, once each")]
    Shape,
    #[error("the signature is not of the key that this port was given")]
    Key,
    #[error("the signature was used before")]
    Replayed,
}

/// The signature of a request, taken apart; not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What was signed.
    pub message: Vec<u8>,
    pub tag: [u8; 32],
}

impl Signature {
    /// Takes the header fields of a request apart. The date has to have the shape that metal-stack's clients
    /// write, but any value: a booting machine's clock is not to be relied on.
    pub fn parse(
        method: &str,
        authorization: &str,
        date: &str,
        salt: &str,
    ) -> Result<Signature, HmacRefusal> {
        let digits = |(have, want): (u8, &u8)| match want {
            b'0' => have.is_ascii_digit(),
            other => have == *other,
        };
        let date_ok = date.len() == DATE_SHAPE.len() && date.bytes().zip(DATE_SHAPE).all(digits);
        let salt_ok = (1..=SALT_LEN_MAX).contains(&salt.len()) && salt.bytes().all(|b| b.is_ascii_graphic());
        let tag = authorization.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix(' ')).and_then(unhex);
        match tag {
            Some(tag) if date_ok && salt_ok => Ok(Signature { message: message(date, method, salt), tag }),
            _ => Err(HmacRefusal::Shape),
        }
    }
}

/// What is signed.
pub fn message(date: &str, method: &str, salt: &str) -> Vec<u8> {
    [date, method, salt].concat().into_bytes()
}

/// The value of `Authorization`.
pub fn authorization(tag: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = format!("{SCHEME} ");
    for byte in tag {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut tag = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in tag.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(tag)
}

/// The last signatures that a port used. Told apart by their tag: date, method and salt are signed without
/// separators, so that one tag may have several readings.
#[derive(Debug, Clone, Default)]
pub struct Seen(VecDeque<[u8; 32]>);

impl Seen {
    /// Remembers a verified signature; false where it was there already.
    pub fn first(&mut self, tag: &[u8; 32]) -> bool {
        if self.0.contains(tag) {
            return false;
        }
        if self.0.len() >= SEEN_MAX {
            self.0.pop_front();
        }
        self.0.push_back(*tag);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "2026-11-20T10:00:00Z";

    #[test]
    fn signatures_come_apart() {
        let text = authorization(&[0xab; 32]);
        assert_eq!(text, format!("Metal-View {}", "ab".repeat(32)));
        let signature = Signature::parse("GET", &text, DATE, "salt").unwrap();
        assert_eq!(signature.tag, [0xab; 32]);
        assert_eq!(signature.message, b"2026-11-20T10:00:00ZGETsalt");
    }

    #[test]
    fn other_shapes_are_refused() {
        let good = authorization(&[1; 32]);
        let parse = |authorization: &str, date: &str, salt: &str| {
            Signature::parse("GET", authorization, date, salt).map(|_| ())
        };
        assert_eq!(parse(&good, "1970-01-01T00:00:00Z", "s"), Ok(()));
        let other_role = good.replace("View", "Edit");
        for bad in ["", "Metal-View", "Metal-View zz", "Bearer x", &good[..good.len() - 2], &other_role] {
            assert_eq!(parse(bad, DATE, "s"), Err(HmacRefusal::Shape), "{bad}");
        }
        for bad in
            ["", "now", "2026-11-20T10:00:00+01:00", "2026-11-20T10:00:00ZGETx", "2026-11-20 10:00:00Z"]
        {
            assert_eq!(parse(&good, bad, "s"), Err(HmacRefusal::Shape), "{bad}");
        }
        let long = "s".repeat(65);
        for bad in ["", "a b", "\u{e9}", &long] {
            assert_eq!(parse(&good, DATE, bad), Err(HmacRefusal::Shape), "{bad}");
        }
    }

    #[test]
    fn a_signature_is_good_once_as_far_as_is_remembered() {
        let mut seen = Seen::default();
        let tag = |n: usize| {
            let mut tag = [0; 32];
            tag[..8].copy_from_slice(&n.to_be_bytes());
            tag
        };
        assert!((0..SEEN_MAX).all(|n| seen.first(&tag(n))));
        assert!(!seen.first(&tag(0)));
        assert!(!seen.first(&tag(SEEN_MAX - 1)));
        assert!(seen.first(&tag(SEEN_MAX)));
        assert_eq!(seen.0.len(), SEEN_MAX);
        assert!(seen.first(&tag(0)));
    }
}

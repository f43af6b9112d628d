//! When a certificate expires: just enough of DER to read `notAfter` (RFC 5280 section 4.1.2.5).

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Takes one element of any tag off the front: its tag and content.
fn element<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        // A certificate is far shorter than three bytes of length can say.
        let (digits, rest) = if (1..=3).contains(&count) {
            rest.split_at_checked(count)?
        } else {
            return None;
        };
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some((tag, content))
}

fn tagged<'a>(bytes: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    element(bytes).filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
}

/// Unix time (seconds) of a certificate's `notAfter`; `None` where the bytes are no certificate.
pub fn not_after(mut der: &[u8]) -> Option<i64> {
    let mut certificate = tagged(&mut der, SEQUENCE)?;
    let mut signed = tagged(&mut certificate, SEQUENCE)?;
    if signed.first() == Some(&VERSION) {
        element(&mut signed)?;
    }
    tagged(&mut signed, INTEGER)?;
    let _algorithm = tagged(&mut signed, SEQUENCE)?;
    let _issuer = tagged(&mut signed, SEQUENCE)?;
    let mut validity = tagged(&mut signed, SEQUENCE)?;
    element(&mut validity)?;
    let (tag, text) = element(&mut validity)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let year_digits = match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    };
    if text.len() != year_digits + 10 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = |at: usize, len: usize| text.get(at..at + len)?.parse::<i64>().ok();
    let year = match (tag, number(0, year_digits)?) {
        // RFC 5280: two digits are 1950 to 2049.
        (UTC_TIME, year) if year >= 50 => 1900 + year,
        (UTC_TIME, year) => 2000 + year,
        (_, year) => year,
    };
    let part = |nth: usize| number(year_digits + nth * 2, 2);
    let (month, day) = (part(0)?, part(1)?);
    let seconds = part(2)? * 3600 + part(3)? * 60 + part(4)?;
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then(|| days(year, month, day) * 86_400 + seconds)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years start in March, so that the leap day
/// comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let mut bytes = vec![tag, 0x82];
        bytes.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        bytes.extend(content);
        bytes
    }

    fn certificate(time: &[u8]) -> Vec<u8> {
        let validity = wrap(SEQUENCE, &[&wrap(UTC_TIME, &[b"200101000000Z"]), time]);
        let (version, serial) = (wrap(VERSION, &[&[2, 1, 2]]), [INTEGER, 1, 7]);
        let empty = wrap(SEQUENCE, &[]);
        let signed = wrap(SEQUENCE, &[&version, &serial, &empty, &empty, &validity]);
        wrap(SEQUENCE, &[&signed, &empty])
    }

    #[test]
    fn both_kinds_of_time_are_read() {
        let utc = |text: &str| not_after(&certificate(&wrap(UTC_TIME, &[text.as_bytes()])));
        let general = |text: &str| not_after(&certificate(&wrap(GENERALIZED_TIME, &[text.as_bytes()])));
        assert_eq!(utc("700101000000Z"), Some(0));
        assert_eq!(utc("240229123456Z"), Some(1_709_210_096));
        assert_eq!(utc("491231235959Z"), Some(2_524_607_999));
        assert_eq!(general("20500101000000Z"), Some(2_524_608_000));
        assert_eq!(general("99991231235959Z"), Some(253_402_300_799));
        for bad in ["", "7001010000Z", "701301000000Z", "700100000000Z", "700101000000", "70010100000xZ"] {
            assert_eq!(utc(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = not_after(&bytes);
        }

        #[test]
        fn a_cut_certificate_is_none(cut in 0usize..70) {
            let whole = certificate(&wrap(UTC_TIME, &[b"491231235959Z"]));
            prop_assume!(cut < whole.len());
            prop_assert_eq!(not_after(&whole[..cut]), None);
        }
    }
}

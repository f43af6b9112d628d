//! The header block of an HTTP/1 request, looked at before the HTTP library sees it.
//!
//! A lenient parser repairs what two parsers read differently: bare line feeds, a length next to a
//! transfer coding, two hosts. After it has parsed, nothing of that can be seen any more, so the bytes are
//! checked first (RFC 9112 sections 2.2, 3.2, 6.1 and 11.2).

/// How the request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`; 0 where there is none.
    Length(u64),
    Chunked,
}

/// Why a header block is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeadRefusal {
    #[error("a line ends without CR LF, or a control character is in the header")]
    Bytes,
    #[error("the request line is not METHOD SP /path SP HTTP/1.x")]
    RequestLine,
    #[error("a header line is malformed or folded")]
    Field,
    #[error("there is not exactly one Host")]
    Host,
    #[error("Content-Length is repeated or no number, or stands next to Transfer-Encoding")]
    Length,
    #[error("Transfer-Encoding is repeated, other than chunked, or in HTTP/1.0")]
    Coding,
    #[error("Upgrade is not served")]
    Upgrade,
}

impl HeadRefusal {
    /// Label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            HeadRefusal::Bytes => "head-bytes",
            HeadRefusal::RequestLine => "request-line",
            HeadRefusal::Field => "header-field",
            HeadRefusal::Host => "host",
            HeadRefusal::Length => "content-length",
            HeadRefusal::Coding => "transfer-encoding",
            HeadRefusal::Upgrade => "upgrade",
        }
    }
}

/// Length of the header block at the start of `bytes`, with its empty line; `None` while that is not
/// there. Fails as soon as a line ends in a bare LF, for which no end would ever be found.
pub fn find_end(bytes: &[u8]) -> Result<Option<usize>, HeadRefusal> {
    for (at, byte) in bytes.iter().enumerate() {
        if *byte != b'\n' {
            continue;
        }
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(HeadRefusal::Bytes);
        }
        if at == 1 {
            return Err(HeadRefusal::RequestLine);
        }
        if at >= 3 && &bytes[at - 3..at] == b"\r\n\r" {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// Checks one whole header block, as [`find_end`] delimits it.
pub fn check(head: &[u8]) -> Result<Framing, HeadRefusal> {
    std::str::from_utf8(head).map_err(|_| HeadRefusal::Bytes)?;
    let lines =
        head.strip_suffix(b"\r\n").filter(|lines| lines.ends_with(b"\r\n")).ok_or(HeadRefusal::Bytes)?;
    let mut lines = lines
        .split_inclusive(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r\n").ok_or(HeadRefusal::Bytes));
    let old = check_request_line(lines.next().unwrap_or(Ok(b""))?)?;
    let (mut hosts, mut length, mut chunked) = (0usize, None, false);
    for line in lines {
        let (name, value) = field(line?)?;
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        if is(b"host") {
            hosts += 1;
        } else if is(b"upgrade") {
            return Err(HeadRefusal::Upgrade);
        } else if is(b"content-length") {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let parsed = std::str::from_utf8(value).ok().and_then(|value| value.parse::<u64>().ok());
            let parsed = parsed.filter(|_| digits).ok_or(HeadRefusal::Length)?;
            if length.replace(parsed).is_some() {
                return Err(HeadRefusal::Length);
            }
        } else if is(b"transfer-encoding") {
            if chunked || old || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadRefusal::Coding);
            }
            chunked = true;
        }
    }
    if hosts != 1 {
        return Err(HeadRefusal::Host);
    }
    match (length, chunked) {
        (Some(_), true) => Err(HeadRefusal::Length),
        (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
        (None, true) => Ok(Framing::Chunked),
    }
}

/// Whether it is HTTP/1.0.
fn check_request_line(line: &[u8]) -> Result<bool, HeadRefusal> {
    let bad = HeadRefusal::RequestLine;
    let mut parts = line.split(|b| *b == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), None) = (method, target, parts.next()) else {
        return Err(bad);
    };
    let method_ok = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
    // Only the origin form: an absolute one names a host that a proxy might follow.
    // The library drops a fragment without a word.
    let target_ok = target.starts_with(b"/") && target.iter().all(|b| b.is_ascii_graphic() && *b != b'#');
    if !method_ok || !target_ok {
        return Err(bad);
    }
    match version {
        Some(b"HTTP/1.1") => Ok(false),
        Some(b"HTTP/1.0") => Ok(true),
        _ => Err(bad),
    }
}

/// Of a field's name (RFC 9110 section 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

fn field(line: &[u8]) -> Result<(&[u8], &[u8]), HeadRefusal> {
    let colon = line.iter().position(|b| *b == b':').ok_or(HeadRefusal::Field)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err(HeadRefusal::Field);
    }
    if value.iter().any(|b| *b != b'\t' && b.is_ascii_control()) {
        return Err(HeadRefusal::Bytes);
    }
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    Ok((name, &value[start..end]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict(head: &str) -> Result<Framing, HeadRefusal> {
        let end = find_end(head.as_bytes())?.expect("a whole header block");
        assert_eq!(end, head.len());
        check(head.as_bytes())
    }

    #[test]
    fn ordinary_requests_pass() {
        assert_eq!(verdict("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Ok(Framing::Length(0)));
        assert_eq!(
            verdict("POST /a?b HTTP/1.0\r\nhost:x\r\nContent-Length:  5 \r\n\r\n"),
            Ok(Framing::Length(5))
        );
        assert_eq!(
            verdict("PUT / HTTP/1.1\r\nHOST: x\r\ntransfer-encoding: Chunked\r\n\r\n"),
            Ok(Framing::Chunked)
        );
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        use HeadRefusal as R;
        let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n");
        let cases = [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", R::Length),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5", R::Length),
            ("Content-Length: 5\r\nContent-Length: 5", R::Length),
            ("Content-Length: 5\r\nContent-Length: 6", R::Length),
            ("Content-Length: 5, 5", R::Length),
            ("Content-Length: +5", R::Length),
            ("Content-Length: 0x5", R::Length),
            ("Content-Length:", R::Length),
            ("Content-Length: 99999999999999999999", R::Length),
            ("Transfer-Encoding: gzip, chunked", R::Coding),
            ("Transfer-Encoding: identity", R::Coding),
            ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", R::Coding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", R::Coding),
            ("Transfer-Encoding: xchunked", R::Coding),
            ("Transfer-Encoding: \x0bchunked", R::Bytes),
            ("Transfer-Encoding : chunked", R::Field),
            (" folded: x", R::Field),
            ("a: b\r\n c", R::Field),
            ("nocolon", R::Field),
            (": x", R::Field),
            ("a: b\0c", R::Bytes),
            ("a: b\rc", R::Bytes),
            ("a: b\nc: d", R::Bytes),
            ("Host: y", R::Host),
            ("Upgrade: h2c", R::Upgrade),
        ];
        for (fields, wanted) in cases {
            assert_eq!(verdict(&with(fields)), Err(wanted), "{fields:?}");
        }
        for line in [
            "CONNECT x:1 HTTP/1.1",
            "GET http://x/ HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET / HTTP/2.0",
            "GET /",
            "get / HTTP/1.1",
            "GET /\t HTTP/1.1",
            "GET / a HTTP/1.1",
            "GET /#a HTTP/1.1",
            "",
        ] {
            assert_eq!(verdict(&format!("{line}\r\nHost: x\r\n\r\n")), Err(R::RequestLine), "{line:?}");
        }
        assert_eq!(verdict("GET / HTTP/1.1\r\n\r\n"), Err(R::Host));
        assert_eq!(verdict("GET / HTTP/1.1\nHost: x\n\n"), Err(R::Bytes));
        assert_eq!(
            verdict("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(R::Coding)
        );
    }

    #[test]
    fn the_end_is_found_byte_by_byte() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
        for cut in 0..head.len() - 4 {
            assert_eq!(find_end(&head[..cut]), Ok(None));
        }
        assert_eq!(find_end(head), Ok(Some(head.len() - 4)));
    }

    proptest! {
        #[test]
        fn checking_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = find_end(&bytes);
            let _ = check(&bytes);
        }
    }
}

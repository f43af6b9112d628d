//! Where the messages of an HTTP/1 connection begin and end: which bytes the HTTP library may have.
//!
//! Every header block is looked at by [`head`] before it is parsed; bodies of known length pass, and after
//! them comes the next header block. After a chunked body the connection ends, so that nobody has to know
//! where it does.

use super::head::{self, Framing, HeadRefusal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// At or in a header block.
    Head,
    /// In a body of known length, this much of it to come.
    Body(u64),
    /// No longer looked at: HTTP/2, a chunked body, a header block that is too long (which the library
    /// refuses), or the end of the stream.
    Through,
}

/// What may be done with the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// So many may pass.
    Pass(usize),
    /// None, until there are more.
    More,
    /// None, ever.
    Refuse(HeadRefusal),
}

/// Follows one connection.
#[derive(Debug, Clone)]
pub struct Scanner {
    phase: Phase,
    header_bytes: usize,
}

impl Scanner {
    /// `header_bytes`: longest header block that is looked at.
    pub fn new(header_bytes: usize) -> Scanner {
        Scanner { phase: Phase::Head, header_bytes }
    }

    /// Whether a header block is being waited for.
    pub fn is_in_head(&self) -> bool {
        self.phase == Phase::Head
    }

    /// Whether nothing is looked at any more.
    pub fn is_through(&self) -> bool {
        self.phase == Phase::Through
    }

    /// From now on everything passes.
    pub fn through(&mut self) {
        self.phase = Phase::Through;
    }

    /// How many of `wanted` bytes may be read past the scanner now; none in a header block.
    pub fn unseen(&self, wanted: usize) -> usize {
        match self.phase {
            Phase::Head => 0,
            Phase::Body(left) => usize::try_from(left).unwrap_or(usize::MAX).min(wanted),
            Phase::Through => wanted,
        }
    }

    /// So many bytes were read past the scanner.
    pub fn passed(&mut self, bytes: usize) {
        if let Phase::Body(left) = self.phase {
            let left = left.saturating_sub(bytes as u64);
            self.phase = if left == 0 { Phase::Head } else { Phase::Body(left) };
        }
    }

    /// Looks at the bytes that come next. What passes is not shown again.
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        if self.phase != Phase::Head {
            let here = self.unseen(bytes.len());
            self.passed(here);
            return Scan::Pass(here);
        }
        let end = match head::find_end(bytes) {
            Ok(Some(end)) if end <= self.header_bytes => end,
            Ok(None) if bytes.len() < self.header_bytes => return Scan::More,
            Ok(_) => {
                self.through();
                return Scan::Pass(bytes.len());
            }
            Err(refusal) => return Scan::Refuse(refusal),
        };
        match head::check(&bytes[..end]) {
            Ok(Framing::Length(0)) => Scan::Pass(end),
            Ok(Framing::Length(length)) => {
                self.phase = Phase::Body(length);
                Scan::Pass(end)
            }
            Ok(Framing::Chunked) => {
                self.through();
                Scan::Pass(bytes.len())
            }
            Err(refusal) => Scan::Refuse(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let mut scanner = Scanner::new(100);
        let post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET";
        let end = post.len() - 6;
        assert_eq!(scanner.scan(&post[..end - 1]), Scan::More);
        assert_eq!(scanner.scan(post), Scan::Pass(end));
        assert_eq!(scanner.unseen(10), 3);
        assert_eq!(scanner.scan(b"a"), Scan::Pass(1));
        scanner.passed(2);
        assert!(scanner.is_in_head());
        assert_eq!(scanner.scan(b"GET"), Scan::More);
        assert_eq!(scanner.scan(b"GET\n"), Scan::Refuse(HeadRefusal::Bytes));
    }

    #[test]
    fn nothing_is_looked_at_behind_a_chunked_body_or_in_a_long_block() {
        let mut scanner = Scanner::new(100);
        let text = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET\n";
        assert_eq!(scanner.scan(text), Scan::Pass(text.len()));
        assert!(scanner.is_through());
        let mut scanner = Scanner::new(100);
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "a".repeat(100));
        assert_eq!(scanner.scan(long.as_bytes()), Scan::Pass(long.len()));
        assert!(scanner.is_through());
        // The same where it arrives whole: the library refuses it by its length.
        let mut scanner = Scanner::new(100);
        assert_eq!(scanner.scan(format!("{long}\r\n\r\n").as_bytes()), Scan::Pass(long.len() + 4));
        assert!(scanner.is_through());
    }
}

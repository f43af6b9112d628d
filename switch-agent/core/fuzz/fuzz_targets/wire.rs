//! A connection of the discovery proxy, as bytes: which of them the HTTP library gets to see, how frames of
//! HTTP/2 are counted.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use switch_agent_core::discovery::Limits;
use switch_agent_core::discovery::frames::Frames;
use switch_agent_core::discovery::head::{self, Framing, HeadRefusal};
use switch_agent_core::discovery::scan::{Scan, Scanner};

const HEADER_BYTES: usize = 512;

/// Lets a connection run in pieces: what passed, header blocks apart from the rest, and how it ended.
fn run(data: &[u8], piece: usize) -> (Vec<Vec<u8>>, usize, Option<HeadRefusal>) {
    let mut scanner = Scanner::new(HEADER_BYTES);
    let (mut heads, mut passed, mut buffer) = (Vec::new(), 0, Vec::new());
    for part in data.chunks(piece) {
        buffer.extend_from_slice(part);
        while !buffer.is_empty() {
            let in_head = scanner.is_in_head();
            match scanner.scan(&buffer) {
                Scan::Pass(bytes) => {
                    assert!(bytes > 0 && bytes <= buffer.len());
                    let seen: Vec<u8> = buffer.drain(..bytes).collect();
                    passed += bytes;
                    if in_head && !scanner.is_through() {
                        heads.push(seen);
                    }
                }
                Scan::More => break,
                Scan::Refuse(refusal) => return (heads, passed, Some(refusal)),
            }
        }
    }
    (heads, passed, None)
}

/// A header block that passed, told anew from what it says: method, target, fields.
fn rebuilt(head: &[u8]) -> String {
    let text = str::from_utf8(head).expect("what passes is text");
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let mut rebuilt = lines.next().expect("a request line").to_owned();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a field");
        rebuilt.push_str(&format!("\r\n{}: {}", name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])));
    }
    rebuilt.push_str("\r\n\r\n");
    rebuilt
}

fuzz_target!(|data: &[u8]| {
    let whole = run(data, data.len().max(1));
    for piece in [1, 7] {
        let (heads, _, refusal) = run(data, piece);
        // A block that is too long is noticed earlier in pieces; up to there nothing differs.
        let same = heads.len().min(whole.0.len());
        assert_eq!(heads[..same], whole.0[..same]);
        assert!(refusal == whole.2 || heads.len() != whole.0.len() || data.len() > HEADER_BYTES);
    }
    for bytes in &whole.0 {
        let framing = head::check(bytes);
        assert!(matches!(framing, Ok(Framing::Length(_))));
        let again = rebuilt(bytes);
        // One request, and the same one.
        assert_eq!(head::find_end(again.as_bytes()), Ok(Some(again.len())));
        assert_eq!(head::check(again.as_bytes()), framing);
    }

    let mut frames = Frames::new(&Limits::default());
    let mut pieces = frames.clone();
    let outcome = frames.take(data, Duration::ZERO);
    let piecewise = data.chunks(3).try_for_each(|part| pieces.take(part, Duration::ZERO));
    assert_eq!(outcome, piecewise);
});

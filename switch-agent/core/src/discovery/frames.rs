//! The frames of an HTTP/2 connection, counted before they are parsed (RFC 9113 section 4.1).
//!
//! Data has limits of its own. What is left costs the sender a few bytes and the switch an answer, an entry or
//! the decoding of header fields (RFC 9113 section 10.5): headers, resets, settings, pings, continuations,
//! window updates, empty data. A peer that sends more of that than any client needs is cut off.

use std::time::Duration;

use super::Limits;
use super::bucket::Bucket;

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` (RFC 9113 section 3.4).
const PREFACE_LEN: usize = 24;
const HEADER_LEN: usize = 9;
/// Largest payload that a peer may send, as nothing else is announced to it (SETTINGS_MAX_FRAME_SIZE).
const PAYLOAD_LEN_MAX: usize = 1 << 14;
const DATA: u8 = 0x0;
const WINDOW_UPDATE: u8 = 0x8;
/// Window updates for each frame of the other kinds: a client sends two for each piece of a response.
const WINDOW_UPDATES: u32 = 16;

/// Why a connection is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameRefusal {
    #[error("too many control frames")]
    Flood,
    #[error("a frame is longer than was agreed")]
    TooLong,
}

impl FrameRefusal {
    /// Label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            FrameRefusal::Flood => "h2-flood",
            FrameRefusal::TooLong => "h2-frame-size",
        }
    }
}

/// Follows the frames of one connection, from its preface on.
#[derive(Debug, Clone)]
pub struct Frames {
    /// Bytes of the preface or of a payload that are not looked at.
    skip: usize,
    header: [u8; HEADER_LEN],
    have: usize,
    control: Bucket,
    windows: Bucket,
}

impl Frames {
    pub fn new(limits: &Limits) -> Frames {
        let interval = Duration::from_secs(1) / limits.control_frame_rate.max(1);
        let burst = limits.control_frame_burst;
        Frames {
            skip: PREFACE_LEN,
            header: [0; HEADER_LEN],
            have: 0,
            control: Bucket::new(burst, interval),
            windows: Bucket::new(burst.saturating_mul(WINDOW_UPDATES), interval / WINDOW_UPDATES),
        }
    }

    /// Takes the next bytes of the connection. `now` is since an arbitrary origin, and may not run
    /// backwards.
    pub fn take(&mut self, mut bytes: &[u8], now: Duration) -> Result<(), FrameRefusal> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return Ok(());
            }
            let wanted = (HEADER_LEN - self.have).min(bytes.len());
            let (part, rest) = bytes.split_at(wanted);
            self.header[self.have..self.have + wanted].copy_from_slice(part);
            self.have += wanted;
            bytes = rest;
            if self.have == HEADER_LEN {
                self.have = 0;
                self.skip = self.frame(now)?;
            }
        }
    }

    /// Judges a frame by its header; gives the length of its payload.
    fn frame(&mut self, now: Duration) -> Result<usize, FrameRefusal> {
        let [a, b, c, kind, ..] = self.header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length > PAYLOAD_LEN_MAX {
            return Err(FrameRefusal::TooLong);
        }
        let taken = match kind {
            DATA if length > 0 => Ok(()),
            WINDOW_UPDATE => self.windows.take(now),
            _ => self.control.take(now),
        };
        taken.map(|()| length).map_err(|_| FrameRefusal::Flood)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 0x6;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, 0, 0, 0, 0, 1];
        bytes.resize(HEADER_LEN + length, b'P');
        bytes
    }

    fn started() -> Frames {
        let limits = Limits { control_frame_rate: 10, control_frame_burst: 20, ..Limits::default() };
        let mut frames = Frames::new(&limits);
        frames.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Duration::ZERO).unwrap();
        frames
    }

    fn accepted(frame: &[u8]) -> usize {
        let mut frames = started();
        (0..1000).take_while(|_| frames.take(frame, Duration::ZERO).is_ok()).count()
    }

    #[test]
    fn control_frames_are_rated_and_data_is_not() {
        // HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, CONTINUATION, unknown.
        for kind in [0x1, 0x2, 0x3, 0x4, 0x5, PING, 0x7, 0x9, 0xee] {
            assert_eq!(accepted(&frame(kind, 8)), 20, "{kind}");
        }
        assert_eq!(accepted(&frame(DATA, 0)), 20);
        assert_eq!(accepted(&frame(WINDOW_UPDATE, 4)), 320);
        assert_eq!(accepted(&frame(DATA, 1)), 1000);
        assert_eq!(started().take(&frame(DATA, PAYLOAD_LEN_MAX), Duration::ZERO), Ok(()));
        let long = frame(DATA, PAYLOAD_LEN_MAX + 1);
        assert_eq!(started().take(&long, Duration::ZERO), Err(FrameRefusal::TooLong));
    }

    #[test]
    fn the_rate_refills() {
        let mut frames = started();
        for second in 0..10 {
            for _ in 0..10 {
                frames.take(&frame(PING, 8), Duration::from_secs(second)).unwrap();
            }
        }
    }

    proptest! {
        /// However the bytes are cut, the same frames are seen.
        #[test]
        fn pieces_do_not_matter(kinds in proptest::collection::vec((0u8..12, 0usize..40), 0..40), piece in 1usize..50) {
            let bytes: Vec<u8> = kinds.iter().flat_map(|(kind, length)| frame(*kind, *length)).collect();
            let whole = started().take(&bytes, Duration::ZERO);
            let mut frames = started();
            let cut = bytes.chunks(piece).try_for_each(|part| frames.take(part, Duration::ZERO));
            prop_assert_eq!(whole, cut);
        }
    }
}

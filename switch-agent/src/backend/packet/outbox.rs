//! Frames that leave together.

use std::io;
use std::net::Ipv6Addr;

use super::sys::BATCH_LEN;

/// Offsets in an untagged frame.
const SOURCE: usize = 22;
const DESTINATION: usize = 38;

/// One frame, and what became of it.
#[derive(Debug, Default)]
pub struct Outgoing {
    ifindex: u32,
    frame: Vec<u8>,
    error: Option<i32>,
}

impl Outgoing {
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    pub fn bytes(&self) -> &[u8] {
        &self.frame
    }

    pub(super) fn source(&self) -> Ipv6Addr {
        self.address(SOURCE)
    }

    pub(super) fn destination(&self) -> Ipv6Addr {
        self.address(DESTINATION)
    }

    fn address(&self, at: usize) -> Ipv6Addr {
        let octets = self.frame.get(at..).and_then(|rest| rest.first_chunk::<16>());
        octets.copied().map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from)
    }

    /// Records why the frame did not leave.
    pub fn fail(&mut self, error: &io::Error) {
        self.error = Some(error.raw_os_error().unwrap_or(libc::EIO));
    }
}

/// Frames to send in one go. Their buffers are kept and used again.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: Vec<Outgoing>,
    filled: usize,
}

impl Outbox {
    /// With room for as many frames as [`Outbox::is_full`] allows.
    pub fn with_buffers() -> Outbox {
        let frame = || Outgoing { ifindex: 0, frame: Vec::with_capacity(256), error: None };
        Outbox { frames: (0..BATCH_LEN).map(|_| frame()).collect(), filled: 0 }
    }

    pub fn clear(&mut self) {
        self.filled = 0;
    }

    pub fn len(&self) -> usize {
        self.filled
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// One system call would not take more.
    pub fn is_full(&self) -> bool {
        self.filled >= BATCH_LEN
    }

    /// Adds a frame for a port: an Ethernet frame with its destination first, written by `write` over what
    /// the buffer held.
    pub fn push(&mut self, ifindex: u32, write: impl FnOnce(&mut Vec<u8>)) {
        if self.filled == self.frames.len() {
            self.frames.push(Outgoing::default());
        }
        if let Some(slot) = self.frames.get_mut(self.filled) {
            slot.ifindex = ifindex;
            slot.error = None;
            write(&mut slot.frame);
            self.filled += 1;
        }
    }

    /// The frames to send.
    pub fn frames(&self) -> &[Outgoing] {
        self.frames.get(..self.filled).unwrap_or_default()
    }

    pub fn frames_mut(&mut self) -> &mut [Outgoing] {
        self.frames.get_mut(..self.filled).unwrap_or_default()
    }

    /// The first error among these frames, as errno.
    pub fn error(&self, frames: std::ops::Range<usize>) -> Option<i32> {
        self.frames().get(frames)?.iter().find_map(|frame| frame.error)
    }
}

//! The server of one port: configuration and the limit on answers.

use std::time::Duration;

use super::Dhcp6Config;
use super::frame::parse_frame;
use super::message::{Message, MessageType};
use super::refusal::Refusal;
use super::respond::{Answer, PortFacts, respond};
use crate::discovery::bucket::Bucket;
use crate::ndp::ChecksumOffload;

/// Answers of a port at once; a boot exchanges four messages, and firmware, iPXE and BMC share a port.
const BURST: u32 = 20;
/// One more answer each; a client repeats itself after a second at the earliest.
const INTERVAL: Duration = Duration::from_millis(100);

/// Answers the machines of one port.
#[derive(Debug, Clone)]
pub struct Server {
    config: Dhcp6Config,
    bucket: Bucket,
}

/// What became of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handled {
    /// What it was, where it got so far.
    pub received: Option<MessageType>,
    pub outcome: Result<Answer, Refusal>,
}

impl Server {
    pub fn new(config: Dhcp6Config) -> Self {
        Server { config, bucket: Bucket::new(BURST, INTERVAL) }
    }

    pub fn config(&self) -> &Dhcp6Config {
        &self.config
    }

    /// Replaces the configuration; the limit goes on.
    pub fn reconfigure(&mut self, config: Dhcp6Config) {
        self.config = config;
    }

    /// Takes in one frame with UDP in it. `now` is since an arbitrary origin and does not run backwards.
    pub fn handle(
        &mut self,
        now: Duration,
        port: PortFacts,
        frame: &[u8],
        offload: ChecksumOffload,
    ) -> Handled {
        let mut received = None;
        let mut answer = || {
            let datagram = parse_frame(frame, offload)?;
            let message = Message::parse(datagram.payload)?;
            received = Some(message.kind);
            self.bucket.take(now).map_err(|_| Refusal::RateLimited)?;
            respond(&self.config, port, &datagram, &message)
        };
        let outcome = answer();
        Handled { received, outcome }
    }
}

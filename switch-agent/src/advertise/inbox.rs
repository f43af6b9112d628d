//! Commands and link events on their way to the driver.
//!
//! Not a queue but the latest word on each port and link: bounded by their number, never full, and a sender
//! never waits. A link that went down and up in between is remembered as such.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::sys::eventfd::{EfdFlags, EventFd};
use switch_agent_core::name::PortName;
use switch_agent_core::ra::{AdvertiserSpec, Cease, LinkEvent};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Set(Arc<AdvertiserSpec>),
    Cease(Cease),
}

/// What happened to a link since the driver looked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkChange {
    pub(super) carrier: bool,
    /// It was down at some time in between.
    pub(super) was_down: bool,
    pub(super) gone: bool,
    /// The kernel has a usable link-local address on it.
    pub(super) link_local: bool,
    /// When the kernel's word of it came.
    pub(super) at: Instant,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) commands: BTreeMap<PortName, Command>,
    pub(super) links: BTreeMap<u32, LinkChange>,
}

/// Its descriptor is readable while there is something to [`Inbox::take`].
#[derive(Debug)]
pub(super) struct Inbox {
    pending: Mutex<Pending>,
    filled: EventFd,
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.filled.as_fd()
    }
}

impl Inbox {
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new() -> io::Result<Inbox> {
        let filled = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Inbox { pending: Mutex::default(), filled })
    }

    pub(super) fn command(&self, port: PortName, command: Command) {
        self.commands([(port, command)]);
    }

    pub(super) fn commands(&self, commands: impl IntoIterator<Item = (PortName, Command)>) {
        self.put(|pending| pending.commands.extend(commands));
    }

    pub(super) fn link(&self, event: LinkEvent) {
        let carrier = event.carrier && !event.gone;
        let link_local = event.link_local.is_some();
        self.put(|pending| {
            let before = pending.links.get(&event.ifindex);
            let was_down = !carrier || before.is_some_and(|change| change.was_down);
            let change = LinkChange { carrier, was_down, gone: event.gone, link_local, at: Instant::now() };
            pending.links.insert(event.ifindex, change);
        });
    }

    fn put(&self, put: impl FnOnce(&mut Pending)) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was first has woken the driver: one system call for a whole bring-up.
        let first = pending.commands.is_empty() && pending.links.is_empty();
        put(&mut pending);
        drop(pending);
        if first {
            self.wake();
        }
    }

    /// Makes the driver look up, with or without anything to take.
    pub(super) fn wake(&self) {
        // It can only be refused while the descriptor is readable already.
        self.filled.write(1).ok();
    }

    pub(super) fn take(&self) -> Pending {
        // In this order: what is put from now on either is taken below or makes the descriptor readable again.
        self.filled.read().ok();
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(carrier: bool, gone: bool) -> LinkEvent {
        LinkEvent { ifindex: 3, name: "Ethernet4".to_owned(), carrier, master: None, link_local: None, gone }
    }

    #[test]
    fn a_flap_between_two_looks_is_not_lost() {
        let inbox = Inbox::new().unwrap();
        let taken = || {
            let change = inbox.take().links[&3];
            (change.carrier, change.was_down, change.gone)
        };
        inbox.link(event(true, false));
        assert_eq!(taken(), (true, false, false));
        inbox.link(event(false, false));
        inbox.link(event(true, false));
        assert_eq!(taken(), (true, true, false));
        inbox.link(event(true, true));
        assert_eq!(taken(), (false, true, true));
        assert_eq!(inbox.take(), Pending::default());
    }

    #[test]
    fn the_last_command_of_a_port_counts() {
        let inbox = Inbox::new().unwrap();
        let port: PortName = "Ethernet4".parse().unwrap();
        inbox.command(port.clone(), Command::Cease(Cease::Final));
        inbox.command(port.clone(), Command::Cease(Cease::Silent));
        assert_eq!(inbox.take().commands[&port], Command::Cease(Cease::Silent));
    }
}

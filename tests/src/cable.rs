//! A piece of wire between two processes of this host, for a lab kernel that has no interface in common
//! with it.
//!
//! The wire is a pair of datagram sockets: one frame is one datagram, whole or not at all. It needs neither
//! a device nor a privilege.

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::failure::{Context, Failure, Result};

/// Becomes `command`, which finds the descriptors of both ends in `LAB_CABLE` (`"3 4"`).
pub(crate) fn run(command: &[OsString]) -> Result<bool> {
    let (program, arguments) = command.split_first().context(|| "no command".into())?;
    let (one, other) = UnixDatagram::pair().context(|| "socketpair".into())?;
    for end in [&one, &other] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::empty())).context(|| "keep a descriptor open".into())?;
    }
    let error = Command::new(program)
        .args(arguments)
        .env("LAB_CABLE", format!("{} {}", one.as_raw_fd(), other.as_raw_fd()))
        .exec();
    Err(Failure(format!("{}: {error}", program.display())))
}

//! A UEFI machine with real firmware boots over HTTP through the boot VRF (`labs/uefi`).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::capture::{self, Dhcp6, Event, Message};
use crate::cases::boot::expect_mac_at;
use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::{CONVERGENCE, Lab, SOCKETS, Socket};
use crate::wait;

/// The firmware's network card (`labs/uefi/lib.sh`).
const MAC: &str = "52:54:00:00:00:09";
/// Where its cable is.
const AT: Socket = SOCKETS[2];
/// `labs/uefi/firmware` ends a boot after 60 s.
const BOOT_MAX: Duration = Duration::from_secs(70);

pub(crate) fn cases() -> Vec<Case> {
    cases!("uefi",
        600 s: firmware_is_seen_and_hears_an_advertisement,
    )
}

/// One power cycle of the machine.
struct Boot {
    events: Vec<Event>,
}

/// Directory that `labs/uefi/bmc` watches.
fn bmc_directory() -> Result<PathBuf> {
    std::env::var_os("LAB_UEFI").map(PathBuf::from).context(|| "LAB_UEFI is not set".into())
}

/// Powers the machine on and waits until it is off again.
fn boot(lab: &Lab, number: u32) -> Result<Boot> {
    let directory = bmc_directory()?.join(format!("boot-{number}"));
    fs::create_dir(&directory).context(|| directory.display().to_string())?;
    let appears = |name: &'static str| {
        let path = directory.join(name);
        move || {
            ensure!(path.exists(), "no {}", path.display());
            Ok(())
        }
    };
    wait::until(wait::seconds(5), appears("on"))?;
    AT.set_carrier(true)?;
    let outcome = wait::until(wait::seconds(60), || expect_mac_at(lab, MAC, &AT))
        .and_then(|()| wait::until(BOOT_MAX, appears("off")));
    AT.set_carrier(false)?;
    outcome?;
    // A machine that is off: the next one at this port is a new boot for the agent, not a flap.
    wait::until(wait::seconds(10), || {
        let entry = lab.leaf_of(&AT).port(AT.port)?;
        ensure!(entry["oper_status"] == "down", "{} is {}", AT.port, entry["oper_status"]);
        Ok(())
    })?;
    Ok(Boot { events: capture::read(&directory.join("wire.pcap"))? })
}

/// Time of the first event that is `wanted`.
fn first(events: &[Event], wanted: impl Fn(&Message) -> bool) -> Option<Duration> {
    events.iter().find(|event| wanted(&event.message)).map(|event| event.at)
}

fn print_timeline(events: &[Event], zero: Duration) {
    for event in events {
        let (before, after) = (zero.saturating_sub(event.at), event.at.saturating_sub(zero));
        let (sign, span) = if before.is_zero() { (' ', after) } else { ('-', before) };
        println!(
            "  {sign}{:.3} s  {}  ({} > {})",
            span.as_secs_f64(),
            event.message,
            event.source,
            event.destination
        );
    }
}

fn firmware_is_seen_and_hears_an_advertisement(lab: &Lab) -> Result<()> {
    wait::until(CONVERGENCE, || lab.leaf_of(&AT).expect_phase(AT.port, "ready"))?;
    let boot = boot(lab, 1)?;
    let solicit = first(&boot.events, |message| *message == Message::Dhcp6(Dhcp6::Solicit))
        .context(|| format!("no Solicit in {:?}", boot.events))?;
    print_timeline(&boot.events, solicit);
    // Firmware discards advertisements until it asks for an address, and solicits a second after that.
    let mut answers = boot.events.iter().filter(|event| event.message == Message::RouterAdvertisement);
    let answer =
        answers.find(|event| event.at >= solicit).context(|| "no advertisement".into())?.at - solicit;
    ensure!(answer <= Duration::from_millis(1500), "the advertisement came {answer:?} after the Solicit");
    let probe = |message: &Message| matches!(message, Message::DuplicateProbe(target) if AT.prefix().contains(target));
    ensure!(first(&boot.events, probe).is_some(), "the firmware has made no address of {}", AT.prefix());
    Ok(())
}

//! The cases, in the order in which they run: the quiet ones first.

use std::time::Duration;

use crate::failure::Result;
use crate::lab::Lab;

mod acl;
mod bad_rows;
mod boot;
mod cli;
mod conformance;
mod dhcp6;
mod disc;
mod docs;
mod faults;
mod floods;
pub(crate) mod isolation;
mod leak;
mod logging;
mod metal_stack_v1;
mod metal_stack_v2;
mod moves;
mod proxy;
mod removal;
mod restart;
mod restart_bgp;
mod restart_config;
mod restart_reboot;
mod restart_swss;
mod restart_upgrade;
mod scale;
mod sessions;
mod uefi;

pub(crate) type Run = fn(&Lab) -> Result<()>;

#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub group: &'static str,
    pub title: &'static str,
    /// A case that runs longer has failed.
    pub limit: Duration,
    pub run: Run,
}

impl Case {
    pub(crate) fn name(&self) -> String {
        format!("{}::{}", self.group, self.title)
    }
}

/// `cases!("group", 30 s: first, second)`: the functions as cases named after themselves.
macro_rules! cases {
    ($group:literal, $($limit:literal s: $($run:ident),+ $(,)?);+ $(;)?) => {
        vec![$($($crate::cases::Case {
            group: $group,
            title: stringify!($run),
            limit: std::time::Duration::from_secs($limit),
            run: $run,
        }),+),+]
    };
}
pub(crate) use cases;

pub(crate) use boot::check_boot_document;
pub(crate) use floods::flood_for;

pub(crate) fn all() -> Vec<Case> {
    [
        boot::cases(),
        cli::cases(),
        proxy::cases(),
        metal_stack_v2::cases(),
        dhcp6::cases(),
        docs::cases(),
        logging::cases(),
        isolation::cases(),
        acl::cases(),
        metal_stack_v1::cases(),
        bad_rows::cases(),
        sessions::cases(),
        moves::cases(),
        removal::cases(),
        restart::cases(),
        restart_swss::cases(),
        restart_config::cases(),
        restart_bgp::cases(),
        restart_reboot::cases(),
        restart_upgrade::cases(),
        faults::cases(),
        floods::cases(),
        conformance::cases(),
        scale::cases(),
    ]
    .concat()
}

/// Cases that take minutes: they run where they are named.
pub(crate) fn long() -> Vec<Case> {
    [leak::cases(), restart_reboot::long_cases()].concat()
}

/// The cases about a machine with firmware, for the lab that has one: others take its port for spare.
pub(crate) fn about_firmware() -> Vec<Case> {
    [uefi::cases(), disc::cases()].concat()
}

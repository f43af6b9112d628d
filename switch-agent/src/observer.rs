//! Gathers one `Observed` from the backends; no decisions.

use std::collections::{BTreeMap, BTreeSet};

use switch_agent_core::name::PortName;
use switch_agent_core::observed::{Observed, Runtime, Source, StateDb};
use switch_agent_core::ownership::Ledger;
use switch_agent_core::row::ConfigDb;

use crate::advertise::AdvertiseHandle;
use crate::backend::config_db::ConfigStore;
use crate::backend::kernel::KernelHandle;
use crate::backend::state_db::StateStore;
use crate::http::discovery::Discovery;
use crate::leak::Leak;

/// Reads every source of a pass.
#[derive(Clone)]
pub struct Observer {
    pub config: ConfigStore,
    pub state: StateStore,
    pub kernel: KernelHandle,
    pub leak: Leak,
    pub advertise: AdvertiseHandle,
    pub discovery: Discovery,
}

/// What the reconciler knows besides: its ledger and its pacing.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub ledger: Ledger,
    pub backing_off: BTreeMap<String, String>,
    pub cooling: BTreeSet<String>,
    pub overdue: BTreeSet<String>,
}

/// Traces of what emits no events, a flush. Where two of them are equal and no event came in between, a pass
/// would find what the last one found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Glance {
    config_keys: u64,
    port_init_done: bool,
}

impl Observer {
    /// The traces as they are now; `None` where nothing can be concluded from them.
    pub async fn glance(&self) -> Option<Glance> {
        let (config_keys, port_init_done) = tokio::join!(self.config.glance(), self.state.glance());
        Some(Glance { config_keys: config_keys?, port_init_done: port_init_done? })
    }

    /// One snapshot, and the traces that go with it. A source that cannot be read is `Unknown`; the others are
    /// still read.
    pub async fn observe(&self, memory: Memory) -> (Observed, Option<Glance>) {
        let (config, state, kernel) = (self.config.clone(), self.state.clone(), self.kernel.clone());
        let (config, state, kernel) = tokio::join!(
            aside(async move { config.read_counted().await }),
            aside(async move { state.read_state().await }),
            aside(async move { kernel.snapshot().await }),
        );
        // Counted before the rows were read: what happens from then on makes the next glance differ.
        let config_keys = config.as_ref().ok().map(|(_, keys)| *keys);
        let config: Source<ConfigDb> = source(config.map(|(rows, _)| rows));
        let state: Source<StateDb> = source(state);
        let ports = interfaces(config.known(), &memory.ledger);
        let routed =
            |port: &PortName| state.known().is_some_and(|state| state.interface_table.contains_key(port));
        let appl = source(self.state.read_appl(&ports, routed).await);
        let glance = config_keys
            .zip(appl.known())
            .map(|(config_keys, appl)| Glance { config_keys, port_init_done: appl.port_init_done });
        let observed = Observed {
            config,
            state,
            appl,
            kernel: source(kernel),
            frr: self.leak.observed(),
            ledger: Source::Known(memory.ledger),
            runtime: self.runtime(),
            backing_off: memory.backing_off,
            cooling: memory.cooling,
            overdue: memory.overdue,
        };
        (observed, glance)
    }

    /// What the process itself runs.
    pub fn runtime(&self) -> Runtime {
        let (services, service_errors) = self.discovery.observed();
        Runtime {
            advertisers: self.advertise.observed(),
            services,
            service_errors,
            upstream: self.discovery.upstream(),
        }
    }
}

/// On a task of its own, so that the sources of a pass are read and decoded side by side.
async fn aside<T: Send + 'static>(reading: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(reading).await {
        Ok(read) => read,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The error chain becomes the reason: operators see it as it is.
fn source<T, E: std::error::Error>(result: Result<T, E>) -> Source<T> {
    match result {
        Ok(value) => Source::Known(value),
        Err(failure) => Source::Unknown(chain(&failure)),
    }
}

/// An error and what it was caused by, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        inner = cause.source();
    }
    text
}

/// Interfaces whose rows matter: every port of the switch, and what the ledger has.
fn interfaces(config: Option<&ConfigDb>, ledger: &Ledger) -> BTreeSet<PortName> {
    let tables = ["PORT", "PORTCHANNEL", "BOOT_NETWORK_PORT"];
    let rows = tables.iter().flat_map(|table| config.into_iter().flat_map(move |config| config.table(table)));
    let named = rows.filter_map(|(key, _)| key.parse().ok());
    named.chain(ledger.ports.keys().cloned()).collect()
}

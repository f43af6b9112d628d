//! The shell of switch-agent: sockets, databases, processes and tasks around `switch-agent-core`.
//!
//! Imports point one way: core <- backend <- {observer, executor, advertise, http} <- reconciler <- app <-
//! main. `metrics`, `lifecycle`, `wake` and `hub` are leaves that any shell module may use.

pub mod advertise;
pub mod app;
pub mod args;
pub mod backend;
pub mod cli;
pub mod executor;
pub mod http;
pub mod hub;
pub mod leak;
pub mod lifecycle;
pub mod logging;
pub mod metrics;
pub mod observer;
pub mod reconciler;
pub mod sonic;
pub mod waiting;
pub mod wake;

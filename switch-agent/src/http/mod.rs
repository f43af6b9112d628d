//! HTTP: the discovery proxy in the boot VRFs, and the admin API towards operators.

pub mod admin;
pub mod discovery;
pub mod listener;
pub mod page;
pub mod tokens;
pub mod upstream;

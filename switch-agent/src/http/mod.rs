//! HTTP: the discovery proxy in the boot VRFs, and the admin API towards operators.

pub mod admin;
pub mod discovery;
pub mod listener;
pub mod page;
pub mod request_id;
pub mod tokens;
pub mod upstream;
pub mod worker;

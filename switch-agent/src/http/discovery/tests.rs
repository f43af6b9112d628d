//! The proxy on real sockets: machines on the loopback interface, a TLS control API in this process.

mod control_api;
mod forwarding;
mod limits;
mod local;
mod metal_api;
mod metal_stack_v1;
mod support;
mod wire;

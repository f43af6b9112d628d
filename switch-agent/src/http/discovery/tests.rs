//! The proxy on real sockets: machines on the loopback interface, a TLS control API in this process.

mod control_api;
mod forwarding;
mod handles;
mod limits;
mod local;
mod metal_apiserver;
mod metal_stack_v2;
mod support;
mod wire;

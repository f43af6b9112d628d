//! The proxy on real sockets: machines on the loopback interface, a TLS control API in this process.

mod cancel;
mod control_api;
mod flood;
mod forwarding;
mod handles;
mod http2;
mod limits;
mod local;
mod long_streams;
mod metal_api;
mod metal_apiserver;
mod metal_stack_v1;
mod metal_stack_v2;
mod profiles;
mod raw_api;
mod recovery;
mod replay;
mod secrets;
mod sessions;
mod smuggling;
pub(super) mod support;
mod tls;
mod wire;

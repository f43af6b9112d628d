//! The proxy on real sockets: machines on the loopback interface, a TLS control API in this process.

mod control_api;
mod forwarding;
mod limits;
mod local;
mod raw_api;
mod recovery;
mod sessions;
mod support;
mod tls;
mod wire;

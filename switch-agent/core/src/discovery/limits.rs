//! Sizes, times and rates of the proxy towards machines.

use std::time::Duration;

use serde::Serialize;

/// All limits, with defaults that suit boot traffic through a switch CPU. One value for the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Header block of a request, bytes.
    pub header_bytes: usize,
    /// Header fields of a request.
    pub header_fields: usize,
    /// Request target, bytes.
    pub target_bytes: usize,
    /// Request body, bytes: a registration carries an inventory.
    pub request_body_bytes: u64,
    /// Response body, bytes; streams (server-sent events, gRPC, Connect streams) are exempt.
    pub response_body_bytes: u64,

    /// From the first byte of a request to the end of its header block.
    pub header_timeout: Duration,
    /// Between two requests on a connection.
    pub idle_timeout: Duration,
    /// Between two pieces of a request body.
    pub body_stall_timeout: Duration,
    /// Least average speed of a request body, bytes per second, once `body_stall_timeout` has passed.
    pub body_rate: u64,
    /// How long the machine may refuse to take bytes of a response.
    pub write_stall_timeout: Duration,
    /// Age at which a connection is closed after its current request.
    pub connection_lifetime: Duration,
    /// Age at which a connection is closed whatever it does (long polls and streams).
    pub stream_lifetime: Duration,

    /// Connections of one port.
    pub port_connections: usize,
    /// Connections of all ports.
    pub connections: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub streams: u32,
    /// Requests of one port: per second, and at once.
    pub request_rate: u32,
    pub request_burst: u32,
    /// Tokens minted for one port per minute.
    pub mints_per_minute: u32,
    /// Life of a machine token.
    pub token_ttl: Duration,

    /// TCP connection to the control API.
    pub connect_timeout: Duration,
    /// From sending a request to the control API to the end of its response header.
    pub upstream_header_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_bytes: 16 << 10,
            header_fields: 64,
            target_bytes: 2 << 10,
            request_body_bytes: 1 << 20,
            response_body_bytes: 8 << 20,
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(15),
            body_stall_timeout: Duration::from_secs(30),
            body_rate: 1 << 10,
            write_stall_timeout: Duration::from_secs(10),
            connection_lifetime: Duration::from_secs(3600),
            stream_lifetime: Duration::from_secs(24 * 3600),
            port_connections: 16,
            connections: 512,
            streams: 32,
            request_rate: 10,
            request_burst: 20,
            mints_per_minute: 6,
            token_ttl: Duration::from_secs(3600),
            connect_timeout: Duration::from_secs(3),
            upstream_header_timeout: Duration::from_secs(30),
        }
    }
}

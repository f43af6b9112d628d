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
    /// Connections of one port: taken per second, and at once.
    pub connection_rate: u32,
    pub connection_burst: u32,
    /// Concurrent streams of one HTTP/2 connection.
    pub streams: u32,
    /// HTTP/2 frames of one connection that carry no data (headers, resets, settings, pings,
    /// continuations): per second, and at once.
    pub control_frame_rate: u32,
    pub control_frame_burst: u32,
    /// Requests of one port: per second, and at once.
    pub request_rate: u32,
    pub request_burst: u32,
    /// Tokens minted for one port per minute.
    pub mints_per_minute: u32,
    /// Life of a machine token.
    pub token_ttl: Duration,
    /// Least hop limit of what a machine sends (RFC 5082); 0 takes any.
    pub min_hop_limit: u8,

    /// TCP connection to the control API.
    pub connect_timeout: Duration,
    /// From sending a request to the control API to the end of its response header.
    pub upstream_header_timeout: Duration,
    /// How often a request is tried that certainly did nothing yet, and for how long a new try is begun.
    pub upstream_attempts: u32,
    pub retry_budget: Duration,
    /// Failures to connect in a row after which the control API is left alone, and for how long.
    pub breaker_failures: u32,
    pub breaker_pause: Duration,
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
            connection_rate: 20,
            connection_burst: 40,
            streams: 32,
            control_frame_rate: 100,
            control_frame_burst: 200,
            request_rate: 10,
            request_burst: 20,
            mints_per_minute: 6,
            token_ttl: Duration::from_secs(3600),
            min_hop_limit: 0,
            connect_timeout: Duration::from_secs(3),
            upstream_header_timeout: Duration::from_secs(30),
            upstream_attempts: 3,
            retry_budget: Duration::from_secs(5),
            breaker_failures: 5,
            breaker_pause: Duration::from_secs(2),
        }
    }
}

/// A limit by its name, for operators: whole numbers, durations in seconds.
pub struct Field {
    pub name: &'static str,
    /// What it is counted in: `bytes`, `s`, `1/s`, or nothing.
    pub unit: &'static str,
    pub min: u64,
    pub max: u64,
    get: fn(&Limits) -> u64,
    set: fn(&mut Limits, u64),
}

/// A type that limits have.
trait Value: Sized {
    fn from_u64(value: u64) -> Self;
    fn to_u64(&self) -> u64;
}

macro_rules! whole_numbers {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn from_u64(value: u64) -> Self {
                Self::try_from(value).unwrap_or(Self::MAX)
            }

            fn to_u64(&self) -> u64 {
                u64::try_from(*self).unwrap_or(u64::MAX)
            }
        }
    )+};
}
whole_numbers!(u8, u32, u64, usize);

impl Value for Duration {
    fn from_u64(value: u64) -> Self {
        Duration::from_secs(value)
    }

    fn to_u64(&self) -> u64 {
        self.as_secs()
    }
}

macro_rules! fields {
    ($($name:ident $unit:literal $min:literal..=$max:literal,)+) => {
        /// Every limit. The bounds keep the proxy working and its memory bounded.
        pub const FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            unit: $unit,
            min: $min,
            max: $max,
            get: |limits| limits.$name.to_u64(),
            set: |limits, value| limits.$name = Value::from_u64(value),
        }),+];
    };
}

fields! {
    header_bytes "bytes" 1024..=65536,
    header_fields "" 8..=256,
    target_bytes "bytes" 128..=16384,
    request_body_bytes "bytes" 16384..=16777216,
    response_body_bytes "bytes" 16384..=67108864,
    header_timeout "s" 1..=60,
    idle_timeout "s" 1..=600,
    body_stall_timeout "s" 1..=600,
    body_rate "bytes/s" 1..=1048576,
    write_stall_timeout "s" 1..=600,
    connection_lifetime "s" 10..=604800,
    stream_lifetime "s" 10..=604800,
    port_connections "" 1..=256,
    connections "" 1..=4096,
    connection_rate "1/s" 1..=10000,
    connection_burst "" 1..=10000,
    streams "" 1..=256,
    control_frame_rate "1/s" 10..=10000,
    control_frame_burst "" 10..=10000,
    request_rate "1/s" 1..=10000,
    request_burst "" 1..=10000,
    mints_per_minute "1/min" 1..=600,
    token_ttl "s" 60..=86400,
    min_hop_limit "" 0..=255,
    connect_timeout "s" 1..=60,
    upstream_header_timeout "s" 1..=600,
    upstream_attempts "" 1..=10,
    retry_budget "s" 1..=60,
    breaker_failures "" 1..=1000,
    breaker_pause "s" 1..=60,
}

/// A limit that cannot be set so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    #[error("{0:?} must be NAME=NUMBER")]
    Shape(String),
    #[error("{0:?} is no limit of the discovery proxy")]
    Name(String),
    #[error("{name} must be a whole number of {min} to {max}{}{unit}, not {value:?}", if unit.is_empty() { "" } else { " " })]
    Value { name: &'static str, unit: &'static str, min: u64, max: u64, value: String },
}

/// One limit with its new value, as `NAME=NUMBER` tells it.
#[derive(Clone, Copy)]
pub struct Setting {
    field: &'static Field,
    value: u64,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.field.name, self.value)
    }
}

impl std::str::FromStr for Setting {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Setting, InvalidLimit> {
        let (name, value) = text.split_once('=').ok_or_else(|| InvalidLimit::Shape(text.to_owned()))?;
        let field = FIELDS.iter().find(|field| field.name == name);
        let field = field.ok_or_else(|| InvalidLimit::Name(name.to_owned()))?;
        let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        let number = value.parse().ok().filter(|number| digits && (field.min..=field.max).contains(number));
        let Field { name, unit, min, max, .. } = *field;
        number.map(|value| Setting { field, value }).ok_or_else(|| InvalidLimit::Value {
            name,
            unit,
            min,
            max,
            value: value.to_owned(),
        })
    }
}

impl Limits {
    /// The defaults with settings laid over them, the last of a name winning.
    pub fn with(settings: &[Setting]) -> Limits {
        let mut limits = Limits::default();
        for setting in settings {
            (setting.field.set)(&mut limits, setting.value);
        }
        limits
    }

    /// The value of a field of [`FIELDS`], in its unit.
    pub fn get(&self, field: &Field) -> u64 {
        (field.get)(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_can_be_set() {
        let names = serde_json::to_value(Limits::default()).unwrap();
        let mut names: Vec<&str> = names.as_object().unwrap().keys().map(String::as_str).collect();
        let mut fields: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
        names.sort_unstable();
        fields.sort_unstable();
        assert_eq!(names, fields);
        for field in FIELDS {
            let default = Limits::default().get(field);
            assert!((field.min..=field.max).contains(&default), "{}", field.name);
            for value in [field.min, field.max] {
                let setting: Setting = format!("{}={value}", field.name).parse().unwrap();
                let limits = Limits::with(&[setting]);
                assert_eq!(limits.get(field), value, "{}", field.name);
                let others = FIELDS.iter().filter(|other| other.name != field.name);
                assert!(others.into_iter().all(|other| limits.get(other) == Limits::default().get(other)));
            }
        }
    }

    #[test]
    fn wrong_settings_say_why() {
        let of = |text: &str| text.parse::<Setting>().unwrap_err().to_string();
        assert_eq!(of("streams"), "\"streams\" must be NAME=NUMBER");
        assert_eq!(of("stream=1"), "\"stream\" is no limit of the discovery proxy");
        assert_eq!(of("streams=0"), "streams must be a whole number of 1 to 256, not \"0\"");
        assert_eq!(of("idle_timeout=1h"), "idle_timeout must be a whole number of 1 to 600 s, not \"1h\"");
        for bad in ["streams=", "streams=+1", "streams= 1", "streams=99999999999999999999"] {
            assert!(bad.parse::<Setting>().is_err(), "{bad}");
        }
    }
}

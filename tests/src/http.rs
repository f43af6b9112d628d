//! A small HTTP/1.1 client over any stream, so that a check costs a socket and not a process.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Context, Result};

const TIMEOUT: Duration = Duration::from_secs(8);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A reply of the agent is never larger; the rest is not read.
const BODY_MAX: u64 = 8 << 20;

/// A request without a connection.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: Vec<(&'a str, String)>,
    pub body: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl<'a> Request<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self { method: "GET", path, headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn post(path: &'a str, body: impl Into<String>) -> Self {
        Self { method: "POST", path, headers: Vec::new(), body: body.into() }
            .header("content-type", "application/json")
    }

    pub(crate) fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends the request over a fresh TCP connection.
    pub(crate) fn send(&self, to: SocketAddrV6) -> Result<Response> {
        let stream = connect(to).context(|| format!("connect to {to}"))?;
        self.exchange(stream, &format!("[{}]:{}", to.ip(), to.port()))
    }

    /// Sends the request over a unix socket.
    pub(crate) fn send_unix(&self, path: &Path) -> Result<Response> {
        let stream = UnixStream::connect(path).context(|| format!("connect to {}", path.display()))?;
        stream.set_read_timeout(Some(TIMEOUT)).context(|| "timeout".into())?;
        self.exchange(stream, "localhost")
    }

    fn exchange(&self, mut stream: impl Read + Write, host: &str) -> Result<Response> {
        let mut text =
            format!("{} {} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() || self.method != "GET" {
            text += &format!("content-length: {}\r\n", self.body.len());
        }
        text += "\r\n";
        text += &self.body;
        let what = || format!("{} {}", self.method, self.path);
        stream.write_all(text.as_bytes()).context(what)?;
        read_response(stream).context(what)
    }
}

/// A TCP connection with limits on every wait.
pub(crate) fn connect(to: SocketAddrV6) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to.into(), CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

pub(crate) fn address(ip: Ipv6Addr, port: u16, scope: u32) -> SocketAddrV6 {
    SocketAddrV6::new(ip, port, 0, scope)
}

fn read_response(stream: impl Read) -> io::Result<Response> {
    let mut reader = BufReader::new(stream.take(BODY_MAX));
    let status = read_line(&mut reader)?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP status line: {status:?}"))
    })?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(&mut reader)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: String::new() };
    let chunked = response.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let mut body = Vec::new();
    if chunked {
        loop {
            let size = read_line(&mut reader)?;
            let size = u64::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16)
                .map_err(io::Error::other)?;
            (&mut reader).take(size).read_to_end(&mut body)?;
            read_line(&mut reader)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = response.header("content-length").and_then(|value| value.parse().ok()) {
        (&mut reader).take(length).read_to_end(&mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
    }
    response.body = String::from_utf8_lossy(&body).into_owned();
    Ok(response)
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed before the reply"));
    }
    Ok(line.trim_end().to_owned())
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).context(|| format!("reply is no JSON: {:?}", self.excerpt()))
    }

    /// The reply if its status is `status`.
    pub(crate) fn expect(self, status: u16) -> Result<Self> {
        if self.status == status {
            return Ok(self);
        }
        Err(crate::failure::Failure(format!(
            "status {} instead of {status}: {}",
            self.status,
            self.excerpt()
        )))
    }

    pub(crate) fn excerpt(&self) -> String {
        self.body.chars().take(300).collect()
    }
}

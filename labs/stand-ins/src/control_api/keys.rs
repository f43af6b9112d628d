//! Public keys of the switches, from a file or from a switch's admin API.

use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

const ANSWER_LEN_MAX: u64 = 64 << 10;
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the keys of one switch are.
#[derive(Debug, Clone)]
pub(crate) struct JwksSource {
    pub(crate) switch: String,
    path: PathBuf,
}

impl FromStr for JwksSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((switch, path)) if !switch.is_empty() && !path.is_empty() => {
                Ok(JwksSource { switch: switch.to_owned(), path: path.into() })
            }
            _ => Err(format!("{text:?} is not SWITCH=PATH")),
        }
    }
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    kid: String,
    x: String,
}

impl JwksSource {
    /// The Ed25519 key of an id, read anew each time: a switch that was installed again has another one.
    /// Blocks.
    pub(crate) fn key(&self, kid: &str) -> Result<Vec<u8>, String> {
        let failed = |error: io::Error| format!("{}: {error}", self.path.display());
        let is_socket = std::fs::metadata(&self.path).map_err(failed)?.file_type().is_socket();
        let text = if is_socket { fetch(&self.path) } else { std::fs::read_to_string(&self.path) };
        let jwks: Jwks =
            serde_json::from_str(&text.map_err(failed)?).map_err(|error| failed(io::Error::other(error)))?;
        let mut keys = jwks.keys.iter();
        let key = keys.find(|key| key.kid == kid && key.kty == "OKP" && key.crv == "Ed25519");
        let key = key.ok_or_else(|| format!("{} has no key {kid}", self.switch))?;
        URL_SAFE_NO_PAD.decode(&key.x).map_err(|error| format!("key {kid}: {error}"))
    }
}

fn fetch(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(FETCH_TIMEOUT))?;
    stream.set_write_timeout(Some(FETCH_TIMEOUT))?;
    stream.write_all(b"GET /.well-known/jwks.json HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_LEN_MAX).read_to_string(&mut answer)?;
    // HTTP/1.0 has no chunks: the body is the rest.
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other("the admin API did not give its keys")),
    }
}

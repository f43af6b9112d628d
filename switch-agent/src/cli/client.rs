//! HTTP/1.1 over the agent's admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Time for the agent to take a connection and begin its answer, and to end one that is no stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer taken, in bytes: some hundred ports with full tables are far below.
const ANSWER_SIZE_MAX: usize = 32 * 1024 * 1024;

/// Why the agent did not answer as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach the agent at {} (is it running, and may you open its socket?)", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the agent at {} did not answer within {} s", socket.display(), ANSWER_TIMEOUT.as_secs())]
    Timeout { socket: PathBuf },
    #[error("the agent at {} broke off", socket.display())]
    Http {
        socket: PathBuf,
        #[source]
        source: hyper::Error,
    },
    #[error("the agent's answer to {path} cannot be read")]
    Body {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error("{0}")]
    BadInput(String),
}

impl ClientError {
    /// The user asked for something that cannot be, rather than the agent failing.
    pub fn is_bad_input(&self) -> bool {
        matches!(
            self,
            ClientError::BadInput(_) | ClientError::Refused { status: StatusCode::BAD_REQUEST, .. }
        )
    }
}

/// Asks the agent; one connection per request.
#[derive(Debug, Clone)]
pub struct AdminClient {
    socket: PathBuf,
}

/// An answer under way. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Incoming,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl AdminClient {
    pub fn new(socket: &Path) -> AdminClient {
        AdminClient { socket: socket.to_owned() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Starts a request; the answer's body is not read yet.
    pub(crate) async fn open(&self, path: &str) -> Result<Answer, ClientError> {
        let socket = || self.socket.clone();
        let http = |source| ClientError::Http { socket: socket(), source };
        let begin = async {
            let stream = UnixStream::connect(&self.socket)
                .await
                .map_err(|source| ClientError::Connect { socket: socket(), source })?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
            let connection = tokio::spawn(async move {
                // Its error reaches the request too.
                connection.await.ok();
            });
            let request = Request::get(path)
                .header(HOST, "localhost")
                .body(Empty::<Bytes>::new())
                .map_err(|error| ClientError::BadInput(error.to_string()))?;
            let answer = sender.send_request(request).await.map_err(http)?;
            Ok(Answer { status: answer.status(), body: answer.into_body(), connection })
        };
        timeout(ANSWER_TIMEOUT, begin).await.map_err(|_| ClientError::Timeout { socket: socket() })?
    }

    /// Status and whole body of an answer, whatever the status.
    pub(crate) async fn fetch(&self, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
        let mut answer = self.open(path).await?;
        let body = Limited::new(&mut answer.body, ANSWER_SIZE_MAX).collect();
        let body = timeout(ANSWER_TIMEOUT, body)
            .await
            .map_err(|_| ClientError::Timeout { socket: self.socket.clone() })?
            .map_err(|source| ClientError::Body { path: path.to_owned(), source })?;
        Ok((answer.status, body.to_bytes()))
    }

    /// The JSON of a path.
    ///
    /// # Errors
    /// [`ClientError::Refused`] carries the agent's own message.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let (status, body) = self.fetch(path).await?;
        let value: Value = serde_json::from_slice(&body)
            .map_err(|error| ClientError::Body { path: path.to_owned(), source: error.into() })?;
        if status.is_success() {
            return Ok(value);
        }
        let message = value["error"]["message"].as_str().unwrap_or("no reason given");
        Err(ClientError::Refused { status, message: message.to_owned() })
    }
}

/// One path segment, percent-encoded (RFC 3986 section 2.3: only unreserved characters stay).
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

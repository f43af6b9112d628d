//! HTTP/2 frame by frame: ambiguous requests, and floods.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use switch_agent_core::discovery::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::smuggling::{Wired, abridged};
use super::support::{Proxy, fast};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A string literal of HPACK (RFC 7541 section 5.2), without Huffman coding.
fn literal(text: &[u8], block: &mut Vec<u8>) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 127 => block.push(length),
        _ => {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
    block.extend(text);
}

/// Header fields, none of them indexed (RFC 7541 section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(name.as_bytes(), &mut block);
        literal(value.as_bytes(), &mut block);
    }
    block
}

struct Raw(TcpStream);

impl Raw {
    async fn connect(port: u16) -> Raw {
        let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Raw(stream)
    }

    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        Some((header[3], stream, payload))
    }

    /// What the stream comes to: a status, `reset`, or `closed`.
    async fn outcome(&mut self) -> String {
        let outcome = async {
            loop {
                match self.next().await {
                    // Indexed `:status 200` and `:status 400`, literal ones by their digits.
                    Some((HEADERS, 1, payload)) => {
                        return match payload[0] {
                            0x88 => "200".to_owned(),
                            0x8c => "400".to_owned(),
                            _ => "other".to_owned(),
                        };
                    }
                    Some((RST_STREAM, 1, _) | (GOAWAY, _, _)) => return "reset".to_owned(),
                    Some(_) => {}
                    None => return "closed".to_owned(),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), outcome).await.unwrap_or_else(|_| "silence".to_owned())
    }

    /// Whether the peer closes within some seconds; what it sends until then is thrown away.
    async fn closes(mut self) -> bool {
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), self.0.read_to_end(&mut rest)).await.is_ok()
    }
}

#[tokio::test]
async fn ambiguous_requests_never_reach_the_api() {
    let wired = Wired::start(Proxy::new()).await;
    let auth = format!("Bearer {}", wired.token);
    let pseudo = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/api/x"),
        (":authority", "x"),
        ("authorization", &*auth),
    ];
    let with = |more: &[(&'static str, &'static str)]| {
        let mut fields: Vec<(&str, &str)> = pseudo.to_vec();
        fields.extend(more);
        fields
    };
    let without = |name: &str| pseudo.iter().copied().filter(|(have, _)| *have != name).collect::<Vec<_>>();
    let path = |path: &'static str| {
        let mut fields = without(":path");
        fields.insert(0, (":path", path));
        fields
    };
    let served = "POST /base/x HTTP/1.1 [content-length: 3] abc";
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str);
    let good: [Case<'_>; 6] = [
        (
            "a fragment, which no parser passes on",
            path("/api/x#y"),
            "POST /base/x HTTP/1.1 [transfer-encoding: chunked] 3\\r\\nabc\\r\\n0\\r\\n\\r\\n",
        ),
        ("its length told", with(&[("content-length", "3")]), served),
        (
            "its length not told",
            with(&[]),
            "POST /base/x HTTP/1.1 [transfer-encoding: chunked] 3\\r\\nabc\\r\\n0\\r\\n\\r\\n",
        ),
        ("the same host twice", with(&[("host", "x"), ("content-length", "3")]), served),
        (
            "claims of identity",
            with(&[
                ("x-forwarded-for", "::9"),
                ("x-boot-port", "a"),
                ("x_boot_port", "a"),
                ("content-length", "3"),
            ]),
            served,
        ),
        (
            "trailers wanted",
            with(&[("te", "trailers"), ("content-length", "3")]),
            "POST /base/x HTTP/1.1 [content-length: 3; te: trailers] abc",
        ),
    ];
    for (name, fields, wanted) in good {
        let mut raw = Raw::connect(wired.port).await;
        raw.0.write_all(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).await.unwrap();
        raw.0.write_all(&frame(DATA, END_STREAM, 1, b"abc")).await.unwrap();
        assert_eq!(raw.outcome().await, "200", "{name}");
        let got: Vec<String> = wired.api.take().iter().map(|request| abridged(request)).collect();
        assert_eq!(got, [wanted], "{name}");
    }
    let bad: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("less than its length", with(&[("content-length", "5")])),
        ("more than its length", with(&[("content-length", "2")])),
        ("two lengths", with(&[("content-length", "3"), ("content-length", "4")])),
        ("a length that is none", with(&[("content-length", "+3")])),
        ("a coding", with(&[("transfer-encoding", "chunked")])),
        ("Connection", with(&[("connection", "x-secret")])),
        ("Keep-Alive", with(&[("keep-alive", "5")])),
        ("Proxy-Connection", with(&[("proxy-connection", "close")])),
        ("Upgrade", with(&[("upgrade", "websocket")])),
        ("TE", with(&[("te", "gzip")])),
        ("an upper-case name", with(&[("X-Upper", "a")])),
        ("an empty name", with(&[("", "a")])),
        ("a space in a name", with(&[("x y", "a")])),
        ("a colon in a name", with(&[("x:y", "a")])),
        ("a line break in a name", with(&[("x\r\ny", "a")])),
        ("a line break in a value", with(&[("x", "a\r\ntransfer-encoding: chunked")])),
        ("a line feed in a value", with(&[("x", "a\nb")])),
        ("NUL in a value", with(&[("x", "a\0b")])),
        ("a pseudo field behind others", with(&[(":path", "/api/y")])),
        ("an invented pseudo field", with(&[(":foo", "a")])),
        ("another host", with(&[("host", "y")])),
        ("two hosts", with(&[("host", "x"), ("host", "x")])),
        ("no host", without(":authority")),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("an empty path", path("")),
        ("an asterisk", path("*")),
        ("an absolute path", path("http://evil.example/api/x")),
        ("dot segments", path("/api/a/../x")),
        ("an encoded slash", path("/api/a%2fx")),
        ("a space in the path", path("/api/x HTTP/1.1")),
        ("a line break in the path", path("/api/x HTTP/1.1\r\nhost: y")),
        (
            "CONNECT",
            vec![(":method", "CONNECT"), (":authority", "evil.example:443"), ("authorization", &auth)],
        ),
        (
            "extended CONNECT",
            vec![
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/api/x"),
                (":authority", "x"),
                ("authorization", &auth),
            ],
        ),
        ("a method with a space", {
            let mut fields = without(":method");
            fields.insert(0, (":method", "GET /api/y HTTP/1.1\r\nx:"));
            fields
        }),
    ];
    for (name, fields) in bad {
        let mut raw = Raw::connect(wired.port).await;
        raw.0.write_all(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).await.unwrap();
        raw.0.write_all(&frame(DATA, END_STREAM, 1, b"abc")).await.ok();
        let outcome = raw.outcome().await;
        assert!(matches!(outcome.as_str(), "reset" | "400" | "closed" | "other"), "{name}: {outcome}");
        let got = wired.api.take();
        assert!(got.iter().all(|request| request.starts_with("torso: ")), "{name}: {outcome}, {got:?}");
    }
}

/// Sends `bytes` again and again.
async fn flood(first: &[u8], bytes: impl Fn(u32) -> Vec<u8>) -> (Wired, Raw) {
    let limits = Limits { request_rate: 10, request_burst: 20, ..fast() };
    let wired = Wired::start(Proxy::with(limits)).await;
    let mut raw = Raw::connect(wired.port).await;
    raw.0.write_all(first).await.unwrap();
    for number in 0..20_000 {
        if raw.0.write_all(&bytes(number)).await.is_err() {
            break;
        }
    }
    (wired, raw)
}

/// Such a connection is closed, and the flood is counted.
async fn expect_cut(name: &str, bytes: impl Fn(u32) -> Vec<u8>) {
    let (wired, raw) = flood(&[], bytes).await;
    assert!(raw.closes().await, "{name} goes on");
    assert!(wired.api.take().len() <= 25, "{name}");
    let counted = wired.proxy.metrics.encode();
    assert!(
        counted.contains("switch_agent_proxy_rejected_total{reason=\"h2-flood\"} 1"),
        "{name}: {counted}"
    );
    // The port goes on.
    assert_eq!(super::support::ask(wired.port, "GET /nothing", "", "").await.status / 100, 4);
}

#[tokio::test]
async fn floods_are_cut() {
    expect_cut("PING", |_| frame(PING, 0, 0, b"12345678")).await;
    expect_cut("SETTINGS", |_| frame(SETTINGS, 0, 0, &[])).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/api/x"), (":authority", "x")];
    let request = block(&fields);
    expect_cut("rapid reset", |number| {
        let stream = number * 2 + 1;
        let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request);
        bytes.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        bytes
    })
    .await;
    let open = frame(HEADERS, END_STREAM, 1, &request);
    let (wired, raw) = flood(&open, |_| frame(CONTINUATION, 0, 1, &[])).await;
    assert!(raw.closes().await, "CONTINUATION goes on");
    assert!(wired.api.take().is_empty());
}

/// Header fields in continuations are bounded as a whole, by what is decoded of them.
#[tokio::test]
async fn continuations_add_up() {
    let wired = Wired::start(Proxy::new()).await;
    let mut raw = Raw::connect(wired.port).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/api/x"), (":authority", "x")];
    raw.0.write_all(&frame(HEADERS, END_STREAM, 1, &block(&fields))).await.unwrap();
    let long = "a".repeat(8000);
    for _ in 0..40 {
        raw.0.write_all(&frame(CONTINUATION, 0, 1, &block(&[("x", &long)]))).await.ok();
    }
    raw.0.write_all(&frame(CONTINUATION, END_HEADERS, 1, &[])).await.ok();
    let outcome = raw.outcome().await;
    assert!(matches!(outcome.as_str(), "reset" | "closed" | "other"), "{outcome}");
    assert!(wired.api.take().is_empty());
}

/// Streams are requests: the port's rate holds for them as well.
#[tokio::test]
async fn streams_count_against_the_rate() {
    let proxy = Proxy::with(Limits { request_rate: 1, request_burst: 3, ..fast() });
    let port = proxy.open("Ethernet0", |_| {}).await;
    let stream = TcpStream::connect(("::1", port)).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let mut sender = sender.clone();
        let request = ::http::Request::get("http://x/healthz").body(Full::default()).unwrap();
        tasks.spawn(async move { sender.send_request(request).await.unwrap().status().as_u16() });
    }
    let statuses = tasks.join_all().await;
    let of = |status: u16| statuses.iter().filter(|have| **have == status).count();
    assert_eq!((of(200), of(429)), (3, 7), "{statuses:?}");
}

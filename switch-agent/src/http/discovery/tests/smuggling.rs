//! Bytes in, bytes out: whatever a machine sends, the control API gets that one request or nothing.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use switch_agent_core::discovery::Limits;

use super::control_api::{Api, Ca};
use super::raw_api::{Manner, RawApi};
use super::support::{Proxy, bearer, fast, raw, token};

/// A port in front of a control API that keeps every byte.
pub(super) struct Wired {
    pub proxy: Proxy,
    pub api: RawApi,
    pub port: u16,
    pub token: String,
}

impl Wired {
    pub(super) async fn start(proxy: Proxy) -> Wired {
        let ca = Ca::new();
        let api = RawApi::start(&ca, Manner::Answer).await;
        let ca_file = proxy.directory.write("ca.pem", &ca.pem);
        let mut spec = Api::start(&ca, &["127.0.0.1"], true).await.spec("127.0.0.1", &ca_file);
        spec.port = api.address.port();
        proxy.discovery.set_upstream(Some(spec)).await;
        let port = proxy.open("Ethernet0", |_| {}).await;
        let token = token(port).await;
        Wired { proxy, api, port, token }
    }
}

/// A request as the control API got it: line, fields that the switch did not make, body.
pub(super) fn abridged(request: &str) -> String {
    const OURS: [&str; 9] = [
        "authorization",
        "forwarded",
        "host",
        "x-boot-identity",
        "x-boot-mac",
        "x-boot-partition",
        "x-boot-port",
        "x-boot-switch",
        "x-request-id",
    ];
    let (head, body) = request.split_once("\r\n\r\n").unwrap_or((request, ""));
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or("");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for field in lines {
        let name = field.split(':').next().unwrap_or("").to_ascii_lowercase();
        if OURS.contains(&name.as_str()) { ours.push(name) } else { theirs.push(field.to_owned()) }
    }
    ours.sort_unstable();
    theirs.sort_unstable();
    assert_eq!(ours, OURS, "each of the switch's own fields once: {request:?}");
    let mut text = format!("{line} [{}]", theirs.join("; "));
    if !body.is_empty() {
        write!(text, " {}", body.replace('\r', "\\r").replace('\n', "\\n")).unwrap();
    }
    text
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'x') => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => panic!("\\{other:?} in {text:?}"),
        });
    }
    bytes
}

/// Who waits for more bytes is not waited for.
fn impatient() -> Limits {
    let short = Duration::from_millis(150);
    Limits { header_timeout: short, idle_timeout: short, body_stall_timeout: short, ..fast() }
}

/// Statuses of the replies in what came back.
fn statuses(answer: &str) -> Vec<&str> {
    answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]).collect()
}

#[tokio::test]
async fn every_case_of_the_table() {
    let wired = Wired::start(Proxy::with(impatient())).await;
    let auth = bearer(&wired.token);
    let smuggled = format!("GET /api/smuggled HTTP/1.1\r\nHost: x\r\n{auth}\r\n");
    let (mut count, mut broken) = (0, Vec::new());
    for block in include_str!("fixtures/smuggling.txt").split("\ncase ").skip(1) {
        let mut lines = block.lines();
        let name = lines.next().unwrap();
        let mut bytes = Vec::new();
        let (mut wanted, mut forwarded) = ("", Vec::new());
        for line in lines {
            if let Some(input) = line.strip_prefix("> ") {
                let escaped = |text: &str| text.replace('\r', "\\r").replace('\n', "\\n");
                let input =
                    input.replace("{auth}", &escaped(&auth)).replace("{smuggled}", &escaped(&smuggled));
                bytes = unescape(&input);
            } else if let Some(statuses) = line.strip_prefix("< ") {
                wanted = statuses;
            } else if let Some(request) = line.strip_prefix("= ") {
                forwarded.push(request);
            }
        }
        let answer = raw(wired.port, &bytes).await;
        // A request that broke off may leave its torso; whole ones are those of the table.
        let got = wired.api.take();
        let got: Vec<String> = got
            .iter()
            .filter(|request| !request.starts_with("torso: "))
            .map(|request| abridged(request))
            .collect();
        if statuses(&answer).join(" ") != wanted || got != forwarded {
            broken.push(format!("{name}: {got:#?}, answered {answer:?}"));
        }
        count += 1;
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count > 60, "{count}");
}

/// Requests of fragments that parsers disagree about: each reply of the control API belongs to one whole
/// request, whose fields are the switch's own and whose body is what was sent.
#[tokio::test]
async fn random_fragments_never_become_another_request() {
    let wired = Wired::start(Proxy::with(impatient())).await;
    let auth = bearer(&wired.token);
    let fields = [
        "Content-Length: 4\r\n",
        "Content-Length: 0\r\n",
        "content-length:4\r\n",
        "Content-Length: 4 \r\n",
        "Content-Length: 04\r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding:chunked\r\n",
        "Transfer-Encoding: Chunked \r\n",
        "Transfer-Encoding:\tchunked\r\n",
        "TE: trailers\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "Connection: content-length\r\n",
        "Connection: transfer-encoding\r\n",
        "Connection: host\r\n",
        "Expect: 100-continue\r\n",
        "X: y\r\n",
        "X:\r\n",
        "Host: y\r\n",
        "Upgrade: x\r\n",
        "X: a\n",
        "X: \x00\r\n",
        " X: y\r\n",
        "\r\n",
        "\n",
    ];
    let bodies = [
        "",
        "body",
        "bodybody",
        "4\r\nbody\r\n0\r\n\r\n",
        "4\nbody\n0\n\n",
        "0\r\n\r\n",
        "0\r\n\r\nGET /api/s HTTP/1.1\r\n\r\n",
        "4\r\nbody\r\n0\r\nContent-Length: 1\r\n\r\n",
        "GET /api/s HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let strategy = (
        prop::sample::select(vec!["GET", "POST", "PUT", "DELETE"]),
        prop::sample::select(vec!["/api/x", "/api/x?y", "/api/x/", "/api"]),
        prop::collection::vec(prop::sample::select(fields.to_vec()), 0..4),
        prop::sample::select(bodies.to_vec()),
    );
    let mut runner = TestRunner::deterministic();
    let (mut served, mut refused) = (0, 0);
    for _ in 0..200 {
        let (method, target, fields, body) = strategy.new_tree(&mut runner).unwrap().current();
        let text = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{auth}{}\r\n{body}", fields.concat());
        let answer = raw(wired.port, text.as_bytes()).await;
        let ok = statuses(&answer).iter().filter(|status| **status == "200").count();
        let got = wired.api.take();
        let whole: Vec<&String> = got.iter().filter(|request| !request.starts_with("torso: ")).collect();
        assert!(ok <= whole.len() && whole.len() <= 1, "{text:?} became {got:?}, answered {answer}");
        for request in whole {
            let request = abridged(request);
            let path = target.replace("/api", "/base");
            let path = if path == "/base" { "/base/" } else { &path };
            assert!(request.starts_with(&format!("{method} {path} HTTP/1.1 [")), "{text:?} became {request}");
            assert!(!request.contains("host") && !request.contains("/api/s"), "{text:?} became {request}");
        }
        if ok == 1 { served += 1 } else { refused += 1 }
    }
    assert!(served > 20 && refused > 20, "{served} served, {refused} refused");
}

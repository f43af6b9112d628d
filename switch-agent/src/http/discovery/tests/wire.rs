//! Raw bytes against the listener: what is ambiguous is refused, and nothing is smuggled.

use super::control_api::{Api, Ca};
use super::support::{Proxy, bearer, parse, raw, token};

#[tokio::test]
async fn ambiguous_bytes_never_reach_the_api() {
    let (proxy, ca) = (Proxy::new(), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], true).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let auth = bearer(&token(port).await);
    let smuggled = format!("GET /api/smuggled HTTP/1.1\r\nHost: x\r\n{auth}\r\n");
    let post =
        |fields: &str, body: &str| format!("POST /api/x HTTP/1.1\r\nHost: x\r\n{auth}{fields}\r\n{body}");
    let table = [
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{smuggled}")),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &format!("0\r\n\r\n{smuggled}")),
        post("Content-Length: 0\r\nContent-Length: 9\r\n", &smuggled),
        post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        post("Content-Length: 5, 5\r\n", "hello"),
        post("Content-Length: +5\r\n", "hello"),
        post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        post("X: a\r\n b\r\n", ""),
        post("X: a\0b\r\n", ""),
        post("X: a\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Host: y\r\n", ""),
        post("Upgrade: websocket\r\nConnection: upgrade\r\n", &smuggled),
        format!("GET /api/x HTTP/1.1\nHost: x\n{}\n", auth.trim_end()),
        format!("GET /api/x HTTP/1.1\r\n{auth}\r\n"),
        format!("GET http://evil.example/api/x HTTP/1.1\r\nHost: x\r\n{auth}\r\n"),
        format!("CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n{auth}\r\n{smuggled}"),
        format!("OPTIONS * HTTP/1.1\r\nHost: x\r\n{auth}\r\n"),
        format!("GET /api/x HTTP/0.9\r\nHost: x\r\n{auth}\r\n"),
        format!("GET  /api/x HTTP/1.1\r\nHost: x\r\n{auth}\r\n"),
        format!("\r\nGET /api/x HTTP/1.1\r\nHost: x\r\n{auth}\r\n"),
        format!("POST /api/x HTTP/1.0\r\nHost: x\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ];
    for bytes in &table {
        let reply = parse(&raw(port, bytes.as_bytes()).await);
        assert_eq!(reply.status, 400, "{bytes:?} was answered {reply:?}");
    }
    assert!(api.seen.lock().unwrap().is_empty(), "{:?}", api.seen.lock().unwrap());
    let rejected = proxy.metrics.encode();
    assert!(rejected.contains("proxy_rejected_total{reason=\"content-length\"} 6"), "{rejected}");
}

#[tokio::test]
async fn what_follows_a_chunked_body_is_not_served() {
    let (proxy, ca) = (Proxy::new(), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], true).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let auth = bearer(&token(port).await);
    let bytes = format!(
        "POST /api/x HTTP/1.1\r\nHost: x\r\n{auth}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
         GET /api/y HTTP/1.1\nHost: x\n{auth}\r\n"
    );
    let answer = raw(port, bytes.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(api.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_served_in_order_and_each_is_looked_at() {
    let proxy = Proxy::new();
    let port = proxy.open("Ethernet0", |_| {}).await;
    let good = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let event = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"stage\": \"a\"}";
    let bad = "GET /healthz HTTP/1.1\nHost: x\r\n\r\n";
    let answer = raw(port, format!("{good}{event}{good}{bad}{good}").as_bytes()).await;
    let codes: Vec<&str> = answer.matches("HTTP/1.1 ").collect();
    assert_eq!(codes.len(), 4, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 202").count(), 1, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 400").count(), 1, "{answer}");
}

#[tokio::test]
async fn heads_may_come_in_any_pieces() {
    let proxy = Proxy::new();
    let port = proxy.open("Ethernet0", |_| {}).await;
    let event = "POST /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 14\r\n\r\n{\"stage\": \"a\"}";
    for cut in 1..event.len() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("::1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&event.as_bytes()[..cut]).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(&event.as_bytes()[cut..]).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 202"), "cut at {cut}: {}", String::from_utf8_lossy(&answer));
    }
}

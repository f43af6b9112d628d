//! Forwarding to the control API: identity, hygiene, failures, streams.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use switch_agent_core::identity::{IdentityClaims, JwsKind, MachineClaims};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::control_api::{Api, Ca};
use super::support::{MAC, Proxy, ask, bearer, fast, parse, raw, token, unplugged};

async fn with_api(http1_only: bool) -> (Proxy, Api, u16) {
    let (proxy, ca) = (Proxy::new(), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], http1_only).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    assert_eq!(proxy.discovery.upstream().unwrap().error, None);
    let port = proxy.open("Ethernet0", |_| {}).await;
    (proxy, api, port)
}

#[tokio::test]
async fn a_forwarded_request_is_stamped_and_verifiable() {
    for http1_only in [false, true] {
        let (proxy, api, port) = with_api(http1_only).await;
        let token = token(port).await;
        let reply = ask(port, "POST /api/v1/machines?x=1", &bearer(&token), "{\"a\":1}").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "hello"), "{reply:?}");
        let seen = api.last();
        assert_eq!(seen.line, "POST /base/v1/machines?x=1");
        assert_eq!(seen.body, Bytes::from_static(b"{\"a\":1}"));
        let header = |name: &str| seen.headers.get(name).map_or("", |value| value.to_str().unwrap());
        assert_eq!(header("x-boot-switch"), "leaf1");
        assert_eq!(header("x-boot-partition"), "p1");
        assert_eq!(header("x-boot-port"), "Ethernet0");
        assert_eq!(header("x-boot-mac"), MAC);
        assert_eq!(header("forwarded"), "for=\"[::1]\";by=\"_leaf1\";proto=http");
        assert_eq!(header("authorization"), format!("Bearer {token}"));
        assert_eq!(reply.header("x-request-id"), Some(header("x-request-id")));
        let claims: IdentityClaims =
            proxy.signer.verify(JwsKind::Identity, header("x-boot-identity")).unwrap();
        assert_eq!((claims.iss.as_str(), claims.sub.as_str()), ("leaf1", "Ethernet0"));
        assert_eq!(claims.mac.to_string(), MAC);
        assert_eq!(claims.exp - claims.iat, 60);
        let (statement, id) = (header("x-boot-identity").to_owned(), header("x-request-id").to_owned());
        assert_eq!(ask(port, "GET /api/v1", &bearer(&token), "").await.status, 200);
        let next = api.last().headers;
        assert_eq!(next["x-boot-identity"], statement.as_str(), "signed anew for each request");
        assert_ne!(next["x-request-id"], id.as_str());
        assert_eq!(claims.aud, format!("https://127.0.0.1:{}", api.address.port()));
        for name in ["server", "set-cookie"] {
            assert_eq!(reply.header(name), None, "{name}");
        }
        assert_eq!(reply.header("etag"), Some("\"1\""));
    }
}

#[tokio::test]
async fn claims_of_identity_and_hop_by_hop_fields_do_not_pass() {
    let (_proxy, api, port) = with_api(false).await;
    let fields = format!(
        "{}X-Forwarded-For: ::9\r\nx-boot-PORT: Ethernet9\r\nX_Boot_Port: Ethernet9\r\nX-Boot-Port.: a\r\n\
         X-Boot-Identity: forged\r\nVia: 1.1 a\r\nForwarded: for=a\r\nX-Real-IP: ::9\r\nX-Request-Id: mine\r\n\
         X-Boot-Port: Ethernet8\r\nConnection: X-Secret\r\nX-Secret: a\r\nTE: trailers, deflate\r\n\
         Keep-Alive: 5\r\nProxy-Authorization: a\r\nX-HTTP-Method-Override: DELETE\r\nX-Kept: yes\r\n",
        bearer(&token(port).await)
    );
    assert_eq!(ask(port, "GET /api/v1", &fields, "").await.status, 200);
    let headers = api.last().headers;
    let mut names: Vec<&str> = headers.keys().map(::http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "authorization",
            "forwarded",
            "te",
            "x-boot-identity",
            "x-boot-mac",
            "x-boot-partition",
            "x-boot-port",
            "x-boot-switch",
            "x-kept",
            "x-request-id",
        ]
    );
    assert_eq!(headers.get_all("x-boot-port").iter().collect::<Vec<_>>(), ["Ethernet0"]);
    assert_eq!(headers["te"], "trailers");
    assert!(!headers["forwarded"].to_str().unwrap().contains("for=a"));
    assert_ne!(headers["x-request-id"], "mine");
}

#[tokio::test]
async fn no_token_but_the_ports_own_opens_the_api() {
    let (proxy, api, port) = with_api(false).await;
    let other = proxy.open("Ethernet4", |_| {}).await;
    let (own, theirs) = (token(port).await, token(other).await);
    let foreign = MachineClaims {
        iss: "leaf2".to_owned(),
        sub: "Ethernet0".parse().unwrap(),
        iat: 0,
        exp: u64::MAX,
        jti: "a".to_owned(),
        partition: "p1".parse().unwrap(),
        mac: MAC.parse().unwrap(),
        machine_id: None,
    };
    let foreign = proxy.signer.sign_jws(JwsKind::MachineToken, &foreign).unwrap();
    let mut forged = own.clone();
    forged.truncate(own.len() - 8);
    forged.push_str("AAAAAAAA");
    let cases = [
        (String::new(), "token-required"),
        (bearer(&theirs), "token-other-port"),
        (bearer(&foreign), "token-other-switch"),
        (bearer(&forged), "token-invalid"),
        (bearer("x"), "token-invalid"),
        ("Authorization: Basic eDp5\r\n".to_owned(), "token-invalid"),
        (format!("{}{}", bearer(&own), bearer(&own)), "token-invalid"),
    ];
    for (fields, code) in cases {
        let reply = ask(port, "GET /api/v1", &fields, "").await;
        assert_eq!((reply.status, reply.error().as_str()), (401, code));
    }
    assert!(api.seen.lock().unwrap().is_empty(), "nothing may go upstream");
    assert!(proxy.metric("switch_agent_proxy_tokens_refused_total{reason=\"token-other-port\"} 1"));

    assert_eq!(ask(port, "GET /api/v1", &bearer(&own), "").await.status, 200);
    let newer = token(port).await;
    assert_eq!(ask(port, "GET /api/v1", &bearer(&own), "").await.error(), "token-replaced");
    assert_eq!(ask(other, "GET /api/v1", &bearer(&newer), "").await.error(), "token-other-port");
    // Another machine was plugged in behind the same address.
    let entry = (1, "::1".parse().unwrap());
    proxy.neighbors.0.lock().unwrap().insert(entry, "52:54:00:00:00:02".parse().unwrap());
    assert_eq!(ask(port, "GET /api/v1", &bearer(&newer), "").await.error(), "token-other-mac");
    proxy.neighbors.0.lock().unwrap().insert(entry, MAC.parse().unwrap());
    assert_eq!(ask(port, "GET /api/v1", &bearer(&newer), "").await.status, 200);
    // The cable was pulled.
    proxy.discovery.link(&unplugged());
    assert_eq!(ask(port, "GET /api/v1", &bearer(&newer), "").await.error(), "token-revoked");
}

/// A thousand requests of two ports, interleaved: each is stamped with its own port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identities_never_mix() {
    let (proxy, api, port) = with_api(false).await;
    let other = proxy.open("Ethernet4", |_| {}).await;
    let mut tasks = tokio::task::JoinSet::new();
    for (tcp, name) in [(port, "Ethernet0"), (other, "Ethernet4")] {
        let token = token(tcp).await;
        for worker in 0..10 {
            let token = token.clone();
            tasks.spawn(async move {
                for n in 0..50 {
                    let line = format!("GET /api/v1/{name}/{worker}/{n}");
                    assert_eq!(ask(tcp, &line, &bearer(&token), "").await.status, 200);
                }
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let seen = api.seen.lock().unwrap();
    assert_eq!(seen.len(), 1000);
    for request in seen.iter() {
        let port = request.headers["x-boot-port"].to_str().unwrap();
        assert!(request.line.contains(&format!("/{port}/")), "{} was stamped {port}", request.line);
    }
}

#[tokio::test]
async fn path_rules_are_kept() {
    let (proxy, api, _) = with_api(false).await;
    let port = proxy
        .open("Ethernet8", |service| {
            let rules = ["!GET /v1/secrets/**", "GET /v1/**"];
            service.context_mut().settings_mut().api_allow =
                rules.iter().map(|rule| rule.parse().unwrap()).collect();
        })
        .await;
    let bearer = bearer(&token(port).await);
    assert_eq!(ask(port, "GET /api/v1/x", &bearer, "").await.status, 200);
    for line in ["GET /api/v1/secrets/x", "GET /api/v1/%73ecrets/x", "POST /api/v1/x", "GET /api/v2"] {
        let reply = ask(port, line, &bearer, "").await;
        assert_eq!((reply.status, reply.error().as_str()), (403, "path-not-allowed"), "{line}");
    }
    for line in ["GET /api/v1/../v2", "GET /api//v1", "GET /api/v1%2f..", "GET /v1/../api/v1/x"] {
        let reply = ask(port, line, &bearer, "").await;
        assert_eq!((reply.status, reply.error().as_str()), (400, "target-refused"), "{line}");
    }
    assert_eq!(api.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn failures_of_the_api_are_told_apart() {
    let (proxy, ca, wrong) = (Proxy::new(), Ca::new(), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], false).await;
    let named = Api::start(&ca, &["other.example"], false).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    let wrong_file = proxy.directory.write("wrong.pem", &wrong.pem);
    let port = proxy.open("Ethernet0", |_| {}).await;
    let bearer = bearer(&token(port).await);
    let ask = async || ask(port, "GET /api/v1", &bearer, "").await;

    assert_eq!(ask().await.error(), "upstream-none");

    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &wrong_file))).await;
    let reply = ask().await;
    assert_eq!((reply.status, reply.error().as_str()), (502, "upstream-tls"), "{reply:?}");
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("UnknownIssuer"), "{reply:?}");

    proxy.discovery.set_upstream(Some(named.spec("127.0.0.1", &ca_file))).await;
    let reply = ask().await;
    assert_eq!((reply.status, reply.error().as_str()), (502, "upstream-tls"), "{reply:?}");

    let mut spec = api.spec("127.0.0.1", &ca_file);
    spec.port = 1;
    proxy.discovery.set_upstream(Some(spec)).await;
    let reply = ask().await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "upstream-unavailable"), "{reply:?}");
    assert_eq!(reply.header("retry-after"), Some("5"));

    for host in ["169.254.169.254", "fe80::1", "2001:db8:0:77::1"] {
        proxy.discovery.set_upstream(Some(api.spec(host, &ca_file))).await;
        assert_eq!(ask().await.error(), "upstream-address", "{host}");
    }

    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", "/nonexistent"))).await;
    let error = proxy.discovery.upstream().unwrap().error.unwrap();
    assert!(error.contains("/nonexistent"), "{error}");
    let reply = ask().await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "upstream-unusable"));
    assert!(!reply.body.contains("/nonexistent"));
    for line in [
        "switch_agent_proxy_upstream_errors_total{reason=\"upstream-tls\"} 2",
        "switch_agent_proxy_upstream_errors_total{reason=\"upstream-unavailable\"} 1",
    ] {
        assert!(proxy.metric(line), "{line} in {}", proxy.metrics.encode());
    }

    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    assert_eq!(ask().await.status, 200);
}

#[tokio::test]
async fn a_silent_api_is_a_gateway_timeout() {
    let limits = switch_agent_core::discovery::Limits {
        upstream_header_timeout: Duration::from_millis(300),
        ..fast()
    };
    let (proxy, ca) = (Proxy::with(limits), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], false).await;
    let ca_file = proxy.directory.write("ca.pem", &ca.pem);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    let port = proxy.open("Ethernet0", |_| {}).await;
    let reply = ask(port, "GET /api/silent", &bearer(&token(port).await), "").await;
    assert_eq!((reply.status, reply.error().as_str()), (504, "upstream-timeout"));
}

#[tokio::test]
async fn changed_files_are_taken_and_broken_ones_are_not() {
    let (proxy, ca, wrong) = (Proxy::new(), Ca::new(), Ca::new());
    let api = Api::start(&ca, &["127.0.0.1"], false).await;
    let ca_file = proxy.directory.write("ca.pem", &wrong.pem);
    let port = proxy.open("Ethernet0", |_| {}).await;
    let bearer = bearer(&token(port).await);
    proxy.discovery.set_upstream(Some(api.spec("127.0.0.1", &ca_file))).await;
    assert_eq!(ask(port, "GET /api/v1", &bearer, "").await.status, 502);
    let upstream = proxy.discovery.shared.current_upstream().unwrap();
    // rcgen's default notAfter is 4096-01-01.
    assert_eq!(upstream.expiry().ca, Some(67_090_118_400));

    proxy.directory.write("ca.pem", &format!("\n{}", ca.pem));
    assert!(!upstream.refresh(), "no error before, none after");
    assert_eq!(ask(port, "GET /api/v1", &bearer, "").await.status, 200);

    proxy.directory.write("ca.pem", "nonsense");
    assert!(upstream.refresh());
    assert!(proxy.discovery.upstream().unwrap().error.unwrap().contains("ca.pem"));
    assert_eq!(ask(port, "GET /api/v1", &bearer, "").await.status, 200);

    proxy.directory.write("ca.pem", &ca.pem);
    assert!(upstream.refresh());
    assert_eq!(proxy.discovery.upstream().unwrap().error, None);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let (_proxy, _api, port) = with_api(false).await;
    let token = token(port).await;
    let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
    let head = format!(
        "POST /api/echo-stream HTTP/1.1\r\nHost: x\r\n{}Transfer-Encoding: chunked\r\n\r\n",
        bearer(&token)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    for part in ["one", "two", "six"] {
        stream.write_all(format!("3\r\n{part}\r\n").as_bytes()).await.unwrap();
        // Each part must come back before the next is sent.
        while !String::from_utf8_lossy(&got).contains(part) {
            let read = stream.read_buf(&mut got);
            assert_ne!(tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap(), 0);
        }
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(parse(&String::from_utf8_lossy(&got)).body, "onetwosix");
}

#[tokio::test]
async fn a_machine_that_dies_cancels_its_request() {
    for http1_only in [false, true] {
        let (_proxy, api, port) = with_api(http1_only).await;
        let token = token(port).await;
        let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
        let head = format!("GET /api/endless HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer(&token));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut got = [0; 512];
        assert_ne!(stream.read(&mut got).await.unwrap(), 0);
        assert!(!api.cancelled.is_cancelled());
        drop(stream);
        tokio::time::timeout(Duration::from_secs(5), api.cancelled.cancelled()).await.unwrap();
    }
}

#[tokio::test]
async fn trailers_come_through_and_claim_nothing() {
    let (_proxy, _api, port) = with_api(false).await;
    let token = token(port).await;
    let fields = format!("{}TE: trailers\r\n", bearer(&token));
    let text = format!("GET /api/trailers HTTP/1.1\r\nHost: x\r\nConnection: close, TE\r\n{fields}\r\n");
    let answer = raw(port, text.as_bytes()).await;
    assert!(answer.ends_with("0\r\ngrpc-status: 0\r\n\r\n"), "{answer}");

    // HTTP/2 with prior knowledge, as gRPC clients speak it.
    let stream = TcpStream::connect(("::1", port)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = ::http::Request::post("http://x/api/trailers")
        .header("authorization", format!("Bearer {token}"))
        .header("te", "trailers")
        .body(Full::default())
        .unwrap();
    let collected = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    let trailers = collected.trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert!(!trailers.contains_key("x-boot-port"));
    assert_eq!(collected.to_bytes(), "hello");
}

#[tokio::test]
async fn replies_are_bounded_and_redirects_rewritten() {
    let (_proxy, _api, port) = with_api(false).await;
    let bearer = bearer(&token(port).await);
    let reply = ask(port, "GET /api/large", &bearer, "").await;
    assert_eq!((reply.status, reply.error().as_str()), (502, "reply-too-large"));
    let reply = ask(port, "GET /api/moved", &bearer, "").await;
    assert_eq!((reply.status, reply.header("location")), (302, Some("/api/v1/there")));
}

//! Calls of machines' own.

use super::*;

#[tokio::test]
async fn bodies_pass_untouched() {
    let rack = Rack::new().await;
    let token = rack.token(rack.a, A).await;
    let body = "\u{1}\u{2}no json, no utf-8 promise\u{7f}";
    let fields = format!(
        "Content-Type: application/proto\r\nContent-Encoding: zstd\r\nConnect-Timeout-Ms: 10000\r\n{}",
        bearer(&token)
    );
    assert_eq!(ask(rack.a, REGISTER, &fields, body).await.status, 200);
    let call = rack.api.calls("BootService/Register").remove(0);
    assert_eq!(call.body, body.as_bytes());
    assert_eq!(call.headers["content-encoding"], "zstd");
    assert_eq!(call.headers["content-type"], "application/proto");
    assert_eq!(call.headers["connect-timeout-ms"], "10000");
}

/// The API sends the header of Wait's reply with the allocation: long after any other reply is given up.
#[tokio::test]
async fn a_machine_waits_and_is_told_its_allocation() {
    for http1_only in [false, true] {
        let limits = Limits {
            upstream_header_timeout: Duration::from_millis(300),
            idle_timeout: Duration::from_millis(300),
            ..fast()
        };
        let rack = Rack::with(MachineToken::Handle, limits, http1_only).await;
        let token = rack.token(rack.a, A).await;
        let mut stream = rack.wait(rack.a, &token, A).await;
        rack.api.called("BootService/Wait", 1).await;
        tokio::time::sleep(Duration::from_millis(1000)).await;
        rack.api.allocated.send_modify(|machines| machines.push(A.to_owned()));
        let mut wanted = envelope(0, &json!({ "allocation": { "uuid": A, "hostname": "m1" } }));
        wanted.extend(envelope(2, &json!({})));
        let mut got = Vec::new();
        let reading = async {
            while !got.windows(wanted.len()).any(|window| window == wanted) {
                assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "{}", String::from_utf8_lossy(&got));
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap();
        let head = String::from_utf8_lossy(&got).into_owned();
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/connect+json"), "{head}");
        assert!(!rack.api.broken_off.is_cancelled());
    }
}

#[tokio::test]
async fn a_dead_machine_waits_no_longer() {
    for pulled in [false, true] {
        let rack = Rack::new().await;
        let token = rack.token(rack.a, A).await;
        let stream = rack.wait(rack.a, &token, A).await;
        rack.api.called("BootService/Wait", 1).await;
        assert!(!rack.api.broken_off.is_cancelled());
        // Unplugged, or its connection reset.
        if pulled {
            rack.unplug();
        } else {
            drop(stream);
        }
        let broken_off = rack.api.broken_off.cancelled();
        tokio::time::timeout(Duration::from_secs(5), broken_off).await.expect("the API must learn of it");
    }
}

#[tokio::test]
async fn refusals_are_errors_of_connect() {
    let rack = Rack::new().await;
    rack.token(rack.a, A).await;
    for (token, message) in [("", "POST /v1/token"), (&*bearer("x"), "live token")] {
        let reply = ask(rack.a, REGISTER, &format!("{JSON}{token}"), "{}").await;
        assert_eq!((reply.status, connect_code(&reply).as_str()), (401, "unauthenticated"), "{reply:?}");
        assert!(reply.json()["message"].as_str().unwrap().contains(message), "{reply:?}");
    }
    let mut stream = rack.wait(rack.a, "x", A).await;
    let mut got = [0; 2048];
    let read = stream.read(&mut got).await.unwrap();
    let text = String::from_utf8_lossy(&got[..read]).into_owned();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("application/connect+json"), "{text}");
    assert!(text.contains("\u{2}\0\0\0") && text.contains("\"code\":\"unauthenticated\""), "{text}");
    let token = bearer(&rack.token(rack.a, A).await);
    for procedure in [
        "metalstack.infra.v2.EventService/Send",
        "metalstack.api.v2.TokenService/Refresh",
        "metalstack.infra.v2.BootService/Dhcp",
    ] {
        let reply = ask(rack.a, &format!("POST /{procedure}"), &format!("{JSON}{token}"), "{}").await;
        assert_eq!((reply.status, connect_code(&reply).as_str()), (403, "permission_denied"), "{procedure}");
    }
    let reply = ask(rack.a, "GET /metalstack.infra.v2.BootService/Register", &token, "").await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    let reply = ask(rack.a, "POST /api/metalstack.infra.v2.BootService/Register", &token, "{}").await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "path-not-allowed"));
    rack.set_away(true);
    let reply = rack.register(rack.a, &rack.token(rack.a, A).await, A).await;
    assert_eq!((reply.status, connect_code(&reply).as_str()), (503, "unavailable"));
}

#[tokio::test]
async fn a_partition_may_withhold_calls_but_never_let_tokens_out() {
    let rack = Rack::new().await;
    let port = rack
        .proxy
        .open("Ethernet0", |service| {
            let rules = ["!POST /metalstack.infra.v2.BootService/SuperUserPassword", "POST /**"];
            service.context_mut().settings_mut().api_allow =
                rules.iter().map(|rule| rule.parse().unwrap()).collect();
        })
        .await;
    let token = bearer(&rack.token(port, A).await);
    let call = async |procedure: &str| {
        let line = format!("POST /metalstack.{procedure}");
        ask(port, &line, &format!("{JSON}{token}"), &json!({ "uuid": A }).to_string()).await.status
    };
    assert_eq!(call("infra.v2.BootService/SuperUserPassword").await, 403);
    assert_eq!(call("api.v2.TokenService/Create").await, 403);
    assert_eq!(call("api.v2.%54okenService/Create").await, 403);
    assert_eq!(call("infra.v2.BootService/Register").await, 200);
    assert!(rack.api.calls("SuperUserPassword").is_empty());
    assert_eq!(rack.api.calls("TokenService/Create").len(), 1);
    // Without rules of its own, the partition's machines may ask for it.
    let token = bearer(&rack.token(rack.b, B).await);
    let line = "POST /metalstack.infra.v2.BootService/SuperUserPassword";
    let reply = ask(rack.b, line, &format!("{JSON}{token}"), &json!({ "uuid": B }).to_string()).await;
    assert_eq!(reply.json(), json!({ "superUserPassword": "fleet-wide" }));
}

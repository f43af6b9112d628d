//! Who a machine is, and whose token it gets.

use super::*;

#[tokio::test]
async fn nobody_acts_for_the_machine_of_another_port() {
    let rack = Rack::new().await;
    let token = rack.token(rack.a, A).await;
    // The uuid of A, seen on A's port.
    let reply = rack.config(rack.b, A).await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-id-other-port"), "{reply:?}");
    let body = format!("{{\"machine_id\": \"{A}\"}}");
    let reply = ask(rack.b, "POST /v1/token", "Boot-Token: request\r\n", &body).await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-id-other-port"));
    // The handle of A.
    let reply = rack.register(rack.b, &token, A).await;
    assert_eq!((reply.status, connect_code(&reply).as_str()), (401, "unauthenticated"), "{reply:?}");
    // Another machine's uuid on A's port.
    let reply = rack.config(rack.a, B).await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-id-mismatch"));
    // With its own handle, B acts for itself only.
    let own = rack.token(rack.b, B).await;
    let reply = rack.register(rack.b, &own, A).await;
    assert_eq!((reply.status, connect_code(&reply).as_str()), (403, "permission_denied"));
    assert_eq!(rack.register(rack.b, &own, B).await.status, 200);
    assert_eq!(rack.api.calls("TokenService/Create").len(), 2);
    let refused = "switch_agent_proxy_tokens_refused_total{reason=\"machine-id-other-port\"} 2";
    assert!(rack.proxy.metric(refused), "{}", rack.proxy.metrics.encode());
    for forwarded in ["Via: 1.1 x\r\n", "X-Forwarded-For: ::2\r\n"] {
        let reply = ask(rack.a, &format!("GET /config/{A}"), forwarded, "").await;
        assert_eq!((reply.status, reply.error().as_str()), (403, "forwarded-request"));
    }
    for bad in ["x", "3f2b1c4e000040008000000000000001", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(rack.config(rack.a, bad).await.error(), "machine-id-invalid", "{bad}");
    }
}

#[tokio::test]
async fn what_the_api_knows_of_a_port_decides() {
    let rack = Rack::new().await;
    rack.api.state.lock().unwrap().switch = json!({
        "nics": [
            { "name": "Ethernet0", "identifier": "Eth1/1" },
            { "name": "Ethernet4", "identifier": "Eth1/2", "vrf": "vrf42" }
        ],
        "machineConnections": [{ "machineId": A, "nic": { "name": "Ethernet0", "identifier": "Eth1/1" } }]
    });
    let reply = rack.config(rack.a, B).await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-id-mismatch"), "{reply:?}");
    let reply = rack.config(rack.b, B).await;
    assert_eq!((reply.status, reply.error().as_str()), (403, "machine-allocated"));
    assert!(!reply.body.contains(A), "nobody is told whose port it is");
    assert!(rack.api.calls("TokenService/Create").is_empty());
    rack.token(rack.a, A).await;
}

#[tokio::test]
async fn a_switch_that_the_api_does_not_know_pins_by_first_sight() {
    let rack = Rack::new().await;
    rack.api.state.lock().unwrap().switch = Value::Null;
    rack.token(rack.a, A).await;
    assert_eq!(rack.config(rack.a, B).await.error(), "machine-id-mismatch");
    rack.unplug();
    rack.token(rack.a, B).await;
}

/// A thousand interleaved requests of two machines: each gets its own token, always, while the cable of one
/// of them is pulled again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_never_swapped() {
    for mode in [MachineToken::Token, MachineToken::Handle] {
        let limits = Limits { mints_per_minute: 100_000, ..fast() };
        let rack = std::sync::Arc::new(Rack::with(mode, limits, false).await);
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..20 {
            let rack = rack.clone();
            tasks.spawn(async move {
                let (port, uuid, other) = if worker % 2 == 0 { (rack.a, A, B) } else { (rack.b, B, A) };
                for n in 0..50 {
                    let reply = rack.config(port, uuid).await;
                    if reply.status != 200 {
                        // The cable was pulled while the token was made: the connection ends with it.
                        assert!(uuid == A && matches!(reply.status, 0 | 503), "{uuid}: {reply:?}");
                        continue;
                    }
                    let Ok(config) = serde_json::from_str::<Value>(&reply.body) else {
                        assert_eq!(uuid, A, "{reply:?}");
                        continue;
                    };
                    let url = config["pixie_api_url"].as_str().unwrap();
                    assert!(url.ends_with(uuid), "{uuid} was told {url}");
                    let token = config["metal_apiserver_token_for_hammer"].as_str().unwrap();
                    match mode {
                        MachineToken::Token => assert!(token.ends_with(uuid), "{uuid} was given {token}"),
                        // What a handle stands for shows at the API, which lets a token act for its machine only.
                        MachineToken::Handle => {
                            let status = rack.register(port, token, uuid).await.status;
                            // A pulled cable ends the token, and what is under way with it.
                            assert!(
                                status == 200 || uuid == A && matches!(status, 0 | 401),
                                "{uuid}: {status}"
                            );
                            assert_ne!(rack.register(port, token, other).await.status, 200);
                        }
                    }
                    if worker == 0 && n % 10 == 0 {
                        rack.unplug();
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let created = rack.api.calls("TokenService/Create").len();
        assert!((2..=200).contains(&created), "{created} tokens");
    }
}

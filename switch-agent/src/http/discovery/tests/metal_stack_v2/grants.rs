//! Configs, tokens and handles.

use super::*;

#[tokio::test]
async fn a_machine_gets_its_config_and_registers() {
    for http1_only in [false, true] {
        let rack = Rack::with(MachineToken::Handle, fast(), http1_only).await;
        let reply = rack.config(rack.a, A).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let config = reply.json();
        let token = config["metal_apiserver_token_for_hammer"].as_str().unwrap().to_owned();
        let proxy = "http://[2001:db8:0:1::1]";
        let url = config["metal_apiserver_url"].as_str().unwrap();
        assert!(url.starts_with(proxy), "{url}");
        let wanted = json!({
            "debug": false, "ntp_servers": ["ntp.example"], "metal_apiserver_url": url,
            "metal_apiserver_token_for_hammer": token, "pixie_api_url": format!("{url}/config/{A}"),
            "partition": "p1"
        });
        assert_eq!(config, wanted);
        assert_eq!(token.len(), 43, "a handle");

        let created = rack.api.calls("TokenService/Create").remove(0);
        assert_eq!(created.bearer(), AGENT_TOKEN);
        assert_eq!(created.headers["connect-protocol-version"], "1");
        assert_eq!(created.headers["content-type"], "application/json");
        let wanted = json!({
            "description": "metal-hammer on leaf1 Ethernet0", "expires": "3600s",
            "machineRoles": { A: "MACHINE_ROLE_EDITOR" }
        });
        assert_eq!(created.json(), wanted);

        let reply = rack.register(rack.a, &token, A).await;
        assert_eq!(reply.json(), json!({ "uuid": A, "size": "v1", "partition": "p1" }), "{reply:?}");
        let call = rack.api.calls("BootService/Register").remove(0);
        assert_eq!(call.bearer(), format!("eyJ-secret-0-{A}"), "the token in place of the handle");
        assert_eq!(call.headers["x-boot-port"], "Ethernet0");
        assert_eq!(call.headers["connect-protocol-version"], "1");

        // A second look does not end what the first one gave.
        assert_eq!(rack.token(rack.a, A).await, token);
        assert_eq!(rack.api.calls("TokenService/Create").len(), 1);
        let document = ask(rack.a, "GET /v1/boot", "", "").await.json();
        assert_eq!(document["api"]["base"], url);
        assert_eq!((&document["machine"]["id"], &document["machine"]["mac"]), (&A.into(), &MAC.into()));
    }
}

/// One token is made however many ask at once.
#[tokio::test]
async fn requests_of_one_port_share_a_mint() {
    let rack = std::sync::Arc::new(Rack::new().await);
    rack.api.state.lock().unwrap().slow = Duration::from_millis(200);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let rack = rack.clone();
        tasks.spawn(async move { rack.token(rack.a, A).await });
    }
    let mut tokens = std::collections::BTreeSet::new();
    while let Some(token) = tasks.join_next().await {
        tokens.insert(token.unwrap());
    }
    assert_eq!((tokens.len(), rack.api.calls("TokenService/Create").len()), (1, 1));
}

/// What changes while the API makes the token voids it, and the API is told.
#[tokio::test]
async fn a_cable_pulled_meanwhile_voids_the_token() {
    let rack = std::sync::Arc::new(Rack::new().await);
    rack.api.state.lock().unwrap().slow = Duration::from_millis(300);
    let asking = tokio::spawn({
        let rack = rack.clone();
        async move { rack.config(rack.a, A).await }
    });
    rack.api.called("TokenService/Create", 1).await;
    rack.unplug();
    let reply = asking.await.unwrap();
    assert_ne!(reply.status, 200, "{reply:?}");
    let revoked = rack.api.called("TokenService/Revoke", 1).await;
    assert_eq!(revoked[0].json(), json!({ "uuid": "token-0" }));
    assert!(rack.api.calls("BootService/Dhcp").is_empty());
}

#[tokio::test]
async fn the_token_behind_a_handle_is_exchanged_in_time() {
    let rack = Rack::new().await;
    let handle = rack.token(rack.a, A).await;
    assert_eq!(rack.register(rack.a, &handle, A).await.status, 200);
    // The API forgot its tokens: one call fails, the next one has a new token behind the same handle.
    rack.api.state.lock().unwrap().tokens.clear();
    let reply = rack.register(rack.a, &handle, A).await;
    assert_eq!((reply.status, connect_code(&reply).as_str()), (401, "unauthenticated"));
    assert_eq!(rack.register(rack.a, &handle, A).await.status, 200);
    assert_eq!(rack.api.calls("TokenService/Create").len(), 2);
    // Expired, and nobody there to make another.
    rack.api.state.lock().unwrap().tokens.clear();
    assert_eq!(rack.register(rack.a, &handle, A).await.status, 401);
    rack.set_away(true);
    let reply = rack.register(rack.a, &handle, A).await;
    assert_eq!((reply.status, connect_code(&reply).as_str()), (503, "unavailable"), "{reply:?}");
    rack.set_away(false);
    assert_eq!(rack.register(rack.a, &handle, A).await.status, 200);
}

/// A token that has a quarter of its life left is exchanged, and does until it can be.
#[tokio::test]
async fn a_token_is_exchanged_before_it_ends() {
    for (mints_per_minute, secrets) in [(60, [0, 1]), (1, [0, 0])] {
        let rack = Rack::with(MachineToken::Handle, Limits { mints_per_minute, ..fast() }, false).await;
        let handle = rack.token(rack.a, A).await;
        rack.register(rack.a, &handle, A).await;
        let state = rack.proxy.discovery.ports().open.values().next().unwrap().state.clone();
        let at = binding(&state.listener, &state.context(), MAC.parse().unwrap());
        let soon = tokio::time::Instant::now() + Duration::from_secs(600);
        rack.proxy.discovery.shared.tokens.ends(&at, soon);
        assert_eq!(rack.register(rack.a, &handle, A).await.status, 200);
        let calls = rack.api.calls("BootService/Register");
        let sent: Vec<&str> = calls.iter().map(|call| call.bearer()).collect();
        assert_eq!(sent, secrets.map(|number| format!("eyJ-secret-{number}-{A}")));
    }
}

#[tokio::test]
async fn machines_may_hold_the_token_itself() {
    let rack = Rack::with(MachineToken::Token, fast(), false).await;
    let body = format!("{{\"machine_id\": \"{A}\"}}");
    let reply = ask(rack.a, "POST /v1/token", "Boot-Token: request\r\n", &body).await.json();
    let token = format!("eyJ-secret-0-{A}");
    assert_eq!((&reply["token"], &reply["handle"]), (&token.as_str().into(), &false.into()));
    assert_eq!(rack.api.calls("TokenService/Create")[0].json()["expires"], "86400s");
    assert_eq!(rack.register(rack.a, &token, A).await.status, 200);
    // The API forgot it: once that shows, the machine is given another.
    rack.api.state.lock().unwrap().tokens.clear();
    assert_eq!(rack.register(rack.a, &token, A).await.status, 401);
    let token = rack.token(rack.a, A).await;
    assert_eq!(token, format!("eyJ-secret-1-{A}"));
    assert_eq!(rack.register(rack.a, &token, A).await.status, 200);
    // It is bound to its port all the same, and ends at the API too.
    assert_eq!(rack.register(rack.b, &token, A).await.status, 401);
    rack.unplug();
    assert_eq!(rack.register(rack.a, &token, A).await.status, 401);
    rack.api.called("TokenService/Revoke", 1).await;
    assert!(rack.api.state.lock().unwrap().tokens.is_empty());
    // Without a machine id there is nothing to make a token for.
    let reply = ask(rack.a, "POST /v1/token", "Boot-Token: request\r\n", "").await;
    assert_eq!((reply.status, reply.error().as_str()), (400, "machine-id-required"));
}

#[tokio::test]
async fn an_agent_without_a_token_says_so() {
    let rack = Rack::new().await;
    let mut spec = rack.proxy.discovery.upstream().unwrap().spec;
    spec.token_file = None;
    rack.proxy.discovery.set_upstream(Some(spec.clone())).await;
    let reply = rack.config(rack.a, A).await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "agent-token-missing"), "{reply:?}");
    spec.token_file = Some(rack.proxy.directory.write("other", "another-token"));
    rack.proxy.discovery.set_upstream(Some(spec)).await;
    let reply = rack.config(rack.a, A).await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "agent-not-allowed"), "{reply:?}");
    assert!(!reply.body.contains("another-token"));
}

#[tokio::test]
async fn replies_with_secrets_are_marked() {
    let minted = Minted { token: Secret::handle().unwrap(), expires_at: 0, handle: true };
    let reply = token_reply(&minted);
    assert_eq!(reply.extensions().get::<TokenBearing>(), Some(&TokenBearing));
    assert!(!format!("{minted:?}").contains(minted.token.expose()));
    // Nothing secret is counted either.
    let rack = Rack::new().await;
    let token = rack.token(rack.a, A).await;
    rack.register(rack.a, &token, A).await;
    let text = rack.proxy.metrics.encode();
    for secret in [token.as_str(), "secret-", AGENT_TOKEN, A] {
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(!format!("{:?}", rack.proxy.discovery.shared.tokens).contains("secret-"));
    expect_none_logged();
}

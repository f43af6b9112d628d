//! What the API tells of partitions, and what it is told of machines.

use super::*;

#[tokio::test]
async fn while_the_api_is_away_partitions_are_told_and_nothing_is_minted() {
    let rack = Rack::new().await;
    let known = async |rack: &Rack| {
        let document = ask(rack.a, "GET /v1/boot", "", "").await.json();
        assert_eq!(document["config"]["kernel"], "https://images.example/kernel", "{document}");
        assert_eq!(document["dns_servers"], json!(["2001:db8::53"]));
        assert_eq!(document["ntp_servers"], json!(["ntp.example"]));
        document["config_age_s"].as_u64().unwrap()
    };
    rack.learnt().await;
    let file = rack.proxy.directory.0.join("state/metal-stack-v2.json");
    for _ in 0..100 {
        if file.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let live = rack.token(rack.a, A).await;
    rack.set_away(true);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(known(&rack).await >= 1, "the age counts");
    let created = rack.api.calls("TokenService/Create").len();
    for request in [format!("GET /config/{B}"), "POST /v1/token".to_owned()] {
        let body =
            if request.starts_with("POST") { format!("{{\"machine_id\": \"{B}\"}}") } else { String::new() };
        let reply = ask(rack.b, &request, "Boot-Token: request\r\n", &body).await;
        assert_eq!((reply.status, reply.error().as_str()), (503, "upstream-unavailable"), "{reply:?}");
        assert!(reply.header("retry-after").is_some());
    }
    assert_eq!(rack.api.calls("TokenService/Create").len(), created, "nobody was asked for a token");
    // What is live stays so, and the machine is told it again.
    assert_eq!(rack.token(rack.a, A).await, live);
    let script = ask(rack.a, "GET /boot.ipxe", "", "").await.body;
    let told = "kernel https://images.example/kernel initrd=initrd0 console=ttyS0 ";
    assert!(script.contains("https://images.example/initrd"), "{script}");
    let kernel = script.lines().find(|line| line.contains(told)).expect(&script);
    let url = "PIXIE_API_URL=http://[2001:db8:0:1::1]";
    assert!(kernel.contains(url) && kernel.contains("/config/${uuid}"), "{kernel}");
    assert!(!kernel.contains("ip=dhcp"), "{kernel}");

    // Another process finds the file, and no API.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("secret") && !text.contains(AGENT_TOKEN));
    let next = Proxy::new();
    std::fs::write(next.directory.0.join("state/metal-stack-v2.json"), text).unwrap();
    let spec = rack.proxy.discovery.upstream().unwrap().spec;
    let a = next.open("Ethernet0", |_| {}).await;
    next.discovery.set_upstream(Some(spec)).await;
    for _ in 0..100 {
        if ask(a, "GET /v1/boot", "", "").await.json()["config"]["kernel"].is_string() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the file was not used");
}

#[tokio::test]
async fn the_api_learns_of_first_contacts_and_events() {
    let rack = Rack::new().await;
    let event = async |stage: &str| {
        let body = json!({ "stage": stage, "message": "disk 1 of 2" }).to_string();
        assert_eq!(ask(rack.a, "POST /v1/events", "", &body).await.status, 202);
    };
    event("Preparing").await;
    rack.token(rack.a, A).await;
    rack.token(rack.a, A).await;
    event("something else").await;
    event("Phoned Home").await;
    event("installing").await;
    let sent = rack.api.called("EventService/Send", 1).await;
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].bearer(), AGENT_TOKEN);
    let event = &sent[0].json()["events"][A];
    assert_eq!(event["event"], "MACHINE_PROVISIONING_EVENT_TYPE_INSTALLING");
    assert_eq!(event["message"], "disk 1 of 2");
    let dhcp = rack.api.called("BootService/Dhcp", 1).await;
    assert_eq!(dhcp.len(), 1, "once");
    assert_eq!(dhcp[0].json(), json!({ "uuid": A, "partition": "p1" }));
    rack.api.called("ComponentService/Ping", 1).await;
    let counted = ["kind=\"dhcp\",outcome=\"sent\"} 1", "kind=\"event\",outcome=\"unknown-machine\"} 1"];
    for labels in counted {
        assert!(
            rack.proxy.metric(&format!("switch_agent_metal_stack_v2_outbox_total{{{labels}")),
            "{labels}"
        );
    }

    // Plugged in again: another boot.
    rack.unplug();
    rack.api.called("TokenService/Revoke", 1).await;
    rack.token(rack.a, A).await;
    assert_eq!(rack.api.called("BootService/Dhcp", 2).await.len(), 2);
}

#[tokio::test]
async fn events_never_hold_a_machine_up() {
    let rack = Rack::new().await;
    rack.token(rack.a, A).await;
    rack.set_away(true);
    let started = std::time::Instant::now();
    for _ in 0..300 {
        assert_eq!(ask(rack.a, "POST /v1/events", "", "{\"stage\": \"alive\"}").await.status, 202);
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let text = rack.proxy.metrics.encode();
    let dropped = text.lines().find(|line| line.contains("kind=\"event\",outcome=\"dropped\"")).expect(&text);
    let count: u64 = dropped.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((40..=45).contains(&count), "{dropped}");
}

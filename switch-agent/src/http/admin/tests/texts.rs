//! What is no JSON: metrics, and the page for people.

use super::*;

#[tokio::test]
async fn metrics_count_machines_of_boot_ports_only() {
    let rig = Rig::new(snapshot()).await;
    sightings(&rig.hub);
    let answer = rig.raw("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(answer.contains("switch_agent_machines{port=\"Ethernet0\"} 1\n"), "{answer}");
    assert!(answer.contains("switch_agent_machines{port=\"Ethernet4\"} 0\n"));
    assert!(!answer.contains("Ethernet48") && !answer.contains("52:54"));
    assert!(answer.ends_with("# EOF\n"));
    let mut fewer = snapshot();
    fewer.status.ports.remove(&"Ethernet4".parse().unwrap());
    rig.snapshots.send(Arc::new(fewer)).unwrap();
    let text = rig.text("/metrics").await;
    assert!(text.contains("switch_agent_machines{port=\"Ethernet0\"} 1\n"), "{text}");
    assert!(!text.contains("Ethernet4"), "{text}");
}

#[tokio::test]
async fn the_page_shows_ports_and_problems() {
    let rig = Rig::new(snapshot()).await;
    sightings(&rig.hub);
    let page = rig.text("/").await;
    assert!(page.starts_with("<!doctype html>"));
    for text in ["1 of 2 ports ready", "Eth1/1", "52:54:00:00:00:01", "waiting: INTERFACE|Ethernet4"] {
        assert!(page.contains(text), "{text} not in {page}");
    }
}

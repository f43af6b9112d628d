//! What followers of `/v1/events` are told.

use super::*;
use crate::cli::tests_support::Follower;

/// Reads events until one satisfies; its data.
async fn event(answer: &mut Follower, name: &str) -> Value {
    tokio::time::timeout(Duration::from_secs(5), answer.until(name)).await.unwrap()
}

#[tokio::test]
async fn followers_are_told_of_boot_ports_and_passes() {
    let rig = Rig::new(snapshot()).await;
    let mut follower = Follower::new(&rig.client()).await;
    assert_eq!(event(&mut follower, "status").await["verdict"], "converging");
    sightings(&rig.hub);
    let machine = event(&mut follower, "machine").await;
    assert_eq!((&machine["change"], &machine["port"]), (&json!("appeared"), &json!("Ethernet0")));
    let mut next = snapshot();
    next.status.ports.insert("Ethernet4".parse().unwrap(), port_status("Ethernet4", Phase::Ready));
    next.status.verdict = Verdict::Converged;
    rig.snapshots.send(Arc::new(next.clone())).unwrap();
    let port = event(&mut follower, "port").await;
    assert_eq!((&port["before"], &port["phase"]), (&json!("waiting"), &json!("ready")));
    assert_eq!(event(&mut follower, "status").await["verdict"], "converged");
    // A pass that found nothing new is not told; the port that leaves is.
    rig.snapshots.send(Arc::new(next.clone())).unwrap();
    next.status.ports.remove(&"Ethernet4".parse().unwrap());
    rig.snapshots.send(Arc::new(next)).unwrap();
    assert_eq!(event(&mut follower, "port").await["phase"], Value::Null);
    assert!(follower.names().iter().all(|name| name != "lagged"));
    assert_eq!(follower.names().iter().filter(|name| *name == "status").count(), 2);
}

//! What operators may clear, and by which listener.

use serde_json::{Value, json};
use switch_agent_core::machines::MachineEvent;
use switch_agent_core::name::PortName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{Rig, sightings, snapshot};

#[tokio::test]
async fn past_boots_are_forgotten_by_the_unix_socket_only() {
    let rig = Rig::new(snapshot()).await;
    sightings(&rig.hub);
    let port: PortName = "Ethernet0".parse().unwrap();
    // A machine that boots again gets a new boot each time.
    for _ in 0..3 {
        rig.hub.observe(MachineEvent::Released { port: port.clone() });
        sightings(&rig.hub);
    }
    let boots = rig.hub.boots(&port);
    assert!(boots.len() > 1, "{boots:?}");
    let request = |path: &str| format!("DELETE {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let path = "/v1/ports/Ethernet0/timeline";
    let refused = rig.raw(&request(path)).await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    assert_eq!(rig.hub.boots(&port).len(), boots.len());
    let by_socket = async |path: &str| {
        let mut stream = UnixStream::connect(&rig.socket).await.unwrap();
        stream.write_all(request(path).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = by_socket("/v1/ports/Eth1%2F1/timeline").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body, json!({"port": "Ethernet0", "forgotten": boots.len() - 1}));
    assert_eq!(rig.hub.boots(&port), boots[boots.len() - 1..]);
    for (path, status) in [("/v1/ports/Ethernet9/timeline", 404), ("/v1/macs", 405), ("/%ff", 400)] {
        let answer = by_socket(path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
}

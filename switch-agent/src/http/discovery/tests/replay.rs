//! A token is good in its own place and time: presented anywhere else it opens nothing.

use std::time::Duration;

use switch_agent_core::desired::MachineToken;
use switch_agent_core::discovery::Limits;
use switch_agent_core::ra::LinkEvent;

use super::control_api::{Api, Ca};
use super::support::{Proxy, ask, bearer, fast, token};

const TTL: Duration = Duration::from_secs(2);

/// What happens between minting and replaying.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    Nothing,
    OtherPort,
    OtherMac,
    NewerToken,
    CarrierLost,
    LeftVrf,
    OtherVrf,
    OtherPartition,
    PortClosed,
    Restart,
    TimePassed,
}

async fn configure(proxy: &Proxy, ca: &Ca, api: &Api, kind: MachineToken) {
    let mut spec = api.spec("127.0.0.1", &proxy.directory.write("ca.pem", &ca.pem));
    spec.machine_token = kind;
    proxy.discovery.set_upstream(Some(spec)).await;
}

/// Status and code of the replayed token, and how many requests the control API got.
async fn replay(kind: MachineToken, meanwhile: Meanwhile) -> (u16, String, usize) {
    let ca = Ca::new();
    let api = Api::start(&ca, &["127.0.0.1"], true).await;
    let mut proxy = Proxy::with(Limits { token_ttl: TTL, ..fast() });
    configure(&proxy, &ca, &api, kind).await;
    let mut port = proxy.open("Ethernet0", |_| {}).await;
    let token = token(port).await;
    let event = |ifindex, carrier| LinkEvent {
        ifindex,
        name: "Ethernet0".to_owned(),
        carrier,
        master: None,
        link_local: None,
        gone: false,
    };
    let mut service = proxy.discovery.observed().0.into_values().next().unwrap();
    match meanwhile {
        Meanwhile::Nothing => {}
        Meanwhile::OtherPort => port = proxy.open("Ethernet4", |_| {}).await,
        Meanwhile::OtherMac => {
            let entry = (1, "::1".parse().unwrap());
            proxy.neighbors.0.lock().unwrap().insert(entry, "52:54:00:00:00:02".parse().unwrap());
        }
        Meanwhile::NewerToken => drop(super::support::token(port).await),
        Meanwhile::CarrierLost => {
            proxy.discovery.link(&event(1, false));
            proxy.discovery.link(&event(1, true));
        }
        Meanwhile::LeftVrf => {
            proxy.discovery.link(&event(2, true));
            port = proxy.open("Ethernet0", |_| {}).await;
        }
        Meanwhile::OtherVrf => {
            service.listener.vrf = "VrfBoot-p2".parse().unwrap();
            proxy.discovery.set(service).await.unwrap();
        }
        Meanwhile::OtherPartition => {
            service.context_mut().partition = "p2".parse().unwrap();
            proxy.discovery.set(service).await.unwrap();
        }
        Meanwhile::PortClosed => {
            proxy.discovery.close(&"Ethernet0".parse().unwrap(), "test").await;
            port = proxy.open("Ethernet0", |_| {}).await;
        }
        Meanwhile::Restart => {
            proxy = Proxy::after(&proxy);
            configure(&proxy, &ca, &api, kind).await;
            port = proxy.open("Ethernet0", |_| {}).await;
        }
        Meanwhile::TimePassed => tokio::time::sleep(TTL + Duration::from_millis(100)).await,
    }
    let reply = ask(port, "GET /api/v1", &bearer(&token), "").await;
    let code = if reply.status == 200 { String::new() } else { reply.error() };
    let asked = api.seen.lock().unwrap().len();
    // The machine is not stranded: it mints anew and goes on.
    if !matches!(meanwhile, Meanwhile::NewerToken) {
        let newer = super::support::token(port).await;
        assert_eq!(ask(port, "GET /api/v1", &bearer(&newer), "").await.status, 200, "{meanwhile:?}");
    }
    (reply.status, code, asked)
}

#[tokio::test]
async fn every_replay_is_refused() {
    use Meanwhile as M;
    let table = [
        (M::OtherPort, "token-other-port"),
        (M::OtherMac, "token-other-mac"),
        (M::NewerToken, "token-replaced"),
        (M::CarrierLost, "token-revoked"),
        (M::LeftVrf, "token-revoked"),
        (M::OtherVrf, "token-revoked"),
        (M::OtherPartition, "token-other-partition"),
        (M::PortClosed, "token-revoked"),
        (M::Restart, "token-revoked"),
        (M::TimePassed, "token-expired"),
    ];
    for kind in [MachineToken::Token, MachineToken::Handle] {
        assert_eq!(replay(kind, M::Nothing).await, (200, String::new(), 1));
        for (meanwhile, wanted) in table {
            let (status, code, asked) = replay(kind, meanwhile).await;
            assert_eq!((status, asked), (401, 0), "{kind:?}, {meanwhile:?}: {code}");
            // A handle says nothing of where it came from.
            assert!(code == wanted || kind == MachineToken::Handle, "{meanwhile:?}: {code}");
        }
    }
}

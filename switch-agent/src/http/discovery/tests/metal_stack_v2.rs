//! The dialect metal-stack-v2 against a metal-apiserver in this process.

mod calls;
mod claims;
mod grants;
mod told;

use std::time::Duration;

use serde_json::{Value, json};
use switch_agent_core::desired::MachineToken;
use switch_agent_core::discovery::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::metal_apiserver::{AGENT_TOKEN, MetalApiserver, envelope};
use super::secrets::expect_none_logged;
use super::support::{MAC, Proxy, Reply, ask, bearer, fast, unplugged};
use crate::http::discovery::answer::TokenBearing;
use crate::http::discovery::minting::token_reply;
use crate::http::tokens::{Minted, Secret, binding};

const A: &str = "3f2b1c4e-0000-4000-8000-00000000000a";
const B: &str = "3f2b1c4e-0000-4000-8000-00000000000b";
const REGISTER: &str = "POST /metalstack.infra.v2.BootService/Register";
const JSON: &str = "Content-Type: application/json\r\nConnect-Protocol-Version: 1\r\n";

struct Rack {
    proxy: Proxy,
    api: MetalApiserver,
    /// TCP ports of Ethernet0 and Ethernet4.
    a: u16,
    b: u16,
}

impl Rack {
    async fn new() -> Rack {
        Rack::with(MachineToken::Handle, fast(), false).await
    }

    async fn with(mode: MachineToken, limits: Limits, http1_only: bool) -> Rack {
        let (proxy, api) = (Proxy::with(limits), MetalApiserver::start(http1_only).await);
        let ca_file = proxy.directory.write("ca.pem", &api.ca.pem);
        let token_file = proxy.directory.write("token", AGENT_TOKEN);
        let a = proxy.open("Ethernet0", |_| {}).await;
        let b = proxy.open("Ethernet4", |service| service.context_mut().alias = "Eth1/2".into()).await;
        proxy.discovery.set_upstream(Some(api.spec(&ca_file, &token_file, mode))).await;
        assert_eq!(proxy.discovery.upstream().unwrap().error, None);
        Rack { proxy, api, a, b }
    }

    async fn config(&self, port: u16, uuid: &str) -> Reply {
        ask(port, &format!("GET /config/{uuid}"), "", "").await
    }

    /// Waits until the API's word on the partition is known.
    async fn learnt(&self) {
        for _ in 0..100 {
            if ask(self.a, "GET /v1/boot", "", "").await.json()["config"]["kernel"].is_string() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the partition is not known");
    }

    /// The token in the config of a machine.
    async fn token(&self, port: u16, uuid: &str) -> String {
        let reply = self.config(port, uuid).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["metal_apiserver_token_for_hammer"].as_str().unwrap().to_owned()
    }

    fn set_away(&self, away: bool) {
        self.api.state.lock().unwrap().away = away;
    }

    fn unplug(&self) {
        self.proxy.discovery.link(&unplugged());
    }

    async fn register(&self, port: u16, token: &str, uuid: &str) -> Reply {
        let body = json!({ "uuid": uuid, "partition": "p1" }).to_string();
        ask(port, REGISTER, &format!("{JSON}{}", bearer(token)), &body).await
    }

    /// The Wait call of a machine, sent and not answered yet.
    async fn wait(&self, port: u16, token: &str, uuid: &str) -> TcpStream {
        let body = envelope(0, &json!({ "uuid": uuid }));
        let head = format!(
            "POST /metalstack.infra.v2.BootService/Wait HTTP/1.1\r\nHost: x\r\nContent-Type: \
             application/connect+json\r\nConnect-Protocol-Version: 1\r\n{}Content-Length: {}\r\n\r\n",
            bearer(token),
            body.len()
        );
        let mut stream = TcpStream::connect(("::1", port)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        stream
    }
}

fn connect_code(reply: &Reply) -> String {
    reply.json()["code"].as_str().unwrap_or_default().to_owned()
}

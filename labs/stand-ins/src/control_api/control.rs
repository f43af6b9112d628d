//! The user's side, over a unix socket: `GET /machines`, `GET /switches/<id>/ports`,
//! `POST /machines/<mac>/allocation`, `DELETE /machines/<mac>`.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::requests::{Api, Body, json_reply, refusal};
use super::verify::Refused;
use crate::control_socket;

const BODY_LEN_MAX: usize = 1 << 16;

pub(crate) async fn serve(listener: UnixListener, api: Arc<Api>) {
    control_socket::serve(listener, move |request| answer(api.clone(), request)).await;
}

async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body =
        Limited::new(body, BODY_LEN_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let segments: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
    let done = match (parts.method.as_str(), segments.as_slice()) {
        ("GET", ["machines"]) => Ok(api.machines.shown()),
        ("GET", ["switches", switch, "ports"]) => Ok(api.machines.ports(switch)),
        ("POST", ["machines", mac, "allocation"]) => allocate(&api, mac, &body),
        ("DELETE", ["machines", mac]) => api.machines.free(mac).map(|()| json!({})),
        _ => Err(Refused { status: 404, reason: "no such path".to_owned() }),
    };
    Ok(match done {
        Ok(value) => json_reply(200, &value),
        Err(refused) => refusal(&refused),
    })
}

fn allocate(api: &Api, mac: &str, body: &[u8]) -> Result<Value, Refused> {
    let allocation = serde_json::from_slice(body);
    let allocation = allocation.map_err(|error| Refused { status: 400, reason: error.to_string() })?;
    api.machines.allocate(mac, allocation).map(|()| json!({}))
}

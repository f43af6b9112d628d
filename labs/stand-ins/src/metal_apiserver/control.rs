//! The user's side, over a unix socket: `GET /state`, `POST /allocations`, `PUT /switches`.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::calls::{Api, text};
use super::reply::{Body, Refused, unary};
use crate::control_socket;

const BODY_LEN_MAX: usize = 1 << 20;

pub(crate) async fn serve(listener: UnixListener, api: Arc<Api>) {
    control_socket::serve(listener, move |request| answer(api.clone(), request)).await;
}

async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body =
        Limited::new(body, BODY_LEN_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let question: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(unary(match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/state") => Ok(api.shown()),
        (&Method::POST, "/allocations") => allocate(&api, &question),
        (&Method::PUT, "/switches") => api.state().set_switch(question).map(|()| json!({})),
        _ => Err(Refused::new("not_found", "GET /state, POST /allocations, PUT /switches")),
    }))
}

fn allocate(api: &Api, question: &Value) -> Result<Value, Refused> {
    api.allocate(&text(question, "uuid")?, &text(question, "hostname")?)?;
    Ok(json!({}))
}

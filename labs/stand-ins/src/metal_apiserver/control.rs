//! The user's side, over a unix socket: `GET /state`, `POST /allocations`, `PUT /switches`.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::Error;
use super::calls::{Api, text};
use super::reply::{Body, Refused, unary};

const BODY_LEN_MAX: usize = 1 << 20;

pub(crate) fn bind(path: &Path) -> Result<UnixListener, Error> {
    let failed = |error| Error::File(path.to_owned(), error);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    UnixListener::bind(path).map_err(failed)
}

pub(crate) async fn serve(listener: UnixListener, api: Arc<Api>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let api = api.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(api.clone(), request));
            if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "control connection ended");
            }
        });
    }
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

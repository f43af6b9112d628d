//! `BootService`, as machines call it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::calls::{Api, text};
use super::reply::{Body, Refused, end, fixed, message};

/// How often a stream that has said all finds out whether anybody listens.
const STILL_THERE_INTERVAL: Duration = Duration::from_millis(500);
const STREAM: &str = "application/connect+json";

impl Api {
    /// A unary call of a machine; `None` where the service has no such method.
    pub(crate) fn boot(&self, method: &str, uuid: &str, question: &Value) -> Option<Result<Value, Refused>> {
        Some(match method {
            "SuperUserPassword" => Ok(json!({
                "featureDisabled": self.super_user_password.is_empty(),
                "superUserPassword": self.super_user_password
            })),
            "Register" => self.register(uuid, question),
            "InstallationSucceeded" => {
                self.state().known(uuid).and_then(|machine| machine.install()).map(|()| json!({}))
            }
            _ => return None,
        })
    }

    fn register(&self, uuid: &str, question: &Value) -> Result<Value, Refused> {
        let partition = text(question, "partition")?;
        let mut state = self.state();
        state.partition(&partition)?;
        let machine = state.machine(uuid)?;
        machine.seen_in(&partition);
        machine.register();
        state.connect(uuid, question["hardware"]["nics"].as_array().map_or(&[], Vec::as_slice));
        Ok(json!({ "uuid": uuid, "size": "v1-small-x86", "partition": partition }))
    }

    /// `Wait`: nothing is sent, not even the header of the reply, until the machine is allocated. Then the
    /// stream stays open until the caller ends it.
    pub(crate) async fn wait(self: &Arc<Api>, uuid: String) -> Response<Body> {
        let waiting = match self.state().known(&uuid) {
            Ok(machine) => {
                machine.waiting += 1;
                Waiting { api: self.clone(), uuid: uuid.clone() }
            }
            Err(refused) => return stream_error(&refused),
        };
        let mut changes = self.allocations();
        let allocation = loop {
            if let Ok(machine) = self.state().known(&uuid)
                && let Some(allocation) = machine.allocation.clone()
            {
                break allocation;
            }
            if changes.changed().await.is_err() {
                return stream_error(&Refused::new("unavailable", "the server is stopping"));
            }
        };
        let (mut sender, body) = Channel::<Bytes, std::convert::Infallible>::new(1);
        tokio::spawn(async move {
            let _waiting = waiting;
            let mut told = sender.send_data(message(&json!({ "allocation": allocation }))).await;
            while told.is_ok() {
                tokio::time::sleep(STILL_THERE_INTERVAL).await;
                // Nothing goes out; it fails once nobody listens any more.
                told = sender.send_data(Bytes::new()).await;
            }
        });
        let mut response = Response::new(body.boxed_unsync());
        let kind = hyper::header::HeaderValue::from_static(STREAM);
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
        response
    }
}

/// A stream that fails before its first message.
pub(crate) fn stream_error(refused: &Refused) -> Response<Body> {
    fixed(StatusCode::OK, STREAM, end(Some(refused)))
}

/// Counts a hanging call for as long as it lasts.
struct Waiting {
    api: Arc<Api>,
    uuid: String,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Ok(machine) = self.api.state().known(&self.uuid) {
            machine.waiting = machine.waiting.saturating_sub(1);
        }
    }
}

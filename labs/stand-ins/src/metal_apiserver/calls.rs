//! Which call is answered how, and who may make it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::boot::stream_error;
use super::reply::{Body, Refused, fixed, only_message, unary};
use super::state::{Data, State};
use super::tokens::{Token, Tokens, is_uuid};

const BODY_LEN_MAX: usize = 4 << 20;
const BOOT: &str = "metalstack.infra.v2.BootService/";
const WAIT: &str = "metalstack.infra.v2.BootService/Wait";

pub(crate) struct Api {
    base: String,
    pub(crate) super_user_password: String,
    state: Mutex<State>,
    tokens: Mutex<Tokens>,
    /// Calls by procedure and code.
    counts: Mutex<BTreeMap<String, BTreeMap<&'static str, u64>>>,
    allocated: watch::Sender<u64>,
    started: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A member that must be a text.
pub(crate) fn text(question: &Value, name: &str) -> Result<String, Refused> {
    let text = question[name].as_str().filter(|text| !text.is_empty());
    let missing = || Refused::new("invalid_argument", format!("validation error: {name}: is required"));
    text.map(str::to_owned).ok_or_else(missing)
}

fn machine_id(question: &Value) -> Result<String, Refused> {
    let uuid = text(question, "uuid")?;
    let invalid = || Refused::new("invalid_argument", "validation error: uuid: must be a valid UUID");
    if is_uuid(&uuid) { Ok(uuid) } else { Err(invalid()) }
}

impl Api {
    pub(crate) fn new(data: Data, infra_token: &str, super_user_password: String, base: String) -> Api {
        Api {
            base,
            super_user_password,
            state: Mutex::new(State::new(data)),
            tokens: Mutex::new(Tokens::new(infra_token)),
            counts: Mutex::default(),
            allocated: watch::Sender::new(0),
            started: Instant::now(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn allocations(&self) -> watch::Receiver<u64> {
        self.allocated.subscribe()
    }

    /// What a user does: the machine gets an allocation, and is told if it waits.
    pub(crate) fn allocate(&self, uuid: &str, hostname: &str) -> Result<(), Refused> {
        let allocation = json!({ "uuid": uuid, "hostname": hostname, "project": "lab" });
        self.state().known(uuid)?.allocation = Some(allocation);
        self.allocated.send_modify(|count| *count += 1);
        Ok(())
    }

    /// For tests: everything but secrets.
    pub(crate) fn shown(&self) -> Value {
        let mut shown = self.state().shown();
        shown["tokens"] = json!(lock(&self.tokens).machines(self.started.elapsed()));
        shown["calls"] = json!(*lock(&self.counts));
        shown
    }

    fn count(&self, procedure: &str, code: &'static str) {
        // Procedures that do not exist are counted as one: callers choose their names.
        let known = code != "unimplemented";
        let procedure = if known { procedure } else { "unknown" };
        *lock(&self.counts).entry(procedure.to_owned()).or_default().entry(code).or_default() += 1;
    }

    pub(crate) async fn answer(
        self: &Arc<Api>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let procedure = parts.uri.path().strip_prefix(&self.base).unwrap_or_default();
        let procedure = procedure.trim_start_matches('/').to_owned();
        if parts.method != Method::POST {
            return Ok(fixed(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "POST\n"));
        }
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let stream = procedure == WAIT;
        if kind != if stream { "application/connect+json" } else { "application/json" } {
            return Ok(fixed(StatusCode::UNSUPPORTED_MEDIA_TYPE, "text/plain", "JSON only\n"));
        }
        let body = match Limited::new(body, BODY_LEN_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Ok(unary(Err(Refused::new("resource_exhausted", "the message is too large")))),
        };
        if stream {
            let allowed = self.waiter(&parts.headers, &body);
            self.count(&procedure, allowed.as_ref().map_or_else(|refused| refused.code, |_| "ok"));
            return Ok(match allowed {
                Ok(uuid) => self.wait(uuid).await,
                Err(refused) => stream_error(&refused),
            });
        }
        let answer = self.call(&procedure, &parts.headers, &body);
        self.count(&procedure, answer.as_ref().map_or_else(|refused| refused.code, |_| "ok"));
        Ok(unary(answer))
    }

    fn token(&self, headers: &HeaderMap) -> Result<Token, Refused> {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|text| text.split_once(' ')).map(|(_, secret)| secret.trim());
        let secret = bearer.ok_or_else(|| Refused::new("unauthenticated", "no token found in request"))?;
        lock(&self.tokens).get(secret, self.started.elapsed()).cloned()
    }

    fn waiter(&self, headers: &HeaderMap, body: &Bytes) -> Result<String, Refused> {
        let token = self.token(headers)?;
        let invalid = || Refused::new("invalid_argument", "the request is not one enveloped message");
        let question = only_message(body).ok_or_else(invalid)?;
        let question: Value = serde_json::from_slice(question).map_err(|_| invalid())?;
        let uuid = machine_id(&question)?;
        acting_for(&token, WAIT, &uuid)?;
        Ok(uuid)
    }

    fn call(&self, procedure: &str, headers: &HeaderMap, body: &Bytes) -> Result<Value, Refused> {
        let token = self.token(headers)?;
        let question: Value = serde_json::from_slice(body)
            .map_err(|error| Refused::new("invalid_argument", format!("unmarshal message: {error}")))?;
        if let Some(method) = procedure.strip_prefix(BOOT)
            && !matches!(method, "Dhcp" | "Boot")
        {
            let uuid = machine_id(&question)?;
            acting_for(&token, procedure, &uuid)?;
            return self.boot(method, &uuid, &question).unwrap_or_else(|| Err(unknown(procedure)));
        }
        let now = self.started.elapsed();
        match procedure {
            "metalstack.api.v2.TokenService/Create" => lock(&self.tokens).create(&token, &question, now),
            "metalstack.api.v2.TokenService/Revoke" => lock(&self.tokens).revoke(&text(&question, "uuid")?),
            "metalstack.api.v2.PartitionService/Get" => {
                let partition = self.state().partition(&text(&question, "id")?)?;
                Ok(json!({ "partition": partition }))
            }
            "metalstack.api.v2.VersionService/Get" => Ok(json!({ "version": { "version": "stand-in" } })),
            _ if !token.infra_editor => Err(not_allowed(procedure)),
            _ => self.infra(procedure, question),
        }
    }

    /// Calls that take the infra role.
    fn infra(&self, procedure: &str, question: Value) -> Result<Value, Refused> {
        let mut state = self.state();
        match procedure.strip_prefix("metalstack.infra.v2.").unwrap_or_default() {
            "BootService/Dhcp" => {
                let (uuid, partition) = (machine_id(&question)?, text(&question, "partition")?);
                let machine = state.machine(&uuid)?;
                machine.event("MACHINE_PROVISIONING_EVENT_TYPE_PXE_BOOTING")?;
                machine.seen_in(&partition);
                Ok(json!({}))
            }
            "BootService/Boot" => {
                let boot = state.partition(&text(&question, "partition")?)?["bootConfiguration"].clone();
                Ok(json!({
                    "kernel": boot["kernelUrl"], "initRamDisks": [boot["imageUrl"]],
                    "cmdline": boot["commandline"]
                }))
            }
            "SwitchService/Get" => Ok(json!({ "switch": state.switch(&text(&question, "id")?)? })),
            "EventService/Send" => {
                let events = question["events"].as_object().cloned().unwrap_or_default();
                for (uuid, event) in &events {
                    let name = text(event, "event")?;
                    state.machine(uuid)?.event(&name)?;
                }
                Ok(json!({ "events": events.len().to_string() }))
            }
            "ComponentService/Ping" => state.ping(question),
            _ => Err(unknown(procedure)),
        }
    }
}

fn unknown(procedure: &str) -> Refused {
    Refused::new("unimplemented", format!("no procedure {procedure:?}"))
}

fn not_allowed(procedure: &str) -> Refused {
    let message =
        format!("access to:{procedure:?} is not allowed because it is not part of the token permissions");
    Refused::new("permission_denied", message)
}

fn acting_for(token: &Token, procedure: &str, uuid: &str) -> Result<(), Refused> {
    // The switches' own token may make tokens for every machine, and acts for none.
    if token.may_act_for(uuid) && !token.infra_editor { Ok(()) } else { Err(not_allowed(procedure)) }
}

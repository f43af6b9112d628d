//! Tokens that the API makes, for machines that are believed to be who they say.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use switch_agent_core::desired::MachineToken;
use switch_agent_core::discovery::metal_stack_v2::messages::procedure::SWITCH_GET;
use switch_agent_core::discovery::metal_stack_v2::messages::{
    Dhcp, Get, SwitchAnswer, TokenCreate, TokenRevoke,
};
use switch_agent_core::discovery::metal_stack_v2::pins::{ClaimRefusal, PortFacts};
use switch_agent_core::identity::Binding;
use switch_agent_core::machines::ProxyStep;
use switch_agent_core::name::MacAddr;
use tokio::time::Instant;

use super::super::answer::Refusal;
use super::super::incomer::Incomer;
use super::super::minting::mint_in_flight;
use super::client::{CallError, Created, call, create_token};
use super::outbox::Message;
use crate::http::tokens::{Authorized, Made, Minted, Remote, Unauthorized, binding};
use crate::http::upstream::Upstream;

/// Life of a token that stays behind a handle. It is exchanged in time.
const INNER_LIFE: Duration = Duration::from_secs(3600);
/// What is left of it when it is exchanged: enough for what the API takes a minute to answer.
const INNER_MARGIN: Duration = Duration::from_secs(900);
/// Life of a handle: metal-hammer fetches its config once, and reboots within two days.
const HANDLE_LIFE: Duration = Duration::from_secs(72 * 3600);
/// Life of a token that a machine holds itself.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// What is left of what a machine holds when it is not told again.
const AGAIN_MARGIN: Duration = Duration::from_secs(4 * 3600);
/// How long a request waits for another one's token of the same port. metal-hammer waits 5 s.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// A token or handle, and whether it was made for this request.
pub struct Obtained {
    pub minted: Minted,
    pub fresh: bool,
}

/// The token of the machine `uuid` on the port: the live one, or a new one. Refusals are told to operators.
///
/// It is made to its end even if the machine goes away meanwhile: what the API made for nobody is revoked.
pub async fn obtain(
    incomer: &Incomer<'_>,
    upstream: &Arc<Upstream>,
    mac: MacAddr,
    uuid: &str,
) -> Result<Obtained, Refusal> {
    let (port, peer) = (incomer.port.clone(), incomer.peer);
    let (upstream, uuid) = (upstream.clone(), uuid.to_owned());
    let making = async move { obtained(&Incomer { port: &port, peer }, &upstream, mac, &uuid).await };
    tokio::spawn(making).await.unwrap_or_else(|_| Err(CallError::Answer.refusal()))
}

async fn obtained(
    incomer: &Incomer<'_>,
    upstream: &Arc<Upstream>,
    mac: MacAddr,
    uuid: &str,
) -> Result<Obtained, Refusal> {
    let port = incomer.port;
    let _one = tokio::time::timeout(WAIT_MAX, port.minting.lock()).await.map_err(|_| mint_in_flight())?;
    let shared = &port.shared;
    let context = port.context();
    let at = binding(&port.listener, &context, mac);
    let state = &shared.metal_stack_v2;
    let known = state.last_facts(&context);
    judge(incomer, mac, &at, uuid, known.as_ref())?;
    if let Some(minted) = shared.tokens.again(&at, uuid, AGAIN_MARGIN) {
        state.pin(&at, uuid);
        return Ok(Obtained { minted, fresh: false });
    }
    let admission = shared.tokens.admit(&port.listener.port)?;
    let facts = ask_facts(incomer, upstream).await.map_err(|error| away(incomer, &error))?;
    judge(incomer, mac, &at, uuid, facts.as_ref())?;
    let mode = upstream.spec().machine_token;
    let (life, ttl) = match mode {
        MachineToken::Handle => (INNER_LIFE, HANDLE_LIFE),
        MachineToken::Token => (TOKEN_LIFE, TOKEN_LIFE),
    };
    let question = TokenCreate::for_machine(uuid, &context.switch_id, context.port.as_str(), life);
    let created = create_token(upstream, &shared.metrics, &question).await;
    let Created { id, secret } = created.map_err(|error| away(incomer, &error))?;
    let revoke = Message::Revoke(TokenRevoke { uuid: id.clone() });
    // Another port may have been believed the same meanwhile: looked at again in one step with the pin.
    let first = match state.judge_and_pin(&at, uuid, facts.as_ref()) {
        Ok(first) => first,
        Err(refusal) => {
            state.outbox.tell(&shared.metrics, revoke);
            return Err(refused(incomer, mac, uuid, &refusal));
        }
    };
    let remote = Remote { id, expires: Instant::now() + life };
    let made = Made { token: secret, remote: Some(remote), machine_id: Some(uuid.to_owned()), ttl, mode };
    let (minted, replaced) = match shared.tokens.enter(&admission, at, made) {
        Ok(entered) => entered,
        Err(error) => {
            state.outbox.tell(&shared.metrics, revoke);
            state.forget(&port.listener.port);
            return Err(error.into());
        }
    };
    if let Some(remote) = replaced.and_then(|kept| kept.remote) {
        state.outbox.tell(&shared.metrics, Message::Revoke(TokenRevoke { uuid: remote.id }));
    }
    if first {
        let dhcp = Dhcp { uuid: uuid.to_owned(), partition: context.partition.to_string() };
        state.outbox.tell(&shared.metrics, Message::Dhcp(dhcp));
    }
    shared.metrics.proxy.token_minted();
    Ok(Obtained { minted, fresh: true })
}

/// Sees to it that the token behind the handle of a request lasts.
pub async fn lasting(
    incomer: &Incomer<'_>,
    upstream: &Arc<Upstream>,
    at: &Binding,
    right: Authorized,
) -> Result<Authorized, Refusal> {
    let due = |right: &Authorized| {
        let expires = right.inner_expires.filter(|_| right.bearer.is_some());
        expires.is_some_and(|expires| expires <= Instant::now() + INNER_MARGIN)
    };
    if !due(&right) {
        return Ok(right);
    }
    let port = incomer.port;
    let shared = &port.shared;
    let _one = tokio::time::timeout(WAIT_MAX, port.minting.lock()).await.map_err(|_| mint_in_flight())?;
    let right = shared.tokens.at(at).map_err(|why| {
        let why = Unauthorized::from(why);
        Refusal::new(StatusCode::UNAUTHORIZED, why.code(), why.to_string())
    })?;
    if !due(&right) {
        return Ok(right);
    }
    // What is there may still do for a while.
    let usable = right.inner_expires.is_some_and(|expires| expires > Instant::now());
    match exchanged(incomer, upstream, at, &right).await {
        Ok(exchanged) => Ok(exchanged),
        Err(_) if usable => Ok(right),
        Err(refusal) => Err(refusal),
    }
}

async fn exchanged(
    incomer: &Incomer<'_>,
    upstream: &Arc<Upstream>,
    at: &Binding,
    right: &Authorized,
) -> Result<Authorized, Refusal> {
    let shared = &incomer.port.shared;
    let admission = shared.tokens.admit(&at.port)?;
    let uuid = right.machine_id.as_deref().unwrap_or_default();
    let question = TokenCreate::for_machine(uuid, &at.switch_id, at.port.as_str(), INNER_LIFE);
    let created = create_token(upstream, &shared.metrics, &question).await;
    let Created { id, secret } = created.map_err(|error| away(incomer, &error))?;
    let remote = Remote { id, expires: Instant::now() + INNER_LIFE };
    if let Err(unused) = shared.tokens.renew(&admission, at, &secret, remote) {
        let revoke = Message::Revoke(TokenRevoke { uuid: unused.id });
        shared.metal_stack_v2.outbox.tell(&shared.metrics, revoke);
    }
    shared.tokens.at(at).map_err(|why| {
        let why = Unauthorized::from(why);
        Refusal::new(StatusCode::UNAUTHORIZED, why.code(), why.to_string())
    })
}

/// What the API says of the port now; `None` where it knows no such switch.
async fn ask_facts(incomer: &Incomer<'_>, upstream: &Arc<Upstream>) -> Result<Option<PortFacts>, CallError> {
    let shared = &incomer.port.shared;
    let context = incomer.port.context();
    let question = Get { id: context.switch_id.clone() };
    let asked: Result<SwitchAnswer, _> = call(upstream, &shared.metrics, SWITCH_GET, &question).await;
    match asked {
        Ok(answer) => {
            let facts = PortFacts::of(&answer.switch, context.port.as_str(), &context.alias);
            shared.metal_stack_v2.set_switch(Some(answer.switch));
            Ok(Some(facts))
        }
        Err(CallError::Refused(error)) if !error.code.is_passing() => {
            tracing::warn!(%error, "the control API does not tell which machines are on this switch");
            shared.metal_stack_v2.set_switch(None);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn judge(
    incomer: &Incomer<'_>,
    mac: MacAddr,
    at: &Binding,
    uuid: &str,
    facts: Option<&PortFacts>,
) -> Result<(), Refusal> {
    let judged = incomer.port.shared.metal_stack_v2.judge(at, uuid, facts);
    judged.map_err(|refusal| refused(incomer, mac, uuid, &refusal))
}

/// Tells operators of a claim that is not believed; the machine is not told whose the port is.
fn refused(incomer: &Incomer<'_>, mac: MacAddr, uuid: &str, refusal: &ClaimRefusal) -> Refusal {
    let port = &incomer.port.listener.port;
    let known = match refusal {
        ClaimRefusal::OtherMachine { known } => Some(known.as_str()),
        ClaimRefusal::OtherPort { port } => port.as_ref().map(|port| port.as_str()),
        ClaimRefusal::Allocated => None,
    };
    tracing::warn!(%port, %mac, claimed = uuid, known, "no token: {refusal}");
    let message = Some(format!("{}: {uuid}", refusal.code()));
    incomer.report(Some(mac), ProxyStep::Event { stage: "token-refused".to_owned(), message });
    Refusal::new(StatusCode::FORBIDDEN, refusal.code(), refusal.to_string())
}

fn away(incomer: &Incomer<'_>, error: &CallError) -> Refusal {
    let port = &incomer.port.listener.port;
    tracing::warn!(%port, %error, "no token: the control API gives none");
    error.refusal()
}

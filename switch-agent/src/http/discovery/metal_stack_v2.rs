//! The dialect `metal-stack-v2`: machines that speak Connect RPC to a metal-apiserver through their switch.
//!
//! The agent asks the API for a token of the machine on the port, tells it of first contacts and events, and
//! keeps what it says of partitions for when it is away. The machine's own calls pass on untouched, with
//! the token in place of its handle.

pub mod client;
pub mod grants;
pub mod outbox;
pub mod refresh;
pub mod routes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use switch_agent_core::desired::Dialect;
use switch_agent_core::discovery::metal_stack_v2::events::event_type;
use switch_agent_core::discovery::metal_stack_v2::messages::{Event, Switch, TokenRevoke};
use switch_agent_core::discovery::metal_stack_v2::pins::{ClaimRefusal, Pins, PortFacts};
use switch_agent_core::discovery::metal_stack_v2::store::{Answer, Answers};
use switch_agent_core::identity::Binding;
use switch_agent_core::name::{MacAddr, PartitionId, PortName};
use switch_agent_core::service::PortContext;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::outbox::{Message, Outbox};
use super::{PortState, Shared};
use crate::backend::state_dir::StateDir;
use crate::http::tokens::{Kept, binding, unix_now};
use crate::http::upstream::Upstream;

pub use self::routes::{serve, takes};

/// Longest message of an event that the API is sent, in characters.
const MESSAGE_LEN_MAX: usize = 256;

/// What is known and pending; of the control API that is configured now.
pub struct MetalStackV2 {
    pins: Mutex<Pins>,
    answers: Mutex<Answers>,
    /// The API's last word on this switch.
    switch: Mutex<Option<Switch>>,
    outbox: Outbox,
    /// A partition is served of which nothing is known yet.
    wanted: Notify,
    state_dir: Option<StateDir>,
    origin: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MetalStackV2 {
    pub fn new(state_dir: Option<StateDir>) -> MetalStackV2 {
        MetalStackV2 {
            pins: Mutex::default(),
            answers: Mutex::default(),
            switch: Mutex::default(),
            outbox: Outbox::default(),
            wanted: Notify::new(),
            state_dir,
            origin: Instant::now(),
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Forgets what another control API said.
    pub fn reset(&self) {
        lock(&self.pins).clear();
        lock(&self.answers).clear();
        *lock(&self.switch) = None;
        self.outbox.clear();
    }

    /// Forgets which machine is on a port.
    pub fn forget(&self, port: &PortName) {
        lock(&self.pins).forget(port);
    }

    fn judge(&self, at: &Binding, uuid: &str, facts: Option<&PortFacts>) -> Result<(), ClaimRefusal> {
        lock(&self.pins).judge(at, uuid, facts, self.now())
    }

    /// Whether the machine is new at the place.
    fn judge_and_pin(
        &self,
        at: &Binding,
        uuid: &str,
        facts: Option<&PortFacts>,
    ) -> Result<bool, ClaimRefusal> {
        let now = self.now();
        let mut pins = lock(&self.pins);
        pins.judge(at, uuid, facts, now)?;
        Ok(pins.pin(at.clone(), uuid, now))
    }

    fn pin(&self, at: &Binding, uuid: &str) {
        lock(&self.pins).pin(at.clone(), uuid, self.now());
    }

    /// The machine of a place that was heard of just now, where it is known.
    fn heard(&self, at: &Binding) -> Option<String> {
        lock(&self.pins).heard(at, self.now()).map(str::to_owned)
    }

    fn set_switch(&self, switch: Option<Switch>) {
        *lock(&self.switch) = switch;
    }

    fn last_facts(&self, context: &PortContext) -> Option<PortFacts> {
        let switch = lock(&self.switch);
        switch.as_ref().map(|switch| PortFacts::of(switch, context.port.as_str(), &context.alias))
    }

    fn answer(&self, partition: &PartitionId) -> Option<Answer> {
        let answer = lock(&self.answers).get(partition).cloned();
        if answer.is_none() {
            self.wanted.notify_one();
        }
        answer
    }
}

impl Shared {
    /// The control API, if it speaks this dialect.
    pub(super) fn metal_stack_v2_upstream(&self) -> Option<Arc<Upstream>> {
        self.current_upstream().filter(|upstream| upstream.spec().dialect == Dialect::MetalStackV2)
    }

    /// Ends the port's token here and at the control API, and forgets which machine is on the port.
    pub(super) fn release(&self, port: &PortName) {
        self.metal_stack_v2.forget(port);
        if let Some(Kept { remote: Some(remote), .. }) = self.tokens.revoke(port) {
            let revoke = Message::Revoke(TokenRevoke { uuid: remote.id });
            self.metal_stack_v2.outbox.tell(&self.metrics, revoke);
        }
    }
}

/// What is told of a port: by the rows, and where they are silent by the API.
pub struct Told {
    pub context: Arc<PortContext>,
    /// Since when the API says so, where it has a say.
    pub age: Option<Duration>,
    /// Below which URL machines find the API, where that is not `/api`.
    pub base: Option<String>,
}

/// What machines on the port are told of it.
pub fn told(port: &PortState) -> Told {
    let context = port.context();
    if port.shared.metal_stack_v2_upstream().is_none() {
        return Told { context, age: None, base: None };
    }
    let base = Some(context.proxy_url());
    match port.shared.metal_stack_v2.answer(&context.partition) {
        None => Told { context, age: None, base },
        Some(answer) => {
            let told = answer.facts.complete((*context).clone());
            // Where the rows say all, the API's word is not used, however old.
            let age = (told != *context).then(|| answer.age(unix_now()));
            Told { context: Arc::new(told), age, base }
        }
    }
}

/// Tells the API what a machine said of itself: where its stage is one of the API's, and who it is is known.
pub fn relay(port: &PortState, mac: Option<MacAddr>, stage: &str, message: Option<&str>) {
    let shared = &port.shared;
    let Some(event) = event_type(stage).filter(|_| shared.metal_stack_v2_upstream().is_some()) else {
        return;
    };
    let context = port.context();
    let at = mac.map(|mac| binding(&port.listener, &context, mac));
    let Some(uuid) = at.and_then(|at| shared.metal_stack_v2.heard(&at)) else {
        return shared.metrics.metal_stack_v2.told("event", "unknown-machine");
    };
    let message = message.unwrap_or_default().chars().take(MESSAGE_LEN_MAX).collect();
    let event = Event { time: jiff::Timestamp::now().to_string(), event, message };
    shared.metal_stack_v2.outbox.tell(&shared.metrics, Message::Event { uuid, event });
}

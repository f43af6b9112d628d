//! What the API is asked from time to time: partitions, this switch, and whether the agent is on its list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use switch_agent_core::discovery::metal_stack_v2::facts::PartitionFacts;
use switch_agent_core::discovery::metal_stack_v2::messages::procedure::{
    BOOT_BOOT, COMPONENT_PING, PARTITION_GET, SWITCH_GET,
};
use switch_agent_core::discovery::metal_stack_v2::messages::{
    Boot, BootAnswer, Get, PartitionAnswer, Ping, SwitchAnswer,
};
use switch_agent_core::discovery::metal_stack_v2::store::{self, Answer, Answers};
use switch_agent_core::name::{MacAddr, PartitionId};
use switch_agent_core::service::PortContext;
use tokio::time::Instant;

use super::super::Shared;
use super::client::{CallError, call};
use super::lock;
use crate::http::tokens::unix_now;
use crate::http::upstream::Upstream;

/// The file of the last good answers in the state directory.
pub const FILE: &str = "metal-stack-v2.json";
/// Between two looks at a partition that the API told of.
const PARTITION_INTERVAL: Duration = Duration::from_secs(60);
/// Between two looks at the switch: who is connected, what is allocated.
const SWITCH_INTERVAL: Duration = Duration::from_secs(15);
/// How long a machine is kept waiting for what its partition is told; metal-hammer gives up after 5 s.
const LEARN_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Of `ComponentService.Ping`; the API takes 5 s to 1 h.
const PING_INTERVAL: Duration = Duration::from_secs(300);
/// An answer that did not change is written again for its date only, and this seldom.
const REWRITE_INTERVAL_S: u64 = 3600;

/// Which partitions are served, each with the MAC of a port, and the name of the switch.
#[derive(Debug, Clone, Default)]
pub struct Served {
    pub switch_id: Option<String>,
    pub partitions: BTreeSet<(PartitionId, MacAddr)>,
}

/// Asks and tells for as long as the API is configured.
pub(crate) async fn run(
    shared: &Shared,
    upstream: &Arc<Upstream>,
    served: impl Fn() -> Served + Send + Sync,
) {
    load(shared, upstream).await;
    tokio::join!(
        shared.metal_stack_v2.outbox.run(upstream, &shared.metrics),
        partitions(shared, upstream, &served),
        switch(shared, upstream, &served),
        ping(shared, upstream, &served),
    );
}

/// `https://host[:port]/base`: whose answers are kept.
fn api(upstream: &Upstream) -> String {
    format!("{}{}", upstream.origin(), upstream.spec().base)
}

async fn load(shared: &Shared, upstream: &Upstream) {
    let Some(state_dir) = shared.metal_stack_v2.state_dir.clone() else { return };
    let read = tokio::task::spawn_blocking(move || state_dir.load(FILE)).await;
    let bytes = match read {
        Ok(Ok(Some(bytes))) => bytes,
        Ok(Err(error)) => {
            return tracing::warn!(%error, "last good answers of the control API cannot be read");
        }
        Ok(Ok(None)) | Err(_) => return,
    };
    match store::decode(&api(upstream), &bytes) {
        Ok(loaded) => {
            let mut answers = lock(&shared.metal_stack_v2.answers);
            for (partition, answer) in loaded {
                answers.entry(partition).or_insert(answer);
            }
        }
        Err(reason) => {
            tracing::warn!(%reason, file = FILE, "last good answers of the control API are not used")
        }
    }
}

async fn save(shared: &Shared, upstream: &Upstream, answers: &Answers) {
    let Some(state_dir) = shared.metal_stack_v2.state_dir.clone() else { return };
    let Ok(bytes) = store::encode(&api(upstream), answers) else { return };
    let written = tokio::task::spawn_blocking(move || state_dir.store(FILE, &bytes)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(%error, "last good answers of the control API cannot be kept");
    }
}

async fn partitions(shared: &Shared, upstream: &Upstream, served: &(impl Fn() -> Served + Sync)) {
    let mut saved = lock(&shared.metal_stack_v2.answers).clone();
    // Until when an answer is fresh enough, by partition.
    let mut due = BTreeMap::<PartitionId, Instant>::new();
    loop {
        let ports = served().partitions;
        let known = due.len();
        due.retain(|partition, _| ports.iter().any(|(served, _)| served == partition));
        if due.len() < known {
            shared.metrics.metal_stack_v2.forget();
        }
        for (partition, mac) in &ports {
            if due.get(partition).is_some_and(|due| *due > Instant::now()) {
                continue;
            }
            let pause = match ask_partition(shared, upstream, partition, *mac).await {
                Ok(facts) => {
                    let answer = Answer { facts, at: unix_now() };
                    lock(&shared.metal_stack_v2.answers).insert(partition.clone(), answer);
                    PARTITION_INTERVAL
                }
                Err(error) => {
                    tracing::warn!(%partition, %error, "the control API does not tell what a partition boots");
                    RETRY_INTERVAL
                }
            };
            due.insert(partition.clone(), Instant::now() + pause);
        }
        let answers = lock(&shared.metal_stack_v2.answers).clone();
        if is_worth_saving(&saved, &answers) {
            save(shared, upstream, &answers).await;
            saved = answers.clone();
        }
        let now = unix_now();
        for (partition, answer) in answers.iter().filter(|(partition, _)| due.contains_key(*partition)) {
            shared.metrics.metal_stack_v2.config_age(partition, answer.age(now));
        }
        // A port of another partition may have been opened meanwhile.
        tokio::time::timeout(RETRY_INTERVAL, shared.metal_stack_v2.wanted.notified()).await.ok();
        if due.values().any(|due| *due <= Instant::now()) || !due_all(&due, &served()) {
            continue;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Whether every served partition was asked for at least once.
fn due_all(due: &BTreeMap<PartitionId, Instant>, served: &Served) -> bool {
    served.partitions.iter().all(|(partition, _)| due.contains_key(partition))
}

/// Asks for a partition of which nothing is known yet, on behalf of a machine that asks only once.
pub(crate) async fn learn(shared: &Shared, upstream: &Upstream, context: &PortContext) {
    if lock(&shared.metal_stack_v2.answers).contains_key(&context.partition) {
        return;
    }
    let asking = ask_partition(shared, upstream, &context.partition, context.mac);
    if let Ok(Ok(facts)) = tokio::time::timeout(LEARN_TIMEOUT, asking).await {
        let answer = Answer { facts, at: unix_now() };
        lock(&shared.metal_stack_v2.answers).insert(context.partition.clone(), answer);
    }
}

fn is_worth_saving(saved: &Answers, answers: &Answers) -> bool {
    answers.iter().any(|(partition, answer)| {
        saved.get(partition).is_none_or(|saved| {
            saved.facts != answer.facts || saved.at.abs_diff(answer.at) >= REWRITE_INTERVAL_S
        })
    })
}

async fn ask_partition(
    shared: &Shared,
    upstream: &Upstream,
    partition: &PartitionId,
    mac: MacAddr,
) -> Result<PartitionFacts, String> {
    let question = Get { id: partition.to_string() };
    let asked: Result<PartitionAnswer, _> = call(upstream, &shared.metrics, PARTITION_GET, &question).await;
    let facts = match asked {
        Ok(answer) => PartitionFacts::of_partition(answer.partition),
        // A token that may not read partitions may still ask what they boot.
        Err(CallError::Refused(refused)) if !refused.code.is_passing() => {
            let question = Boot { mac: mac.to_string(), partition: partition.to_string() };
            let asked: Result<BootAnswer, _> = call(upstream, &shared.metrics, BOOT_BOOT, &question).await;
            PartitionFacts::of_boot(asked.map_err(|error| format!("{refused}; {error}"))?)
        }
        Err(error) => return Err(error.to_string()),
    };
    facts.map_err(|error| error.to_string())
}

async fn switch(shared: &Shared, upstream: &Upstream, served: &(impl Fn() -> Served + Sync)) {
    loop {
        let mut pause = RETRY_INTERVAL;
        if let Some(id) = served().switch_id {
            let asked: Result<SwitchAnswer, _> =
                call(upstream, &shared.metrics, SWITCH_GET, &Get { id }).await;
            match asked {
                Ok(answer) => {
                    shared.metal_stack_v2.set_switch(Some(answer.switch));
                    pause = SWITCH_INTERVAL;
                }
                Err(error) => tracing::debug!(%error, "the control API does not tell of this switch"),
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn ping(shared: &Shared, upstream: &Upstream, served: &(impl Fn() -> Served + Sync)) {
    let started_at = jiff::Timestamp::now().to_string();
    loop {
        let mut pause = RETRY_INTERVAL;
        if let Some(id) = served().switch_id {
            let kind = upstream.spec().component_type;
            let version = env!("CARGO_PKG_VERSION");
            let question = Ping::new(kind, &id, started_at.clone(), PING_INTERVAL, version);
            let asked: Result<Map<String, Value>, _> =
                call(upstream, &shared.metrics, COMPONENT_PING, &question).await;
            match asked {
                Ok(_) => pause = PING_INTERVAL,
                Err(error) => {
                    tracing::debug!(%error, "the control API does not take the agent's ping");
                    pause = PING_INTERVAL / 10;
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

//! Keyspace events of one database, as hints: the reader looks again, whatever the event says.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::database::{Database, DatabaseError, RESPONSE_TIMEOUT};

/// Back-off between attempts to subscribe.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often a silent subscription is probed. A connection over TCP can die without a word.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// What a subscription tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// A subscription has just begun: whatever happened before went unseen.
    Subscribed,
    /// Something happened to this key.
    Key(&'a str),
}

/// Follows the keys that match `patterns` (Redis globs) until cancelled; never ends otherwise.
///
/// Subscribes first and then reports [`Change::Subscribed`], so that a reader who reads on every report
/// misses nothing. A lost connection is made again with back-off. Events are taken off the connection at
/// once and always: SONiC's Redis never cuts a slow subscriber, it grows until memory ends. So `report`
/// must not block.
pub(crate) async fn follow(
    database: Database,
    patterns: Vec<String>,
    report: impl Fn(Change<'_>),
    cancel: CancellationToken,
) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let mut subscribed = false;
        let session = session(&database, &patterns, &report, &mut subscribed);
        let error = tokio::select! {
            () = cancel.cancelled() => return,
            result = session => match result {
                Ok(never) => match never {},
                Err(error) => error,
            },
        };
        if subscribed {
            backoff = BACKOFF_MIN;
        }
        tracing::info!(
            database = database.name(),
            error = &error as &dyn std::error::Error,
            retry_in = ?backoff,
            "subscription to keyspace events ended"
        );
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(backoff) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn session(
    database: &Database,
    patterns: &[String],
    report: &impl Fn(Change<'_>),
    subscribed: &mut bool,
) -> Result<Infallible, DatabaseError> {
    let prefix = format!("__keyspace@{}__:", database.id());
    let channels: Vec<String> = patterns.iter().map(|pattern| format!("{prefix}{pattern}")).collect();
    let (mut sink, mut events) = database.subscriber().await?.split();
    let confirmed = tokio::time::timeout(RESPONSE_TIMEOUT, sink.psubscribe(channels)).await;
    check(database, "PSUBSCRIBE", confirmed)?;
    *subscribed = true;
    warn_if_silent(database).await;
    report(Change::Subscribed);
    let mut ping = tokio::time::interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ping.reset();
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(message) => {
                    let channel = message.get_channel_name();
                    report(Change::Key(channel.strip_prefix(&prefix).unwrap_or(channel)));
                }
                None => return Err(lost(database)),
            },
            _ = ping.tick() => {
                let answered = tokio::time::timeout(RESPONSE_TIMEOUT, sink.ping::<redis::Value>()).await;
                check(database, "PING", answered.map(|reply| reply.map(|_| ())))?;
            }
        }
    }
}

/// SONiC's Redis has `notify-keyspace-events AKE`; one set up otherwise would leave the agent with its
/// periodic passes alone, and nobody would know why it is slow.
async fn warn_if_silent(database: &Database) {
    if let Some(setting) = silence(database).await {
        tracing::warn!(
            database = database.name(),
            "Redis publishes no keyspace events (notify-keyspace-events is {setting:?}, SONiC's is \"AKE\"): changes are noticed late"
        );
    }
}

/// The setting `notify-keyspace-events` of a Redis that does not tell of all changes by it; `None` where it
/// does, and where it keeps its settings to itself.
async fn silence(database: &Database) -> Option<String> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("CONFIG").arg("GET").arg("notify-keyspace-events");
    let answer: Result<(BTreeMap<String, String>,), _> = database.query("CONFIG GET", &pipeline).await;
    let setting = answer.ok().and_then(|(settings,)| settings.into_values().next());
    setting.filter(|setting| !notifies(setting))
}

/// Whether a database tells of its changes by keyspace events, as far as is known.
pub(crate) async fn tells(database: &Database) -> bool {
    silence(database).await.is_none()
}

/// Keyspace channels, and generic, set and hash commands on them.
fn notifies(setting: &str) -> bool {
    setting.contains('K') && (setting.contains('A') || ['g', 's', 'h'].iter().all(|c| setting.contains(*c)))
}

fn check(
    database: &Database,
    operation: &'static str,
    result: Result<Result<(), redis::RedisError>, tokio::time::error::Elapsed>,
) -> Result<(), DatabaseError> {
    let name = database.name().to_owned();
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(DatabaseError::Command { database: name, operation, source }),
        Err(_) => Err(DatabaseError::Timeout { database: name, operation, timeout: RESPONSE_TIMEOUT }),
    }
}

fn lost(database: &Database) -> DatabaseError {
    DatabaseError::Command {
        database: database.name().to_owned(),
        operation: "subscription",
        source: std::io::Error::from(std::io::ErrorKind::ConnectionReset).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::notifies;

    #[test]
    fn settings_that_tell_enough() {
        for good in ["AKE", "KA", "gshK", "gshxeK"] {
            assert!(notifies(good), "{good}");
        }
        for bad in ["", "AE", "Kg", "Kgh"] {
            assert!(!notifies(bad), "{bad}");
        }
    }
}

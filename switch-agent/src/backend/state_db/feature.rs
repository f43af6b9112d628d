//! `FEATURE|<service>` of STATE_DB: whether the service is ready, for SONiC's sysmonitor
//! (`show system-health sysready-status`).
//!
//! sysmonitor asks for it where the row of the same name in CONFIG_DB has `check_up_status` `true`. The row is
//! featured's: it is never made, and of its fields only `up_status`, `fail_reason` and `update_time` are set.

use std::time::Duration;

use switch_agent_core::row::ConfigDb;
use tokio::time::Instant;

use crate::backend::redis::{Database, DatabaseError};

const TABLE: &str = "FEATURE";
/// How long what was written is believed to be there; featured makes the row anew when the feature is enabled.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Longest reason, in characters: it is a cell of a table for people.
const REASON_LEN_MAX: usize = 200;

/// In one step, as the row may vanish at any time: 0 without a row, 1 where nothing changes, 2 where it was
/// written.
const SET_IF_THERE: &str = "\
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local now = redis.call('HMGET', KEYS[1], 'up_status', 'fail_reason')
if now[1] == ARGV[1] and now[2] == ARGV[2] then return 1 end
redis.call('HSET', KEYS[1], 'up_status', ARGV[1], 'fail_reason', ARGV[2], 'update_time', ARGV[3])
return 2";

/// Whether the service is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// What is awaited, for people.
    NotReady(String),
}

/// Keeps the service's row true.
#[derive(Debug)]
pub struct FeatureWriter {
    state_db: Database,
    /// Name of the service; `None` outside SONiC, where nothing is written.
    service: Option<String>,
    written: Option<(Readiness, Instant)>,
}

impl FeatureWriter {
    pub fn new(state_db: Database, service: Option<String>) -> FeatureWriter {
        FeatureWriter { state_db, service, written: None }
    }

    /// Whether the service is a feature of this switch, so that there is a row to keep true.
    pub fn is_wanted(&self, config: &ConfigDb) -> bool {
        self.service.as_deref().is_some_and(|service| config.row(TABLE, service).is_some())
    }

    /// Writes where something changed. `local_time` is `YYYY-MM-DD hh:mm:ss`, as SONiC's own scripts write it.
    /// Returns whether the row is known to say so.
    ///
    /// # Errors
    /// STATE_DB cannot be written; the next call tries again.
    pub async fn publish(&mut self, readiness: &Readiness, local_time: &str) -> Result<bool, DatabaseError> {
        let Some(service) = self.service.as_deref() else { return Ok(false) };
        let now = Instant::now();
        if self.written.as_ref().is_some_and(|(written, until)| written == readiness && now < *until) {
            return Ok(true);
        }
        let (up, reason) = match readiness {
            Readiness::Ready => ("true", String::new()),
            Readiness::NotReady(reason) => ("false", reason.chars().take(REASON_LEN_MAX).collect()),
        };
        let mut pipeline = redis::pipe();
        let key = self.state_db.key(TABLE, service);
        pipeline.cmd("EVAL").arg(SET_IF_THERE).arg(1).arg(key).arg(up).arg(reason).arg(local_time);
        self.written = None;
        let (outcome,): (u8,) = self.state_db.query("EVAL", &pipeline).await?;
        self.written = (outcome > 0).then(|| (readiness.clone(), now + CHECK_INTERVAL));
        Ok(outcome > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use switch_agent_core::row::fields;

    use super::*;
    use crate::backend::redis::testing::{RedisServer, run};

    const NOW: &str = "2026-11-21 18:30:00";

    async fn row(db: &Database) -> BTreeMap<String, String> {
        redis::from_redis_value(run(db, &["HGETALL", "FEATURE|switch-agent"]).await).unwrap()
    }

    fn config() -> ConfigDb {
        let mut config = ConfigDb::default();
        config.insert("FEATURE", "switch-agent", fields([("state", "enabled")]));
        config
    }

    #[tokio::test]
    async fn readiness_joins_the_row_of_featured() {
        let server = RedisServer::start();
        let db = server.databases().state_db;
        let mut writer = FeatureWriter::new(db.clone(), Some("switch-agent".to_owned()));
        let waits = Readiness::NotReady("x".repeat(300));
        assert!(!writer.publish(&waits, NOW).await.unwrap());
        assert!(row(&db).await.is_empty(), "a row was made");
        run(&db, &["HSET", "FEATURE|switch-agent", "state", "enabled"]).await;
        assert!(writer.publish(&waits, NOW).await.unwrap());
        let written = row(&db).await;
        assert_eq!((written["state"].as_str(), written["up_status"].as_str()), ("enabled", "false"));
        assert_eq!((written["fail_reason"].len(), written["update_time"].as_str()), (200, NOW));
        assert!(writer.publish(&Readiness::Ready, "2026-11-21 18:31:00").await.unwrap());
        let written = row(&db).await;
        assert_eq!((written["up_status"].as_str(), written["fail_reason"].as_str()), ("true", ""));
        assert_eq!(written["update_time"], "2026-11-21 18:31:00");
    }

    #[tokio::test]
    async fn a_row_that_comes_anew_is_written_again_and_one_that_is_right_is_not() {
        let server = RedisServer::start();
        let db = server.databases().state_db;
        run(&db, &["HSET", "FEATURE|switch-agent", "state", "enabled"]).await;
        let mut writer = FeatureWriter::new(db.clone(), Some("switch-agent".to_owned()));
        assert!(writer.publish(&Readiness::Ready, NOW).await.unwrap());
        run(&db, &["DEL", "FEATURE|switch-agent"]).await;
        run(&db, &["HSET", "FEATURE|switch-agent", "state", "enabled"]).await;
        tokio::time::pause();
        tokio::time::advance(CHECK_INTERVAL).await;
        tokio::time::resume();
        assert!(writer.publish(&Readiness::Ready, "later").await.unwrap());
        assert_eq!(row(&db).await["update_time"], "later");
        let mut restarted = FeatureWriter::new(db.clone(), Some("switch-agent".to_owned()));
        assert!(restarted.publish(&Readiness::Ready, "latest").await.unwrap());
        assert_eq!(row(&db).await["update_time"], "later", "nothing changed");
    }

    #[tokio::test]
    async fn nothing_is_written_where_sonic_has_no_such_feature() {
        let server = RedisServer::start();
        let db = server.databases().state_db;
        run(&db, &["HSET", "FEATURE|switch-agent", "state", "enabled"]).await;
        let unknown = FeatureWriter::new(db.clone(), Some("switch-agent".to_owned()));
        assert!(unknown.is_wanted(&config()) && !unknown.is_wanted(&ConfigDb::default()));
        let mut outside = FeatureWriter::new(db.clone(), None);
        assert!(!outside.publish(&Readiness::Ready, NOW).await.unwrap());
        assert_eq!(row(&db).await.len(), 1);
    }
}

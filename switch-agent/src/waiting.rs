//! Waits for SONiC's description of its databases, which the container `database` writes when it starts.
//!
//! Like Redis itself, it may not be there yet (cold boot, `config reload`), or be half written. The admin API
//! answers meanwhile, and says so as it does of a source that cannot be read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use switch_agent_core::status::Verdict;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::backend::redis::{DatabaseConfig, DatabaseConfigError, Databases};
use crate::http::admin::Snapshot;
use crate::observer::chain;

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often the log is told that it still waits.
const REMIND: Duration = Duration::from_secs(600);

/// The databases that `path` describes, as soon as it does.
///
/// # Errors
/// Only what no time mends: the switch has several ASICs.
pub async fn databases(
    path: &Path,
    namespaces: Option<&str>,
    snapshot: &watch::Sender<Arc<Snapshot>>,
) -> Result<Databases, DatabaseConfigError> {
    let mut retry = RETRY_MIN;
    let mut told = Told::default();
    loop {
        let failure = match DatabaseConfig::load(path, namespaces).and_then(|config| Databases::new(&config))
        {
            Ok(databases) => {
                if told.last.is_some() {
                    info!(path = %path.display(), "the databases are described");
                }
                return Ok(databases);
            }
            Err(failure @ DatabaseConfigError::MultiAsic { .. }) => return Err(failure),
            Err(failure) => failure,
        };
        let reason = chain(&failure);
        told.tell(path, &failure, &reason);
        snapshot.send_replace(Arc::new(unknown(&reason)));
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// What is published meanwhile: no database can be read.
fn unknown(reason: &str) -> Snapshot {
    let mut snapshot = Snapshot::starting();
    snapshot.status.verdict = Verdict::Degraded;
    let databases = ["CONFIG_DB", "STATE_DB", "APPL_DB"];
    snapshot.status.unknown = databases.map(|name| (name.to_owned(), reason.to_owned())).into();
    snapshot
}

/// What the log was told last: whether the file was there, and when.
#[derive(Debug, Default)]
struct Told {
    last: Option<(bool, Instant)>,
    /// Times in a row that the file was there and invalid.
    invalid: u32,
}

impl Told {
    fn tell(&mut self, path: &Path, failure: &DatabaseConfigError, reason: &str) {
        let there = !matches!(failure, DatabaseConfigError::Read { .. });
        self.invalid = if there { self.invalid.saturating_add(1) } else { 0 };
        // Half a file is whole at the next look.
        let half_written = there && self.invalid == 1;
        let known = self.last.is_some_and(|(before, at)| before == there && at.elapsed() < REMIND);
        if half_written || known {
            return;
        }
        self.last = Some((there, Instant::now()));
        let path = path.display();
        match there {
            true => warn!(%path, reason, "the description of the databases is invalid; it is read again"),
            false => info!(%path, reason, "waiting for the description of the databases"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing::subscriber::DefaultGuard;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::backend::redis::testing::TempDir;

    const WHOLE: &str = r#"{"INSTANCES": {"redis": {"unix_socket_path": "/run/r.sock"}}, "DATABASES": {
        "APPL_DB": {"id": 0, "separator": ":", "instance": "redis"},
        "CONFIG_DB": {"id": 4, "separator": "|", "instance": "redis"},
        "STATE_DB": {"id": 6, "separator": "|", "instance": "redis"}}}"#;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Lines;

        fn make_writer(&'a self) -> Lines {
            self.clone()
        }
    }

    impl Lines {
        /// What this thread logs until the guard is dropped.
        fn logged() -> (Self, DefaultGuard) {
            let lines = Self::default();
            let format = tracing_subscriber::fmt().with_ansi(false).without_time();
            let subscriber = format.with_writer(lines.clone()).finish();
            (lines, tracing::subscriber::set_default(subscriber))
        }

        fn take(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_awaited_and_the_log_told_once() {
        let (lines, _guard) = Lines::logged();
        let dir = TempDir::new();
        let path = dir.path().join("database_config.json");
        let (snapshot, published) = watch::channel(Arc::new(Snapshot::starting()));
        let mut waiting = std::pin::pin!(databases(&path, None, &snapshot));
        let mut wait = async |time: Duration| tokio::time::timeout(time, waiting.as_mut()).await;

        assert!(wait(Duration::from_secs(300)).await.is_err());
        let told = lines.take();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("INFO") && told[0].contains(&path.display().to_string()), "{told:?}");
        let status = published.borrow().status.clone();
        assert_eq!(status.verdict, Verdict::Degraded);
        assert!(status.unknown["CONFIG_DB"].contains("database_config.json"), "{:?}", status.unknown);
        assert!(wait(Duration::from_secs(1000)).await.is_err());
        assert_eq!(lines.take().len(), 2, "then every ten minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn an_invalid_file_is_told_of_with_its_field_and_read_again() {
        let (lines, _guard) = Lines::logged();
        let dir = TempDir::new();
        let path = dir.path().join("database_config.json");
        let (snapshot, published) = watch::channel(Arc::new(Snapshot::starting()));
        for (text, named) in [
            (WHOLE.replace("\"id\": 4", "\"id\": \"4\""), "DATABASES.CONFIG_DB.id"),
            (
                WHOLE.replace("\"instance\": \"redis\"", "\"instance\": \"away\""),
                "DATABASES.CONFIG_DB.instance",
            ),
            (WHOLE.replace("STATE_DB", "OTHER_DB"), "DATABASES has no STATE_DB"),
            (WHOLE[..40].to_owned(), "EOF"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let mut waiting = std::pin::pin!(databases(&path, None, &snapshot));
            // It may be half written.
            let first = tokio::time::timeout(Duration::from_millis(100), waiting.as_mut()).await;
            assert!(first.is_err() && lines.take().is_empty(), "{named}");
            let second = tokio::time::timeout(Duration::from_secs(60), waiting.as_mut()).await;
            assert!(second.is_err(), "{named}");
            let told = lines.take();
            let [line] = told.as_slice() else { panic!("{told:?}") };
            assert!(line.contains("WARN") && line.contains(named), "{line}");
            assert!(line.contains(&path.display().to_string()), "{line}");
            assert!(published.borrow().status.unknown["STATE_DB"].contains(named));
            std::fs::write(&path, WHOLE).unwrap();
            let found = tokio::time::timeout(Duration::from_secs(6), waiting.as_mut()).await;
            assert_eq!(found.unwrap().unwrap().config_db.id(), 4);
            lines.take();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn several_asics_are_not_waited_for() {
        let (snapshot, _) = watch::channel(Arc::new(Snapshot::starting()));
        let refused = databases(Path::new("/nowhere"), Some("3"), &snapshot).await;
        assert!(matches!(refused, Err(DatabaseConfigError::MultiAsic { .. })));
    }
}

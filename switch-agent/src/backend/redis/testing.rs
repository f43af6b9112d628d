//! A private Redis with SONiC's settings, for tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{DatabaseConfig, DatabaseEntry, Databases};

/// A directory that vanishes with the value.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("switch-agent-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `redis-server` on a unix socket, killed on drop.
pub(crate) struct RedisServer {
    dir: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    pub(crate) fn start() -> RedisServer {
        let mut server = RedisServer { dir: TempDir::new(), child: None };
        server.restart();
        server
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Kills the server, if it runs. Its data is gone: nothing is saved.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--databases", "100", "--notify-keyspace-events", "AKE"])
            .args(["--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "redis-server did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn databases(&self) -> Databases {
        Databases::new(&self.config()).unwrap()
    }

    pub(crate) fn entry(&self, name: &str) -> DatabaseEntry {
        self.config().database(name).unwrap()
    }

    fn config(&self) -> DatabaseConfig {
        let path = self.dir.path().join("database_config.json");
        let text = serde_json::json!({
            "INSTANCES": {"redis": {"unix_socket_path": self.socket()}},
            "DATABASES": {
                "APPL_DB": {"id": 0, "separator": ":", "instance": "redis"},
                "CONFIG_DB": {"id": 4, "separator": "|", "instance": "redis"},
                "STATE_DB": {"id": 6, "separator": "|", "instance": "redis"},
            },
        });
        std::fs::write(&path, text.to_string()).unwrap();
        DatabaseConfig::load(&path, None).unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs one command, given as words.
pub(crate) async fn run(database: &super::Database, words: &[&str]) -> redis::Value {
    let mut pipeline = redis::pipe();
    pipeline.cmd(words[0]).arg(&words[1..]);
    let (value,): (redis::Value,) = database.query("test command", &pipeline).await.unwrap();
    value
}

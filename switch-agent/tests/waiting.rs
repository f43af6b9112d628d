//! The agent before SONiC has described its databases: it waits, says so, and ends when it is told to.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

/// The agent in a directory of its own; killed when dropped.
struct Agent {
    dir: PathBuf,
    child: Child,
}

impl Agent {
    fn start(name: &str) -> Agent {
        let dir = std::env::temp_dir().join(format!("switch-agent-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let at = |name: &str| dir.join(name).into_os_string();
        let child = Command::new(env!("CARGO_BIN_EXE_switch-agent"))
            .args(["run", "--admin-listen", "none", "--vtysh", "none", "--log-format", "json"])
            .args(["--database-config".into(), at("database_config.json")])
            .args(["--state-dir".into(), at("state"), "--admin-socket".into(), at("admin.sock")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Agent { dir, child }
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.dir.join("admin.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn until(&self, path: &str, text: &str) {
        let (start, mut last) = (Instant::now(), None);
        while start.elapsed() < PATIENCE {
            last = self.get(path);
            if last.as_ref().is_some_and(|answer| answer.contains(text)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no {text:?} at {path}: {last:?}");
    }

    fn terminate(&mut self) -> ExitStatus {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(id, Signal::SIGTERM).unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn describe(path: &Path) {
    let database = |id| serde_json::json!({ "id": id, "separator": "|", "instance": "redis" });
    let description = serde_json::json!({
        "INSTANCES": { "redis": { "unix_socket_path": "/nonexistent/redis.sock" } },
        "DATABASES": { "APPL_DB": database(0), "CONFIG_DB": database(4), "STATE_DB": database(6) },
    });
    std::fs::write(path, description.to_string()).unwrap();
}

#[test]
fn the_description_of_the_databases_is_awaited() {
    let mut agent = Agent::start("described");
    agent.until("/readyz", "CONFIG_DB cannot be read");
    let readiness = agent.get("/readyz").unwrap();
    assert!(
        readiness.starts_with("HTTP/1.1 503 ") && readiness.contains("database_config.json"),
        "{readiness}"
    );
    assert!(agent.get("/livez").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(agent.get("/v1/status").unwrap().contains("\"degraded\""));
    describe(&agent.dir.join("database_config.json"));
    // From here on Redis is what is missing.
    agent.until("/readyz", "cannot connect to /nonexistent/redis.sock");
    assert!(agent.terminate().success());
}

#[test]
fn a_signal_ends_the_wait_at_once() {
    let mut agent = Agent::start("ended");
    agent.until("/readyz", "database_config.json");
    let start = Instant::now();
    assert!(agent.terminate().success());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

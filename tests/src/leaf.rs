//! A leaf switch: its databases, its agent and its admin API.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::Commands;
use serde_json::Value;

use crate::failure::{Context, Result, ensure};
use crate::http::Request;
use crate::lab::run;
use crate::ns::Ns;
use crate::wait;

pub(crate) const CONFIG_DB: i64 = 4;
pub(crate) const STATE_DB: i64 = 6;

/// How often memory is read, and how long where nothing else is waited for: longer than a pass takes.
const MEMORY_SAMPLE: Duration = Duration::from_millis(250);
const MEMORY_SPAN: Duration = Duration::from_secs(2);

/// All rows of a database: key -> sorted fields.
pub(crate) type Rows = BTreeMap<String, BTreeMap<String, String>>;

/// Memory of the agent over some time, in KiB.
#[derive(Debug)]
pub(crate) struct MemoryRange {
    /// The least, and what of it is no file's.
    pub resident: u64,
    pub anonymous: u64,
    pub most_resident: u64,
}

#[derive(Debug)]
pub(crate) struct Leaf {
    pub ns: Ns,
    root: PathBuf,
    bin: PathBuf,
}

impl Leaf {
    pub(crate) fn new(ns: Ns, root: &Path, bin: &Path) -> Self {
        Self { ns, root: root.to_owned(), bin: bin.to_owned() }
    }

    /// Directory of the binaries under test.
    pub(crate) fn bin(&self) -> &Path {
        &self.bin
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        PathBuf::from("/run/lab").join(self.ns.0)
    }

    pub(crate) fn redis(&self, database: i64) -> Result<redis::Connection> {
        let url = format!("unix://{}?db={database}", self.run_dir().join("redis.sock").display());
        let what = || format!("Redis of {}", self.ns.0);
        redis::Client::open(url).context(what)?.get_connection().context(what)
    }

    /// Every hash of the database.
    pub(crate) fn rows(&self, database: i64) -> Result<Rows> {
        let mut connection = self.redis(database)?;
        let what = || format!("rows of database {database} on {}", self.ns.0);
        let keys: Vec<String> = connection.keys("*").context(what)?;
        let mut rows = Rows::new();
        for key in keys {
            // CONFIG_DB_INITIALIZED is a string: no row.
            if let Ok(fields) = connection.hgetall(&key) {
                rows.insert(key, fields);
            }
        }
        Ok(rows)
    }

    pub(crate) fn row(&self, database: i64, key: &str) -> Result<BTreeMap<String, String>> {
        self.redis(database)?.hgetall(key).context(|| format!("{key} of {}", self.ns.0))
    }

    /// Writes one CONFIG_DB row in one command.
    pub(crate) fn configure(&self, key: &str, fields: &[(&str, &str)]) -> Result<()> {
        self.redis(CONFIG_DB)?.hset_multiple(key, fields).context(|| format!("write {key}"))
    }

    pub(crate) fn unconfigure(&self, keys: &[&str]) -> Result<()> {
        self.redis(CONFIG_DB)?.del(keys).context(|| format!("delete {keys:?}"))
    }

    /// Puts back rows as they were, and removes those that were not there.
    pub(crate) fn restore(&self, before: &Rows, tables: &[&str]) -> Result<()> {
        let in_tables = |key: &String| tables.iter().any(|table| key.split('|').next() == Some(*table));
        let now = self.rows(CONFIG_DB)?;
        for key in now.keys().filter(|key| in_tables(key) && now.get(*key) != before.get(*key)) {
            self.unconfigure(&[key])?;
        }
        for (key, fields) in
            before.iter().filter(|(key, fields)| in_tables(key) && now.get(*key) != Some(fields))
        {
            let extra =
                now.get(key).into_iter().flat_map(BTreeMap::keys).filter(|name| !fields.contains_key(*name));
            for name in extra {
                let _: () = self.redis(CONFIG_DB)?.hdel(key, name).context(|| format!("{name} of {key}"))?;
            }
            let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            self.configure(key, &fields)?;
        }
        Ok(())
    }

    /// `GET path` of the admin API over its unix socket.
    pub(crate) fn admin(&self, path: &str) -> Result<crate::http::Response> {
        Request::get(path)
            .send_unix(&self.run_dir().join("admin.sock"))
            .context(|| format!("admin API of {}", self.ns.0))
    }

    pub(crate) fn admin_json(&self, path: &str) -> Result<Value> {
        self.admin(path)?.expect(200)?.json()
    }

    /// The entries of a list of the admin API, whether it is bare or wrapped in an object.
    pub(crate) fn list(&self, path: &str, name: &str) -> Result<Vec<Value>> {
        let value = self.admin_json(path)?;
        let list = if value.is_array() { &value } else { &value[name] };
        Ok(list.as_array().context(|| format!("{path} is no list: {value}"))?.clone())
    }

    pub(crate) fn port(&self, port: &str) -> Result<Value> {
        self.admin_json(&format!("/v1/ports/{port}"))
    }

    /// The port is in `phase`.
    pub(crate) fn expect_phase(&self, port: &str, phase: &str) -> Result<()> {
        let entry = self.port(port)?;
        ensure!(entry["phase"] == phase, "{} {port} is not {phase}: {entry}", self.ns.0);
        Ok(())
    }

    /// The agent is ready and says that everything wanted is there.
    pub(crate) fn converged(&self) -> Result<()> {
        let status = self.admin_json("/v1/status")?;
        ensure!(verdict(&status) == Some("converged"), "{} has not converged: {status}", self.ns.0);
        Ok(())
    }

    /// Value of a metric's sample: the first line that starts with `prefix` (name and labels).
    pub(crate) fn metric(&self, prefix: &str) -> Result<f64> {
        let body = self.admin("/metrics")?.expect(200)?.body;
        let mut sum = 0.0;
        let mut found = false;
        for line in body.lines().filter(|line| line.starts_with(prefix)) {
            let value = line.rsplit(' ').next().unwrap_or_default();
            sum += value.parse::<f64>().context(|| line.to_owned())?;
            found = true;
        }
        ensure!(found, "no metric {prefix} on {}", self.ns.0);
        Ok(sum)
    }

    /// Sum of a counter's samples, 0 while it has none.
    pub(crate) fn counter(&self, prefix: &str) -> Result<f64> {
        self.admin("/metrics")?.expect(200)?;
        Ok(self.metric(prefix).unwrap_or(0.0))
    }

    pub(crate) fn agent_pid(&self) -> Result<Pid> {
        let path = self.run_dir().join("agent.pid");
        let text = fs::read_to_string(&path).context(|| path.display().to_string())?;
        Ok(Pid::from_raw(text.trim().parse().context(|| format!("pid {text:?}"))?))
    }

    /// Ends the agent and waits until the process is gone.
    pub(crate) fn end_agent(&self, signal: Signal) -> Result<()> {
        let pid = self.agent_pid()?;
        kill(pid, signal).context(|| format!("{signal} to the agent of {}", self.ns.0))?;
        wait::until(wait::seconds(10), || {
            ensure!(!alive(pid), "the agent of {} is still there after {signal}", self.ns.0);
            Ok(())
        })
    }

    pub(crate) fn start_agent(&self) -> Result<()> {
        self.service("agent", "start")
    }

    pub(crate) fn service(&self, part: &str, action: &str) -> Result<()> {
        run(Command::new(self.root.join("labs/local/service"))
            .args([self.ns.0, part, action])
            .env("LAB_BIN", &self.bin))
        .map(drop)
    }

    /// FRR's running configuration, or any other show command.
    pub(crate) fn vtysh(&self, commands: &[&str]) -> Result<String> {
        let mut command = Command::new("vtysh");
        command.args(["-N", self.ns.0]);
        for line in commands {
            command.args(["-c", line]);
        }
        run(&mut command)
    }

    /// Resident memory of the agent in KiB: all of it, and what of that is no file's (proc(5), `VmRSS` and
    /// `RssAnon`).
    pub(crate) fn agent_memory_kib(&self) -> Result<(u64, u64)> {
        let path = format!("/proc/{}/status", self.agent_pid()?);
        let text = fs::read_to_string(&path).context(|| path.clone())?;
        let value = |name: &str| -> Result<u64> {
            let line =
                text.lines().find_map(|line| line.strip_prefix(name)).context(|| format!("no {name}"))?;
            line.split_whitespace().next().unwrap_or_default().parse().context(|| line.to_owned())
        };
        Ok((value("VmRSS:")?, value("RssAnon:")?))
    }

    /// The same by many readings in this time. A pass needs some megabytes more while it runs, so the least is what
    /// the agent keeps.
    pub(crate) fn agent_memory_over(&self, time: Duration) -> Result<MemoryRange> {
        let started = Instant::now();
        let mut readings = Vec::new();
        while started.elapsed() < time {
            std::thread::sleep(MEMORY_SAMPLE);
            readings.push(self.agent_memory_kib()?);
        }
        let least = readings.iter().min().copied().context(|| "no time to read memory in".into())?;
        let most_resident = readings.iter().map(|(resident, _)| *resident).max().unwrap_or_default();
        Ok(MemoryRange { resident: least.0, anonymous: least.1, most_resident })
    }

    /// Anonymous memory that the agent keeps between passes, in KiB.
    pub(crate) fn agent_keeps_kib(&self) -> Result<u64> {
        Ok(self.agent_memory_over(MEMORY_SPAN)?.anonymous)
    }
}

pub(crate) fn verdict(status: &Value) -> Option<&str> {
    status["verdict"].as_str().or_else(|| status["status"]["verdict"].as_str())
}

fn alive(pid: Pid) -> bool {
    // A zombie is gone for every purpose but its parent's.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

//! Tests against the running kernel, each in a network namespace of its own.

use std::process::Command;

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "SWITCH_AGENT_TEST_NAMESPACE";

/// Runs the test `name` of `module` (`module_path!()`) in a new network namespace: this test program once
/// more, below `unshare`. Works as root, and without where user namespaces are allowed.
pub(crate) fn in_namespace<F: Future<Output = ()>>(module: &str, name: &str, body: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body());
        return;
    }
    let mut unshare = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let path = format!("{}::{name}", module.split_once("::").unwrap().1);
    let output = unshare
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &path, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{path} did not run: {text}");
}

/// `ip` with these words; whether it succeeded.
pub(crate) fn ip(words: &str) -> bool {
    Command::new("ip").args(words.split_whitespace()).status().unwrap().success()
}

pub(crate) fn require_ip(words: &str) {
    assert!(ip(words), "ip {words}");
}

pub(crate) fn ip_output(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

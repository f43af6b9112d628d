use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Commands are said before their answers only where `-E` asks for it.
const ECHO: &str =
    r#"if [ "$1" = -E ]; then shift; echoed() { printf '%s\n' "$@"; }; else echoed() { :; }; fi"#;

/// A client that answers from a script. `$1...` are its arguments, `$CONFIG` names the configuration file.
struct FakeVtysh {
    folder: PathBuf,
}

impl FakeVtysh {
    fn new(name: &str, body: &str) -> FakeVtysh {
        let folder = std::env::temp_dir().join(format!("switch-agent-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let script = folder.join("vtysh");
        let shown = r#"printf '!\nfrr version 10.3\n!\n'; cat "$CONFIG"; printf '!\nend\n'"#;
        let config = folder.join("config");
        let text = format!(
            "#!/bin/sh\nCONFIG={}\n{ECHO}\nif [ \"$2\" = 'show running-config' ]; then {shown}; exit 0; fi\n{body}\n",
            config.display()
        );
        // Written beside and moved into place: a file open for writing cannot be executed.
        let temporary = folder.join("tmp");
        std::fs::write(&temporary, text).unwrap();
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&temporary, &script).unwrap();
        std::fs::write(config, "").unwrap();
        FakeVtysh { folder }
    }

    fn client(&self) -> Vtysh {
        let setting = format!("sh '{}'", self.folder.join("vtysh").display());
        Vtysh::new(&setting, TIMEOUT, Metrics::default()).unwrap()
    }

    fn config(&self) -> String {
        std::fs::read_to_string(self.folder.join("config")).unwrap()
    }

    fn set_config(&self, text: &str) {
        std::fs::write(self.folder.join("config"), text).unwrap();
    }
}

impl Drop for FakeVtysh {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// Takes every line after `configure terminal`.
const TAKES: &str = r#"shift 2; while [ $# -gt 0 ]; do echo "$2" >> "$CONFIG"; shift 2; done"#;

fn delta(lines: &[&str]) -> FrrDelta {
    FrrDelta { commands: lines.iter().map(|line| (*line).to_owned()).collect() }
}

async fn read(client: &Vtysh) {
    let requests = [show::RUNNING_CONFIG.to_owned()];
    let text = client.run(&requests).await.unwrap();
    let (config, _) = show::split_answers(&text, &requests).unwrap();
    client.memory().read(config, Instant::now());
}

#[tokio::test]
async fn stages_go_in_one_after_another() {
    let fake = FakeVtysh::new("stages", &format!(r##"echo "# call $2" >> "$CONFIG"; {TAKES}"##));
    fake.client()
        .apply(&delta(&["vrf V", " ipv6 route ::/0 blackhole 254", "exit-vrf", "!", "a"]))
        .await
        .unwrap();
    let call = "# call configure terminal";
    assert_eq!(fake.config(), format!("{call}\nvrf V\nipv6 route ::/0 blackhole 254\nexit-vrf\n{call}\na\n"));
}

#[tokio::test]
async fn a_refused_line_is_an_error_whatever_the_exit_code() {
    let body = r#"echoed "leaf1# $2" "leaf1(config)# $4" "leaf1(config)# $6"; echo '% Failed to apply.'"#;
    let fake = FakeVtysh::new("refused", body);
    let error = fake.client().apply(&delta(&["foo", "bar", "baz"])).await.unwrap_err();
    assert!(matches!(error, FrrError::Refused { .. }) && !error.passes(), "{error}");
    assert_eq!(error.to_string(), "FRR refused `bar`: % Failed to apply.");
}

#[tokio::test]
async fn a_locked_datastore_is_tried_again() {
    let body = format!(
        r#"if [ ! -e "$CONFIG.seen" ]; then touch "$CONFIG.seen"
           echoed "leaf1# $2" "leaf1(config)# $4"; echo '% command failed, could not lock candidate DS'
           exit 0; fi; {TAKES}"#
    );
    let fake = FakeVtysh::new("locked", &body);
    fake.client().apply(&delta(&["a"])).await.unwrap();
    assert_eq!(fake.config(), "a\n");
}

#[tokio::test]
async fn what_was_withdrawn_before_the_lock_is_not_withdrawn_again() {
    let body = r#"echo call >> "$CONFIG"
        echoed "leaf1# $2" "leaf1(config)# $4" "leaf1(config)# $6"
        echo '% command failed, could not lock candidate DS'"#;
    let fake = FakeVtysh::new("locked-late", body);
    let error = fake.client().apply(&delta(&["no a", "no b"])).await.unwrap_err();
    assert!(matches!(&error, FrrError::Locked { line, .. } if line == "no b") && error.passes(), "{error}");
    assert_eq!(fake.config(), "call\n");
}

#[tokio::test]
async fn repairs_wait_until_somebody_elses_change_has_ended() {
    let fake = FakeVtysh::new("settle", TAKES);
    let client = fake.client();
    read(&client).await;
    // Still changing a second later.
    let moving = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        fake.set_config("b\n");
    };
    let change = delta(&["a"]);
    let (result, ()) = tokio::join!(client.apply(&change), moving);
    assert!(matches!(result, Err(FrrError::Changing)));
    assert_eq!(fake.config(), "b\n");
    // It has come to rest: applied. Our own change needs no rest.
    client.apply(&delta(&["a"])).await.unwrap();
    read(&client).await;
    let before = Instant::now();
    client.apply(&delta(&["c"])).await.unwrap();
    assert!(before.elapsed() < SETTLE_TIME);
    assert_eq!(fake.config(), "b\na\nc\n");
    assert!(client.metrics.encode().contains("switch_agent_frr_drift_repairs_total 0"));
    read(&client).await;
    fake.set_config("");
    read(&client).await;
    client.apply(&delta(&["a"])).await.unwrap();
    assert!(client.metrics.encode().contains("switch_agent_frr_drift_repairs_total 1"));
}

#[tokio::test]
async fn nothing_is_run_when_frr_is_not_managed() {
    let client = Vtysh::new("none", TIMEOUT, Metrics::default()).unwrap();
    assert_eq!(client.observe(&BTreeMap::new(), &[]).await.unwrap(), FrrObserved::default());
    assert!(matches!(client.apply(&delta(&["a"])).await, Err(FrrError::Unmanaged)));
    assert!(Vtysh::new("'vtysh", TIMEOUT, Metrics::default()).is_err());
}

#[tokio::test]
async fn a_client_without_daemons_is_an_error() {
    let client =
        Vtysh::new("sh -c 'echo failed to connect to any daemons >&2; exit 1'", TIMEOUT, Metrics::default());
    let error = client.unwrap().observe(&BTreeMap::new(), &[]).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot run sh"), "{error}");
}

#[test]
fn long_deltas_are_cut_outside_contexts() {
    let mut lines: Vec<String> = Vec::new();
    for index in 0..200 {
        lines.extend([
            format!("vrf V{index}"),
            " ipv6 route ::/0 blackhole 254".to_owned(),
            "exit-vrf".to_owned(),
        ]);
        lines.push(format!("ipv6 route 2001:db8:{index}::/64 Ethernet0 nexthop-vrf V{index}"));
    }
    let parts: Vec<&[String]> = calls(&lines).collect();
    assert_eq!(parts.concat(), lines);
    assert_eq!(parts.len(), 4);
    for part in parts {
        assert!(part.len() < LINES_PER_CALL_MAX + 4);
        assert!(!part[0].starts_with(' ') && part[0] != "exit-vrf");
    }
}

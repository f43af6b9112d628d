//! Against the running kernel, each test in a network namespace of its own.

use std::process::Command;

use super::*;
use crate::backend::namespace::in_namespace;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn nft(words: &str) -> String {
    let output = Command::new("nft").args(words.split_whitespace()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Whether there is something to test against; says so where there is not. A kernel without IPv6 in its
/// nf_tables answers what is only read.
pub(crate) async fn supported() -> bool {
    match replace(&BTreeSet::new()).await {
        Err(error @ (NftError::NotSupported | NftError::NotPermitted)) => {
            println!("skipped: {error}");
            false
        }
        other => other.and(remove().await).is_ok(),
    }
}

#[test]
fn the_rule_is_replaced_as_a_whole_and_nothing_else_is_touched() {
    in_namespace(module_path!(), "the_rule_is_replaced_as_a_whole_and_nothing_else_is_touched", || async {
        if !supported().await {
            return;
        }
        assert_eq!(read().await.unwrap(), None);
        remove().await.unwrap();
        nft("add table ip6 other");
        nft("add chain ip6 other keep");

        let two = names(&["Ethernet0", "PortChannel1234"]);
        replace(&two).await.unwrap();
        assert_eq!(read().await.unwrap(), Some(two.clone()));
        replace(&two).await.unwrap();
        assert_eq!(read().await.unwrap(), Some(two));
        let shown = nft("list table ip6 switch_agent");
        if !shown.is_empty() {
            for line in [
                "type ifname",
                "elements = { \"Ethernet0\",",
                "type filter hook prerouting priority raw; policy accept;",
                "icmpv6 type nd-router-solicit counter packets 0 bytes 0 drop",
                "comment \"switch-agent drop rule 1\"",
            ] {
                assert!(shown.contains(line), "{line}\n{shown}");
            }
        }

        // As many ports as a switch has, and more than fit into one message.
        let many: BTreeSet<String> = (0..1500).map(|n| format!("Ethernet{n}")).collect();
        replace(&many).await.unwrap();
        assert_eq!(read().await.unwrap(), Some(many));

        nft("flush chain ip6 switch_agent prerouting");
        assert_eq!(read().await.unwrap(), None, "without its rule");
        replace(&names(&["Ethernet4"])).await.unwrap();
        assert_eq!(read().await.unwrap(), Some(names(&["Ethernet4"])));
        remove().await.unwrap();
        assert_eq!(read().await.unwrap(), None);
        assert!(nft("list tables").contains("table ip6 other"));
    });
}

#[test]
fn a_flush_by_somebody_else_is_told_of() {
    in_namespace(module_path!(), "a_flush_by_somebody_else_is_told_of", || async {
        if !supported().await {
            return;
        }
        replace(&names(&["Ethernet0"])).await.unwrap();
        let changes = Changes::subscribe().unwrap();
        nft("flush ruleset");
        tokio::time::timeout(std::time::Duration::from_secs(5), changes.changed()).await.unwrap();
        assert_eq!(read().await.unwrap(), None);
    });
}

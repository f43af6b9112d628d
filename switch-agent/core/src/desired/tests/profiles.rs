//! `BOOT_NETWORK_PROFILE`, and the rows that refer to it.

use super::*;

const PROFILES: [(&str, &[(&str, &str)]); 3] = [
    (
        "old",
        &[("kernel_url", "http://c/old"), ("initrd_url@", "http://c/i,http://c/j"), ("cmdline", "quiet")],
    ),
    ("new", &[("kernel_url", "http://c/new"), ("root_path@", "iscsi:b::::iqn.b")]),
    ("wipe", &[("template_file", "/etc/wipe.ipxe")]),
];

fn with(partition: &[(&str, &str)], port: &[(&str, &str)]) -> Desired {
    let mut config = base();
    for (name, fields) in PROFILES {
        config.insert("BOOT_NETWORK_PROFILE", name, row(fields));
    }
    let partition: Vec<_> = [("prefix", "2001:db8::/56")].iter().chain(partition).copied().collect();
    config.insert("BOOT_NETWORK_PARTITION", "p1", row(&partition));
    let port: Vec<_> = [("partition", "p1")].iter().chain(port).copied().collect();
    config.insert("BOOT_NETWORK_PORT", "Ethernet4", row(&port));
    Desired::from_config(&config)
}

fn kernel(desired: &Desired) -> (Option<String>, Option<String>) {
    let port = &desired.ports[&"Ethernet4".parse().unwrap()];
    let partition = desired.partition_of(port).unwrap();
    (partition.boot_profile.clone(), partition.boot_kernel_url.clone())
}

fn told(name: &str, kernel: &str) -> (Option<String>, Option<String>) {
    (Some(name.to_owned()), Some(format!("http://c/{kernel}")))
}

#[test]
fn a_profile_stands_for_all_boot_fields() {
    let desired = with(&[("boot_profile", "old")], &[]);
    assert_eq!(desired.rejected, []);
    assert_eq!(kernel(&desired), told("old", "old"));
    let partition = &desired.partitions[&"p1".parse().unwrap()];
    assert_eq!(partition.boot_initrd_urls, ["http://c/i", "http://c/j"]);
    assert_eq!(partition.boot_cmdline.as_deref(), Some("quiet"));
    assert!(desired.ports[&"Ethernet4".parse().unwrap()].own.is_none());
}

#[test]
fn a_port_is_pinned_over_its_partition() {
    let desired = with(&[("boot_profile", "old")], &[("boot_profile", "new")]);
    assert_eq!(desired.rejected, []);
    assert_eq!(kernel(&desired), told("new", "new"));
    let port = &desired.ports[&"Ethernet4".parse().unwrap()];
    let own = port.own.as_deref().unwrap();
    assert_eq!(
        (&own.boot_cmdline, own.boot_initrd_urls.len()),
        (&None, 0),
        "nothing of the other profile is left"
    );
    assert_eq!(own.boot_root_paths, ["iscsi:b::::iqn.b"]);
    let desired =
        with(&[("boot_kernel_url", "http://c/plain")], &[("boot_profile", "new"), ("adv_link_mtu", "9000")]);
    assert_eq!(kernel(&desired), told("new", "new"));
    let port = &desired.ports[&"Ethernet4".parse().unwrap()];
    assert_eq!(port.own.as_deref().unwrap().ra.adv_link_mtu, Some(9000));
}

#[test]
fn one_boot_has_a_profile_of_its_own() {
    for value in ["wipe", "wipe@2026-11-21"] {
        let desired = with(&[("boot_profile", "old")], &[("boot_profile_once", value)]);
        assert_eq!(desired.rejected, []);
        assert_eq!(kernel(&desired), told("old", "old"));
        let once =
            desired.ports[&"Ethernet4".parse().unwrap()].own.as_deref().unwrap().boot_once.clone().unwrap();
        assert_eq!((once.value.as_str(), once.profile.name.as_str()), (value, "wipe"));
        assert_eq!(once.profile.template_file.as_deref(), Some("/etc/wipe.ipxe"));
    }
}

#[test]
fn what_does_not_hold_names_row_and_field() {
    let messages =
        |desired: Desired| -> Vec<String> { desired.rejected.iter().map(ToString::to_string).collect() };
    assert_eq!(
        messages(with(&[("boot_profile", "none")], &[]))[0],
        "BOOT_NETWORK_PARTITION|p1: boot_profile = \"none\": profile none has no row in BOOT_NETWORK_PROFILE"
    );
    assert_eq!(
        messages(with(&[("boot_profile", "old"), ("boot_cmdline", "quiet")], &[]))[0],
        "BOOT_NETWORK_PARTITION|p1: boot_cmdline = \"quiet\": must not be set beside boot_profile"
    );
    assert_eq!(
        messages(with(&[], &[("boot_profile_once", "none@x")])),
        [
            "BOOT_NETWORK_PORT|Ethernet4: boot_profile_once = \"none@x\": profile none has no row in BOOT_NETWORK_PROFILE"
        ]
    );
    for bad in ["wipe@", "wipe@a b"] {
        let messages = messages(with(&[], &[("boot_profile_once", bad)]));
        assert!(messages[0].contains("must be profile or profile@tag"), "{messages:?}");
    }
}

#[test]
fn a_bad_profile_takes_its_users_along() {
    let mut config = base();
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
    let cases: [Case; 5] = [
        ("a b", &[("kernel_url", "http://c/k")], "the key must be 1 to 64 of letters, digits, . _ -"),
        (
            "empty",
            &[("cmdline", "quiet")],
            "boots nothing: it has none of kernel_url, template_file and root_path@",
        ),
        (
            "empty-list",
            &[("cmdline", "quiet"), ("root_path@", "")],
            "boots nothing: it has none of kernel_url, template_file and root_path@",
        ),
        (
            "scheme",
            &[("root_path@", "no-scheme")],
            "must be scheme:target of printable ASCII without spaces, at most 1024 bytes",
        ),
        (
            "url",
            &[("kernel_url", "ftp://c/k")],
            "must be an http:// or https:// URL of printable ASCII, at most 1024 bytes",
        ),
    ];
    for (name, fields, _) in cases {
        config.insert("BOOT_NETWORK_PROFILE", name, row(fields));
    }
    config.insert(
        "BOOT_NETWORK_PARTITION",
        "p1",
        row(&[("prefix", "2001:db8::/56"), ("boot_profile", "url")]),
    );
    let desired = Desired::from_config(&config);
    for (name, _, rule) in cases {
        let rejected =
            desired.rejected.iter().find(|r| r.row == format!("BOOT_NETWORK_PROFILE|{name}")).unwrap();
        assert_eq!(rejected.rule, rule);
    }
    let partition = desired.rejected.iter().find(|r| r.row == "BOOT_NETWORK_PARTITION|p1").unwrap();
    assert_eq!(partition.rule, "the row BOOT_NETWORK_PROFILE|url is rejected");
}

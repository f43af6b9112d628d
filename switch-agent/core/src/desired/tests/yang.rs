//! The YANG module and the reader must know the same fields and defaults.

use std::collections::BTreeSet;

use super::*;

const MODULE: &str = include_str!("../../../../../sonic-package/yang/sonic-boot-network.yang");

/// The statements of the module between two markers.
fn section(start: &str) -> &'static str {
    let from = MODULE.find(&format!("{start} {{")).expect(start);
    let to = MODULE[from..].find(&format!("end of {start} ")).expect(start);
    &MODULE[from..from + to]
}

/// Names of the leaves in `section`, leaf-lists with SONiC's `@`, the key left out.
fn leaves(section: &str) -> BTreeSet<String> {
    let key = section.lines().find_map(|line| line.trim().strip_prefix("key \"")?.strip_suffix("\";"));
    let named = section.lines().filter_map(|line| {
        let (keyword, name) = line.trim().strip_suffix(" {")?.split_once(' ')?;
        match keyword {
            "leaf" if Some(name) != key => Some(name.to_owned()),
            "leaf-list" => Some(format!("{name}@")),
            _ => None,
        }
    });
    named.collect()
}

#[test]
fn both_know_the_same_fields() {
    let fields = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let global = [&global::FIELDS[..], &metal_stack_v1::FIELDS].concat();
    assert_eq!(leaves(section("container global")), fields(&global));
    assert_eq!(leaves(section("grouping router-variables")), fields(&router::FIELDS));
    let lists = [
        (section("list BOOT_NETWORK_PARTITION_LIST"), &partition::FIELDS[..]),
        (section("list BOOT_NETWORK_PORT_LIST"), &port::FIELDS[..]),
    ];
    assert_eq!(leaves(section("list BOOT_NETWORK_PROFILE_LIST")), fields(&profile::FIELDS));
    for (list, own) in lists {
        assert_eq!(leaves(list), fields(own));
        assert!(list.contains("uses router-variables"));
    }
}

/// RFC 7950 section 6.1.3: anything else behind a backslash makes libyang refuse the module.
#[test]
fn escapes_are_those_of_yang() {
    let mut rest = MODULE;
    while let Some((_, behind)) = rest.split_once('\\') {
        assert!(behind.starts_with(['\\', 'n', 't', '"']), "\\{}", &behind[..behind.len().min(40)]);
        rest = &behind[1..];
    }
}

#[test]
fn defaults_of_the_module_change_nothing_when_written_out() {
    let section = section("list BOOT_NETWORK_PARTITION_LIST");
    let mut written = row(&[("prefix", "2001:db8::/56")]);
    let mut leaf = "";
    for line in section.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("leaf ").or(line.strip_prefix("refine ")) {
            leaf = name.trim_end_matches(" {");
        } else if let Some(value) = line.strip_prefix("default ") {
            written.insert(leaf.to_owned(), value.trim_end_matches(';').to_owned());
        }
    }
    assert!(written.len() > 15, "{written:?}");
    let mut config = base();
    config.insert("BOOT_NETWORK_PARTITION", "p1", written);
    assert_eq!(Desired::from_config(&config), Desired::from_config(&base()));
}

//! The tables of fields against the validator: names, defaults, bounds, examples.

use std::collections::BTreeSet;

use switch_agent_core::desired::Desired;
use switch_agent_core::dhcp6::Architecture;
use switch_agent_core::row::{ConfigDb, Fields, fields};

use super::markdown::{code, read, table, tables};

const REFERENCE: &str = "switch-agent/README.md";
const HEADER: [&str; 4] = ["field", "default", "allowed", "meaning"];
const ROWS: [(&str, &str); 4] = [
    ("BOOT_NETWORK", "global"),
    ("BOOT_NETWORK_PARTITION", "p1"),
    ("BOOT_NETWORK_PORT", "Ethernet0"),
    ("BOOT_NETWORK_PROFILE", "new"),
];

fn base() -> ConfigDb {
    let mut config = ConfigDb::default();
    config.insert("PORT", "Ethernet0", fields([("index", "1")]));
    config.insert("BOOT_NETWORK", "global", fields([]));
    config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", "2001:db8::/56")]));
    config.insert("BOOT_NETWORK_PORT", "Ethernet0", fields([("partition", "p1")]));
    config.insert("BOOT_NETWORK_PROFILE", "new", fields([("kernel_url", "http://images.example.com/new")]));
    config
}

/// The configuration with one field more (or another value of it).
fn with(row: (&str, &str), field: &str, value: &str) -> Desired {
    let mut config = base();
    let mut row_fields: Fields = config.row(row.0, row.1).unwrap().clone();
    row_fields.insert(field.to_owned(), value.to_owned());
    config.insert(row.0, row.1, row_fields);
    Desired::from_config(&config)
}

/// What the validator says of a field that no row has: a list of those that it may have.
fn allowed(row: (&str, &str)) -> BTreeSet<String> {
    let desired = with(row, "zzz", "");
    let rejected = desired.rejected.iter().find(|rejected| rejected.field.as_deref() == Some("zzz")).unwrap();
    let (_, list) = rejected.rule.split_once("allowed are ").unwrap();
    list.split(", ").map(str::to_owned).collect()
}

/// The fields of the reference, in the order of [`ROWS`]: the last table holds for partitions and ports.
fn documented() -> Vec<Vec<Vec<String>>> {
    let mut tables = tables(&read(REFERENCE), &HEADER);
    assert_eq!(tables.len(), ROWS.len() + 1);
    let router_variables = tables.pop().unwrap();
    tables.iter_mut().skip(1).take(2).for_each(|table| table.extend_from_slice(&router_variables));
    tables
}

#[test]
fn fields_are_those_that_the_validator_accepts() {
    for (row, table) in ROWS.into_iter().zip(documented()) {
        let names: Vec<String> = table.iter().map(|cells| code(&cells[0]).unwrap().to_owned()).collect();
        let unique: BTreeSet<String> = names.iter().cloned().collect();
        assert_eq!(unique.len(), names.len(), "{row:?}: a field twice");
        assert_eq!(unique, allowed(row), "{row:?}");
    }
}

#[test]
fn defaults_are_what_an_absent_field_means() {
    let absent = Desired::from_config(&base());
    assert_eq!(absent.rejected, []);
    let mut count = 0;
    for (row, table) in ROWS.into_iter().zip(documented()) {
        for cells in &table {
            if let Some(default) = code(&cells[1]).filter(|default| !default.contains('|')) {
                let field = code(&cells[0]).unwrap();
                assert_eq!(with(row, field, default), absent, "{row:?} {field}");
                count += 1;
            }
        }
    }
    assert!(count >= 20, "{count} defaults");
}

#[test]
fn bounds_are_the_validators() {
    let mut count = 0;
    for (row, table) in ROWS.into_iter().zip(documented()) {
        for cells in &table {
            let (field, bounds) = (code(&cells[0]).unwrap(), &cells[2]);
            let Some((min, max)) = bounds.split_once("..") else { continue };
            let (Ok(min), Ok(max)) = (min.parse::<u64>(), max.parse::<u64>()) else { continue };
            let outside = [min.checked_sub(1).map(|value| value.to_string()), Some((max + 1).to_string())];
            for value in outside.into_iter().flatten() {
                let desired = with(row, field, &value);
                let rejected = desired.rejected.iter().find(|r| r.field.as_deref() == Some(field)).unwrap();
                assert!(
                    rejected.rule.ends_with(&format!(" {bounds}")),
                    "{field} = {value}: {}",
                    rejected.rule
                );
            }
            count += 1;
        }
    }
    assert!(count >= 10, "{count} bounds");
}

/// Fields whose allowed values are a few words accept these and no other.
#[test]
fn choices_are_the_validators() {
    let mut count = 0;
    for (row, table) in ROWS.into_iter().zip(documented()) {
        for cells in &table {
            let field = code(&cells[0]).unwrap();
            let choices: Vec<&str> = cells[2].split(", ").filter_map(code).collect();
            if choices.len() < 2 || choices.join("`, `") != cells[2].trim_matches('`') {
                continue;
            }
            let desired = with(row, field, "zzz");
            let rejected = desired.rejected.iter().find(|r| r.field.as_deref() == Some(field)).unwrap();
            assert_eq!(rejected.rule, format!("must be one of {}", choices.join(", ")), "{field}");
            count += 1;
        }
    }
    assert!(count >= 10, "{count} choices");
}

#[test]
fn examples_of_items_hold() {
    for cells in table(&read(REFERENCE), &["field", "grammar", "example"]) {
        let (field, example) = (code(&cells[0]).unwrap(), code(&cells[2]).unwrap());
        assert_eq!(with(ROWS[1], field, example).rejected, [], "{field}");
    }
}

/// "`word` (number)" in the cells of the table of firmware.
#[test]
fn architectures_are_those_that_boot_urls_may_name() {
    let mut named = BTreeSet::new();
    for cells in table(&read(REFERENCE), &["firmware", "from TFTP (PXE)", "from HTTP"]) {
        for pair in cells[1..].iter().flat_map(|cell| cell.split(", ")).filter(|pair| !pair.is_empty()) {
            let (word, number) = pair.split_once(' ').unwrap();
            let number = number.trim_matches(['(', ')']).parse().unwrap();
            let word = code(word).unwrap();
            assert_eq!(word.parse(), Ok(Architecture(number)), "{word}");
            named.insert(word.to_owned());
        }
    }
    assert_eq!(named, Architecture::names().map(str::to_owned).collect());
}

/// A `config_db.json` as the rows it stands for.
fn config_db(json: &str) -> ConfigDb {
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let mut config = ConfigDb::default();
    for (table, rows) in json.as_object().unwrap() {
        for (key, row) in rows.as_object().unwrap() {
            let mut fields = Fields::new();
            for (name, value) in row.as_object().unwrap() {
                match value.as_array() {
                    Some(list) => {
                        let items: Vec<&str> = list.iter().map(|item| item.as_str().unwrap()).collect();
                        fields.insert(format!("{name}@"), items.join(","));
                    }
                    None => {
                        fields.insert(name.clone(), value.as_str().unwrap().to_owned());
                    }
                }
            }
            config.insert(table, key, fields);
        }
    }
    config
}

#[test]
fn the_example_of_the_readme_is_a_good_configuration() {
    let text = read("README.md");
    let blocks = super::markdown::blocks(&text);
    let mut config = config_db(&blocks.iter().find(|block| block.info == ["json"]).unwrap().text);
    for (port, index) in [("Ethernet0", "1"), ("Ethernet4", "2")] {
        config.insert("PORT", port, fields([("index", index)]));
    }
    let desired = Desired::from_config(&config);
    assert_eq!((desired.rejected, desired.warnings), (vec![], vec![]));
    assert_eq!(desired.ports.len(), 2);
}

/// The sample that comes with the YANG module.
#[test]
fn the_sample_is_a_good_configuration() {
    let desired = Desired::from_config(&config_db(&read("sonic-package/yang/samples/config_db.json")));
    assert_eq!(desired.rejected, vec![]);
    let warned: Vec<_> = desired.warnings.iter().filter_map(|warning| warning.field.as_deref()).collect();
    assert_eq!(warned, ["service_address@"], "SONiC drops packets to it");
    let of_port = &desired.ports[&"Ethernet0".parse().unwrap()];
    assert_eq!(desired.partition_of(of_port).unwrap().ra.rdnss.len(), 1, "its own");
    assert_eq!(desired.ports.len(), 3);
}

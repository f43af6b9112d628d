//! Generated rows of the agent's tables.

use std::collections::BTreeMap;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use switch_agent_core::row::{ConfigDb, Fields, Table, fields};

use crate::values::{CHARACTERS, Field, GLOBAL, METAL_STACK_V1, PARTITION, PORT, PROFILE, ROUTER};

/// A configuration with one generated row.
pub(crate) struct Case {
    /// The row, and what was done to it.
    pub(crate) name: String,
    pub(crate) config: ConfigDb,
}

/// How rows of a table are made.
pub(crate) struct RowTable {
    pub(crate) name: &'static str,
    /// Keys, of which the first is the usual one.
    keys: &'static [&'static str],
    /// What every row has.
    required: &'static [(&'static str, &'static str)],
    fields: &'static [&'static [Field]],
}

/// The tables, with the rows beside those of `sonic-package/yang/cases/base.json`.
pub(crate) const TABLES: [RowTable; 4] = [
    RowTable { name: "BOOT_NETWORK", keys: &["global", "local"], required: &[], fields: &[GLOBAL] },
    RowTable {
        name: "BOOT_NETWORK_PARTITION",
        keys: &["p3", "P-3._", ".p", "p 3", "p|3", "a-very-long-partition-id"],
        required: &[("prefix", "2001:db8:0:300::/56")],
        fields: &[PARTITION, ROUTER],
    },
    RowTable {
        name: "BOOT_NETWORK_PORT",
        keys: &[
            "Ethernet4",
            "Ethernet8",
            "Ethernet99",
            "PortChannel7",
            "PortChannel07",
            "Ethernet04",
            "eth0",
        ],
        required: &[("partition", "p1")],
        fields: &[PORT, ROUTER],
    },
    RowTable {
        name: "BOOT_NETWORK_PROFILE",
        keys: &["new", "A.b_c-1", "a b", "a@b"],
        required: &[("kernel_url", "http://images.example.com/new")],
        fields: &[PROFILE],
    },
];

/// Numbers from a fixed seed.
struct Chance(TestRunner);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        (0..end).new_tree(&mut self.0).map_or(0, |tree| tree.current())
    }

    fn of<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

fn base() -> ConfigDb {
    let text = include_str!("../../../sonic-package/yang/cases/base.json");
    let tables: BTreeMap<String, Table> = serde_json::from_str(text).unwrap();
    ConfigDb { tables }
}

/// Configurations with one row of the table each: every value of every field and every key by itself, then
/// `count` by chance. Of those, every other row has good values only, the rest are such with one thing changed.
pub(crate) fn generate(table: &RowTable, count: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for key in table.keys {
        cases.push(case(table, key, required(table)));
    }
    for (name, good, bad) in table.fields.iter().copied().flatten() {
        for value in good.iter().chain(*bad) {
            let mut row = required(table);
            row.extend(fields([(*name, *value)]));
            cases.push(case(table, table.keys[0], row));
        }
    }
    let mut chance = Chance(TestRunner::deterministic());
    for number in 0..count {
        let mut key = table.keys[0].to_owned();
        let mut row = good_row(table, &mut chance);
        if number % 2 == 1 {
            change(table, &mut key, &mut row, &mut chance);
        }
        cases.push(case(table, &key, row));
    }
    cases
}

fn case(table: &RowTable, key: &str, row: Fields) -> Case {
    let name = format!("{}|{key} {row:?}", table.name);
    let mut config = base();
    config.insert(table.name, key, row);
    Case { name, config }
}

fn required(table: &RowTable) -> Fields {
    table.required.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn good_row(table: &RowTable, chance: &mut Chance) -> Fields {
    let mut row = required(table);
    for (name, good, _) in table.fields.iter().copied().flatten() {
        // Enough of them for rules across fields.
        if chance.below(5) == 0 {
            row.insert((*name).to_owned(), chance.of(good).to_owned());
        }
    }
    let own: Vec<String> = row.keys().filter(|name| own_boot_field(name)).cloned().collect();
    if row.contains_key("boot_profile") && table.name == "BOOT_NETWORK_PARTITION" {
        own.iter().for_each(|name| _ = row.remove(name));
    }
    if table.name == "BOOT_NETWORK" && chance.below(3) == 0 {
        row.extend(METAL_STACK_V1.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }
    row
}

/// A field that a profile stands for.
fn own_boot_field(name: &str) -> bool {
    name.starts_with("boot_") && !name.starts_with("boot_profile")
}

fn change(table: &RowTable, key: &mut String, row: &mut Fields, chance: &mut Chance) {
    let all: Vec<&Field> = table.fields.iter().copied().flatten().collect();
    let (name, good, bad) = *chance.of(&all);
    let present = row.get(name).cloned().unwrap_or_else(|| chance.of(good).to_owned());
    let changed = match chance.below(12) {
        0 => {
            *key = chance.of(table.keys).to_owned();
            return;
        }
        1 => {
            // Whatever the row has: what it needs, or what another field needs.
            let names: Vec<String> = row.keys().cloned().collect();
            if !names.is_empty() {
                row.remove(&names[chance.below(names.len())]);
            }
            return;
        }
        2 => {
            row.extend(fields([(
                chance.of(&["prefixes", "global", "boot_profile", "id", "port", "name"]),
                "x",
            )]));
            return;
        }
        3..=6 => chance.of(bad).to_owned(),
        7 => {
            let (_, values, _) = *chance.of(&all);
            chance.of(values).to_owned()
        }
        8 => edited(&present, chance, |_| String::new()),
        9 | 10 => edited(&present, chance, |chance| chance.of(CHARACTERS).to_owned()),
        _ => format!("{present},{present}"),
    };
    row.insert(name.to_owned(), changed);
}

/// `text` with one character replaced, or something put before it.
fn edited(text: &str, chance: &mut Chance, by: impl FnOnce(&mut Chance) -> String) -> String {
    let characters: Vec<char> = text.chars().collect();
    let at = chance.below(characters.len() + 1);
    let skip = usize::from(at < characters.len() && chance.below(2) == 0);
    let new = by(chance);
    let before = characters[..at].iter().collect::<String>();
    let behind = characters[at + skip..].iter().collect::<String>();
    before + &new + &behind
}

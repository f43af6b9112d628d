//! The table of restarts names cases that exist.

use std::fs;
use std::path::Path;

#[test]
fn cases_of_the_table_of_restarts_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let table = readme.split("\n## Restarts\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let named: Vec<(&str, &str)> = table.split('`').filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() >= 12, "{named:?}");
    for (group, title) in &named {
        let path = root.join(format!("../tests/src/cases/{group}.rs"));
        let cases = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{group}: {error}"));
        assert!(cases.contains(&format!("fn {title}(lab: &Lab)")), "{group}::{title} does not exist");
    }
    // And those that are about restarts of something are told.
    for entry in fs::read_dir(root.join("../tests/src/cases")).unwrap() {
        let path = entry.unwrap().path();
        let group = path.file_stem().unwrap().to_str().unwrap();
        if group.starts_with("restart_") {
            assert!(named.iter().any(|(told, _)| *told == group), "{group} is not told");
        }
    }
}

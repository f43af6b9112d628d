//! As much of Markdown as the documentation uses.

use std::path::{Path, PathBuf};

/// Repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every document for people, by its path in the repository.
pub(crate) const DOCUMENTS: [&str; 4] =
    ["README.md", "switch-agent/README.md", "labs/README.md", "frr-templates/README.md"];

pub(crate) fn read(document: &str) -> String {
    std::fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// A fenced block.
pub(crate) struct Block {
    /// Words after the fence.
    pub(crate) info: Vec<String>,
    pub(crate) text: String,
}

pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                let info = info.split_whitespace().map(str::to_owned).collect();
                open = Some(Block { info, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence stays open");
    blocks
}

/// Lines outside fences.
pub(crate) fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Rows of every table whose header is `header`, cells without markup of the table.
pub(crate) fn tables(text: &str, header: &[&str]) -> Vec<Vec<Vec<String>>> {
    let mut tables: Vec<Vec<Vec<String>>> = Vec::new();
    let mut inside = false;
    for line in prose(text) {
        let row = cells(line);
        if row == header {
            tables.push(Vec::new());
            inside = true;
        } else if row.is_empty() {
            inside = false;
        } else if let (true, Some(table)) = (inside, tables.last_mut())
            && !row[0].starts_with("---")
        {
            assert_eq!(row.len(), header.len(), "{line}");
            table.push(row);
        }
    }
    tables
}

/// The only table of that header.
pub(crate) fn table(text: &str, header: &[&str]) -> Vec<Vec<String>> {
    let mut tables = tables(text, header);
    assert_eq!(tables.len(), 1, "tables with {header:?}");
    tables.remove(0)
}

fn cells(line: &str) -> Vec<String> {
    let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
        return Vec::new();
    };
    let hidden = inner.replace("\\|", "\u{0}");
    hidden.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

/// The text of a cell that is nothing but code.
pub(crate) fn code(cell: &str) -> Option<&str> {
    let inner = cell.strip_prefix('`')?.strip_suffix('`')?;
    (!inner.contains('`')).then_some(inner)
}

/// All pieces of code in a cell.
pub(crate) fn codes(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Targets of links.
pub(crate) fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let (target, left) = after.split_once(')').unwrap_or_else(|| panic!("link without end: {line}"));
            links.push(target.to_owned());
            rest = left;
        }
    }
    links
}

/// Anchors of headings, as renderers make them.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

//! A typed reader of one row: every bad field is recorded with its rule, and reading goes on, so that an
//! operator sees all faults of a row at once.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::desired::Rejected;
use crate::name::InvalidName;
use crate::row::{Fields, leaf_list};

/// Longest key, field name or value that a message quotes, in characters.
const QUOTED_LEN_MAX: usize = 64;
/// Unknown fields of one row that are reported one by one.
const UNKNOWN_FIELDS_MAX: usize = 16;

/// What is allowed, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Rule(Cow<'static, str>);

impl From<&'static str> for Rule {
    fn from(text: &'static str) -> Rule {
        Rule(Cow::Borrowed(text))
    }
}
impl From<String> for Rule {
    fn from(text: String) -> Rule {
        Rule(Cow::Owned(text))
    }
}
impl From<InvalidName> for Rule {
    fn from(error: InvalidName) -> Rule {
        format!("must be {}", error.wanted).into()
    }
}

/// `text` without control characters, cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().map(clean).take(QUOTED_LEN_MAX + 1).collect();
    if short.chars().count() > QUOTED_LEN_MAX {
        short = short.chars().take(QUOTED_LEN_MAX - 3).collect();
        short.push_str("...");
    }
    short
}

/// `TABLE|key` as messages name it.
pub(super) fn row_name(table: &str, key: &str) -> String {
    format!("{table}|{}", quoted(key))
}

impl Rejected {
    pub(super) fn of_row(row: &str, rule: impl Into<Rule>) -> Rejected {
        Rejected { row: row.to_owned(), field: None, value: None, rule: rule.into().to_string() }
    }

    pub(crate) fn of_field(row: &str, field: &str, value: Option<&str>, rule: impl Into<Rule>) -> Rejected {
        Rejected {
            row: row.to_owned(),
            field: Some(quoted(field)),
            value: value.map(quoted),
            rule: rule.into().to_string(),
        }
    }
}

/// One row under validation.
pub(super) struct Reader<'a> {
    row: String,
    fields: &'a Fields,
    /// Fields that hold where the row does not have them, of another row that holds.
    inherited: Option<&'a Fields>,
    allowed: Vec<&'static str>,
    rejected: Vec<Rejected>,
    /// Known fields that an unknown one resembles.
    misspelt: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// Starts reading a row that may have the fields in `allowed` and no other.
    pub(super) fn new(row: String, fields: &'a Fields, allowed: &[&[&'static str]]) -> Reader<'a> {
        let allowed = allowed.concat();
        let mut reader =
            Reader { row, fields, inherited: None, allowed, rejected: Vec::new(), misspelt: Vec::new() };
        let allowed = reader.allowed.clone();
        let unknown = |name: &&String| !allowed.contains(&name.as_str());
        for name in fields.keys().filter(unknown).take(UNKNOWN_FIELDS_MAX) {
            let close = resembling(name, &allowed);
            let hint = close.map(|close| format!("did you mean {close}? ")).unwrap_or_default();
            let rule = format!("unknown field; {hint}allowed are {}", allowed.join(", "));
            reader.reject(name, rule);
            reader.misspelt.extend(close);
        }
        reader
    }

    /// From now on a field that the row does not have is that of `inherited`, a row that holds.
    pub(super) fn inherit(&mut self, inherited: &'a Fields) {
        self.inherited = Some(inherited);
    }

    /// The raw text of a field.
    pub(super) fn text(&self, field: &str) -> Option<&'a str> {
        let inherited = || self.inherited?.get(field);
        self.fields.get(field).or_else(inherited).map(String::as_str)
    }

    /// Whether the row itself has the field.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// Where the value of a field that the row does not have comes from, for people.
    pub(super) fn origin(&self, field: &str) -> &'static str {
        match self.inherited {
            Some(inherited) if inherited.contains_key(field) => "in the partition",
            _ => "by default",
        }
    }

    /// Records that `field`, as it stands in the row, breaks `rule`.
    pub(super) fn reject(&mut self, field: &str, rule: impl Into<Rule>) {
        let value = self.text(field);
        self.rejected.push(Rejected::of_field(&self.row, field, value, rule));
    }

    /// Records that one item of a leaf-list breaks `rule`.
    pub(super) fn reject_item(&mut self, field: &str, item: &str, rule: impl Into<Rule>) {
        self.rejected.push(Rejected::of_field(&self.row, field, Some(item), rule));
    }

    /// Records that the row as a whole breaks `rule`.
    pub(super) fn reject_row(&mut self, rule: impl Into<Rule>) {
        self.rejected.push(Rejected::of_row(&self.row, rule));
    }

    /// Whether `field` was rejected; checks across fields skip such a field.
    pub(super) fn is_bad(&self, field: &str) -> bool {
        self.rejected.iter().any(|rejected| rejected.field.as_deref() == Some(field))
    }

    /// Whether `field` was rejected, or an unknown field looks like a misspelling of it.
    pub(super) fn is_bad_or_misspelt(&self, field: &str) -> bool {
        self.is_bad(field) || self.misspelt.contains(&field)
    }

    /// Whether any field whose name starts with `prefix` was rejected, known or not, or is likely the one
    /// that an unknown field was meant to be.
    pub(super) fn is_any_bad_with_prefix(&self, prefix: &str) -> bool {
        let named = self.rejected.iter().filter_map(|rejected| rejected.field.as_deref());
        named.chain(self.misspelt.iter().copied()).any(|field| field.starts_with(prefix))
    }

    /// The field as `parse` reads it; `None` when absent or bad.
    pub(super) fn optional<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Rule>,
    ) -> Option<T> {
        debug_assert!(self.allowed.contains(&field));
        match parse(self.text(field)?) {
            Ok(value) => Some(value),
            Err(rule) => {
                self.reject(field, rule);
                None
            }
        }
    }

    /// The field as `parse` reads it, or `default` when absent or bad.
    pub(super) fn or<T>(
        &mut self,
        field: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, Rule>,
    ) -> T {
        self.optional(field, parse).unwrap_or(default)
    }

    /// The field as `parse` reads it; its absence is an error.
    pub(super) fn required<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Rule>,
    ) -> Option<T> {
        if self.text(field).is_none() {
            self.reject(field, "is required");
        }
        self.optional(field, parse)
    }

    /// An `enabled|disabled` field.
    pub(super) fn flag(&mut self, field: &'static str, default: bool) -> bool {
        self.or(field, default, choice([("enabled", true), ("disabled", false)]))
    }

    /// A leaf-list of at most `len_max` different items; `field` ends in `@`. Bad items are left out.
    pub(super) fn list<T>(
        &mut self,
        field: &'static str,
        len_max: usize,
        mut parse: impl FnMut(&str) -> Result<T, Rule>,
    ) -> Vec<T> {
        debug_assert!(self.allowed.contains(&field) && field.ends_with('@'));
        let items: Vec<&str> = self.text(field).into_iter().flat_map(leaf_list).collect();
        if items.len() > len_max {
            self.reject(field, format!("has {} items; at most {len_max} are allowed", items.len()));
            return Vec::new();
        }
        let mut values = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            if items[..at].contains(item) {
                self.reject_item(field, item, "is listed twice");
                continue;
            }
            match parse(item) {
                Ok(value) => values.push(value),
                Err(rule) => self.reject_item(field, item, rule),
            }
        }
        values
    }

    /// All faults found; none means that the row holds.
    pub(super) fn finish(self) -> Vec<Rejected> {
        self.rejected
    }
}

/// A decimal number within `range`, without sign or leading zeros.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, Rule>
where
    T: FromStr + PartialOrd + Display,
{
    move |value| {
        let digits = value.bytes().all(|b| b.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
        let number = value.parse().ok().filter(|number| digits && range.contains(number));
        number.ok_or_else(|| format!("must be a whole number, {}..{}", range.start(), range.end()).into())
    }
}

/// One word of a fixed set.
pub(super) fn choice<T, const N: usize>(
    words: [(&'static str, T); N],
) -> impl FnOnce(&str) -> Result<T, Rule> {
    move |value| {
        let names = words.each_ref().map(|(name, _)| *name).join(", ");
        let found = words.into_iter().find(|(name, _)| *name == value);
        found.map(|(_, choice)| choice).ok_or_else(|| format!("must be one of {names}").into())
    }
}

/// The allowed name that `name` is most likely a misspelling of.
fn resembling(name: &str, allowed: &[&'static str]) -> Option<&'static str> {
    let bare = |text: &str| text.trim_end_matches('@').to_ascii_lowercase().replace('-', "_");
    let wanted = bare(name);
    if wanted.len() > QUOTED_LEN_MAX {
        return None;
    }
    let distances = allowed.iter().map(|candidate| (edit_distance(&wanted, &bare(candidate)), *candidate));
    let (distance, closest) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 && distance * 3 <= closest.len()).then_some(closest)
}

/// Levenshtein distance in bytes.
fn edit_distance(left: &str, right: &str) -> usize {
    let right = right.as_bytes();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, l) in left.bytes().enumerate() {
        let mut current = vec![row + 1];
        for (column, r) in right.iter().enumerate() {
            let substitute = previous[column] + usize::from(l != *r);
            current.push(substitute.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_are_recognised() {
        let allowed = &["admin_status", "rdnss@", "prf", "prefix"];
        assert_eq!(resembling("admin_staus", allowed), Some("admin_status"));
        assert_eq!(resembling("Admin-Status", allowed), Some("admin_status"));
        assert_eq!(resembling("rdnss", allowed), Some("rdnss@"));
        assert_eq!(resembling("pref", allowed), Some("prf"));
        assert_eq!(resembling("mtu", allowed), None);
        assert_eq!(resembling("", allowed), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }

    #[test]
    fn numbers_are_canonical() {
        let parse = number::<u16>(3..=1800);
        assert_eq!(parse("3"), Ok(3));
        assert_eq!(parse("1800"), Ok(1800));
        for bad in ["", "2", "1801", "+5", "-5", "05", " 5", "5 ", "5.0", "0x5", "99999999999999999999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(number::<u8>(0..=255)("0"), Ok(0));
        assert!(number::<u8>(0..=255)("00").is_err());
    }

    #[test]
    fn quotes_are_short_and_printable() {
        assert_eq!(quoted("a\nb"), "a\u{fffd}b");
        assert_eq!(quoted(&"x".repeat(64)), "x".repeat(64));
        assert_eq!(quoted(&"x".repeat(65)), format!("{}...", "x".repeat(61)));
    }
}

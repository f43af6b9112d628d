//! Digests of rows that were written.

/// What is remembered of each row, by key. In two pieces of memory for all of them: hundreds of small ones, made
/// while rows are there in full, would keep the memory between them from going back to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Digests {
    /// The keys in ascending order, one after the other.
    keys: String,
    /// Where each key ends, and the digest of its row.
    rows: Vec<(usize, u64)>,
}

impl Digests {
    /// Takes rows in ascending order of their keys.
    pub(super) fn new<'a>(rows: impl Iterator<Item = (&'a str, u64)>) -> Digests {
        let mut digests = Digests::default();
        for (key, digest) in rows {
            digests.keys.push_str(key);
            digests.rows.push((digests.keys.len(), digest));
        }
        digests.keys.shrink_to_fit();
        digests.rows.shrink_to_fit();
        digests
    }

    /// The row at a place, in the order of the keys.
    fn row(&self, place: usize) -> Option<(&str, u64)> {
        let begin = place.checked_sub(1).and_then(|before| self.rows.get(before)).map_or(0, |(end, _)| *end);
        let (end, digest) = *self.rows.get(place)?;
        Some((self.keys.get(begin..end)?, digest))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        (0..self.rows.len()).filter_map(|place| self.row(place))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        let (mut low, mut high) = (0, self.rows.len());
        while low < high {
            let middle = low.midpoint(high);
            let (found, digest) = self.row(middle)?;
            match found.cmp(key) {
                std::cmp::Ordering::Equal => return Some(digest),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_and_no_other() {
        for count in [0, 1, 2, 7, 64] {
            let keys: Vec<String> = (0..count).map(|number| format!("T|Ethernet{:03}", number * 2)).collect();
            let digests = Digests::new(keys.iter().map(String::as_str).zip(1..));
            assert_eq!(digests.keys().collect::<Vec<_>>(), keys);
            for (key, number) in keys.iter().zip(1..) {
                assert_eq!(digests.get(key), Some(number));
                assert_eq!(digests.get(&format!("{key}x")), None);
                assert_eq!(digests.get(&key[..key.len() - 1]), None);
            }
            assert_eq!((digests.get(""), digests.get("U")), (None, None));
        }
    }
}

//! Maps made by insertion.

use std::collections::BTreeMap;

/// `collect` for maps that are small, or short-lived. `collect` itself sorts what it is given, and a stable sort
/// of each kind of entry from each kind of iterator is five kilobytes of the program; what it gains is full
/// nodes, which matters to maps of all ports that stay.
pub trait IntoMap<K, V>: Iterator<Item = (K, V)> + Sized {
    /// The map of these entries; of equal keys, the last counts.
    fn into_map(self) -> BTreeMap<K, V>
    where
        K: Ord,
    {
        let mut map = BTreeMap::new();
        for (key, value) in self {
            map.insert(key, value);
        }
        map
    }
}

impl<K, V, I: Iterator<Item = (K, V)>> IntoMap<K, V> for I {}

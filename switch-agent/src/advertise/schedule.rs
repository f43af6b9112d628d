//! When each port is due: a binary heap that knows where each port is in it.

use std::time::Duration;

/// Deadlines by slot, earliest first. One slot has at most one deadline; changing it takes logarithmic time
/// and, once as many slots were scheduled before, no memory.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// A heap: no entry is earlier than the one at `(index - 1) / 2`.
    heap: Vec<(Duration, usize)>,
    /// Where a slot is in `heap`.
    positions: Vec<Option<usize>>,
}

impl Schedule {
    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.first().map(|(due, _)| *due)
    }

    /// Takes a slot whose deadline has come, the earliest first.
    pub(super) fn pop(&mut self, now: Duration) -> Option<usize> {
        let (due, slot) = *self.heap.first()?;
        if due > now {
            return None;
        }
        self.set(slot, None);
        Some(slot)
    }

    pub(super) fn set(&mut self, slot: usize, due: Option<Duration>) {
        if slot >= self.positions.len() {
            self.positions.resize(slot + 1, None);
        }
        match (self.positions[slot], due) {
            (Some(at), Some(due)) => {
                self.heap[at].0 = due;
                self.settle(at);
            }
            (None, Some(due)) => {
                self.heap.push((due, slot));
                self.settle(self.heap.len() - 1);
            }
            (Some(at), None) => {
                self.heap.swap_remove(at);
                self.positions[slot] = None;
                if at < self.heap.len() {
                    self.settle(at);
                }
            }
            (None, None) => {}
        }
    }

    /// Moves the entry at an index to where it belongs.
    fn settle(&mut self, mut at: usize) {
        while at > 0 && self.heap[at] < self.heap[(at - 1) / 2] {
            self.heap.swap(at, (at - 1) / 2);
            self.positions[self.heap[at].1] = Some(at);
            at = (at - 1) / 2;
        }
        while let Some(child) = self.earlier_child(at)
            && self.heap[child] < self.heap[at]
        {
            self.heap.swap(at, child);
            self.positions[self.heap[at].1] = Some(at);
            at = child;
        }
        self.positions[self.heap[at].1] = Some(at);
    }

    fn earlier_child(&self, at: usize) -> Option<usize> {
        let (left, right) = (2 * at + 1, 2 * at + 2);
        match (self.heap.get(left), self.heap.get(right)) {
            (Some(a), Some(b)) => Some(if b < a { right } else { left }),
            (Some(_), None) => Some(left),
            (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The same as a map that is searched.
        #[test]
        fn the_earliest_is_first_whatever_was_changed(
            changes in prop::collection::vec((0usize..24, prop::option::of(0u64..50), 0u64..60), 1..200)
        ) {
            let mut schedule = Schedule::default();
            let mut model: BTreeMap<usize, Duration> = BTreeMap::new();
            for (slot, due, now) in changes {
                let due = due.map(Duration::from_millis);
                schedule.set(slot, due);
                match due {
                    Some(due) => model.insert(slot, due),
                    None => model.remove(&slot),
                };
                prop_assert_eq!(schedule.next(), model.values().min().copied());
                let now = Duration::from_millis(now);
                if now.as_millis().is_multiple_of(3)
                    && let Some(slot) = schedule.pop(now)
                {
                    let due = model.remove(&slot);
                    prop_assert!(due.is_some_and(|due| due <= now));
                    prop_assert!(model.values().all(|other| Some(*other) >= due));
                }
            }
            let last = Duration::from_secs(1);
            while schedule.pop(last).is_some_and(|slot| model.remove(&slot).is_some()) {}
            prop_assert!(model.is_empty() && schedule.next().is_none());
        }
    }
}

//! The queues between CONFIG_DB, the daemons and orchagent, with their merging rules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::row::Fields;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Set,
    Del,
}

/// A keyspace event, as the SubscriberStateTable of a daemon keeps it: the row is read on delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notification {
    pub(super) op: Op,
    pub(super) key: String,
    pub(super) transaction: u64,
}

/// Notifications of one table that one daemon has not read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    waiting: VecDeque<Notification>,
}

impl Subscription {
    pub(super) fn push(&mut self, notification: Notification) {
        self.waiting.push_back(notification);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn spans_transactions(&self) -> bool {
        match (self.waiting.front(), self.waiting.back()) {
            (Some(first), Some(last)) => first.transaction != last.transaction,
            _ => false,
        }
    }

    pub(super) fn take_all(&mut self) -> Vec<Notification> {
        self.waiting.drain(..).collect()
    }

    pub(super) fn take_first(&mut self) -> Vec<Notification> {
        let Some(first) = self.waiting.front().map(|n| n.transaction) else {
            return Vec::new();
        };
        let count = self.waiting.iter().take_while(|n| n.transaction == first).count();
        self.waiting.drain(..count).collect()
    }
}

/// Tasks of one key: a DEL, a SET, or a DEL and a SET that is done after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) del: bool,
    pub(super) set: Option<Fields>,
}

/// A consumer's pending tasks (`m_toSync`), worked off in the order of their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tasks {
    pending: BTreeMap<String, Task>,
    /// Generation of the world at the last attempt; a further attempt in the same world does the same.
    tried: Option<u64>,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Pending,
    /// An exception left the daemon's loop: tasks of later keys are not looked at.
    Thrown(String),
}

impl Tasks {
    /// A DEL replaces whatever waits for the key; a SET merges into a waiting SET, field by field, or
    /// lines up behind a waiting DEL.
    pub(super) fn add(&mut self, op: Op, key: &str, fields: Fields) {
        let task = self.pending.entry(key.to_owned()).or_default();
        match op {
            Op::Del => *task = Task { del: true, set: None },
            Op::Set => task.set.get_or_insert_default().extend(fields),
        }
        self.tried = None;
    }

    pub(super) fn worth_retrying(&self, generation: u64) -> bool {
        !self.pending.is_empty() && self.tried != Some(generation)
    }

    pub(super) fn is_pending(&self, key: &str) -> bool {
        self.pending.contains_key(key)
    }

    pub(super) fn clear(&mut self) {
        *self = Tasks::default();
    }

    /// One pass over all tasks. Returns the message of an exception that ended it early.
    pub(super) fn run(
        &mut self,
        generation: u64,
        mut work: impl FnMut(Op, &str, &Fields) -> Outcome,
    ) -> Result<(), String> {
        self.tried = Some(generation);
        let keys: Vec<String> = self.pending.keys().cloned().collect();
        for key in keys {
            let Some(task) = self.pending.get_mut(&key) else {
                continue;
            };
            if task.del {
                match work(Op::Del, &key, &Fields::new()) {
                    Outcome::Done => task.del = false,
                    Outcome::Pending => {}
                    Outcome::Thrown(why) => return Err(why),
                }
            }
            if let Some(fields) = &task.set {
                match work(Op::Set, &key, fields) {
                    Outcome::Done => task.set = None,
                    Outcome::Pending => {}
                    Outcome::Thrown(why) => return Err(why),
                }
            }
            if !task.del && task.set.is_none() {
                self.pending.remove(&key);
            }
        }
        Ok(())
    }
}

/// A ProducerStateTable: changes that orchagent has not popped. A DEL and a later SET of one key leave
/// only the SET, so orchagent never learns that the object was to go in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Produced {
    keys: BTreeSet<String>,
    deleted: BTreeSet<String>,
    staged: BTreeMap<String, Fields>,
}

/// One popped change: clear the hash first, then write these fields; nothing to write means DEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Popped {
    pub(super) key: String,
    pub(super) clear: bool,
    pub(super) fields: Option<Fields>,
}

impl Produced {
    /// Returns whether the key was not waiting before.
    pub(super) fn set(&mut self, key: &str, fields: Fields) -> bool {
        self.staged.entry(key.to_owned()).or_default().extend(fields);
        self.keys.insert(key.to_owned())
    }

    pub(super) fn del(&mut self, key: &str) -> bool {
        self.staged.remove(key);
        self.deleted.insert(key.to_owned());
        self.keys.insert(key.to_owned())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn pop(&mut self) -> Vec<Popped> {
        let keys = std::mem::take(&mut self.keys);
        keys.into_iter()
            .map(|key| Popped { clear: self.deleted.remove(&key), fields: self.staged.remove(&key), key })
            .collect()
    }
}

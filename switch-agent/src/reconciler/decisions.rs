//! The last decisions of the loop, for bug reports: what it did and what it found, bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

/// Decisions that are kept.
pub const DECISIONS_MAX: usize = 200;
/// Bytes of each text of a decision; what FRR or Redis answers may be long.
const TEXT_MAX: usize = 512;

/// What was done to an object, or found about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// When it was taken first.
    pub at: Timestamp,
    /// When it was taken last; several in a row that say the same are one.
    pub last_at: Timestamp,
    pub count: u64,
    /// Kind of the action, or `port`, `row`, `object`, `source`, `status`.
    pub kind: &'static str,
    /// As in [`switch_agent_core::action::Action::object`]; row, source or port otherwise.
    pub object: String,
    /// `done` or `failed` of an action, else what was found: the phase of a port, `rejected`, `yielded`,
    /// `unreadable`, `readable`, the verdict.
    pub outcome: &'static str,
    pub reason: Option<String>,
}

/// The last [`DECISIONS_MAX`] decisions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DecisionLog(Arc<Mutex<VecDeque<Decision>>>);

impl DecisionLog {
    /// Keeps a decision; the oldest makes room.
    pub fn record(&self, kind: &'static str, object: &str, outcome: &'static str, reason: Option<&str>) {
        let (object, reason) = (shortened(object), reason.map(shortened));
        let at = Timestamp::now();
        let mut decisions = self.lock();
        if let Some(last) = decisions.back_mut()
            && (last.kind, &last.object, last.outcome, &last.reason) == (kind, &object, outcome, &reason)
        {
            (last.last_at, last.count) = (at, last.count + 1);
            return;
        }
        if decisions.len() == DECISIONS_MAX {
            decisions.pop_front();
        }
        decisions.push_back(Decision { at, last_at: at, count: 1, kind, object, outcome, reason });
    }

    /// The decisions, oldest first.
    pub fn all(&self) -> Vec<Decision> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Decision>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= TEXT_MAX).last() {
        Some(end) if end < text.len() => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_no_more() {
        let log = DecisionLog::default();
        for n in 0..DECISIONS_MAX + 7 {
            log.record("add-address", &format!("INTERFACE|Ethernet{n}"), "done", None);
        }
        let kept = log.all();
        assert_eq!(kept.len(), DECISIONS_MAX);
        assert_eq!(kept[0].object, "INTERFACE|Ethernet7");
        assert_eq!(kept[DECISIONS_MAX - 1].object, format!("INTERFACE|Ethernet{}", DECISIONS_MAX + 6));
    }

    #[test]
    fn what_is_tried_again_and_again_is_one() {
        let log = DecisionLog::default();
        for reason in ["connection refused", "connection refused", "timed out"] {
            log.record("apply-leak", "FRR", "failed", Some(reason));
        }
        let kept = log.all();
        assert_eq!(kept.iter().map(|decision| decision.count).collect::<Vec<_>>(), [2, 1]);
        assert!(kept[0].at <= kept[0].last_at && kept[0].last_at <= kept[1].at);
    }

    #[test]
    fn long_texts_are_shortened_at_a_character() {
        let log = DecisionLog::default();
        log.record("apply-leak", "FRR", "failed", Some(&"ü".repeat(TEXT_MAX)));
        log.record("apply-leak", "FRR", "failed", Some(&"x".repeat(TEXT_MAX)));
        let kept = log.all();
        assert_eq!(kept[0].reason.as_deref(), Some(format!("{}…", "ü".repeat(TEXT_MAX / 2)).as_str()));
        assert_eq!(kept[1].reason.as_deref(), Some("x".repeat(TEXT_MAX).as_str()));
    }
}

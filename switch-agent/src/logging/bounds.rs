//! How often a line may repeat: what machines do must not fill the switch's log.
//!
//! Lines are told apart by where they come from in the source and by what they are about (their `port`, or
//! `object`). Each kind has a small burst and a slow rate, and all together have one. Errors are never left
//! out. What was left out is counted and told.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use switch_agent_core::discovery::Bucket;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, info};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines of one kind at once, and how long until the next one. A port that fails and recovers has a dozen.
const KIND: (u32, Duration) = (20, Duration::from_secs(10));
/// All lines: bringing 128 ports up has some 1,500 in a few seconds; ten a second fill 100 MB in a day.
const ALL: (u32, Duration) = (3000, Duration::from_millis(100));
/// Whoever asks for details gets more of them.
const DETAILS: u32 = 50;
/// Kinds that are told apart; beyond it, what has been quiet is forgotten.
const KINDS_MAX: usize = 4096;
/// Kinds that a look at what was left out names.
const NAMED_MAX: usize = 8;

/// A place in the source, and what the line is about.
type Kind = (Identifier, u64);

#[derive(Debug)]
struct Entry {
    bucket: Bucket,
    last: Duration,
    left_out: u64,
    message: String,
}

#[derive(Debug)]
struct State {
    kinds: HashMap<Kind, Entry>,
    all: Bucket,
    details: Bucket,
    /// Of kinds that are not told apart any more.
    left_out: u64,
}

/// The bounds, as a layer that leaves events out. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Bounds(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Instant,
    hashes: RandomState,
    state: Mutex<State>,
}

/// What the next lines need to know about an event.
#[derive(Debug, Default)]
struct About {
    subject: Option<String>,
    message: String,
}

impl Visit for About {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "port" => self.subject = Some(format!("{value:?}")),
            "object" if self.subject.is_none() => self.subject = Some(format!("{value:?}")),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}

fn bucket((burst, interval): (u32, Duration), factor: u32) -> Bucket {
    Bucket::new(burst * factor, interval / factor)
}

impl Bounds {
    pub(super) fn new() -> Bounds {
        let state =
            State { kinds: HashMap::new(), all: bucket(ALL, 1), details: bucket(ALL, DETAILS), left_out: 0 };
        let state = Mutex::new(state);
        Bounds(Arc::new(Shared { origin: Instant::now(), hashes: RandomState::new(), state }))
    }

    fn allows(&self, level: Level, site: Identifier, about: About, now: Duration) -> bool {
        if level == Level::ERROR {
            return true;
        }
        let factor = if level > Level::INFO { DETAILS } else { 1 };
        let kind = (site, about.subject.map_or(0, |subject| self.0.hashes.hash_one(subject)));
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        if state.kinds.len() >= KINDS_MAX && !state.kinds.contains_key(&kind) {
            state.forget(now);
        }
        let entry = state.kinds.entry(kind).or_insert_with(|| Entry {
            bucket: bucket(KIND, factor),
            last: now,
            left_out: 0,
            message: about.message,
        });
        entry.last = now;
        let all = if factor == 1 { &mut state.all } else { &mut state.details };
        let allowed = entry.bucket.take(now).is_ok() && all.take(now).is_ok();
        entry.left_out += u64::from(!allowed);
        allowed
    }

    /// Logs what was left out since the last time; lines of its own, and few.
    pub(super) fn tell(&self) {
        let mut left_out: Vec<(u64, String)> = Vec::new();
        let mut rest = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            for entry in state.kinds.values_mut().filter(|entry| entry.left_out > 0) {
                left_out.push((std::mem::take(&mut entry.left_out), entry.message.clone()));
            }
            std::mem::take(&mut state.left_out)
        };
        left_out.sort_by(|a, b| b.cmp(a));
        rest += left_out.iter().skip(NAMED_MAX).map(|(lines, _)| lines).sum::<u64>();
        let named = left_out.iter().take(NAMED_MAX).map(|(lines, message)| (*lines, message.as_str()));
        let rest = (rest > 0).then_some((rest, "others"));
        let told: Vec<String> =
            named.chain(rest).map(|(lines, what)| format!("{lines} of {what:?}")).collect();
        if !told.is_empty() {
            info!(lines = told.join(", "), "log lines were left out: too many alike");
        }
    }
}

impl State {
    /// Makes room: first what is quiet for long enough to have its burst again, then whatever is there.
    fn forget(&mut self, now: Duration) {
        let quiet = KIND.1 * KIND.0;
        let left_out = &mut self.left_out;
        self.kinds.retain(|_, entry| {
            let keep = entry.last + quiet > now;
            *left_out += if keep { 0 } else { entry.left_out };
            keep
        });
        if self.kinds.len() >= KINDS_MAX {
            *left_out += self.kinds.drain().map(|(_, entry)| entry.left_out).sum::<u64>();
        }
    }
}

impl<S: Subscriber> Layer<S> for Bounds {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let mut about = About::default();
        event.record(&mut about);
        let meta = event.metadata();
        self.allows(*meta.level(), meta.callsite(), about, self.0.origin.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any place in the source will do.
    fn site() -> Identifier {
        use tracing::Callsite;
        static CALLSITE: tracing::callsite::DefaultCallsite = tracing::callsite::DefaultCallsite::new(&META);
        static META: tracing::Metadata<'static> = tracing::metadata! {
            name: "site", target: "switch_agent", level: Level::INFO, fields: &[], callsite: &CALLSITE,
            kind: tracing::metadata::Kind::EVENT
        };
        CALLSITE.metadata().callsite()
    }

    fn count(bounds: &Bounds, level: Level, port: u32, lines: u32, now: Duration) -> usize {
        let about = || About { subject: Some(format!("Ethernet{port}")), message: "refused".to_owned() };
        (0..lines).filter(|_| bounds.allows(level, site(), about(), now)).count()
    }

    #[test]
    fn a_line_repeats_a_few_times_and_then_slowly() {
        let (bounds, start) = (Bounds::new(), Duration::from_secs(1000));
        assert_eq!(count(&bounds, Level::WARN, 0, 500, start), 20);
        assert_eq!(count(&bounds, Level::WARN, 4, 500, start), 20, "another port has its own");
        assert_eq!(count(&bounds, Level::WARN, 0, 500, start + KIND.1 * 3), 3);
        let state = bounds.0.state.lock().unwrap();
        assert_eq!(state.kinds.values().map(|entry| entry.left_out).sum::<u64>(), 480 + 480 + 497);
    }

    /// Whoever asks for details gets more of them, and not at the cost of other lines.
    #[test]
    fn details_have_bounds_of_their_own() {
        let (bounds, start) = (Bounds::new(), Duration::from_secs(1000));
        assert_eq!(count(&bounds, Level::DEBUG, 0, 5000, start), 20 * 50);
        let all: usize = (1..1000).map(|port| count(&bounds, Level::TRACE, port, 1000, start)).sum();
        assert_eq!(all, 3000 * 50 - 20 * 50);
        assert_eq!(count(&bounds, Level::INFO, 5000, 500, start), 20);
    }

    #[test]
    fn errors_are_never_left_out() {
        assert_eq!(count(&Bounds::new(), Level::ERROR, 0, 9999, Duration::from_secs(1000)), 9999);
    }

    #[test]
    fn all_ports_together_have_a_bound_as_well() {
        let (bounds, start) = (Bounds::new(), Duration::from_secs(1000));
        let hour = (0..360).map(|round| {
            let now = start + Duration::from_secs(10 * round);
            (0..512).map(|port| count(&bounds, Level::WARN, port, 2, now)).sum::<usize>()
        });
        let lines: usize = hour.sum();
        assert!((36_000..=39_000).contains(&lines), "{lines}");
    }

    #[test]
    fn kinds_are_bounded_in_number_and_none_is_lost_count_of() {
        let (bounds, start) = (Bounds::new(), Duration::from_secs(1000));
        let mut allowed = 0;
        for port in 0..3 * u32::try_from(KINDS_MAX).unwrap() {
            allowed += count(&bounds, Level::WARN, port, 1, start);
        }
        let state = bounds.0.state.lock().unwrap();
        assert!(state.kinds.len() <= KINDS_MAX);
        let left_out = state.left_out + state.kinds.values().map(|entry| entry.left_out).sum::<u64>();
        assert_eq!(allowed as u64 + left_out, 3 * KINDS_MAX as u64);
        assert_eq!(allowed, 3000);
    }
}

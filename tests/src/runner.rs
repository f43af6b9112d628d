//! Runs the cases one after the other: they share one lab and leave it as they found it.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cases::{self, Case};
use crate::failure::{Context, Failure, Result};
use crate::lab::{CONVERGENCE, Lab};

struct Outcome {
    name: String,
    elapsed: Duration,
    result: Result<()>,
}

pub(crate) fn list() {
    for case in [cases::all(), cases::long(), cases::about_firmware()].concat() {
        println!("{}", case.name());
    }
}

/// Runs the selected cases; `true` when none failed.
pub(crate) fn run(lab: Lab, filter: &str, settle: bool, result_file: Option<&Path>) -> Result<bool> {
    let wanted = |case: &Case| filter.split(',').any(|part| case.name().contains(part));
    let available = match (&lab.firmware, filter) {
        (Some(_), _) => cases::about_firmware(),
        (None, "") => cases::all(),
        (None, _) => [cases::all(), cases::long()].concat(),
    };
    let selected: Vec<Case> = available.into_iter().filter(wanted).collect();
    if selected.is_empty() {
        return Err(Failure(format!("no case is named like {filter:?}")));
    }
    // The first of all cases is about exactly this.
    if selected.first().is_some_and(|case| case.title != "the_lab_settles") {
        lab.settle(CONVERGENCE * 2)?;
    }
    let lab = Arc::new(lab);
    let mut outcomes = Vec::new();
    for case in selected {
        let outcome = run_case(&lab, case);
        report(&outcome);
        // A case that left the lab broken must not take its successors with it silently.
        if settle
            && outcome.result.is_err()
            && let Err(Failure(reason)) = lab.settle(CONVERGENCE / 2)
        {
            println!("# the lab did not settle after {}: {reason}", outcome.name);
        }
        outcomes.push(outcome);
        if let Some(path) = result_file {
            write_results(&outcomes, path)?;
        }
    }
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    Ok(failed == 0)
}

/// Runs a case on a thread of its own, so that one that hangs or panics fails alone.
fn run_case(lab: &Arc<Lab>, case: Case) -> Outcome {
    let start = Instant::now();
    let (sender, receiver) = mpsc::sync_channel(1);
    let shared = Arc::clone(lab);
    let run = case.run;
    thread::spawn(move || {
        let result = run(&shared);
        // The runner may have given up on this case.
        let _ = sender.send(result);
    });
    let result = match receiver.recv_timeout(case.limit) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(Failure(format!("still running after {:?}", case.limit))),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(Failure("the case panicked".into())),
    };
    Outcome { name: case.name(), elapsed: start.elapsed(), result }
}

fn report(outcome: &Outcome) {
    match &outcome.result {
        Ok(()) => println!("ok {} ({} ms)", outcome.name, outcome.elapsed.as_millis()),
        Err(reason) => println!("FAILED {}: {reason} ({} ms)", outcome.name, outcome.elapsed.as_millis()),
    }
}

fn write_results(outcomes: &[Outcome], path: &Path) -> Result<()> {
    let results: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "name": outcome.name,
                "ms": u64::try_from(outcome.elapsed.as_millis()).unwrap_or(u64::MAX),
                "error": outcome.result.as_ref().err().map(ToString::to_string),
            })
        })
        .collect();
    std::fs::write(path, json!({ "cases": results }).to_string()).context(|| path.display().to_string())
}

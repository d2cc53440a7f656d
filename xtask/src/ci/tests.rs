//! The order of the gate, and that it stops.

use std::{cell::RefCell, time::Duration};

use anyhow::{Result, bail};

use super::{Step, run_steps, summary};

type Log = RefCell<Vec<&'static str>>;

const STEPS: [Step<Log>; 3] = [("one", |log| note(log, "one")), ("two", two), ("three", three)];

fn note(log: &Log, name: &'static str) -> Result<()> {
    log.borrow_mut().push(name);
    Ok(())
}

fn two(log: &Log) -> Result<()> {
    note(log, "two")?;
    bail!("no luck")
}

fn three(log: &Log) -> Result<()> {
    note(log, "three")
}

#[test]
fn it_stops_at_the_first_failure() {
    let log = Log::default();
    let (passed, failure) = run_steps(&log, &STEPS);
    assert_eq!(log.take(), ["one", "two"]);
    assert_eq!(passed.len(), 1);
    let (name, error) = failure.unwrap();
    assert_eq!((name, error.to_string()), ("two", "no luck".to_owned()));
}

#[test]
fn all_steps_run_in_order() {
    let log = Log::default();
    let (passed, failure) = run_steps(&log, &[STEPS[0], STEPS[2]]);
    assert_eq!(log.take(), ["one", "three"]);
    assert_eq!(passed.len(), 2);
    assert!(failure.is_none());
}

#[test]
fn the_summary_has_a_line_for_each_step() {
    let passed = [Duration::from_millis(1250)];
    let table = summary(&passed, Some("two"), &STEPS);
    let words: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        words[1..4],
        [vec!["one", "1.2"], vec!["two", "FAILED"], vec!["three", "not", "run"]]
    );
}

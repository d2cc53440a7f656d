//! The gate: every check in a fixed order, each with its time, up to the first that fails.
//!
//! Never knows: which machine it runs on. It needs Cargo, a C++ compiler and Python 3 with pip, no
//! GPU.

mod package;

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, bail, ensure};

use crate::{
    e2e, kernels, readme, tidy,
    workspace::{Workspace, succeed},
};

/// A check of `C`, with the name that it is reported under.
type Step<C> = (&'static str, fn(&C) -> Result<()>);

/// Cheap ones first. All features wherever crates are built together, so that nothing is left out
/// and most artifacts are shared.
const STEPS: [Step<Workspace>; 11] = [
    ("fmt", |workspace| succeed(&mut workspace.cargo("fmt --all --check"))),
    ("tidy", tidy::run),
    ("clippy", |workspace| {
        let cargo = "clippy --workspace --all-targets --all-features -- -D warnings";
        succeed(&mut workspace.cargo(cargo))
    }),
    // Doc tests are part of it.
    ("readme test", readme_test),
    ("doc", |workspace| {
        let mut cargo = workspace.cargo("doc --workspace --all-features --no-deps");
        succeed(cargo.env("RUSTDOCFLAGS", "-Dwarnings"))
    }),
    ("alone", each_crate_alone),
    ("package", package::check),
    ("examples", examples),
    // Without `--bench` criterion runs each benchmark once, and does not measure.
    ("benches", |workspace| {
        succeed(&mut workspace.cargo("test --workspace --all-features --bench *"))
    }),
    ("kernels", |workspace| kernels::build(workspace, &kernels::Options::default()).map(drop)),
    ("e2e", |workspace| succeed(&mut e2e::command(workspace)?)),
];

/// Runs the gate; prints a summary at its end.
///
/// # Errors
/// If a step fails.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let (passed, failure) = run_steps(workspace, &STEPS);
    println!("\n{}", summary(&passed, failure.as_ref().map(|(name, _)| *name), &STEPS));
    match failure {
        Some((name, error)) => Err(error.context(format!("ci stopped at step `{name}`"))),
        None => Ok(()),
    }
}

/// Runs `steps` up to the first that fails. Returns the times of those that passed, and the
/// failure.
fn run_steps<C>(context: &C, steps: &[Step<C>]) -> (Vec<Duration>, Option<(&'static str, Error)>) {
    let mut passed = Vec::new();
    for (index, (name, check)) in steps.iter().enumerate() {
        println!("\n=== {}/{} {name}", index + 1, steps.len());
        let start = Instant::now();
        if let Err(error) = check(context) {
            return (passed, Some((name, error)));
        }
        let time = start.elapsed();
        println!("=== {name}: ok, {:.1} s", time.as_secs_f64());
        passed.push(time);
    }
    (passed, None)
}

/// One line per step: its name, and its time or why there is none.
fn summary<C>(passed: &[Duration], failed: Option<&str>, steps: &[Step<C>]) -> String {
    let mut table = format!("{:<12} {:>9}\n", "step", "seconds");
    for (index, (name, _)) in steps.iter().enumerate() {
        let result = match passed.get(index) {
            Some(time) => format!("{:.1}", time.as_secs_f64()),
            None if failed == Some(name) => "FAILED".to_owned(),
            None => "not run".to_owned(),
        };
        table.push_str(&format!("{name:<12} {result:>9}\n"));
    }
    let total: Duration = passed.iter().sum();
    table.push_str(&format!("{:<12} {:>9.1}\n", "passed", total.as_secs_f64()));
    table
}

/// Runs what the README tells a newcomer to run.
fn readme_test(workspace: &Workspace) -> Result<()> {
    let path = workspace.root().join("README.md");
    let text = fs::read_to_string(path).context("cannot read README.md")?;
    let words = readme::test_command(&text)?;
    let [program, args @ ..] = &words[..] else { bail!("README.md's test command is empty") };
    succeed(Command::new(program).args(args).current_dir(workspace.root()))
}

/// Checks each crate by itself: in company, Cargo unites the features that each asks for, and
/// hides that one forgot to ask.
fn each_crate_alone(workspace: &Workspace) -> Result<()> {
    for package in &workspace.metadata().packages {
        succeed(&mut workspace.cargo(&format!("check --package {}", package.name)))?;
    }
    Ok(())
}

/// Runs every example of every crate, in the dev profile, which the tests have built already.
fn examples(workspace: &Workspace) -> Result<()> {
    let examples = workspace.build("--workspace --all-features --examples")?;
    for pair in examples.windows(2) {
        ensure!(pair[0] != pair[1], "two crates share the example {}", pair[0].display());
    }
    for example in examples {
        succeed(Command::new(example).current_dir(workspace.root()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! `cargo xtask <command>`: builds, runs, tests and checks the workspace.
//!
//! Never knows: what the crates compute. It depends on none of them, starts Cargo, Python and the
//! built binary as child processes, and so builds in seconds. Unix only.
//!
//! # Reading order
//! 1. [`workspace`]: the workspace as Cargo sees it; how programs are built and started.
//! 2. [`tidy`]: the rules that neither rustc nor Clippy checks.
//! 3. [`readme`]: the test command that the README promises.
//! 4. [`kernels`]: the library of CUDA kernels.
//! 5. [`dist`]: all that is needed to run, in one archive.
//! 6. [`e2e`]: the end-to-end test, driven by Python.
//! 7. [`ci`]: the gate, made of all of the above.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool prints")]

mod workspace;

mod tidy;

mod readme;

mod kernels;

mod dist;

mod e2e;

mod ci;

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use crate::workspace::{Profile, Workspace};

/// Builds, runs, tests and checks the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, PartialEq, Subcommand)]
enum Task {
    /// Build the server in release, with kernels for the GPUs of this machine, and run it; every flag
    /// goes to `minisgl`, `--help` too
    #[command(disable_help_flag = true)]
    Serve(Passed),
    /// Build the server and say where the binary is
    Build {
        /// Build quickly and without optimization
        #[arg(long)]
        debug: bool,
    },
    /// Build the library of CUDA kernels and say where it is; sets up nvcc from PyPI if need be
    Kernels(kernels::Options),
    /// Pack the server, the kernels and their checks into one archive that needs no network
    Dist(kernels::Options),
    /// Run all tests of all crates, doc tests too; the arguments go to the test binaries
    Test(Passed),
    /// Check the rules that neither the compiler nor Clippy checks
    Tidy,
    /// Run the whole gate: format, tidy, lints, tests, docs, packages, examples, benches, kernels,
    /// e2e
    Ci,
    /// Build the server in release and run `minisgl doctor`
    #[command(disable_help_flag = true)]
    Doctor(Passed),
    /// Run the criterion benches of all crates; the arguments go to the benches. `bench offline` runs
    /// `minisgl bench offline`: the whole engine, without a network; `bench comm` its sums over ranks,
    /// `bench kernels` its single operations
    Bench(Passed),
    /// Test the release binary from outside with the OpenAI Python client
    E2e,
}

/// What follows the command and is not for us.
#[derive(Args, Debug, PartialEq)]
struct Passed {
    /// Passed on untouched
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::open()?;
    match task {
        Task::Serve(Passed { args }) => {
            kernels::build_for_this_machine(&workspace)?;
            let mut server = Command::new(workspace.build_server(Profile::Release)?);
            become_command(server.args(args))
        }
        Task::Build { debug } => {
            let profile = if debug { Profile::Dev } else { Profile::Release };
            let binary = workspace.build_server(profile)?;
            let bytes = binary.metadata()?.len();
            println!("{} ({:.1} MiB)", binary.display(), bytes as f64 / (1 << 20) as f64);
            Ok(())
        }
        Task::Kernels(options) => kernels::build(&workspace, &options).map(drop),
        Task::Dist(options) => dist::run(&workspace, &options),
        Task::Test(Passed { args }) => {
            // With all features, so that no test is left out for want of one.
            let mut cargo = workspace.cargo("test --workspace --all-features --");
            become_command(cargo.args(args))
        }
        Task::Tidy => tidy::run(&workspace),
        Task::Ci => ci::run(&workspace),
        Task::Doctor(Passed { args }) => {
            let mut server = Command::new(workspace.build_server(Profile::Release)?);
            become_command(server.arg("doctor").args(args))
        }
        // Of the whole server rather than of its layers.
        Task::Bench(Passed { args }) if is_of_server(&args) => {
            kernels::build_for_this_machine(&workspace)?;
            let mut server = Command::new(workspace.build_server(Profile::Release)?);
            become_command(server.arg("bench").args(args))
        }
        Task::Bench(Passed { args }) => {
            // `*` is for Cargo: all benches, but not the libraries' unit tests.
            let mut cargo = workspace.cargo("bench --workspace --all-features --bench * --");
            become_command(cargo.args(args))
        }
        Task::E2e => become_command(&mut e2e::command(&workspace)?),
    }
}

/// Whether these are arguments of `bench` that the server's own benchmarks have.
fn is_of_server(args: &[OsString]) -> bool {
    args.first().is_some_and(|arg| ["offline", "comm", "kernels"].iter().any(|name| arg == name))
}

/// Replaces this process, so that signals and the exit code need no forwarding.
fn become_command(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", workspace::command_line(command)))
}

#[cfg(test)]
mod tests;

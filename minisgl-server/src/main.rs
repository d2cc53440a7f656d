//! The binary `minisgl`: the command line, and what it starts.
//!
//! # Reading order
//! 1. [`args`], [`config`]: what was typed, and what it means.
//! 2. [`model_source`], [`launch`]: a model, a server, and its end.
//! 3. [`follow`], [`shell`], [`doctor`], [`mod@bench`]: what else there is to do.
//!    [`restarts`]: how often ranks are started again. [`startup`]: signals until then.
//! 4. [`logging`]: what is said meanwhile.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod config;
mod doctor;
mod follow;
mod launch;
mod logging;
mod model_source;
mod restarts;
mod shell;
mod startup;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser as _;

use crate::args::{Bench, Cli, Command};
use crate::config::{Config, Mode};
use crate::startup::Startup;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The last word, also if there is no log yet. If nobody listens, the code says it.
            let _ = writeln!(io::stderr(), "minisgl: {}", whole_story(&error));
            end_for_certain();
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each once: some errors say theirs themselves.
fn whole_story(error: &anyhow::Error) -> String {
    let mut story = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if story.ends_with(&cause) {
            continue;
        }
        let colon = if story.is_empty() { "" } else { ": " };
        story.push_str(colon);
        story.push_str(&cause);
    }
    story
}

fn run(cli: Cli) -> Result<()> {
    // In the shell the log is in the way of the chat.
    let quiet = cli.serve.shell.then_some("warn");
    logging::init(cli.serve.log_level.as_deref().or(quiet))?;
    let startup = Startup::watch()?;
    match cli.command {
        None => {}
        Some(Command::Doctor) => return doctor::run(),
        Some(Command::Bench(Bench::Offline(args))) => {
            return bench::offline(&Config::from_args(args.serve)?, &args.workload);
        }
        Some(Command::Bench(Bench::Comm(args))) => return bench::comm::comm(&args),
        Some(Command::Bench(Bench::Kernels(args))) => return bench::kernels::kernels(&args),
    }
    let config = Config::from_args(cli.serve)?;
    match &config.mode {
        Mode::Serve(serve) => launch::serve(&config, serve, &startup),
        Mode::Follow(follow) => follow::follow(&config, follow, &startup),
        Mode::Shell(shell) => shell::run(&config, shell, &startup),
    }
}

/// How long the end of the process may take.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends the process even if its end hangs: a GPU's driver may wait there for a kernel that never ends.
fn end_for_certain() {
    let end = || {
        std::thread::sleep(END_TIMEOUT);
        std::process::abort();
    };
    // Without a thread it ends as it can.
    let _ = std::thread::Builder::new().name("end".to_owned()).spawn(end);
}

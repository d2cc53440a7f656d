//! The rules of this workspace that neither rustc nor Clippy checks.
//!
//! Never knows: what the code computes. Each check is a pure function from what [`repository`]
//! read to a list of problems, and each reports all that it finds.
//!
//! # Reading order
//! 1. [`layers`]: which crate may depend on which; the table is the architecture.
//! 2. [`dependencies`]: which third-party packages each crate may use, and which crates are pure.
//! 3. [`manifests`]: what every manifest inherits from the workspace; read by [`toml`].
//! 4. [`docs`], [`length`], [`safety`], [`modules`]: the sources, as [`source`] sees them.
//! 5. [`files`]: sizes, names and words in all files.

mod layers;

mod dependencies;

mod manifests;

mod toml;

mod docs;

mod length;

mod safety;

mod modules;

mod source;

mod files;

mod repository;

use std::fmt;

use anyhow::{Result, ensure};

use self::repository::Repository;
use crate::workspace::Workspace;

/// A rule broken at a place: a path from the root, with a line number where there is one.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Problem {
    place: String,
    message: String,
}

impl Problem {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }

    fn at_line(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Runs every check and prints what is wrong.
///
/// # Errors
/// If the workspace cannot be read, or anything is wrong.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let repository = Repository::read(workspace)?;
    let problems = problems(&repository);
    for problem in &problems {
        println!("{problem}");
    }
    ensure!(problems.is_empty(), "tidy: {} problems", problems.len());
    println!("tidy: {} files, no problems", repository.files.len());
    Ok(())
}

fn problems(repository: &Repository) -> Vec<Problem> {
    let Repository { files, members, sources, manifest } = repository;
    let mut problems = layers::check(members, layers::LAYERS);
    problems.extend(dependencies::check(members, &dependencies::ALLOWED));
    problems.extend(dependencies::check_purity(sources));
    problems.extend(manifests::check(manifest, members));
    problems.extend(docs::check(sources));
    problems.extend(length::check(sources, length::LONG_FILES));
    problems.extend(safety::check(sources));
    problems.extend(modules::check(members, sources));
    problems.extend(files::check(files));
    problems.sort();
    problems
}

#[cfg(test)]
mod tests;

//! Files stay short enough to be read at one sitting.
//!
//! Never knows: tests and benches, which may be long.

use super::{Problem, source::Source};

/// The most lines that a file may have, blank lines and comments included, tests not.
const MAX_LINES: usize = 400;

/// Longer files that are allowed: the path, and the reason why the file cannot be split.
pub(super) const LONG_FILES: &[(&str, &str)] = &[];

const TABLE: &str = "xtask/src/tidy/length.rs";

/// Finds files that are too long, and entries of `long_files` that are not needed.
pub(super) fn check(sources: &[Source], long_files: &[(&str, &str)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| is_too_long(source)) {
        if !long_files.iter().any(|(path, _)| *path == source.path) {
            let num_lines = source.num_lines_without_tests();
            let message = format!("{num_lines} lines without tests, {MAX_LINES} are allowed");
            problems.push(Problem::new(&source.path, message));
        }
    }
    for (path, reason) in long_files {
        if !sources.iter().any(|source| source.path == *path && is_too_long(source)) {
            let message = format!("the entry for {path} ({reason}) is not needed");
            problems.push(Problem::new(TABLE, message));
        }
    }
    problems
}

fn is_too_long(source: &Source) -> bool {
    !source.is_test() && source.num_lines_without_tests() > MAX_LINES
}

#[cfg(test)]
mod tests;

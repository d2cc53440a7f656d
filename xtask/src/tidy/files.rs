//! Sizes, names and words in all files of the repository.
//!
//! Never knows: crates and languages.

use std::path::Path;

use super::{Problem, repository::File, source::lines_with};

/// The most bytes that a file may have: models and data sets do not belong into a repository.
const MAX_BYTES: u64 = 16 << 20;

/// Names that say nothing about what is in a folder or module.
const BANNED_NAMES: &[&str] = &["helper", "helpers", "util", "utils"];

/// Marks of unfinished work, spelled so that this file does not contain them.
const BANNED_WORDS: &[&str] = &[concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];

/// Holds every file to the rules above; words only in programs.
pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for File { path, bytes, program } in files {
        if *bytes > MAX_BYTES {
            let message = format!("{bytes} bytes, {MAX_BYTES} are allowed");
            problems.push(Problem::new(path, message));
        }
        // The name of a module's file counts like that of its folder.
        for name in Path::new(path.strip_suffix(".rs").unwrap_or(path)) {
            if BANNED_NAMES.iter().any(|banned| name == *banned) {
                let message = format!("`{}` names no subject", name.display());
                problems.push(Problem::new(path, message));
            }
        }
        for word in BANNED_WORDS {
            for line in lines_with(program.as_deref().unwrap_or_default(), word) {
                let message = format!("`{word}` marks unfinished work: finish it or open an issue");
                problems.push(Problem::at_line(path, line, message));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;

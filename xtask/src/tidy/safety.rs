//! Where `unsafe` may stand, and what no shipped code may say.
//!
//! Never knows: whether an `unsafe` block is right. Clippy asks for the argument, people judge it.

use super::{
    Problem,
    source::{Source, lines_with},
};

/// The crates that may say `unsafe`: in their sources, tests and benches, not in examples.
const UNSAFE_PACKAGES: &[&str] = &["minisgl-kernels", "minisgl-comm"];
const UNSAFE_FOLDERS: &[&str] = &["src", "tests", "benches"];

/// What the root file of every other crate says.
const FORBID: &str = "#![forbid(unsafe_code)]";

/// What shipped code must not say. Clippy knows these as well, but can be told to look away.
const BANNED: &[&str] = &[".unwrap()", "todo!", "unimplemented!", "dbg!"];

/// Holds every file to the rules above.
pub(super) fn check(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in sources {
        let mut path = source.path.split('/').skip(1);
        let (folder, file) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
        let may_be_unsafe = UNSAFE_PACKAGES.contains(&source.package.as_str());
        if !(may_be_unsafe && UNSAFE_FOLDERS.contains(&folder)) {
            for line in lines_with(&source.code, "unsafe") {
                let message = format!("`unsafe` belongs into {}", UNSAFE_PACKAGES.join(" or "));
                problems.push(Problem::at_line(&source.path, line, message));
            }
        }
        let is_root = folder == "src" && matches!(file, "lib.rs" | "main.rs");
        if is_root && !may_be_unsafe && lines_with(&source.code, FORBID).is_empty() {
            problems.push(Problem::new(&source.path, format!("`{FORBID}` is missing")));
        }
        if source.is_shipped() {
            let code = source.code_without_tests();
            for banned in BANNED {
                for line in lines_with(&code, banned) {
                    let message = format!("`{banned}` in shipped code");
                    problems.push(Problem::at_line(&source.path, line, message));
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;

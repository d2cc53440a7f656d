//! Every Rust file opens with its own documentation.
//!
//! Never knows: whether the documentation is any good.

use super::{Problem, source::Source};

/// Finds files that do not begin with `//!`, save for a `#!` line and `#![..]` attributes.
pub(super) fn check(sources: &[Source]) -> Vec<Problem> {
    let undocumented = sources.iter().filter(|source| !is_documented(source));
    let message = "begin the file with `//!`: what it is, and what it never knows";
    undocumented.map(|source| Problem::at_line(&source.path, 1, message)).collect()
}

fn is_documented(source: &Source) -> bool {
    let mut at = 0;
    loop {
        // The code says where an attribute ends, the text says whether a comment follows.
        let text = source.text[at..].trim_start();
        at = source.text.len() - text.len();
        let len = if text.starts_with("#![") {
            source.code[at..].find(']').map(|end| end + 1)
        } else if text.starts_with("#!") {
            text.find('\n')
        } else {
            return text.starts_with("//!");
        };
        let Some(len) = len else { return false };
        at += len;
    }
}

#[cfg(test)]
mod tests;

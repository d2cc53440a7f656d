//! The test command that the README promises.
//!
//! Never knows: what the command does.

use anyhow::{Context as _, Result};

/// What marks the command, whatever else is on its line.
const MARK: &str = "cargo xtask test";

/// The first line with `cargo xtask test` in a fenced code block of `readme`, as words, without
/// its prompt and comment.
///
/// # Errors
/// If no fenced block has such a line.
pub(crate) fn test_command(readme: &str) -> Result<Vec<&str>> {
    let mut fenced = false;
    let mut found = None;
    for line in readme.lines().map(str::trim) {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced && line.contains(MARK) {
            found = Some(line);
            break;
        }
    }
    let line = found.with_context(|| format!("README.md has no fenced block with `{MARK}`"))?;
    let command = line.strip_prefix("$ ").unwrap_or(line);
    Ok(command.split_whitespace().take_while(|word| !word.starts_with('#')).collect())
}

#[cfg(test)]
mod tests;

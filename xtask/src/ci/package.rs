//! What each crate would ship: its sources, its README, and nothing that lay around.
//!
//! Never knows: registries; nothing is packed or sent.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::{Workspace, command_line};

/// Endings of files that a crate may ship.
const ENDINGS: &[&str] = &[
    "c",
    "cu",
    "cuh",
    "h",
    "jinja",
    "json",
    "lock",
    "md",
    "py",
    "rs",
    "safetensors",
    "sh",
    "toml",
    "txt",
];

/// What Cargo adds to every package.
const ADDED_BY_CARGO: &[&str] = &[".cargo_vcs_info.json", "Cargo.toml.orig"];

/// Lists the package of each crate, and holds the lists to the rules.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    for package in &workspace.metadata().packages {
        let mut cargo =
            workspace.cargo(&format!("package --list --allow-dirty --package {}", package.name));
        let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
        ensure!(output.status.success(), "{} failed: {}", command_line(&cargo), output.status);
        let listing = String::from_utf8(output.stdout)?;
        let problems = problems(&listing);
        ensure!(problems.is_empty(), "the package {}: {}", package.name, problems.join("; "));
        println!("{}: {} files", package.name, listing.lines().count());
    }
    Ok(())
}

/// What is wrong with a package of these files, one path per line.
fn problems(listing: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for path in listing.lines().filter(|path| !ADDED_BY_CARGO.contains(path)) {
        let ending = Path::new(path).extension().and_then(|ending| ending.to_str());
        if !ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            problems.push(format!("{path} has an ending that no package needs"));
        }
    }
    if !listing.lines().any(|path| path == "README.md") {
        problems.push("README.md is missing".to_owned());
    }
    if !listing.lines().any(|path| path.starts_with("src/")) {
        problems.push("src is missing".to_owned());
    }
    problems
}

#[cfg(test)]
mod tests;

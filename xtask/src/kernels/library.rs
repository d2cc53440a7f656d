//! The shared library: linking it, and checking that what was linked is whole.
//!
//! Never knows: how objects are made.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::toolkit::Toolkit;

/// The C header: what the library exports.
const HEADER: &str = "minisgl_kernels.h";

/// Shows our functions and nothing of what is linked in.
const EXPORTS: &str = "{ global: msgl_*; local: *; };\n";

/// How it is linked: it needs the C library and no other.
const FLAGS: &[&str] = &[
    "-shared",
    "-static-libstdc++",
    "-static-libgcc",
    "-Wl,-Bsymbolic,--exclude-libs,ALL,--strip-debug,--no-undefined",
];

/// Loads the library without a GPU; see the script.
const CHECK: &str = include_str!("check.py");

/// Links `objects` to `libminisgl_kernels.so` in the folder `target`, unless it is of these objects
/// already.
pub(super) fn link(target: &Path, objects: &[PathBuf], toolkit: &Toolkit) -> Result<PathBuf> {
    let library = target.join("libminisgl_kernels.so");
    let stamp = target.join("linked.txt");
    let names: Vec<_> = objects.iter().map(|object| object.display().to_string()).collect();
    let state = format!("{FLAGS:?}\n{EXPORTS}{}\n{}\n", toolkit.identity, names.join("\n"));
    if library.is_file() && fs::read_to_string(&stamp).is_ok_and(|text| text == state) {
        return Ok(library);
    }
    let exports = target.join("exports.map");
    fs::write(&exports, EXPORTS).with_context(|| format!("cannot write {}", exports.display()))?;
    let unfinished = target.join(format!("libminisgl_kernels.{}.tmp", std::process::id()));
    let mut linker = Command::new("g++");
    linker.args(FLAGS).arg(format!("-Wl,--version-script={}", exports.display()));
    linker.arg("-o").arg(&unfinished).args(objects).arg(toolkit.static_runtime()?);
    let output = linker.args(["-ldl", "-lrt", "-lpthread"]).output().context("cannot run g++")?;
    ensure!(
        output.status.success(),
        "g++ cannot link the kernels: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&unfinished, &library)
        .and_then(|()| fs::write(&stamp, state))
        .with_context(|| format!("cannot write {}", library.display()))?;
    Ok(library)
}

/// Loads the library and calls it, on a machine that need not have a GPU; every function of the
/// header must be there.
pub(super) fn check(library: &Path, sources: &Path) -> Result<()> {
    let path = sources.join(HEADER);
    let header =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let functions = functions(&header);
    ensure!(!functions.is_empty(), "no function is declared in {HEADER}");
    let mut python = Command::new("python3");
    python.args(["-c", CHECK]).arg(library).args(functions);
    let status = python.status().context("cannot run python3")?;
    ensure!(status.success(), "{} does not work as its header says", library.display());
    Ok(())
}

/// The names of the functions that a header of ours declares: `msgl_..(`, outside of comments.
fn functions(header: &str) -> BTreeSet<&str> {
    let mut functions = BTreeSet::new();
    let mut rest = header;
    while let Some(at) = rest.find(['/', 'm']) {
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
            continue;
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len()).max(1);
        let (name, after) = rest.split_at(end);
        if name.starts_with("msgl_") && after.starts_with('(') {
            functions.insert(name);
        }
        rest = after;
    }
    functions
}

#[cfg(test)]
mod tests;

//! Reads what the checks need: the files of the repository and the metadata of its crates.
//!
//! Never knows: what is right or wrong about them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Package};

use super::source::Source;
use crate::workspace::Workspace;

/// All that the checks look at. Paths are relative to the root, with `/`.
pub(super) struct Repository {
    /// Every file.
    pub(super) files: Vec<File>,
    /// The crates, in the order of the root manifest.
    pub(super) members: Vec<Member>,
    /// The Rust files of the crates.
    pub(super) sources: Vec<Source>,
    /// The text of the root manifest.
    pub(super) manifest: String,
}

/// A file of any kind.
pub(super) struct File {
    pub(super) path: String,
    pub(super) bytes: u64,
    /// What is in it, if it is something that people write programs in.
    pub(super) program: Option<String>,
}

/// A crate of the workspace.
pub(super) struct Member {
    pub(super) name: String,
    /// Its folder, one level below the root.
    pub(super) folder: String,
    /// The text of its manifest.
    pub(super) manifest: String,
    /// The root files of its targets: library, binaries, examples, tests, benches, build script.
    pub(super) roots: Vec<String>,
    pub(super) dependencies: Vec<Dependency>,
}

impl Member {
    pub(super) fn manifest_path(&self) -> String {
        format!("{}/Cargo.toml", self.folder)
    }
}

/// What a manifest asks for, under its real name even if renamed, for any target.
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) kind: DependencyKind,
    /// Whether it lies in this repository.
    pub(super) is_local: bool,
}

/// The endings of programs.
const PROGRAMS: &[&str] = &["cu", "cuh", "py", "rs", "sh", "toml"];

/// What lies in the root folder but not in the repository, where Git cannot be asked.
const NOT_OURS: &[&str] = &[".git", "__pycache__", "target"];

impl Repository {
    /// Reads the repository of `workspace`.
    pub(super) fn read(workspace: &Workspace) -> Result<Self> {
        let root = workspace.root();
        let mut files = Vec::new();
        for path in paths(root)? {
            // A tracked file may be deleted, and a link leads out of the repository or back into it.
            if let Ok(metadata) = root.join(&path).symlink_metadata()
                && metadata.is_file()
            {
                let bytes = metadata.len();
                let program = is_program(&path).then(|| read_text(root, &path)).transpose()?;
                files.push(File { path, bytes, program });
            }
        }

        let packages = &workspace.metadata().packages;
        let members: Vec<_> =
            packages.iter().map(|package| member(root, package)).collect::<Result<_>>()?;
        let mut sources = Vec::new();
        for File { path, program, .. } in &files {
            let member = members.iter().find(|member| Path::new(path).starts_with(&member.folder));
            if let (Some(member), Some(text), true) = (member, program, path.ends_with(".rs")) {
                sources.push(Source::new(path, &member.name, text));
            }
        }
        Ok(Self { files, members, sources, manifest: read_text(root, "Cargo.toml")? })
    }
}

fn is_program(path: &str) -> bool {
    let ending = Path::new(path).extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| PROGRAMS.contains(&ending))
}

fn member(root: &Path, package: &Package) -> Result<Member> {
    let manifest_path = relative(root, package.manifest_path.as_std_path())?;
    let folder = manifest_path.strip_suffix("/Cargo.toml").filter(|folder| !folder.contains('/'));
    let folder =
        folder.with_context(|| format!("{manifest_path} is not one level below the root"))?;
    let mut roots = Vec::new();
    for target in &package.targets {
        roots.push(relative(root, target.src_path.as_std_path())?);
    }
    let dependency = |dependency: &cargo_metadata::Dependency| Dependency {
        name: dependency.name.clone(),
        kind: dependency.kind,
        is_local: dependency.path.is_some(),
    };
    Ok(Member {
        name: package.name.to_string(),
        folder: folder.to_owned(),
        manifest: read_text(root, &manifest_path)?,
        roots,
        dependencies: package.dependencies.iter().map(dependency).collect(),
    })
}

/// The paths of all files, sorted: what Git tracks or would add, or all that is there if Git is
/// not installed or does not know this folder.
fn paths(root: &Path) -> Result<Vec<String>> {
    let mut paths = match paths_from_git(root) {
        Some(paths) => paths,
        None => {
            let mut paths = Vec::new();
            walk(root, root, &mut paths)?;
            paths
        }
    };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn paths_from_git(root: &Path) -> Option<Vec<String>> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    let listing = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<_> =
        listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    // A copy inside another repository's ignored folder would seem to have no files.
    paths.iter().any(|path| path == "Cargo.toml").then_some(paths)
}

fn walk(root: &Path, folder: &Path, paths: &mut Vec<String>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(root, &entry.path(), paths)?;
        } else {
            paths.push(relative(root, &entry.path())?);
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> Result<String> {
    let path = path
        .strip_prefix(root)
        .with_context(|| format!("{} is outside the workspace", path.display()))?;
    Ok(path.to_str().context("a path is not UTF-8")?.to_owned())
}

fn read_text(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
mod tests;

//! Reading a made-up workspace, with Git and without.

use std::{fs, path::Path, process::Command};

use cargo_metadata::DependencyKind;
use tempfile::TempDir;

use super::{Dependency, Member, Repository, paths_from_git};
use crate::workspace::Workspace;

impl Member {
    /// A crate with nothing in it, for the tests of the checks.
    pub(in crate::tidy) fn made_up(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            folder: name.to_owned(),
            manifest: String::new(),
            roots: Vec::new(),
            dependencies: Vec::new(),
        }
    }

    /// The same crate with one more dependency.
    pub(in crate::tidy) fn needs(mut self, name: &str, kind: DependencyKind, local: bool) -> Self {
        self.dependencies.push(Dependency { name: name.to_owned(), kind, is_local: local });
        self
    }
}

fn made_up() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"b\", \"a\"]\n"),
        (".gitignore", "/ignored/\n/target/\n"),
        (
            "a/Cargo.toml",
            "[package]\nname = \"a\"\n[dev-dependencies]\nx = { package = \"b\", path = \"../b\" }\n",
        ),
        ("a/src/lib.rs", "//! A.\n"),
        ("a/tests/it/main.rs", "//! Tests of A.\n"),
        (
            "b/Cargo.toml",
            "[package]\nname = \"b\"\n[target.'cfg(unix)'.dependencies]\nserde = \"1\"\n",
        ),
        ("b/src/main.rs", "fn main() {}\n"),
        ("b/data.bin", "12345"),
        ("ignored/c.rs", ""),
        ("target/d.rs", ""),
    ] {
        write(folder.path(), path, text);
    }
    folder
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn read(folder: &TempDir) -> Repository {
    Repository::read(&Workspace::at(folder.path()).unwrap()).unwrap()
}

#[test]
fn members_have_their_targets_and_dependencies() {
    let Repository { members, sources, manifest, .. } = read(&made_up());
    assert!(manifest.starts_with("[workspace]"));
    let [b, a] = &members[..] else { panic!("{} members", members.len()) };

    assert_eq!((a.name.as_str(), a.folder.as_str()), ("a", "a"));
    assert_eq!(a.roots, ["a/src/lib.rs", "a/tests/it/main.rs"]);
    assert!(a.manifest.contains("name = \"a\""));
    let [renamed] = &a.dependencies[..] else { panic!("{} dependencies", a.dependencies.len()) };
    assert_eq!((renamed.name.as_str(), renamed.is_local), ("b", true));
    assert_eq!(renamed.kind, DependencyKind::Development);

    let [serde] = &b.dependencies[..] else { panic!("{} dependencies", b.dependencies.len()) };
    assert_eq!((serde.name.as_str(), serde.is_local), ("serde", false));

    let of: Vec<_> =
        sources.iter().map(|source| (source.path.as_str(), source.package.as_str())).collect();
    assert_eq!(of, [("a/src/lib.rs", "a"), ("a/tests/it/main.rs", "a"), ("b/src/main.rs", "b")]);
}

#[test]
fn without_git_all_files_are_listed_but_build_outputs() {
    let folder = made_up();
    assert_eq!(paths_from_git(folder.path()), None);
    let files = read(&folder).files;
    assert!(files.iter().any(|file| file.path == "ignored/c.rs"));
    assert!(!files.iter().any(|file| file.path.starts_with("target/")));
    let data = files.iter().find(|file| file.path == "b/data.bin").unwrap();
    assert_eq!((data.bytes, &data.program), (5, &None));
}

#[test]
fn git_says_what_belongs_to_the_repository() {
    let folder = made_up();
    let git = Command::new("git").arg("init").arg("--quiet").arg(folder.path()).status();
    if !git.is_ok_and(|status| status.success()) {
        assert_eq!(paths_from_git(folder.path()), None, "no Git, no listing");
        return;
    }
    let files = read(&folder).files;
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            ".gitignore",
            "Cargo.toml",
            "a/Cargo.toml",
            "a/src/lib.rs",
            "a/tests/it/main.rs",
            "b/Cargo.toml",
            "b/data.bin",
            "b/src/main.rs",
        ]
    );

    // A copy in an ignored folder is not Git's business, but ours.
    let copy = folder.path().join("ignored");
    write(&copy, "Cargo.toml", "");
    assert_eq!(paths_from_git(&copy), None);
}

#[test]
fn crates_lie_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"x/a\"]\n");
    write(folder.path(), "x/a/Cargo.toml", "[package]\nname = \"a\"\n");
    write(folder.path(), "x/a/src/lib.rs", "");
    let error = Repository::read(&Workspace::at(folder.path()).unwrap()).err().unwrap();
    assert_eq!(error.to_string(), "x/a/Cargo.toml is not one level below the root");
}

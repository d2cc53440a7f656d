//! Building and starting, with a made-up workspace.

use std::{fs, path::Path, process::Command};

use super::{Workspace, command_line, succeed};

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn the_open_workspace_has_this_package() {
    let workspace = Workspace::open().unwrap();
    assert!(workspace.metadata().packages.iter().any(|package| package.name == "xtask"));
    assert!(workspace.root().join("xtask/Cargo.toml").is_file());
}

#[test]
fn build_returns_what_cargo_made_and_reports_what_it_could_not() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"a\"]\n");
    write(folder.path(), "a/Cargo.toml", "[package]\nname = \"a\"\nedition = \"2024\"\n");
    write(folder.path(), "a/src/main.rs", "fn main() { std::process::exit(7) }\n");
    write(folder.path(), "a/examples/good.rs", "fn main() {}\n");
    let workspace = Workspace::at(folder.path()).unwrap();
    let target = format!("--workspace --target-dir {}/target", folder.path().display());

    let built = workspace.build(&format!("{target} --examples")).unwrap();
    assert_eq!(built.len(), 1);
    succeed(&mut Command::new(&built[0])).unwrap();

    let built = workspace.build(&target).unwrap();
    assert_eq!(built.len(), 1);
    let error = succeed(Command::new(&built[0]).arg("--now")).unwrap_err();
    assert_eq!(error.to_string(), "a --now failed: exit status: 7");

    write(folder.path(), "a/examples/bad.rs", "fn main() { missing() }\n");
    let error = workspace.build(&format!("{target} --examples")).unwrap_err();
    assert!(error.to_string().ends_with("failed: exit status: 101"), "{error}");
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let error = succeed(Command::new("/nowhere/frobnicate").arg("x")).unwrap_err();
    assert_eq!(error.to_string(), "cannot run frobnicate x");
}

#[test]
fn a_command_line_reads_as_typed() {
    let mut command = Command::new("/usr/bin/python3");
    assert_eq!(command_line(command.args(["-m", "venv"])), "python3 -m venv");
}

//! Packing made-up parts.

use std::{fs, process::Command};

use super::{Part, pack};

#[test]
fn an_archive_has_its_parts_and_the_script() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("some.txt");
    fs::write(&text, "text").unwrap();
    let part = |to: &str| Part { to: to.to_owned(), from: text.clone(), program: false };
    let target = folder.path().join("dist");
    // A second time, with less: nothing is left of the first.
    for parts in [vec![part("a.txt"), part("inner/old.txt")], vec![part("inner/b.txt")]] {
        // Any small program will do, as long as `strip` knows its form.
        let program = Part::program("program", "/bin/true".into());
        let parts: Vec<_> = parts.into_iter().chain([program]).collect();
        pack(&target, "all", &parts).unwrap();
    }
    let archive = target.join("all.tar.xz");
    let mut tar = Command::new("tar");
    let output = tar.args(["--list", "--file"]).arg(&archive).output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    let files: Vec<_> = listing.lines().filter(|line| !line.ends_with('/')).collect();
    assert_eq!(files, ["all/check.sh", "all/inner/b.txt", "all/program"]);
    let script = Command::new(target.join("all/check.sh")).output();
    assert!(script.is_ok(), "the script can be run");

    let missing = Part { to: "x".to_owned(), from: folder.path().join("none"), program: false };
    let error = pack(&target, "all", &[missing]).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

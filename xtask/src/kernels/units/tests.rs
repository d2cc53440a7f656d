//! Made-up folders of sources.

use std::{fs, path::Path};

use super::{Arch, included, list, quoted_includes};

fn archs(text: &str) -> Vec<Arch> {
    text.split(',').map(|arch| arch.parse().unwrap()).collect()
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn architectures_are_known_ones_in_order() {
    assert_eq!(Arch::sorted(&archs("120a,80,90a,80")), archs("80,90a,120a"));
    assert_eq!("75".parse::<Arch>().unwrap_err(), "there are 80,89,90a,100a,120a");
}

#[test]
fn only_quoted_includes_count() {
    let text =
        "#include <a.h>\n#include \"b.cuh\"\n  # include \"c.h\" // why\n// include \"d.h\"\n";
    assert_eq!(quoted_includes(text).collect::<Vec<_>>(), ["b.cuh", "c.h"]);
}

#[test]
fn includes_are_followed_once_even_in_circles() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.cu", "#include \"b.cuh\"\n#include \"c.h\"\n");
    write(folder.path(), "b.cuh", "#include \"c.h\"\n");
    write(folder.path(), "c.h", "#include \"b.cuh\"\n");
    write(folder.path(), "alone.cuh", "");
    let files = included(folder.path(), Path::new("a.cu")).unwrap();
    assert_eq!(files, ["a.cu", "b.cuh", "c.h"].map(Path::new));
    write(folder.path(), "d.cu", "#include \"missing.cuh\"\n");
    let error = included(folder.path(), Path::new("d.cu")).unwrap_err();
    assert!(error.to_string().contains("missing.cuh"), "{error}");
}

#[test]
fn hopper_files_are_for_hopper_alone() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["rows.cu", "fa3_64.cu", "rows.cuh", "notes.md"] {
        write(folder.path(), name, "");
    }
    let named = |text: &str| -> Vec<(String, usize, bool)> {
        let units = list(folder.path(), &archs(text)).unwrap();
        let codes = |flags: &[String]| flags.iter().filter(|f| f.starts_with("-gencode")).count();
        let hopper = |flags: &[String]| flags.contains(&"-DMSGL_HOPPER=1".to_owned());
        units.iter().map(|u| (u.name.clone(), codes(&u.flags), hopper(&u.flags))).collect()
    };
    assert_eq!(named("80,89"), [("rows".to_owned(), 2, false)]);
    assert_eq!(named("80,90a"), [("fa3_64".to_owned(), 1, true), ("rows".to_owned(), 2, true)]);
    // nvcc splits definitions at commas.
    let units = list(folder.path(), &archs("80,90a")).unwrap();
    assert!(units[1].flags.contains(&"-DMSGL_ARCHS=80_90a".to_owned()));
    assert!(list(&folder.path().join("none"), &archs("80")).is_err());
}

//! What changes a key and what does not; what is kept.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{KEPT_PER_UNIT, Objects, key};
use crate::kernels::units::Unit;

fn unit(flags: &[&str]) -> Unit {
    Unit {
        name: "a".to_owned(),
        file: PathBuf::from("a.cu"),
        flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        files: vec![PathBuf::from("a.cu"), PathBuf::from("b.cuh")],
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn a_key_is_of_content_flags_and_tools() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at, "a.cu", "one");
    write(at, "b.cuh", "two");
    write(at, "other.cuh", "three");
    let first = key(&unit(&["-O3"]), at, &["13.0"]).unwrap();

    write(at, "other.cuh", "four");
    write(at, "a.cu", "one"); // a new time, the same content
    assert_eq!(key(&unit(&["-O3"]), at, &["13.0"]).unwrap(), first);
    assert_ne!(key(&unit(&["-O2"]), at, &["13.0"]).unwrap(), first);
    assert_ne!(key(&unit(&["-O3"]), at, &["13.1"]).unwrap(), first);
    // What moves from one file to the next is a change, too.
    write(at, "a.cu", "onet");
    write(at, "b.cuh", "wo");
    assert_ne!(key(&unit(&["-O3"]), at, &["13.0"]).unwrap(), first);
    fs::remove_file(at.join("b.cuh")).unwrap();
    assert!(key(&unit(&["-O3"]), at, &["13.0"]).is_err());
}

#[test]
fn the_newest_objects_of_each_unit_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::open(&folder.path().join("objects")).unwrap();
    let start = SystemTime::UNIX_EPOCH;
    for age in 0..6 {
        for unit in ["a", "a_b"] {
            let file = fs::File::create(objects.path(unit, age)).unwrap();
            file.set_modified(start + Duration::from_secs(100 - age)).unwrap();
        }
    }
    objects.prune().unwrap();
    for unit in ["a", "a_b"] {
        let kept: Vec<_> = (0..6).filter(|&age| objects.path(unit, age).exists()).collect();
        assert_eq!(kept, (0..KEPT_PER_UNIT as u64).collect::<Vec<_>>());
    }
}

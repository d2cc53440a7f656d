//! The folders of pip's wheels, and files that are no libraries.

use std::fs;
use std::path::{Path, PathBuf};

use super::{LibrarySearch, NCCL, find, pip_folders};

/// A fresh folder of this process, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("minisgl-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that cannot be removed is left to the system's cleaning of temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_folders_of_wheels_are_found_in_order() {
    let prefix = Folder::new("pip-folders");
    let nccl = "lib/python3.12/site-packages/nvidia/nccl/lib";
    let cublas = "lib/python3.12/site-packages/nvidia/cublas/lib";
    let debian = "lib/python3/dist-packages/nvidia/cu13/lib";
    let others = ["lib/python2.7/site-packages/nvidia/nccl/lib", "lib/python3.12/nvidia/nccl/lib"];
    for folder in [nccl, cublas, debian].into_iter().chain(others) {
        fs::create_dir_all(prefix.0.join(folder)).unwrap();
    }
    // A wheel without libraries.
    fs::create_dir_all(prefix.0.join("lib/python3.12/site-packages/nvidia/empty")).unwrap();
    let want = [debian, cublas, nccl].map(|folder| prefix.0.join(folder));
    assert_eq!(pip_folders(&prefix.0), want);
    assert!(pip_folders(Path::new("/nowhere")).is_empty());
}

#[test]
fn a_file_that_is_no_library_is_named_only_if_the_user_named_it() {
    let prefix = Folder::new("no-library");
    let folder = prefix.0.join("lib/python3.12/site-packages/nvidia/nccl/lib");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("libnccl.so.2");
    fs::write(&file, b"not a library").unwrap();
    let search = LibrarySearch { python_prefixes: vec![prefix.0.clone()], ..Default::default() };
    let found = find(&NCCL, None, &search);
    assert!(found.as_ref().is_ok_and(|info| info.path.as_ref() != Some(&file)) || found.is_err());
    let refused = find(&NCCL, Some(&file), &search).unwrap_err();
    assert!(refused.contains("libnccl.so.2"), "{refused}");
}

//! Where the library is looked for, and which GPUs its code runs on.

use std::fs;

use super::{FILE, Kernels, archs, find, runs_on};
use crate::cuda::LibrarySearch;

#[test]
fn a_named_file_is_the_only_place() {
    let folder = std::env::temp_dir().join(format!("minisgl-kernels-find-{}", std::process::id()));
    let deps = folder.join("target/release/deps");
    fs::create_dir_all(&deps).unwrap();
    let program = deps.join("it-1234");
    let missing = find(None, Some(&program)).unwrap_err();
    assert!(missing.contains("cargo xtask kernels"), "{missing}");

    let built = folder.join("target/kernels");
    fs::create_dir_all(&built).unwrap();
    fs::write(built.join(FILE), b"no library").unwrap();
    assert_eq!(find(None, Some(&program)).unwrap(), built.join(FILE));
    assert_eq!(find(None, Some(&folder.join("target/release/minisgl"))), Ok(built.join(FILE)));

    fs::write(deps.join(FILE), b"no library").unwrap();
    assert_eq!(find(None, Some(&program)).unwrap(), deps.join(FILE), "beside comes first");

    let named = folder.join("elsewhere.so");
    let missing = find(Some(&named), Some(&program)).unwrap_err();
    assert!(missing.contains("elsewhere.so"), "{missing}");

    let search = LibrarySearch { kernels: Some(built.join(FILE)), ..Default::default() };
    let refused = Kernels::load(&search).unwrap_err();
    assert!(refused.contains(FILE) && !refused.contains('\n'), "{refused}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn code_runs_on_its_own_architecture() {
    let manifest = r#"{"abi": 1, "archs": ["80", "90a", "100f"], "attention": {"fi": [64]}}"#;
    assert_eq!(archs(manifest), ["80", "90a", "100f"]);
    assert!(archs("{}").is_empty());
    for (arch, capability, runs) in [
        ("80", (8, 0), true),
        ("80", (8, 9), true),
        ("89", (8, 6), false),
        ("80", (9, 0), false),
        ("90a", (9, 0), true),
        ("90", (9, 0), true),
        ("100a", (10, 3), false),
        ("100f", (10, 3), true),
        ("120a", (12, 0), true),
        ("", (9, 0), false),
    ] {
        assert_eq!(runs_on(arch, capability), runs, "{arch} on {capability:?}");
    }
}

//! Made-up files of any kind.

use super::{BANNED_WORDS, MAX_BYTES, check};
use crate::tidy::repository::File;

fn problems(path: &str, bytes: u64, program: Option<&str>) -> Vec<String> {
    let file = File { path: path.to_owned(), bytes, program: program.map(str::to_owned) };
    check(&[file]).iter().map(ToString::to_string).collect()
}

#[test]
fn large_files_are_found() {
    assert_eq!(problems("a/model.safetensors", MAX_BYTES, None), [""; 0]);
    let expected = ["a/model.safetensors: 16777217 bytes, 16777216 are allowed"];
    assert_eq!(problems("a/model.safetensors", MAX_BYTES + 1, None), expected);
}

#[test]
fn names_without_a_subject_are_found() {
    for path in ["a/src/utils/x.rs", "a/tests/it/helpers.rs", "util/x.py", "a/src/util.rs"] {
        assert_eq!(problems(path, 1, None).len(), 1, "{path}");
    }
    for path in ["a/src/utilization.rs", "a/src/test-util/x.rs", "a/utils.md"] {
        assert_eq!(problems(path, 1, None), [""; 0]);
    }
}

#[test]
fn marks_of_unfinished_work_are_found() {
    for word in BANNED_WORDS {
        let text = format!("fn f() {{}}\n// {word}: more\nlet s = \"{word}S {word}_A\";\n");
        let found = problems("a/src/x.rs", 1, Some(&text));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("a/src/x.rs:2: `{word}`")), "{found:?}");
    }
    assert_eq!(problems("a/src/x.rs", 1, Some("// A to-do list; todo!()")), [""; 0]);
}

//! Made-up files of many lines.

use super::{MAX_LINES, check};
use crate::tidy::source::Source;

fn source(path: &str, num_lines: usize) -> Source {
    Source::new(path, "a", &"// A line.\n".repeat(num_lines))
}

fn problems(sources: &[Source], long_files: &[(&str, &str)]) -> Vec<String> {
    check(sources, long_files).iter().map(ToString::to_string).collect()
}

#[test]
fn the_limit_is_inclusive() {
    assert_eq!(problems(&[source("a/src/lib.rs", MAX_LINES)], &[]), [""; 0]);
    let expected = ["a/src/lib.rs: 401 lines without tests, 400 are allowed"];
    assert_eq!(problems(&[source("a/src/lib.rs", MAX_LINES + 1)], &[]), expected);
    assert_eq!(problems(&[source("a/examples/x.rs", MAX_LINES + 1)], &[]).len(), 1);
}

#[test]
fn tests_and_benches_do_not_count() {
    let long = ["a/src/x/tests.rs", "a/tests/it/main.rs", "a/benches/x.rs"];
    assert_eq!(problems(&long.map(|path| source(path, 1000)), &[]), [""; 0]);

    let tail = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(1000));
    let text = "// A line.\n".repeat(MAX_LINES) + &tail;
    assert_eq!(problems(&[Source::new("a/src/lib.rs", "a", &text)], &[]), [""; 0]);
}

#[test]
fn an_entry_allows_a_file_as_long_as_it_is_needed() {
    let long_files = [("a/src/x.rs", "one table")];
    assert_eq!(problems(&[source("a/src/x.rs", 500)], &long_files), [""; 0]);
    let unneeded = "xtask/src/tidy/length.rs: the entry for a/src/x.rs (one table) is not needed";
    assert_eq!(problems(&[source("a/src/x.rs", 400)], &long_files), [unneeded]);
    assert_eq!(problems(&[], &long_files), [unneeded]);
}

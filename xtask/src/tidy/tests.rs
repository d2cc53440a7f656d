//! The checks on this workspace itself: `cargo test` keeps it tidy.

use super::{Problem, problems, repository::Repository};
use crate::workspace::Workspace;

#[test]
fn this_workspace_is_tidy() {
    let repository = Repository::read(&Workspace::open().unwrap()).unwrap();
    let problems: Vec<_> = problems(&repository).iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn a_problem_reads_as_place_and_message() {
    assert_eq!(
        Problem::at_line("a/src/lib.rs", 7, "too odd").to_string(),
        "a/src/lib.rs:7: too odd"
    );
}

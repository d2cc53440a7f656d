//! Made-up beginnings of files.

use super::check;
use crate::tidy::source::Source;

fn passes(text: &str) -> bool {
    check(&[Source::new("a/src/lib.rs", "a", text)]).is_empty()
}

#[test]
fn documentation_comes_first() {
    assert!(passes("//! What it is.\n"));
    assert!(passes("\n//! What it is.\n"));
    assert!(passes("#![forbid(unsafe_code)]\n\n//! What it is.\n"));
    assert!(passes("#![expect(\n    dead_code,\n    reason = \"a ]\"\n)]\n#![no_std]\n//! It.\n"));
    assert!(passes("#!/usr/bin/env run\n//! What it is.\n"));
}

#[test]
fn anything_else_first_is_found() {
    for text in ["", "// It.\n", "/// It.\n", "use x;\n//! It.\n", "#[x]\n//! It.\n", "#![x", "#!x"]
    {
        assert!(!passes(text), "{text}");
    }
    let problems = check(&[Source::new("a/src/lib.rs", "a", "fn main() {}")]);
    assert!(problems[0].to_string().starts_with("a/src/lib.rs:1: begin the file with `//!`"));
}

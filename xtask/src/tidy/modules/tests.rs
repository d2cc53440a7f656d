//! Made-up module trees.

use super::check;
use crate::tidy::{repository::Member, source::Source};

fn unreached(roots: &[&str], files: &[(&str, &str)]) -> Vec<String> {
    let mut member = Member::made_up("a");
    member.roots = roots.iter().map(|root| (*root).to_owned()).collect();
    let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, "a", text)).collect();
    check(&[member], &sources).into_iter().map(|problem| problem.place).collect()
}

#[test]
fn every_form_of_module_is_followed() {
    let files = [
        ("a/src/lib.rs", "pub mod radix;\n#[cfg(test)]\nmod tests;\nmod r#type;"),
        ("a/src/tests.rs", ""),
        ("a/src/type.rs", ""),
        ("a/src/radix.rs", "pub(crate) mod walk;\n"),
        ("a/src/radix/walk.rs", "mod tests;"),
        ("a/src/radix/walk/tests.rs", ""),
        ("a/tests/it/main.rs", "mod hits;\n"),
        ("a/tests/it/hits.rs", ""),
        ("a/build.rs", ""),
    ];
    let roots = ["a/src/lib.rs", "a/tests/it/main.rs", "a/build.rs"];
    assert_eq!(unreached(&roots, &files), [""; 0]);
}

#[test]
fn forgotten_files_are_found() {
    let files = [
        ("a/src/lib.rs", "// mod old;\nmod inline { }\nmod radix;"),
        ("a/src/old.rs", "mod older;"),
        ("a/src/old/older.rs", ""),
        ("a/src/radix.rs", "mod radix;"),
        ("a/src/walk.rs", ""),
        ("a/tests/it/misses.rs", ""),
    ];
    let expected = ["a/src/old.rs", "a/src/old/older.rs", "a/src/walk.rs", "a/tests/it/misses.rs"];
    assert_eq!(unreached(&["a/src/lib.rs"], &files), expected);
}

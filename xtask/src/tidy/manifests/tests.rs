//! Made-up manifests.

use super::check;
use crate::tidy::repository::Member;

const ROOT: &str = "\
[workspace.dependencies]
# Numbers.
half = \"2\"
rayon = { version = \"1\", default-features = false }

# Text.
serde = { version = \"1\", features = [
    \"derive\",
] }
";

const MEMBER: &str = "\
[package]
name = \"a\"
description = \"What it is.\"
readme = \"README.md\"
version.workspace = true
edition.workspace = true
rust-version = { workspace = true }
license.workspace = true
publish.workspace = true

[dependencies]
half.workspace = true
serde = { workspace = true, features = [\"rc\"] }

[target.'cfg(unix)'.dev-dependencies.rayon]
workspace = true

[lints]
workspace = true
";

fn problems(root: &str, manifest: &str) -> Vec<String> {
    let mut member = Member::made_up("a");
    member.manifest = manifest.to_owned();
    check(root, &[member]).iter().map(ToString::to_string).collect()
}

/// The problems after `old` was replaced by `new` in the member's manifest.
fn problems_with(old: &str, new: &str) -> Vec<String> {
    assert!(MEMBER.contains(old), "{old}");
    problems(ROOT, &MEMBER.replace(old, new))
}

#[test]
fn a_good_manifest_passes() {
    assert_eq!(problems(ROOT, MEMBER), [""; 0]);
}

#[test]
fn what_all_share_is_inherited() {
    for key in ["version", "edition", "license", "publish"] {
        let expected = format!("a/Cargo.toml: write `{key}.workspace = true`");
        let line = format!("\n{key}.workspace = true");
        for instead in [String::new(), format!("\n{key} = \"x\"")] {
            assert_eq!(problems_with(&line, &instead), [expected.as_str()]);
        }
    }
    for lints in ["", "[lints]\nworkspace = false\n", "[lints.rust]\nworkspace = true\n"] {
        let found = problems_with("[lints]\nworkspace = true\n", lints);
        assert_eq!(found, ["a/Cargo.toml: inherit the lints"]);
    }
}

#[test]
fn description_and_readme_are_given() {
    for (line, key) in
        [("description = \"What it is.\"", "description"), ("readme = \"README.md\"", "readme")]
    {
        let expected = format!("a/Cargo.toml: say the `{key}`");
        for instead in [String::new(), format!("{key} = \"\"")] {
            assert_eq!(problems_with(line, &instead), [expected.as_str()]);
        }
    }
}

#[test]
fn dependencies_are_inherited() {
    let expected = ["a/Cargo.toml: inherit half: `half.workspace = true`"];
    for own in [
        "half = \"2\"",
        "half = { version = \"2\" }",
        "half = { path = \"../half\" }",
        "half = { workspace = true, version = \"2\" }",
        "half.version = \"2\"",
    ] {
        assert_eq!(problems_with("half.workspace = true", own), expected, "{own}");
    }
    let old = "-dependencies.rayon]\nworkspace = true";
    let new = "-dependencies.rayon]\nversion = \"1\"";
    assert_eq!(problems_with(old, new), ["a/Cargo.toml: inherit rayon: `rayon.workspace = true`"]);
}

#[test]
fn a_shared_dependency_is_used() {
    let found = problems_with("half.workspace = true\n", "");
    assert_eq!(found, ["Cargo.toml:3: nobody uses half"]);
}

#[test]
fn a_shared_dependency_has_its_reason() {
    let root = ROOT.replace("# Text.\n", "");
    let expected = ["Cargo.toml:6: say above serde or its group why it is here"];
    assert_eq!(problems(&root, MEMBER), expected);

    let root = "# Dependencies.\n".to_owned() + &ROOT.replace("# Numbers.\n", "");
    let found = problems(&root, MEMBER);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("Cargo.toml:3: say above half"), "{found:?}");
}

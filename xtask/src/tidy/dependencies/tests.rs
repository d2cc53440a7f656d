//! Made-up crates and lists.

use cargo_metadata::DependencyKind::{self, Build, Development, Normal};

use super::{Allowed, AllowedIn, IMPURE, check, check_purity};
use crate::tidy::{repository::Member, source::Source};

const LIST: Allowed = Allowed {
    crates: &[
        AllowedIn { name: "low", normal: &["half"], dev: &["rand"] },
        AllowedIn { name: "top", normal: &["serde"], dev: &[] },
    ],
    dev: &["criterion"],
};

/// A crate with the third-party `dependencies`, and one in the workspace.
fn member(name: &str, dependencies: &[(&str, DependencyKind)]) -> Member {
    let member = Member::made_up(name).needs("local", Normal, true);
    dependencies.iter().fold(member, |member, (name, kind)| member.needs(name, *kind, false))
}

fn good() -> [Member; 2] {
    let low = [("half", Normal), ("half", Development), ("rand", Development)];
    [member("low", &low), member("top", &[("serde", Build), ("criterion", Development)])]
}

fn problems(members: &[Member]) -> Vec<String> {
    check(members, &LIST).iter().map(ToString::to_string).collect()
}

#[test]
fn listed_packages_pass() {
    assert_eq!(problems(&good()), [""; 0]);
}

#[test]
fn a_package_that_is_not_listed_is_found() {
    // Not listed at all; listed for another crate; listed for tests only.
    for (package, kind) in
        [("tokio", Development), ("serde", Normal), ("rand", Normal), ("criterion", Build)]
    {
        let [low, top] = good();
        let low = low.needs(package, kind, false);
        let expected = format!(
            "low/Cargo.toml: {package} ({kind}) is not allowed here; \
             the list is xtask/src/tidy/dependencies.rs"
        );
        assert_eq!(problems(&[low, top]), [expected]);
    }
    let [low, top] = good();
    assert_eq!(problems(&[low, top, member("more", &[("half", Normal)])]).len(), 1);
}

#[test]
fn an_unused_entry_is_found() {
    let members = [member("low", &[("half", Development)]), member("top", &[])];
    let expected = [
        "xtask/src/tidy/dependencies.rs: low may use half, but does not",
        "xtask/src/tidy/dependencies.rs: low may use rand, but does not",
        "xtask/src/tidy/dependencies.rs: top may use serde, but does not",
        "xtask/src/tidy/dependencies.rs: every crate may use criterion, but does not",
    ];
    assert_eq!(problems(&members), expected);
}

fn impurities(path: &str, text: &str) -> Vec<String> {
    let package = path.split('/').next().unwrap();
    check_purity(&[Source::new(path, package, text)]).iter().map(ToString::to_string).collect()
}

#[test]
fn pure_crates_touch_nothing_impure() {
    for (instead, word) in
        IMPURE.iter().flat_map(|(instead, words)| words.iter().map(move |word| (instead, word)))
    {
        let text = format!("// {word}\nuse x::{word}x;\nfn f() {{ \"{word}\"; {word} }}\n");
        let text = text.replace("time::x", "timex");
        let expected = format!("minisgl-sched/src/x.rs:3: `{word}`: {instead}");
        assert_eq!(impurities("minisgl-sched/src/x.rs", &text), [expected]);
        for path in [
            "minisgl-sched/tests/it/main.rs",
            "minisgl-sched/src/tests.rs",
            "minisgl-model/src/x.rs",
        ] {
            assert_eq!(impurities(path, &text), [""; 0]);
        }
    }
    assert_eq!(impurities("minisgl-cache/src/x.rs", "use std::time::Duration;").len(), 1);
    assert_eq!(impurities("minisgl-cache/src/x.rs", "use std::{fmt, time::Duration};").len(), 1);
}

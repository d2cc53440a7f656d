//! Made-up layers and edges.

use cargo_metadata::DependencyKind::{self, Build, Development, Normal};

use super::{LAYERS, Layer, check};
use crate::tidy::repository::Member;

const STACK: &[Layer] = &[
    Layer { name: "low", may_use: &[] },
    Layer { name: "mid", may_use: &["low"] },
    Layer { name: "top", may_use: &["mid"] },
];

/// A crate with edges to `below`, and one out of the workspace.
fn member(name: &str, below: &[(&str, DependencyKind)]) -> Member {
    let member = Member::made_up(name).needs("serde", Normal, false);
    below.iter().fold(member, |member, (name, kind)| member.needs(name, *kind, true))
}

fn good() -> [Member; 3] {
    [
        member("low", &[]),
        member("mid", &[("low", Normal), ("low", Development)]),
        member("top", &[("mid", Development)]),
    ]
}

fn problems(members: &[Member], layers: &[Layer]) -> Vec<String> {
    check(members, layers).iter().map(ToString::to_string).collect()
}

#[test]
fn allowed_edges_pass() {
    assert_eq!(problems(&good(), STACK), [""; 0]);
}

#[test]
fn an_edge_of_any_kind_must_be_allowed() {
    for kind in [Normal, Development, Build] {
        let mut members = good();
        members[2] = member("top", &[("mid", Normal), ("low", kind)]);
        members[0] = member("low", &[("top", kind)]);
        let expected = [
            format!("low/Cargo.toml: low must not depend on top ({kind})"),
            format!("top/Cargo.toml: top must not depend on low ({kind})"),
        ];
        assert_eq!(problems(&members, STACK), expected);
    }
}

#[test]
fn an_unused_edge_is_found() {
    let mut members = good();
    members[1] = member("mid", &[]);
    let expected = ["xtask/src/tidy/layers.rs: mid may use low, but does not"];
    assert_eq!(problems(&members, STACK), expected);
}

#[test]
fn table_and_members_must_agree() {
    let [low, mid, top] = good();
    let expected = ["more/Cargo.toml: more is missing in xtask/src/tidy/layers.rs"];
    assert_eq!(problems(&[low, mid, top, member("more", &[])], STACK), expected);

    let [low, mid, _] = good();
    let expected = ["xtask/src/tidy/layers.rs: top is not a member of the workspace"];
    assert_eq!(problems(&[low, mid], STACK), expected);

    let [low, mid, top] = good();
    let expected = ["Cargo.toml: the members are not in the order of xtask/src/tidy/layers.rs"];
    assert_eq!(problems(&[mid, low, top], STACK), expected);
}

#[test]
fn the_table_must_be_bottom_up() {
    let upside_down =
        [Layer { name: "mid", may_use: &["low"] }, Layer { name: "low", may_use: &[] }];
    let [low, mid, _] = good();
    let expected = ["xtask/src/tidy/layers.rs: mid may use low, which is not below it"];
    assert_eq!(problems(&[mid, low], &upside_down), expected);
    assert!(!LAYERS.is_empty());
}

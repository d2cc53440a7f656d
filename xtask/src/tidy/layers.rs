//! Which crate of the workspace may depend on which.
//!
//! Never knows: third-party packages. An edge is an edge, whatever its kind: normal, dev or build,
//! renamed, or for one target only. An edge that is allowed but not used is a problem as well, so
//! that the table stays the truth.

use super::{Problem, repository::Member};

/// A crate, and the crates that it may depend on.
pub(super) struct Layer {
    name: &'static str,
    may_use: &'static [&'static str],
}

/// Bottom-up, in the order of the workspace's members.
pub(super) const LAYERS: &[Layer] = &[
    Layer { name: "minisgl-kernels", may_use: &[] },
    Layer { name: "minisgl-comm", may_use: &["minisgl-kernels"] },
    Layer { name: "minisgl-cache", may_use: &["minisgl-kernels"] },
    Layer { name: "minisgl-sched", may_use: &["minisgl-cache"] },
    Layer {
        name: "minisgl-model",
        may_use: &["minisgl-kernels", "minisgl-comm", "minisgl-cache", "minisgl-sched"],
    },
    Layer { name: "minisgl-server", may_use: &["minisgl-sched", "minisgl-model"] },
    Layer { name: "xtask", may_use: &[] },
];

const TABLE: &str = "xtask/src/tidy/layers.rs";

/// Compares the edges between `members` with `layers`.
pub(super) fn check(members: &[Member], layers: &[Layer]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in members {
        match layers.iter().find(|layer| layer.name == member.name) {
            Some(layer) => check_edges(member, layer, &mut problems),
            None => {
                let message = format!("{} is missing in {TABLE}", member.name);
                problems.push(Problem::new(member.manifest_path(), message));
            }
        }
    }
    for (index, layer) in layers.iter().enumerate() {
        if !members.iter().any(|member| member.name == layer.name) {
            let message = format!("{} is not a member of the workspace", layer.name);
            problems.push(Problem::new(TABLE, message));
        }
        for used in layer.may_use {
            if !layers[..index].iter().any(|below| below.name == *used) {
                let message = format!("{} may use {used}, which is not below it", layer.name);
                problems.push(Problem::new(TABLE, message));
            }
        }
    }
    let members = members.iter().map(|member| member.name.as_str());
    if problems.is_empty() && !members.eq(layers.iter().map(|layer| layer.name)) {
        let message = format!("the members are not in the order of {TABLE}");
        problems.push(Problem::new("Cargo.toml", message));
    }
    problems
}

fn check_edges(member: &Member, layer: &Layer, problems: &mut Vec<Problem>) {
    let local = || member.dependencies.iter().filter(|dependency| dependency.is_local);
    for dependency in local() {
        if !layer.may_use.contains(&dependency.name.as_str()) {
            let (name, kind) = (&dependency.name, dependency.kind);
            let message = format!("{} must not depend on {name} ({kind})", member.name);
            problems.push(Problem::new(member.manifest_path(), message));
        }
    }
    for used in layer.may_use {
        if !local().any(|dependency| dependency.name == *used) {
            let message = format!("{} may use {used}, but does not", member.name);
            problems.push(Problem::new(TABLE, message));
        }
    }
}

#[cfg(test)]
mod tests;

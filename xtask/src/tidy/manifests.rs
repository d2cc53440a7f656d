//! What every manifest inherits from the workspace's.
//!
//! Never knows: which dependency is allowed where; see [`layers`](super::layers) and
//! [`dependencies`](super::dependencies).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Problem,
    repository::Member,
    toml::{self, Entry},
};

/// Keys of `[package]` that the workspace sets for all.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "publish"];

/// Keys of `[package]` that each crate sets for itself.
const OWN: &[&str] = &["description", "readme"];

/// The path of the root manifest.
const ROOT: &str = "Cargo.toml";

/// Holds the manifests of `members`, and the `root` manifest's list of dependencies, to the rules.
pub(super) fn check(root: &str, members: &[Member]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for member in members {
        let entries = toml::read(&member.manifest);
        let mut require = |holds: bool, message: String| {
            if !holds {
                problems.push(Problem::new(member.manifest_path(), message));
            }
        };
        require(is_true(&entries, &["lints", "workspace"]), "inherit the lints".to_owned());
        for key in INHERITED {
            let holds = is_true(&entries, &["package", key, "workspace"]);
            require(holds, format!("write `{key}.workspace = true`"));
        }
        for key in OWN {
            let value = value(&entries, &["package", key]);
            let is_said = value.is_some_and(|value| value != "\"\"");
            require(is_said, format!("say the `{key}`"));
        }
        for (path, keys) in dependencies(&entries) {
            let [.., name] = path else { continue };
            let inherits = keys.get("workspace").is_some_and(|value| *value == "true");
            let has_own = ["version", "path", "git"].iter().any(|key| keys.contains_key(key));
            let holds = inherits && !has_own;
            require(holds, format!("inherit {name}: `{name}.workspace = true`"));
            used.insert(name.clone());
        }
    }
    check_root(root, &used, &mut problems);
    problems
}

/// Finds shared dependencies that nobody uses, or that stand under no comment.
fn check_root(root: &str, used: &BTreeSet<String>, problems: &mut Vec<Problem>) {
    let lines: Vec<&str> = root.lines().map(str::trim).collect();
    let mut seen = BTreeSet::new();
    for Entry { path, line, .. } in &toml::read(root) {
        let [workspace, dependencies, name, ..] = &path[..] else { continue };
        if workspace != "workspace" || dependencies != "dependencies" || !seen.insert(name.clone())
        {
            continue;
        }
        if !used.contains(name) {
            problems.push(Problem::at_line(ROOT, *line, format!("nobody uses {name}")));
        }
        let above = lines[..line - 1].iter().rev();
        let mut group = above.take_while(|line| !line.is_empty() && !line.starts_with('['));
        if !group.any(|line| line.starts_with('#')) {
            let message = format!("say above {name} or its group why it is here");
            problems.push(Problem::at_line(ROOT, *line, message));
        }
    }
}

/// The dependencies of all kinds and targets: the path of each, which ends in its name, and its keys
/// with their values. One that is only a version has the key `version`.
fn dependencies(entries: &[Entry]) -> BTreeMap<&[String], BTreeMap<&str, &str>> {
    let mut dependencies: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for Entry { path, value, .. } in entries {
        let kind_at = if path.first().is_some_and(|first| first == "target") { 2 } else { 0 };
        let [kind, _name, keys @ ..] = path.get(kind_at..).unwrap_or_default() else { continue };
        if ["dependencies", "dev-dependencies", "build-dependencies"].contains(&kind.as_str()) {
            let key = keys.first().map_or("version", String::as_str);
            let keys = dependencies.entry(&path[..kind_at + 2]).or_default();
            keys.insert(key, value.as_str());
        }
    }
    dependencies
}

fn is_true(entries: &[Entry], path: &[&str]) -> bool {
    value(entries, path) == Some("true")
}

fn value<'a>(entries: &'a [Entry], path: &[&str]) -> Option<&'a str> {
    let entry = entries.iter().find(|entry| entry.path == path)?;
    Some(&entry.value)
}

#[cfg(test)]
mod tests;

//! Every Rust file of a crate is compiled: some `mod` leads to it from the root of a target.
//!
//! Never knows: `#[path]`, `include!`, and `mod a { mod b; }`; we do not write these.

use std::collections::{BTreeMap, BTreeSet};

use super::{Problem, repository::Member, source::Source};

/// Finds files that no chain of `mod` lines leads to.
pub(super) fn check(members: &[Member], sources: &[Source]) -> Vec<Problem> {
    let by_path: BTreeMap<&str, &Source> =
        sources.iter().map(|source| (source.path.as_str(), source)).collect();
    let mut reached = BTreeSet::new();
    for root in members.iter().flat_map(|member| &member.roots) {
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);
        reached.insert(root.clone());
        // Files whose modules are to be visited, and the folder where these lie.
        let mut open = vec![(root.clone(), folder.to_owned())];
        while let Some((path, folder)) = open.pop() {
            let Some(source) = by_path.get(path.as_str()) else { continue };
            for name in modules(&source.code) {
                let below = format!("{folder}/{name}");
                for path in [format!("{below}.rs"), format!("{below}/mod.rs")] {
                    if by_path.contains_key(path.as_str()) && reached.insert(path.clone()) {
                        open.push((path, below.clone()));
                    }
                }
            }
        }
    }
    let unreached = sources.iter().filter(|source| !reached.contains(&source.path));
    unreached.map(|source| Problem::new(&source.path, "no `mod` leads to this file")).collect()
}

/// The names in lines like `pub(crate) mod name;`.
fn modules(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.find(|word| *word == "mod")?;
        words.next()?.strip_suffix(';').map(|name| name.trim_start_matches("r#"))
    })
}

#[cfg(test)]
mod tests;

//! Which third-party packages each crate may use, and what the pure crates must not touch.
//!
//! Never knows: versions and features, which the root manifest sets once for all.

use cargo_metadata::DependencyKind;

use super::{
    Problem,
    repository::{Dependency, Member},
    source::{Source, lines_with},
};

/// The packages that may be used. One that is listed but not used is a problem, too.
pub(super) struct Allowed {
    crates: &'static [AllowedIn],
    /// What the tests and benches of any crate may use.
    dev: &'static [&'static str],
}

/// What one crate may use, build scripts included.
struct AllowedIn {
    name: &'static str,
    normal: &'static [&'static str],
    /// For its tests and benches alone.
    dev: &'static [&'static str],
}

/// The list. Add a package in a change of its own that says what it saves us.
pub(super) const ALLOWED: Allowed = Allowed {
    crates: &[
        AllowedIn {
            name: "minisgl-kernels",
            normal: &["cudarc", "half", "libloading", "memmap2", "rayon", "thiserror"],
            dev: &[],
        },
        AllowedIn {
            name: "minisgl-comm",
            normal: &["getrandom", "half", "hmac", "libloading", "sha2", "thiserror"],
            dev: &[],
        },
        AllowedIn { name: "minisgl-cache", normal: &["thiserror"], dev: &[] },
        AllowedIn { name: "minisgl-sched", normal: &["thiserror"], dev: &[] },
        AllowedIn {
            name: "minisgl-model",
            normal: &["half", "safetensors", "serde", "serde_json", "thiserror"],
            dev: &[],
        },
        AllowedIn {
            name: "minisgl-server",
            normal: &[
                "anyhow",
                "clap",
                "http-body-util",
                "hyper",
                "hyper-util",
                "indicatif",
                "minijinja",
                "minijinja-contrib",
                "percent-encoding",
                "rand_mt",
                "rustix",
                "rustyline",
                "serde",
                "serde_json",
                "sha2",
                "thiserror",
                "tokenizers",
                "tokio",
                "tracing",
                "tracing-subscriber",
                "ureq",
                "uuid",
            ],
            dev: &["nix"],
        },
        AllowedIn { name: "xtask", normal: &["anyhow", "cargo_metadata", "clap"], dev: &[] },
    ],
    dev: &["criterion", "proptest", "tempfile"],
};

/// Crates whose outcome is a function of their input alone.
const PURE_PACKAGES: &[&str] = &["minisgl-cache", "minisgl-sched"];

/// What makes an outcome depend on something else: what to do instead, and the words.
const IMPURE: &[(&str, &[&str])] = &[
    ("no clock here; take the time as a value", &["time::", "Instant", "SystemTime"]),
    ("no async here; return what is to be done", &["async", "await", "tokio"]),
    ("no wire format here; the outermost crate owns those", &["serde"]),
    (
        "no random order here; take a BTreeMap, a BTreeSet or a Vec by index",
        &["HashMap", "HashSet", "RandomState"],
    ),
];

const TABLE: &str = "xtask/src/tidy/dependencies.rs";

/// Compares what `members` use from outside the workspace with `allowed`.
pub(super) fn check(members: &[Member], allowed: &Allowed) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in members {
        let entry = allowed.crates.iter().find(|entry| entry.name == member.name);
        let (normal, dev) = entry.map_or((&[][..], &[][..]), |entry| (entry.normal, entry.dev));
        for Dependency { name, kind, .. } in third_party(member) {
            let name = name.as_str();
            let is_dev = *kind == DependencyKind::Development;
            let for_tests = is_dev && (dev.contains(&name) || allowed.dev.contains(&name));
            if !normal.contains(&name) && !for_tests {
                let message = format!("{name} ({kind}) is not allowed here; the list is {TABLE}");
                problems.push(Problem::new(member.manifest_path(), message));
            }
        }
    }

    let unused = |who: &str, package: &str| {
        Problem::new(TABLE, format!("{who} may use {package}, but does not"))
    };
    for entry in allowed.crates {
        let member = members.iter().find(|member| member.name == entry.name);
        for (packages, for_tests) in [(entry.normal, false), (entry.dev, true)] {
            for package in packages {
                if !member.is_some_and(|member| uses(member, package, for_tests)) {
                    problems.push(unused(entry.name, package));
                }
            }
        }
    }
    for package in allowed.dev {
        if !members.iter().any(|member| uses(member, package, true)) {
            problems.push(unused("every crate", package));
        }
    }
    problems
}

/// Whether `member` asks for `package`, as a dev-dependency or as one of the others.
fn uses(member: &Member, package: &str, for_tests: bool) -> bool {
    third_party(member).any(|Dependency { name, kind, .. }| {
        name == package && (*kind == DependencyKind::Development) == for_tests
    })
}

fn third_party(member: &Member) -> impl Iterator<Item = &Dependency> {
    member.dependencies.iter().filter(|dependency| !dependency.is_local)
}

/// Finds what the shipped code of the pure crates must not touch.
pub(super) fn check_purity(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_pure = |source: &&Source| PURE_PACKAGES.contains(&source.package.as_str());
    for source in sources.iter().filter(is_pure).filter(|source| source.is_shipped()) {
        let code = source.code_without_tests();
        for (instead, words) in IMPURE {
            for word in *words {
                for line in lines_with(&code, word) {
                    let message = format!("`{word}`: {instead}");
                    problems.push(Problem::at_line(&source.path, line, message));
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;

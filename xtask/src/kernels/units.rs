//! What is compiled: one object per `*.cu` file, with the flags for it.
//!
//! Never knows: where the toolkit and its headers are.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, ensure};

/// A GPU architecture that we compile for, as in `sm_90a`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Arch(&'static str);

impl Arch {
    /// Hopper, with the instructions that only it has.
    pub(super) const DEFAULT: Self = Self("90a");
    /// Oldest first: Ampere, Ada, Hopper, Blackwell for servers and for desktops.
    const ALL: [Self; 5] = [Self("80"), Self("89"), Self::DEFAULT, Self("100a"), Self("120a")];

    /// Each of `archs` once, oldest first.
    pub(super) fn sorted(archs: &[Self]) -> Vec<Self> {
        Self::ALL.into_iter().filter(|arch| archs.contains(arch)).collect()
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|arch| arch.0 == text);
        known.ok_or_else(|| format!("there are {}", comma_separated(&Self::ALL)))
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

fn comma_separated(archs: &[Arch]) -> String {
    archs.iter().map(|arch| arch.0).collect::<Vec<_>>().join(",")
}

/// Names of the files that only Hopper runs begin so.
const HOPPER_ONLY: &str = "fa3_";

/// Flags for every file. FlashInfer and CUTLASS need the relaxed and extended forms; the
/// suppressed diagnostics are theirs.
const FLAGS: &[&str] = &[
    "-O3",
    "-std=c++17",
    "-DNDEBUG",
    "--expt-relaxed-constexpr",
    "--expt-extended-lambda",
    "--compress-mode=size",
    "-static-global-template-stub=false",
    "-diag-suppress=177,186,550,1444,3287,3357,20012",
    "-Xcompiler=-fPIC",
];

/// One file to compile.
#[derive(Debug)]
pub(super) struct Unit {
    /// Its name without ending.
    pub(super) name: String,
    /// Its file name.
    pub(super) file: PathBuf,
    pub(super) flags: Vec<String>,
    /// What goes into it from the sources' folder: itself, and all that is included.
    pub(super) files: Vec<PathBuf>,
}

impl Unit {
    /// About how many bytes of memory the compiler takes at most, for so many architectures.
    pub(super) fn memory(&self, num_archs: usize) -> u64 {
        let mebibytes = if self.name.starts_with(HOPPER_ONLY) {
            3500
        } else if self.name.starts_with("fa2_") {
            // It compiles for one architecture after the other, and keeps some of each.
            800 + 100 * num_archs as u64
        } else {
            500 + 50 * num_archs as u64
        };
        mebibytes << 20
    }
}

/// The units of the folder `sources`, in the order of their names.
pub(super) fn list(sources: &Path, archs: &[Arch]) -> Result<Vec<Unit>> {
    let hopper = archs.contains(&Arch::DEFAULT);
    let mut units = Vec::new();
    let entries =
        fs::read_dir(sources).with_context(|| format!("cannot read {}", sources.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "cu") {
            continue;
        }
        let file = PathBuf::from(path.file_name().unwrap_or_default());
        let name = file.with_extension("").display().to_string();
        let only_hopper = name.starts_with(HOPPER_ONLY);
        if only_hopper && !hopper {
            continue;
        }
        let archs = if only_hopper { &[Arch::DEFAULT][..] } else { archs };
        let files = included(sources, &file)?;
        units.push(Unit { flags: flags(archs, hopper), name, file, files });
    }
    ensure!(!units.is_empty(), "there is no CUDA source in {}", sources.display());
    units.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(units)
}

fn flags(archs: &[Arch], hopper: bool) -> Vec<String> {
    let mut flags: Vec<String> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
    // nvcc would take what follows a comma for another definition.
    flags.push(format!("-DMSGL_ARCHS={}", comma_separated(archs).replace(',', "_")));
    flags.push(format!("-DMSGL_HOPPER={}", u8::from(hopper)));
    flags.extend(archs.iter().map(|arch| format!("-gencode=arch=compute_{arch},code=sm_{arch}")));
    flags
}

/// `file` and every file of the folder that it includes with quotes, directly or not.
fn included(sources: &Path, file: &Path) -> Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut open = vec![file.to_owned()];
    while let Some(file) = open.pop() {
        if found.contains(&file) {
            continue;
        }
        let path = sources.join(&file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        open.extend(quoted_includes(&text).map(PathBuf::from));
        found.insert(file);
    }
    Ok(found.into_iter().collect())
}

/// The names in lines such as `#include "name"`.
fn quoted_includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
        rest.trim_start().strip_prefix('"')?.split('"').next()
    })
}

#[cfg(test)]
mod tests;

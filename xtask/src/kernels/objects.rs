//! Compiled units, kept by a hash of all that they are made of.
//!
//! Never knows: how they are compiled.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};

use super::units::Unit;

/// How many objects of one unit are kept: those of the last few states of the sources, or sets of
/// architectures.
const KEPT_PER_UNIT: usize = 4;

/// The hash of a unit: of its flags, its files, and the `tools` that compile it. It may change with
/// the Rust toolchain, and then everything is compiled anew.
pub(super) fn key(unit: &Unit, sources: &Path, tools: &[&str]) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    (&unit.file, &unit.flags, tools).hash(&mut hasher);
    for file in &unit.files {
        let path = sources.join(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        (file, bytes).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// The folder of the objects.
pub(super) struct Objects {
    folder: PathBuf,
}

impl Objects {
    /// Opens the folder; makes it if need be.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Where the object of a unit is, or will be.
    pub(super) fn path(&self, unit: &str, key: u64) -> PathBuf {
        self.folder.join(format!("{unit}.{key:016x}.o"))
    }

    /// Removes all but the newest objects of each unit, and what an interrupted build has left.
    pub(super) fn prune(&self) -> Result<()> {
        let mut units: BTreeMap<String, Vec<(SystemTime, PathBuf)>> = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().display().to_string();
            let unit = name.split('.').next().unwrap_or_default().to_owned();
            units.entry(unit).or_default().push((entry.metadata()?.modified()?, entry.path()));
        }
        for mut objects in units.into_values() {
            objects.sort();
            let old = objects.len().saturating_sub(KEPT_PER_UNIT);
            for (_, path) in objects.drain(..old) {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

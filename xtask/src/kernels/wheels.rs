//! Pinned wheels from PyPI, checked by hash and unpacked into a cache folder.
//!
//! Never knows: what is in them, beyond which folders are wanted.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::workspace::succeed;

/// Unpacks what begins with one of the given prefixes, and keeps the permission to run programs.
const UNPACK: &str = "\
import glob, os, sys, zipfile
wheels, target, *prefixes = sys.argv[1:]
for wheel in glob.glob(os.path.join(wheels, '*.whl')):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.filename.startswith(tuple(prefixes)):
                path = archive.extract(member, target)
                mode = member.external_attr >> 16
                if mode & 0o111 and os.path.isfile(path):
                    os.chmod(path, 0o755)
";

/// A set of wheels.
pub(super) struct Wheels {
    /// What it is called in messages, and what its folder's name begins with.
    pub(super) name: &'static str,
    /// pip's requirements, each with a version and hashes.
    pub(super) requirements: &'static str,
    /// Which paths in the wheels are wanted: those that begin so.
    pub(super) prefixes: &'static [&'static str],
}

impl Wheels {
    /// Downloads and unpacks the wheels unless they are there; returns their folder. `finish` may
    /// add to it before others see it.
    pub(super) fn install(&self, finish: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
        let cache = cache_folder()?;
        let folder = cache.join(format!("{}-{:016x}", self.name, self.identity()));
        if folder.is_dir() {
            return Ok(folder);
        }
        println!("{}: not found; downloading it from PyPI to {}", self.name, folder.display());
        // Made under another name and renamed, so that what is there is whole.
        let unfinished = cache.join(format!("{}-{}.tmp", self.name, std::process::id()));
        let result = self.unpack(&unfinished).and_then(|()| finish(&unfinished));
        if let Err(error) = result {
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        match fs::rename(&unfinished, &folder) {
            Ok(()) => Ok(folder),
            // Somebody else was faster.
            Err(_) if folder.is_dir() => {
                fs::remove_dir_all(&unfinished).context("cannot remove a second download")?;
                Ok(folder)
            }
            Err(error) => Err(error).with_context(|| format!("cannot make {}", folder.display())),
        }
    }

    /// Names these wheels and what is taken of them.
    pub(super) fn identity(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        (self.requirements, self.prefixes, UNPACK).hash(&mut hasher);
        hasher.finish()
    }

    fn unpack(&self, folder: &Path) -> Result<()> {
        let wheels = folder.join("wheels");
        fs::create_dir_all(&wheels)
            .with_context(|| format!("cannot create {}", wheels.display()))?;
        let requirements = wheels.join("requirements.txt");
        fs::write(&requirements, self.requirements)
            .with_context(|| format!("cannot write {}", requirements.display()))?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"]);
        pip.args(["--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest"]);
        succeed(pip.arg(&wheels).arg("--requirement").arg(&requirements)).with_context(|| {
            format!(
                "cannot download {}; the pinned wheels are for Linux on x86-64, and python3 must \
                 have pip and a way to PyPI",
                self.name
            )
        })?;
        let mut python = Command::new("python3");
        python.args(["-c", UNPACK]).arg(&wheels).arg(folder).args(self.prefixes);
        let status = python.status().context("cannot run python3")?;
        anyhow::ensure!(status.success(), "cannot unpack the wheels of {}: {status}", self.name);
        fs::remove_dir_all(&wheels).context("cannot remove the wheels")
    }
}

/// `$XDG_CACHE_HOME/minisgl`, or `~/.cache/minisgl`: all copies of this repository share it.
fn cache_folder() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => {
            env::home_dir().context("there is no home folder, nor XDG_CACHE_HOME")?.join(".cache")
        }
    };
    let folder = base.join("minisgl");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

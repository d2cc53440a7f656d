//! `cargo xtask dist`: one archive that runs on a machine without Rust, CUDA toolkit or network.
//!
//! Never knows: how its parts are built.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    kernels,
    workspace::{Profile, Workspace, succeed},
};

/// The most bytes that the archive may have.
const MAX_BYTES: u64 = 60 << 20;

/// The tests that go along, by their name there and what cargo knows them as: they need no files of
/// the repository but [`GOLDEN`].
const CHECKS: &[(&str, &str)] = &[
    ("minisgl-kernels", "--package minisgl-kernels --test it"),
    ("minisgl-comm", "--package minisgl-comm --test it"),
    ("minisgl-model", "--package minisgl-model --test it"),
    ("minisgl-model-faults", "--package minisgl-model --lib"),
];

/// The checkpoints and expected outputs that the model's tests read; the folder in the archive is
/// named to them by the script.
const GOLDEN: (&str, &str) = ("minisgl-model/tests/golden", "checks/golden");

/// Files of the root folder that go along.
const DOCUMENTS: &[&str] = &["LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// Checks a machine's GPUs with what lies beside it, then times them.
const SCRIPT: (&str, &str) = ("check-gpu.sh", include_str!("dist/check-gpu.sh"));

/// Builds everything, packs it, and says where the archive is.
///
/// # Errors
/// If something cannot be built or packed, or the archive is too large.
pub(crate) fn run(workspace: &Workspace, options: &kernels::Options) -> Result<()> {
    let mut parts = vec![
        Part::program("minisgl", workspace.build_server(Profile::Release)?),
        Part::program("kernels/libminisgl_kernels.so", kernels::build(workspace, options)?),
    ];
    for (name, which) in CHECKS {
        let tests = workspace.build_tests(&format!("--release {which}"))?;
        let [test] = &tests[..] else {
            anyhow::bail!("there are {} test binaries of {which}", tests.len())
        };
        parts.push(Part::program(&format!("checks/{name}"), test.clone()));
    }
    for document in DOCUMENTS {
        parts.push(Part::data(document, workspace.root().join(document)));
    }
    let (from, to) = GOLDEN;
    parts.extend(data_files(&workspace.root().join(from), to)?);

    let folder = workspace.metadata().target_directory.as_std_path().join("dist");
    let archive = pack(&folder, "minisgl", &parts)?;
    let bytes = archive.metadata()?.len();
    ensure!(bytes <= MAX_BYTES, "{} has {bytes} bytes, {MAX_BYTES} are allowed", archive.display());
    println!("{} ({:.1} MiB)", archive.display(), bytes as f64 / (1 << 20) as f64);
    Ok(())
}

/// A file of the archive.
struct Part {
    /// Its path there.
    to: String,
    from: PathBuf,
    /// Whether it is machine code, which goes without what only a debugger reads.
    program: bool,
}

impl Part {
    fn program(to: &str, from: PathBuf) -> Self {
        Self { to: to.to_owned(), from, program: true }
    }

    fn data(to: &str, from: PathBuf) -> Self {
        Self { to: to.to_owned(), from, program: false }
    }
}

/// What tests read of the folder `from`, which is JSON and tensors, but not what made it; as parts
/// of the folder `to`.
fn data_files(from: &Path, to: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let to = format!("{to}/{name}");
        if path.is_dir() {
            parts.extend(data_files(&path, &to)?);
        } else if [".json", ".safetensors"].iter().any(|end| name.ends_with(end)) {
            parts.push(Part::data(&to, path));
        }
    }
    Ok(parts)
}

/// Lays out the parts in `folder/name`, and packs them to `folder/name.tar.xz`.
fn pack(folder: &Path, name: &str, parts: &[Part]) -> Result<PathBuf> {
    let root = folder.join(name);
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    for Part { to, from, program } in parts {
        let to = root.join(to);
        fs::create_dir_all(to.parent().unwrap_or(&root))
            .and_then(|()| fs::copy(from, &to))
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        if *program {
            succeed(Command::new("strip").arg("--strip-debug").arg(&to))?;
        }
    }
    let (script, text) = SCRIPT;
    write_script(&root.join(script), text)?;
    let archive = folder.join(format!("{name}.tar.xz"));
    let mut tar = Command::new("tar");
    // Whoever built it is of no interest.
    tar.args(["--create", "--xz", "--owner=0", "--group=0", "--numeric-owner", "--sort=name"]);
    succeed(tar.arg("--file").arg(&archive).arg("--directory").arg(folder).arg(name))?;
    Ok(archive)
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;

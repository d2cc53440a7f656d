//! `cargo xtask kernels`: builds `libminisgl_kernels.so` from `minisgl-kernels/csrc`.
//!
//! Never knows: what the kernels compute. It needs a C++ compiler (`g++`), and either a CUDA toolkit
//! or a Python 3 with pip and a way to PyPI; no GPU.
//!
//! # Reading order
//! 1. [`toolkit`]: the CUDA toolkit and the FlashInfer headers, found or set up.
//! 2. [`units`]: what is compiled, with which flags, and which files it is made of.
//! 3. [`objects`]: compiled units are kept by a hash of all that they are made of.
//! 4. [`schedule`]: compiling in parallel within the machine's memory.
//! 5. [`library`]: linking, and the check that what was linked is whole.

mod here;
mod library;
mod objects;
mod schedule;
mod toolkit;
mod units;
mod wheels;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    objects::Objects,
    schedule::Job,
    toolkit::{Headers, Toolkit},
    units::{Arch, Unit},
};
use crate::workspace::{Workspace, command_line};

/// Where the sources lie, from the root.
const SOURCES: &str = "minisgl-kernels/csrc";

/// What to build.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Options {
    /// GPU architectures to compile for: of 80, 89, 90a, 100a, 120a
    #[arg(long, value_name = "ARCH", value_delimiter = ',', default_value = "90a")]
    arch: Vec<Arch>,
    /// Compile at most this many files at once [default: one per core, as memory allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self { arch: vec![Arch::DEFAULT], jobs: None }
    }
}

/// Builds the library for the GPUs of this machine, if there are any.
///
/// # Errors
/// As for [`build`].
pub(crate) fn build_for_this_machine(workspace: &Workspace) -> Result<()> {
    let arch = here::archs();
    if arch.is_empty() {
        return Ok(());
    }
    build(workspace, &Options { arch, jobs: None }).map(drop)
}

/// Builds the library and checks it; returns where it is.
///
/// # Errors
/// If there is no toolkit and none can be set up, or something does not compile or link.
pub(crate) fn build(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    let start = Instant::now();
    let sources = workspace.root().join(SOURCES);
    let target = workspace.metadata().target_directory.as_std_path().join("kernels");
    let toolkit = Toolkit::find_or_install()?;
    println!("CUDA {} in {}", toolkit.version, toolkit.home.display());
    let headers = Headers::install()?;

    let archs = Arch::sorted(&options.arch);
    let units = units::list(&sources, &archs)?;
    let objects = Objects::open(&target.join("objects"))?;
    let compiler = Compiler { sources: &sources, toolkit: &toolkit, headers: &headers };
    let mut missing = Vec::new();
    let mut linked = Vec::new();
    for unit in &units {
        let key = objects::key(unit, &sources, &[&toolkit.identity, &headers.identity])?;
        let object = objects.path(&unit.name, key);
        if !object.is_file() {
            missing.push(Job { item: (unit, object.clone()), bytes: unit.memory(archs.len()) });
        }
        linked.push(object);
    }

    let cores = thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.jobs.map_or(cores, usize::from);
    let budget = schedule::available_memory();
    let count = missing.len();
    schedule::run(missing, jobs, budget, |(unit, object)| {
        let start = Instant::now();
        compiler.compile(unit, &object)?;
        println!("{}: {:.1} s", unit.name, start.elapsed().as_secs_f64());
        Ok(())
    })?;

    let library = library::link(&target, &linked, &toolkit)?;
    objects.prune()?;
    library::check(&library, &sources)?;
    println!(
        "{} ({:.1} MiB; {count} of {} files compiled, {:.1} s)",
        library.display(),
        library.metadata()?.len() as f64 / (1 << 20) as f64,
        units.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(library)
}

/// All that the compiler is called with but the unit.
struct Compiler<'a> {
    sources: &'a Path,
    toolkit: &'a Toolkit,
    headers: &'a Headers,
}

impl Compiler<'_> {
    /// Compiles to a file beside `object`, which appears only if all went well.
    fn compile(&self, unit: &Unit, object: &Path) -> Result<()> {
        let unfinished = object.with_extension(format!("{}.tmp", std::process::id()));
        let mut nvcc = Command::new(self.toolkit.nvcc());
        nvcc.current_dir(self.sources).args(&unit.flags);
        for folder in &self.headers.folders {
            nvcc.arg("-I").arg(folder);
        }
        nvcc.arg("-c").arg(&unit.file).arg("-o").arg(&unfinished);
        let output = nvcc.output().context("cannot run nvcc")?;
        if !output.status.success() {
            bail!(
                "{} failed: {}\n{}{}",
                command_line(&nvcc),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        fs::rename(&unfinished, object)
            .with_context(|| format!("cannot write {}", object.display()))
    }
}

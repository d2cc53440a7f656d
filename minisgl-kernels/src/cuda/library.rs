//! Finding NVIDIA's shared libraries: installed for the system, or by pip.
//!
//! Never knows: what the libraries compute; it asks each for its version.

use std::ffi::c_int;
use std::path::{Path, PathBuf};

use libloading::Library;

/// Where to look beside the system's own library folders.
#[derive(Clone, Debug, Default)]
pub struct LibrarySearch {
    /// Python installations or virtual environments (such as `$VIRTUAL_ENV`, `$CONDA_PREFIX`,
    /// `/usr`), into which pip may have put NVIDIA's wheels.
    pub python_prefixes: Vec<PathBuf>,
    /// The NCCL library itself, if the user named it. Then no other is tried.
    pub nccl: Option<PathBuf>,
    /// The kernels library itself, if the user named it. Then no other is tried; otherwise it is
    /// looked for beside the program and in the target folder it was built in.
    pub kernels: Option<PathBuf>,
}

/// A library that was found and could be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryInfo {
    /// Its file; `None` if the system's loader found it.
    pub path: Option<PathBuf>,
    /// What it says its version is, such as `"2.28.9"`.
    pub version: String,
}

/// A library and how to ask it for its version.
pub(super) struct Wanted {
    /// What people call it.
    name: &'static str,
    /// File names to try, the newest first.
    files: &'static [&'static str],
    /// What to do if there is none.
    advice: &'static str,
    version: fn(&Library) -> Result<String, libloading::Error>,
}

pub(super) const CUBLASLT: Wanted = Wanted {
    name: "cuBLASLt",
    files: &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
    advice: "install CUDA, or pip install nvidia-cublas",
    version: cublaslt_version,
};

pub(super) const NVRTC: Wanted = Wanted {
    name: "NVRTC",
    files: &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
    advice: "install CUDA, or pip install nvidia-cuda-nvrtc",
    version: nvrtc_version,
};

pub(super) const NCCL: Wanted = Wanted {
    name: "NCCL",
    files: &["libnccl.so.2", "libnccl.so"],
    advice: "install NCCL, or pip install nvidia-nccl-cu13",
    version: nccl_version,
};

/// Finds NCCL for the crate that calls it.
///
/// # Errors
/// A sentence that says how to get it.
pub fn find_nccl(search: &LibrarySearch) -> Result<LibraryInfo, String> {
    find(&NCCL, search.nccl.as_deref(), search)
}

/// Loads the library from `named`, or else from the first place that has it, and asks for its
/// version.
pub(super) fn find(
    wanted: &Wanted,
    named: Option<&Path>,
    search: &LibrarySearch,
) -> Result<LibraryInfo, String> {
    if let Some(path) = named {
        let info = |version| LibraryInfo { path: Some(path.to_owned()), version };
        let failure =
            |error| format!("{} does not load from {}: {error}", wanted.name, path.display());
        return load(wanted, path).map(info).map_err(failure);
    }
    for file in wanted.files {
        if let Ok(version) = load(wanted, Path::new(file)) {
            return Ok(LibraryInfo { path: None, version });
        }
    }
    let folders = search.python_prefixes.iter().flat_map(|prefix| pip_folders(prefix));
    for path in folders.flat_map(|folder| wanted.files.iter().map(move |file| folder.join(file))) {
        if let Some(version) = path.is_file().then(|| load(wanted, &path).ok()).flatten() {
            return Ok(LibraryInfo { path: Some(path), version });
        }
    }
    Err(format!("no {} found ({}): {}", wanted.name, wanted.files[0], wanted.advice))
}

/// Loads the library of `info` for good and for everybody, so that a later search by its bare name
/// finds it wherever it is.
pub(super) fn preload(wanted: &Wanted, info: &LibraryInfo) -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

    let Some(path) = &info.path else { return Ok(()) };
    // SAFETY: as in `load`, which has loaded the same file before.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
        .map_err(|error| format!("{} does not load for good: {error}", wanted.name))?;
    // Never unloaded: others keep addresses inside it.
    std::mem::forget(library);
    Ok(())
}

/// The folders `lib/python3*/{site,dist}-packages/nvidia/*/lib` of a Python prefix, in order.
fn pip_folders(prefix: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let pythons = children(&prefix.join("lib")).into_iter();
    for python in pythons.filter(|path| file_name(path).starts_with("python3")) {
        for packages in ["site-packages", "dist-packages"] {
            let wheels = children(&python.join(packages).join("nvidia"));
            folders.extend(wheels.into_iter().map(|wheel| wheel.join("lib")));
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

/// The entries of a folder in order; none if it cannot be read.
fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or("")
}

fn load(wanted: &Wanted, path: &Path) -> Result<String, libloading::Error> {
    // SAFETY: runs the initializers of a library that carries the file name of one of NVIDIA's;
    // those have no preconditions. Whoever could put another library there could replace NVIDIA's.
    let library = unsafe { Library::new(path) }?;
    (wanted.version)(&library)
}

fn cublaslt_version(library: &Library) -> Result<String, libloading::Error> {
    // SAFETY: the declared type is that of `cublasLtGetVersion` in cublasLt.h.
    let get = unsafe { library.get::<unsafe extern "C" fn() -> usize>(b"cublasLtGetVersion\0") }?;
    // SAFETY: it takes nothing and may always be called.
    let code = unsafe { get() };
    Ok(format!("{}.{}.{}", code / 10_000, code / 100 % 100, code % 100))
}

fn nvrtc_version(library: &Library) -> Result<String, libloading::Error> {
    type Get = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
    // SAFETY: the declared type is that of `nvrtcVersion` in nvrtc.h.
    let get = unsafe { library.get::<Get>(b"nvrtcVersion\0") }?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: it writes one integer through each pointer, or none if it fails.
    unsafe { get(&mut major, &mut minor) };
    Ok(format!("{major}.{minor}"))
}

fn nccl_version(library: &Library) -> Result<String, libloading::Error> {
    type Get = unsafe extern "C" fn(*mut c_int) -> c_int;
    // SAFETY: the declared type is that of `ncclGetVersion` in nccl.h.
    let get = unsafe { library.get::<Get>(b"ncclGetVersion\0") }?;
    let mut code = 0;
    // SAFETY: it writes one integer through the pointer, or none if it fails.
    unsafe { get(&mut code) };
    // Since 2.9 the code is major · 10000 + minor · 100 + patch.
    Ok(format!("{}.{}.{}", code / 10_000, code / 100 % 100, code % 100))
}

#[cfg(test)]
mod tests;

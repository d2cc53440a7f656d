//! The kernels library: where it is, whether it fits this program, and what it holds.
//!
//! Never knows: what its functions are called for; environment variables (callers pass the path).

use std::ffi::CStr;
use std::fmt;
use std::path::{Path, PathBuf};

use libloading::Library;

use super::library::{LibraryInfo, LibrarySearch};
use super::sys::{ABI_VERSION, Functions};
use crate::Error;

const FILE: &str = "libminisgl_kernels.so";

/// How many folders above the program `kernels/` is looked for: `target/release/deps` is three
/// below the folder that holds it.
const MAX_FOLDERS_UP: usize = 4;

/// The loaded library.
pub(super) struct Kernels {
    pub(super) functions: Functions,
    path: PathBuf,
    manifest: String,
    // Last, since `functions` points into it.
    _library: Library,
}

impl Kernels {
    /// Loads the library that `search` names, or else the one beside this program, or the one that
    /// the build put into the target folder. The error is one sentence.
    pub(super) fn load(search: &LibrarySearch) -> Result<Self, String> {
        let path = find(search.kernels.as_deref(), std::env::current_exe().ok().as_deref())?;
        let failure = |problem: String| format!("{}: {problem}", path.display());
        // SAFETY: runs the initializers of the library that was named or that was installed with
        // this program; those have no preconditions.
        let library = unsafe { Library::new(&path) }
            .map_err(|error| failure(format!("does not load as the kernels library ({error})")))?;
        let version = abi_version(&library)
            .map_err(|_| failure("is not the kernels library of this program".to_owned()))?;
        if version != ABI_VERSION {
            return Err(failure(format!(
                "has ABI version {version}, this program needs {ABI_VERSION}: build both from the \
                 same sources"
            )));
        }
        // SAFETY: the library says that it follows the header of this version.
        let functions = unsafe { Functions::load(&library) }
            .map_err(|error| failure(format!("lacks a function ({error}): build it anew")))?;
        // SAFETY: it may always be called, and returns a static string.
        let manifest = unsafe { CStr::from_ptr((functions.msgl_manifest)()) };
        let manifest = manifest.to_string_lossy().into_owned();
        Ok(Self { functions, path, manifest, _library: library })
    }

    pub(super) fn manifest(&self) -> &str {
        &self.manifest
    }

    pub(super) fn info(&self) -> LibraryInfo {
        let built_for = archs(&self.manifest).join(", ");
        let version = format!("ABI {ABI_VERSION}, for compute capability {built_for}");
        LibraryInfo { path: Some(self.path.clone()), version }
    }

    /// Whether the library has code for a GPU; the error is one sentence.
    pub(super) fn check_arch(&self, gpu: &str, capability: (u32, u32)) -> Result<(), String> {
        let archs = archs(&self.manifest);
        if archs.iter().any(|arch| runs_on(arch, capability)) {
            return Ok(());
        }
        let ((major, minor), archs) = (capability, archs.join(", "));
        Err(format!(
            "{gpu} has compute capability {major}.{minor}, but {} was built for {archs} only: \
             build it for {major}{minor}",
            self.path.display()
        ))
    }

    /// The result of a call with status `status`.
    pub(super) fn check(&self, call: &'static str, status: i32) -> Result<(), Error> {
        if status == 0 {
            return Ok(());
        }
        Err(Error::Device { call, message: self.last_error(status) })
    }

    /// What the library says about this thread's last failed call.
    pub(super) fn last_error(&self, status: i32) -> String {
        // SAFETY: it may always be called; the string is valid until this thread's next call.
        let message = unsafe {
            let message = (self.functions.msgl_last_error)();
            if message.is_null() { c"" } else { CStr::from_ptr(message) }
        };
        match message.to_string_lossy() {
            message if message.is_empty() => format!("failed with status {status}"),
            message => message.into_owned(),
        }
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernels({})", self.path.display())
    }
}

fn abi_version(library: &Library) -> Result<i32, libloading::Error> {
    // SAFETY: the declared type is that of every version of the header.
    let get = unsafe { library.get::<unsafe extern "C" fn() -> i32>(b"msgl_abi_version\0") }?;
    // SAFETY: it takes nothing and may always be called.
    Ok(unsafe { get() })
}

/// The library's file: `named` and no other, or the first of the usual places for the program at
/// `program`.
fn find(named: Option<&Path>, program: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(named) = named {
        if named.is_file() {
            return Ok(named.to_owned());
        }
        return Err(format!("no kernels library at {}: there is no such file", named.display()));
    }
    let folders = program.and_then(Path::parent).into_iter();
    let mut places: Vec<PathBuf> = folders.clone().map(|folder| folder.join(FILE)).collect();
    let above = folders.flat_map(|folder| folder.ancestors().take(MAX_FOLDERS_UP));
    places.extend(above.map(|folder| folder.join("kernels").join(FILE)));
    places.into_iter().find(|place| place.is_file()).ok_or_else(|| {
        format!(
            "no kernels library found ({FILE} beside the program, or in target/kernels): build it \
             with cargo xtask kernels"
        )
    })
}

/// The entries of the list `"archs"` of a manifest, such as `90a`.
fn archs(manifest: &str) -> Vec<&str> {
    let list = manifest.split_once("\"archs\"").and_then(|(_, rest)| rest.split_once('['));
    let list = list.and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    let entries = list.split(',').map(|entry| entry.trim().trim_matches('"'));
    entries.filter(|entry| !entry.is_empty()).collect()
}

/// Whether machine code for `arch` runs on a GPU of this capability: code for `80` runs on every
/// 8.x, code with a letter on its own capability only (and with `f` on the family's later ones).
fn runs_on(arch: &str, (major, minor): (u32, u32)) -> bool {
    let digits = arch.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let Ok(number) = digits.parse::<u32>() else { return false };
    let suffix = &arch[digits.len()..];
    let exact = number == major * 10 + minor;
    let earlier = number / 10 == major && number % 10 <= minor;
    exact || earlier && matches!(suffix, "" | "f")
}

#[cfg(test)]
mod tests;

//! What a CUDA device needs at run time, opened once: the driver, cuBLASLt, the kernels library.
//!
//! Never knows: GPUs, or what the libraries compute.

use std::sync::Arc;

use super::kernels::Kernels;
use super::library::{CUBLASLT, LibraryInfo, LibrarySearch, find, preload};
use super::probe::start_driver;
use crate::Error;

/// The loaded libraries. Cloning gives another handle to them.
///
/// A value of this type is the proof that cudarc may be called: without the libraries, it panics.
#[derive(Clone, Debug)]
pub struct CudaLibraries {
    kernels: Arc<Kernels>,
    cublaslt: LibraryInfo,
}

impl CudaLibraries {
    /// Starts the driver and loads the libraries.
    ///
    /// # Errors
    /// [`Error::Unavailable`], with a sentence that says what is missing and how to get it.
    pub fn load(search: &LibrarySearch) -> Result<Self, Error> {
        let load = || {
            start_driver()?;
            let cublaslt = find(&CUBLASLT, None, search)?;
            preload(&CUBLASLT, &cublaslt)?;
            // SAFETY: opens and closes the library, which any process may do.
            if !unsafe { cudarc::cublaslt::sys::is_culib_present() } {
                return Err("cuBLASLt was found but cannot be opened by its name".to_owned());
            }
            Ok(Self { kernels: Arc::new(Kernels::load(search)?), cublaslt })
        };
        load().map_err(Error::Unavailable)
    }

    /// Where cuBLASLt was found, and its version.
    pub fn cublaslt(&self) -> &LibraryInfo {
        &self.cublaslt
    }

    /// Where the kernels library was found, and what it was built for.
    pub fn kernels_info(&self) -> LibraryInfo {
        self.kernels.info()
    }

    /// What the kernels library says it holds, in JSON.
    pub fn manifest(&self) -> &str {
        self.kernels.manifest()
    }

    pub(super) fn kernels(&self) -> &Kernels {
        &self.kernels
    }
}

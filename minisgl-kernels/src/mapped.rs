//! Read-only memory maps of files.
//!
//! Never knows: file formats.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::Error;

/// A whole file, mapped read-only. Pages are read from disk when they are first touched.
///
/// The file must not shrink or change while it is mapped: a page that was cut off raises `SIGBUS`
/// when it is touched, which ends the process, and changed bytes are seen as they change. A loader
/// therefore copies what it needs early and drops the map.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let error = |source| Error::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(error)?;
        Ok(Self { map: map(&file).map_err(error)? })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

#[expect(unsafe_code, reason = "mapping a file is unsafe: another process may change it")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only, and nothing in this process writes to the file. That no other
    // process changes it cannot be ensured here; it is the documented condition of `MappedFile`,
    // as for every user of a shared map.
    unsafe { Mmap::map(file) }
}

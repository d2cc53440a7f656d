//! The part of a file that is here, with the hash of what it has: `NAME.incomplete`, as Python's tools
//! call it.
//! Never knows: the network.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::HubError;

/// Read at once while hashing what is here already.
const CHUNK: usize = 1 << 20;

/// See the [module](self).
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
    hasher: Sha256,
}

impl Partial {
    /// Where the part of `target` is.
    pub(super) fn path_of(target: &Path) -> PathBuf {
        let mut name = target.as_os_str().to_owned();
        name.push(".incomplete");
        name.into()
    }

    /// Opens what is here of `target`, which will have `size` bytes; more than that cannot be right.
    pub(super) fn open(target: &Path, size: u64) -> Result<Self, HubError> {
        let path = Self::path_of(target);
        let io = HubError::io(&path);
        let opened =
            File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(&io)?;
        if file.metadata().map_err(&io)?.len() > size {
            file.set_len(0).map_err(&io)?;
        }
        let mut hasher = Sha256::new();
        let len = hash(&mut file, &mut hasher).map_err(io)?;
        Ok(Self { path, file, len, hasher })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Forgets what is here.
    pub(super) fn restart(&mut self) -> Result<(), HubError> {
        self.len = 0;
        self.hasher = Sha256::new();
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(HubError::io(&self.path))
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(HubError::io(&self.path))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// The SHA-256 sum of what is here.
    pub(super) fn sha256(&self) -> String {
        hex(&self.hasher.clone().finalize())
    }

    /// It is complete: gives it its name.
    pub(super) fn finish(self, target: &Path) -> Result<(), HubError> {
        self.file.sync_all().map_err(HubError::io(&self.path))?;
        std::fs::rename(&self.path, target).map_err(HubError::io(target))
    }
}

/// The SHA-256 sum of a file.
pub(super) fn sha256_of(path: &Path) -> Result<String, HubError> {
    let mut hasher = Sha256::new();
    let hashed = File::open(path).and_then(|mut file| hash(&mut file, &mut hasher));
    hashed.map_err(HubError::io(path))?;
    Ok(hex(&hasher.finalize()))
}

/// Hashes all of `file`; returns its length.
fn hash(file: &mut File, hasher: &mut Sha256) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut len = 0;
    file.rewind()?;
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(len);
        }
        hasher.update(&chunk[..read]);
        len += read as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

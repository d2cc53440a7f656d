//! A number that tells checkpoints apart without reading all of them: nodes that load the same
//! model have the same one. Knows bytes; never tensors. No protection against malice.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};

use super::Checkpoint;
use crate::ModelError;

/// What is read at the beginning and at the end of each file of weights.
const SAMPLE_BYTES: u64 = 256 << 10;

impl Checkpoint {
    /// A hash of `config.json`, of the names and sizes of the weights' files, and of what is at the
    /// beginning and the end of each.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn fingerprint(&self) -> Result<u64, ModelError> {
        let mut hash = Fnv::default();
        hash.add(&self.require("config.json")?);
        for name in self.file_names()? {
            if !name.ends_with(".safetensors") {
                continue;
            }
            hash.add(name.as_bytes());
            let (length, sample) = self.sample(&name)?;
            hash.add(&length.to_le_bytes());
            hash.add(&sample);
        }
        Ok(hash.0)
    }

    /// The length of a file, and its beginning and end.
    fn sample(&self, name: &str) -> Result<(u64, Vec<u8>), ModelError> {
        if let Self::Folder(folder) = self {
            let io = |source| ModelError::Io { file: name.to_owned(), source };
            let mut file = File::open(folder.join(name)).map_err(io)?;
            let length = file.metadata().map_err(io)?.len();
            let mut sample = Vec::new();
            (&mut file).take(SAMPLE_BYTES).read_to_end(&mut sample).map_err(io)?;
            let end = length.saturating_sub(SAMPLE_BYTES).max(sample.len() as u64);
            file.seek(SeekFrom::Start(end)).map_err(io)?;
            file.take(SAMPLE_BYTES).read_to_end(&mut sample).map_err(io)?;
            return Ok((length, sample));
        }
        let bytes = self.require(name)?;
        let (length, sample) = (bytes.len() as u64, SAMPLE_BYTES as usize);
        let start = sample.min(bytes.len());
        let end = bytes.len().saturating_sub(sample).max(start);
        Ok((length, [&bytes[..start], &bytes[end..]].concat()))
    }
}

/// FNV-1a, of 64 bits (Fowler, Noll and Vo).
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds bytes and their number, which keeps them apart from the next ones.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&(bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_difference_that_is_looked_at_shows() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        let mut weights = vec![7; 3 * SAMPLE_BYTES as usize];
        let mut seen = Vec::new();
        let mut look = |expect_new: bool| {
            let now = Checkpoint::folder(folder.path()).unwrap().fingerprint().unwrap();
            assert_eq!(!seen.contains(&now), expect_new);
            seen.push(now);
        };
        write("config.json", b"{}");
        look(true);
        write("config.json", b"{ }");
        look(true);
        write("a.safetensors", &weights);
        look(true);
        weights[0] = 8;
        write("a.safetensors", &weights);
        look(true);
        *weights.last_mut().unwrap() = 8;
        write("a.safetensors", &weights);
        look(true);
        write("tokenizer.json", b"not the ranks' business");
        look(false);
        std::fs::rename(folder.path().join("a.safetensors"), folder.path().join("b.safetensors"))
            .unwrap();
        look(true);
        weights.push(8);
        write("b.safetensors", &weights);
        look(true);
    }
}

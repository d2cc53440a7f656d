//! Where a model's files come from: a folder in the Hugging Face layout, or bytes in the program.
//! Knows file names and sizes, not what is in them.

mod fingerprint;

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::ModelError;

/// The files of one model.
#[derive(Clone, Debug)]
pub enum Checkpoint {
    /// A folder with `config.json`, `*.safetensors` and the tokenizer's files.
    Folder(PathBuf),
    /// Files by name, compiled into the program.
    Embedded(&'static [(&'static str, &'static [u8])]),
    /// A `config.json` and nothing else: enough for random weights.
    Config(Vec<u8>),
}

impl Checkpoint {
    /// The largest file [`Checkpoint::read`] reads; a tokenizer of a million entries fits.
    pub const MAX_FILE_BYTES: u64 = 256 << 20;

    /// A model folder.
    ///
    /// # Errors
    /// [`ModelError::NotAModel`] if it is not a folder with a `config.json`.
    pub fn folder(path: impl Into<PathBuf>) -> Result<Self, ModelError> {
        let path = path.into();
        let reason = if !path.exists() {
            "there is nothing of that name"
        } else if !path.is_dir() {
            "it is not a folder"
        } else if !path.join("config.json").is_file() {
            "it has no config.json"
        } else {
            return Ok(Self::Folder(path));
        };
        Err(ModelError::NotAModel { path, reason: reason.to_owned() })
    }

    /// The contents of the file `name`, or `None` if there is no such file.
    ///
    /// # Errors
    /// [`ModelError::Io`] if it cannot be read, [`ModelError::FileTooLarge`] if it is larger than
    /// [`Checkpoint::MAX_FILE_BYTES`].
    pub fn read(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>, ModelError> {
        match self {
            Self::Config(json) => Ok((name == "config.json").then_some(Cow::Borrowed(json))),
            Self::Embedded(files) => {
                let found = files.iter().find(|(file, _)| *file == name);
                Ok(found.map(|(_, bytes)| Cow::Borrowed(*bytes)))
            }
            Self::Folder(folder) => {
                let io = |source| ModelError::Io { file: name.to_owned(), source };
                let file = match File::open(folder.join(name)) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    opened => opened.map_err(io)?,
                };
                // One byte more than allowed tells a file that is too large from one that just fits,
                // also if it grows while it is read.
                let max = Self::MAX_FILE_BYTES;
                let mut bytes = Vec::new();
                file.take(max + 1).read_to_end(&mut bytes).map_err(io)?;
                let length = bytes.len() as u64;
                if length > max {
                    return Err(ModelError::FileTooLarge {
                        file: name.to_owned(),
                        bytes: length,
                        max,
                    });
                }
                Ok(Some(Cow::Owned(bytes)))
            }
        }
    }

    /// The names of the files, sorted.
    ///
    /// # Errors
    /// [`ModelError::Io`] if the folder cannot be read.
    pub fn file_names(&self) -> Result<Vec<String>, ModelError> {
        match self {
            Self::Config(_) => Ok(vec!["config.json".to_owned()]),
            Self::Embedded(files) => Ok(files.iter().map(|(name, _)| (*name).to_owned()).collect()),
            Self::Folder(folder) => {
                let io = |source| ModelError::Io { file: folder.display().to_string(), source };
                let entries = std::fs::read_dir(folder).map_err(io)?;
                let names = entries.map(|entry| Ok(entry.map_err(io)?.file_name()));
                let names: Result<Vec<_>, ModelError> = names.collect();
                // A name that is not UTF-8 is not one of ours.
                let mut names: Vec<String> =
                    names?.into_iter().filter_map(|name| name.into_string().ok()).collect();
                names.sort();
                Ok(names)
            }
        }
    }

    /// As [`Checkpoint::read`], of a file that must be there.
    ///
    /// # Errors
    /// As there, and [`ModelError::MissingFile`].
    pub fn require(&self, name: &str) -> Result<Cow<'_, [u8]>, ModelError> {
        self.read(name)?.ok_or_else(|| ModelError::MissingFile(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_config_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: PathBuf| Checkpoint::folder(path).unwrap_err().to_string();
        assert!(message(folder.path().to_owned()).ends_with("it has no config.json"));
        assert!(message(folder.path().join("x")).ends_with("there is nothing of that name"));
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert!(message(folder.path().join("config.json")).ends_with("it is not a folder"));
        let checkpoint = Checkpoint::folder(folder.path()).unwrap();
        assert_eq!(checkpoint.require("config.json").unwrap().as_ref(), b"{}");
        assert!(checkpoint.read("tokenizer.json").unwrap().is_none());
        assert!(matches!(checkpoint.require("no"), Err(ModelError::MissingFile(_))));
    }
}

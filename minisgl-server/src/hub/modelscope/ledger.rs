//! Which files of a folder have been checked, so that gigabytes are not hashed at each start: a file
//! of lines, each a hash, a size, a time and a name. A file that was written to since is not known.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use crate::hub::HubError;

const NAME: &str = ".minisgl-checked";

/// See the [module](self).
pub(super) struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// Of the files in `folder`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether the file `name` was found to have this hash, and is still the same.
    pub(super) fn knows(&self, name: &str, sha256: &str) -> bool {
        let line = self.line(name, sha256);
        line.is_some_and(|line| self.read().lines().any(|known| known == line))
    }

    /// The file `name` has this hash.
    pub(super) fn note(&self, name: &str, sha256: &str) -> Result<(), HubError> {
        let Some(line) = self.line(name, sha256) else { return Ok(()) };
        let ending = format!(" {name}");
        let others = self.read();
        let others = others.lines().filter(|known| !known.ends_with(&ending));
        let mut text = String::new();
        for line in others.chain([line.as_str()]) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line}");
        }
        let path = self.folder.join(NAME);
        let new = self.folder.join(format!("{NAME}.{}", std::process::id()));
        fs::write(&new, text).map_err(HubError::io(&new))?;
        fs::rename(&new, &path).map_err(HubError::io(&path))
    }

    /// None yet, or unreadable, is nothing known.
    fn read(&self) -> String {
        fs::read_to_string(self.folder.join(NAME)).unwrap_or_default()
    }

    fn line(&self, name: &str, sha256: &str) -> Option<String> {
        let metadata = self.folder.join(name).metadata().ok()?;
        let time = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        Some(format!("{sha256} {} {time} {name}", metadata.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_written_to_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, a) = (Ledger::new(folder.path().to_owned()), folder.path().join("a"));
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        fs::write(&a, "x").unwrap();
        fs::write(folder.path().join("b a"), "x").unwrap();
        ledger.note("a", &one).unwrap();
        assert!(ledger.knows("a", &one) && !ledger.knows("a", &two) && !ledger.knows("b", &one));
        // The time alone tells.
        let file = fs::File::options().write(true).open(&a).unwrap();
        file.set_modified(UNIX_EPOCH).unwrap();
        assert!(!ledger.knows("a", &one));
        ledger.note("a", &two).unwrap();
        assert!(ledger.knows("a", &two));
        assert_eq!(fs::read_to_string(folder.path().join(NAME)).unwrap().lines().count(), 1);
        fs::remove_file(&a).unwrap();
        assert!(!ledger.knows("a", &two));
        ledger.note("no-such-file", &one).unwrap();
    }
}

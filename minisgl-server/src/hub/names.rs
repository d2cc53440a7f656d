//! Names: what a user calls a model, and what a hub calls its files. None of them becomes a part of a
//! path before it is checked here.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::HubError;

/// The most bytes that a name may have: what file systems allow.
const MAX_NAME: usize = 255;

/// As on both hubs, with room to spare.
const MAX_ID: usize = 200;

/// `owner/name` on a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelId(String);

impl ModelId {
    /// The name as the folders of both hubs have it: `owner--name`.
    pub(super) fn folder(&self) -> String {
        self.0.replace('/', "--")
    }
}

impl FromStr for ModelId {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let is_part = |part: &str| {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(is_allowed)
        };
        // The folder's name must tell which one it is; no hub has names with "--" or "..".
        let is_plain = text.len() <= MAX_ID && !text.contains("--") && !text.contains("..");
        match text.split_once('/') {
            Some((owner, name)) if is_plain && is_part(owner) && is_part(name) => {
                Ok(Self(text.to_owned()))
            }
            _ => {
                let what = "the name of a model on a hub, as in owner/name";
                Err(HubError::Name { name: text.to_owned(), what })
            }
        }
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A branch, a tag or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As one part of a URL or query.
    pub(super) fn escaped(&self) -> String {
        escape(&self.0)
    }
}

impl FromStr for Revision {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let is_part = |part: &str| {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(is_allowed)
        };
        if text.len() <= MAX_NAME && text.split('/').all(is_part) {
            return Ok(Self(text.to_owned()));
        }
        let what = "a revision: a branch, a tag or a commit, as in main, v1.0 or refs/pr/3";
        Err(HubError::Name { name: text.to_owned(), what })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a file of this name lies in the folder that it is put in, and is not hidden there.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with('.')
        && !name.contains(['/', '\\', ':'])
        && !name.chars().any(char::is_control)
}

/// Whether no part of this path, as a hub lists it, leads out of the folder.
pub(super) fn stays_inside(path: &str) -> bool {
    let is_up = |part: &str| part == ".." || part == ".";
    !path.starts_with('/') && !path.contains(['\\', '\0']) && !path.split('/').any(is_up)
}

/// Whether it can be the name of a commit or of a file's content: a hash, in whatever notation.
pub(super) fn is_hash(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (4..=128).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Whether it is a SHA-256 sum in small hexadecimal digits.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// One part of a URL.
pub(super) fn escape(text: &str) -> String {
    const OTHERS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, OTHERS).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_models_are_taken() {
        for name in ["Qwen/Qwen3-0.6B", "a/b", "o_1/n.2-x"] {
            assert_eq!(name.parse::<ModelId>().unwrap().to_string(), name);
        }
        for name in
            ["", "gpt2", "a/b/c", "../x", "a/..", "./a", "a/.b", "/a", "a/", "a--b/c", "a/b?c"]
        {
            assert!(name.parse::<ModelId>().is_err(), "{name}");
        }
        assert!(format!("a/{}", "b".repeat(MAX_ID)).parse::<ModelId>().is_err());
    }

    #[test]
    fn only_revisions_are_taken() {
        for name in ["main", "v1.0", "refs/pr/3", "0123456789abcdef0123456789abcdef01234567"] {
            assert_eq!(name.parse::<Revision>().unwrap().as_str(), name);
        }
        assert_eq!("refs/pr/3".parse::<Revision>().unwrap().escaped(), "refs%2Fpr%2F3");
        for name in ["", "..", "a/../b", "/main", "main/", "a b", "a?b", "a\nb", ".git"] {
            assert!(name.parse::<Revision>().is_err(), "{name}");
        }
    }

    #[test]
    fn no_name_leads_out_of_its_folder() {
        for name in ["", ".", "..", ".x", "a/b", "/a", "a\\b", "C:a", "a\0", "a\n"] {
            assert!(!is_file_name(name), "{name:?}");
        }
        assert!(
            is_file_name("model-00001-of-00002.safetensors") && is_file_name("模型.safetensors")
        );
        for path in ["/etc/passwd", "../x", "a/../../x", "a\\..\\x", "./x"] {
            assert!(!stays_inside(path), "{path:?}");
        }
        assert!(stays_inside("original/params.json") && stays_inside(".gitattributes"));
        assert!(is_hash("a94a8fe5") && !is_hash("../x") && !is_hash("abc") && !is_hash("a/bcd"));
        assert!(is_sha256(&"0f".repeat(32)) && !is_sha256(&"0F".repeat(32)) && !is_sha256("0f"));
        assert_eq!(escape("a b/ü.json"), "a%20b%2F%C3%BC.json");
    }
}

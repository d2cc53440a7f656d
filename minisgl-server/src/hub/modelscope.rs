//! ModelScope: its interface, and the cache folder that its Python tools share.
//!
//! ```text
//! CACHE/owner--name/snapshots/REVISION/FILE             the files of a branch, which may change
//!                                     /.minisgl-checked which of them have been checked
//!                  /.locks/REVISION/FILE.lock           held while a file comes
//! ```

mod ledger;

use std::path::PathBuf;

use serde::Deserialize;

use self::ledger::Ledger;
use super::http::{Http, answer};
use super::names::escape;
use super::partial::sha256_of;
use super::repository::{Listed, Repository, read_json};
use super::retry::Patience;
use super::transfer::Item;
use super::{HubError, Observer, Settings, Wanted};

const MASTER: &str = "master";

/// One model there.
pub(super) struct ModelScope<'a> {
    http: Http<'a>,
    wanted: &'a Wanted,
    revision: &'a str,
    ledger: Ledger,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    message: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    files: Vec<File>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    path: String,
    #[serde(default)]
    r#type: String,
    size: Option<u64>,
    sha256: Option<String>,
}

impl<'a> ModelScope<'a> {
    pub(super) fn new(settings: &'a Settings, wanted: &'a Wanted) -> Self {
        let revision = wanted.revision.as_ref().map_or(MASTER, |revision| revision.as_str());
        let page = format!("{}/models/{}", settings.endpoint, wanted.id);
        let http = Http::new(settings, page, revision.to_owned());
        let root = settings.cache.join(wanted.id.folder());
        let ledger = Ledger::new(root.join("snapshots").join(revision));
        Self { http, wanted, revision, ledger }
    }

    fn root(&self) -> PathBuf {
        self.http.settings().cache.join(self.wanted.id.folder())
    }

    fn url(&self, rest: &str) -> String {
        let (endpoint, id) = (&self.http.settings().endpoint, &self.wanted.id);
        format!("{endpoint}/api/v1/models/{id}/{rest}")
    }
}

impl<'a> Repository<'a> for ModelScope<'a> {
    fn http(&self) -> &Http<'a> {
        &self.http
    }

    fn wanted(&self) -> &Wanted {
        self.wanted
    }

    fn label(&self) -> String {
        format!("{} ({})", self.wanted.id, self.revision)
    }

    fn list(
        &mut self,
        patience: &Patience,
        observer: &dyn Observer,
    ) -> Result<Vec<Listed>, HubError> {
        let revision = escape(self.revision);
        let url = self.url(&format!("repo/files?Revision={revision}&Recursive=true"));
        let list: Answer = read_json(&self.http, &url, patience, observer)?;
        let data = list.data.ok_or_else(|| answer(&url, format!("{:?}", list.message)))?;
        let files =
            data.files.into_iter().filter(|file| file.r#type != "tree").map(|file| Listed {
                name: file.path,
                size: file.size,
                sha256: file.sha256.filter(|sum| !sum.is_empty()),
                content: None,
            });
        Ok(files.collect())
    }

    fn folder(&self) -> PathBuf {
        self.root().join("snapshots").join(self.revision)
    }

    fn is_here(&self, file: &Listed, observer: &dyn Observer) -> Result<bool, HubError> {
        let path = self.folder().join(&file.name);
        let Ok(metadata) = path.metadata() else { return Ok(false) };
        if file.size.is_some_and(|size| size != metadata.len()) {
            return Ok(false);
        }
        // A branch may have moved on to weights of the same size.
        let Some(sum) = &file.sha256 else { return Ok(file.size.is_some()) };
        if self.ledger.knows(&file.name, sum) {
            return Ok(true);
        }
        observer.note(&format!("Checking {} in {}", file.name, self.folder().display()));
        let is_same = sha256_of(&path)? == *sum;
        if is_same {
            self.ledger.note(&file.name, sum)?;
        }
        Ok(is_same)
    }

    fn complete(&self, _file: &mut Listed, _observer: &dyn Observer) -> Result<(), HubError> {
        // The list says all there is.
        Ok(())
    }

    fn item(&self, file: &Listed) -> Result<Option<Item>, HubError> {
        let (revision, name) = (escape(self.revision), escape(&file.name));
        let url = self.url(&format!("repo?Revision={revision}&FilePath={name}"));
        let size = file.size.ok_or_else(|| answer(&url, "it has no size".to_owned()))?;
        let target = self.folder().join(&file.name);
        // It is not the one that is listed.
        match std::fs::remove_file(&target) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HubError::io(&target)(error));
            }
            _ => {}
        }
        let locks = self.root().join(".locks").join(self.revision);
        let lock = locks.join(format!("{}.lock", file.name));
        let (name, sha256) = (file.name.clone(), file.sha256.clone());
        Ok(Some(Item { name, url, target, lock, size, sha256 }))
    }

    fn publish(&self, file: &Listed) -> Result<(), HubError> {
        file.sha256.as_ref().map_or(Ok(()), |sum| self.ledger.note(&file.name, sum))
    }

    fn finish(&self) -> Result<(), HubError> {
        Ok(())
    }

    fn cached(&self) -> Option<PathBuf> {
        let folder = self.folder();
        folder.is_dir().then_some(folder)
    }
}

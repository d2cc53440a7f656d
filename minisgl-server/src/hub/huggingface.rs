//! Hugging Face: its interface, and the cache folder that Python's tools share.
//!
//! ```text
//! CACHE/models--owner--name/blobs/HASH                  contents, by what the hub calls them
//!                          /snapshots/COMMIT/FILE       links to them
//!                          /refs/REVISION               the commit that a branch or tag was
//! CACHE/.locks/models--owner--name/HASH.lock            held while a content comes
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;
use ureq::http::HeaderMap;

use super::http::{Http, answer, content_length};
use super::names::{escape, is_hash, is_sha256};
use super::repository::{Listed, Repository, read_json};
use super::retry::{Failure, Patience, with_retries};
use super::transfer::{Item, create_parent};
use super::{HubError, Observer, Settings, Wanted};

const MAIN: &str = "main";

/// The longest commit that a file in `refs` may have.
const MAX_REF: u64 = 128;

/// One model there.
pub(super) struct HuggingFace<'a> {
    http: Http<'a>,
    wanted: &'a Wanted,
    revision: &'a str,
    /// Empty until it is listed.
    commit: String,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl<'a> HuggingFace<'a> {
    pub(super) fn new(settings: &'a Settings, wanted: &'a Wanted) -> Self {
        let revision = wanted.revision.as_ref().map_or(MAIN, |revision| revision.as_str());
        let page = format!("{}/{}", settings.endpoint, wanted.id);
        let http = Http::new(settings, page, revision.to_owned());
        Self { http, wanted, revision, commit: String::new() }
    }

    fn endpoint(&self) -> &str {
        &self.http.settings().endpoint
    }

    fn cache(&self) -> &Path {
        &self.http.settings().cache
    }

    fn name(&self) -> String {
        format!("models--{}", self.wanted.id.folder())
    }

    fn root(&self) -> PathBuf {
        self.cache().join(self.name())
    }

    fn reference(&self) -> PathBuf {
        self.root().join("refs").join(self.revision)
    }

    fn blob(&self, file: &Listed) -> Result<PathBuf, HubError> {
        let content = file.sha256.as_ref().or(file.content.as_ref());
        let content = content.filter(|content| is_hash(content)).ok_or_else(|| {
            answer(self.endpoint(), format!("{} has no hash that names it", file.name))
        })?;
        Ok(self.root().join("blobs").join(content))
    }

    fn url(&self, file: &Listed) -> String {
        let (endpoint, id, commit) = (self.endpoint(), &self.wanted.id, &self.commit);
        format!("{endpoint}/{id}/resolve/{commit}/{}", escape(&file.name))
    }

    fn ask(&self, url: &str) -> Result<HeaderMap, Failure> {
        let headers = self.http.head(url)?;
        match headers.get("x-repo-commit") {
            Some(commit) if *commit != *self.commit => {
                let problem = format!("it is of commit {commit:?}, not {}", self.commit);
                Err(answer(url, problem).into())
            }
            _ => Ok(headers),
        }
    }
}

impl<'a> Repository<'a> for HuggingFace<'a> {
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
        let revision = self.wanted.revision.as_ref().map_or(MAIN.to_owned(), |name| name.escaped());
        let (endpoint, id) = (self.endpoint(), &self.wanted.id);
        let url = format!("{endpoint}/api/models/{id}/revision/{revision}?blobs=true");
        let info: Info = read_json(&self.http, &url, patience, observer)?;
        if !is_hash(&info.sha) {
            return Err(answer(&url, format!("{:?} is not a commit", info.sha)));
        }
        self.commit = info.sha;
        let listed = info.siblings.into_iter().map(|file| {
            let lfs = file.lfs.map(|lfs| (lfs.sha256, lfs.size));
            let (sha256, lfs_size) = lfs.unwrap_or_default();
            Listed {
                name: file.rfilename,
                size: lfs_size.or(file.size),
                sha256,
                content: file.blob_id,
            }
        });
        Ok(listed.collect())
    }

    fn folder(&self) -> PathBuf {
        self.root().join("snapshots").join(&self.commit)
    }

    fn is_here(&self, file: &Listed, _observer: &dyn Observer) -> Result<bool, HubError> {
        // A commit never changes, and only complete files are put into its folder.
        Ok(self.folder().join(&file.name).is_file())
    }

    fn complete(&self, file: &mut Listed, observer: &dyn Observer) -> Result<(), HubError> {
        if file.size.is_some() && (file.sha256.is_some() || file.content.is_some()) {
            return Ok(());
        }
        // Some mirrors list names only.
        let url = self.url(file);
        let patience = &self.http.settings().patience;
        let headers = with_retries(patience, observer, || self.ask(&url), |_, error| error)?;
        let text = |name| headers.get(name)?.to_str().ok();
        let size = text("x-linked-size").and_then(|size| size.parse().ok());
        file.size = size.or_else(|| content_length(&headers));
        let linked = text("x-linked-etag");
        let hash = linked.or_else(|| text("etag")).unwrap_or_default();
        let hash = hash.trim_start_matches("W/").trim_matches('"').to_owned();
        // A linked content is called by its SHA-256 sum, others by something else.
        match linked.is_some() && is_sha256(&hash) {
            true => file.sha256 = Some(hash),
            false => file.content = Some(hash),
        }
        Ok(())
    }

    fn item(&self, file: &Listed) -> Result<Option<Item>, HubError> {
        let url = self.url(file);
        let size = file.size.ok_or_else(|| answer(&url, "it has no size".to_owned()))?;
        let target = self.blob(file)?;
        if target.is_file() {
            return Ok(None);
        }
        let hash = target.file_name().unwrap_or_default().to_owned();
        let lock = self.cache().join(".locks").join(self.name()).join(hash).with_extension("lock");
        let (name, sha256) = (file.name.clone(), file.sha256.clone());
        Ok(Some(Item { name, url, target, lock, size, sha256 }))
    }

    fn publish(&self, file: &Listed) -> Result<(), HubError> {
        link(&self.blob(file)?, &self.folder().join(&file.name))
    }

    fn finish(&self) -> Result<(), HubError> {
        if self.revision == self.commit {
            return Ok(());
        }
        let path = self.reference();
        create_parent(&path)?;
        // Complete or not at all, since others may be reading it.
        let new = path.with_extension(format!("{}.new", std::process::id()));
        std::fs::write(&new, &self.commit).map_err(HubError::io(&new))?;
        std::fs::rename(&new, &path).map_err(HubError::io(&path))
    }

    fn cached(&self) -> Option<PathBuf> {
        let path = self.reference();
        let is_short = |path: &Path| path.metadata().is_ok_and(|file| file.len() <= MAX_REF);
        let commit = match is_short(&path) {
            true => std::fs::read_to_string(&path).ok()?.trim().to_owned(),
            // It may be a commit itself.
            false => self.revision.to_owned(),
        };
        let folder = self.root().join("snapshots").join(&commit);
        (is_hash(&commit) && folder.is_dir()).then_some(folder)
    }
}

/// Makes `path`, in a folder of `snapshots`, a link to `blob`: relative, so that a cache can be moved.
fn link(blob: &Path, path: &Path) -> Result<(), HubError> {
    let io = HubError::io(path);
    create_parent(path)?;
    let target = Path::new("../../blobs").join(blob.file_name().unwrap_or_default());
    // What is in the way leads nowhere, or it would not be linked anew.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    match std::os::unix::fs::symlink(target, path) {
        // Another process was faster.
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(io(error)),
        _ => Ok(()),
    }
}

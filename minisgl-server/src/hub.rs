//! Models from a hub: the files that serving needs, in the cache that Python's tools share.
//!
//! A download goes on where it stopped, several files come at one time, and what comes is checked
//! against the sizes and SHA-256 sums that the hub lists. Nothing that a hub says becomes a path
//! before it is checked, and its token goes to the hub alone, never to where the hub redirects.
//! Never knows: what is in the files, but for the names of shards in an index.
//!
//! # Reading order
//! 1. [`Settings`]: what the environment says. [`Wanted`]: which model.
//! 2. `repository`: what the two hubs have in common, and how a model is fetched from one.
//! 3. `huggingface`, `modelscope`: their interfaces and cache folders.
//! 4. `names`, `select`: which names are believed, which files are needed.
//! 5. `batch`, `transfer`, `partial`: many files; one file; the part of it that is here.
//! 6. `http`, `retry`: one request; another try.

mod batch;
mod error;
mod http;
mod huggingface;
mod modelscope;
mod names;
mod partial;
mod repository;
mod retry;
mod select;
mod settings;
mod transfer;

use std::path::PathBuf;

pub use self::error::HubError;
pub use self::names::{ModelId, Revision};
pub use self::retry::Patience;
pub use self::settings::{Settings, Source, Token};

/// A model, and how much of it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name.
    pub id: ModelId,
    /// A branch, a tag or a commit; the hub's main branch if not given.
    pub revision: Option<Revision>,
    /// Whether its weights are wanted, too.
    pub weights: bool,
}

/// What is told while files come, from several threads.
pub trait Observer: Sync {
    /// So much of so much is here. `done` may go back, if a part turns out to be broken.
    fn progress(&self, done: u64, total: u64);

    /// Something that a user should know.
    fn note(&self, message: &str);
}

/// The folder with the files of a model, fetched if they are not there yet.
///
/// # Errors
/// [`HubError`], each a sentence about what to do.
pub fn fetch(
    settings: &Settings,
    wanted: &Wanted,
    observer: &dyn Observer,
) -> Result<PathBuf, HubError> {
    match settings.source {
        Source::HuggingFace => {
            repository::fetch(huggingface::HuggingFace::new(settings, wanted), observer)
        }
        Source::ModelScope => {
            repository::fetch(modelscope::ModelScope::new(settings, wanted), observer)
        }
    }
}

/// The folder with the files of a model if all of them are there; asks no hub.
pub fn find_cached(settings: &Settings, wanted: &Wanted) -> Option<PathBuf> {
    match settings.source {
        Source::HuggingFace => {
            repository::find_cached(&huggingface::HuggingFace::new(settings, wanted)).ok()
        }
        Source::ModelScope => {
            repository::find_cached(&modelscope::ModelScope::new(settings, wanted)).ok()
        }
    }
}

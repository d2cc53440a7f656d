//! One file: goes on where it stopped, is checked, and appears under its name complete or not at all.
//! Never knows: which hub it is, other files.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ureq::http::StatusCode;
use ureq::http::header::CONTENT_RANGE;

use super::http::{Http, answer, content_length};
use super::partial::Partial;
use super::retry::{Failure, with_retries};
use super::{HubError, Observer};

/// Read at once.
const CHUNK: usize = 256 << 10;

/// A try that brought so much got further; less would be a reason to try for ever.
const FURTHER: u64 = 1 << 20;

/// How often a lock is looked at.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// A file to fetch.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// What a user calls it.
    pub(super) name: String,
    pub(super) url: String,
    /// Where it goes.
    pub(super) target: PathBuf,
    /// Held while it is fetched, by Python's tools as well.
    pub(super) lock: PathBuf,
    pub(super) size: u64,
    /// Of its content, if the hub lists it.
    pub(super) sha256: Option<String>,
}

/// What the transfers of one batch share.
pub(super) struct Shared<'a> {
    pub(super) http: &'a Http<'a>,
    pub(super) observer: &'a dyn Observer,
    /// Set when one has failed.
    pub(super) stop: &'a AtomicBool,
    pub(super) done: &'a AtomicU64,
    pub(super) total: u64,
}

impl Shared<'_> {
    /// A file's length was `before` and is `after`.
    fn moved(&self, before: u64, after: u64) {
        // Two steps, so that it never wraps; who looks in between sees a little more.
        self.done.fetch_add(after, Ordering::Relaxed);
        let done = self.done.fetch_sub(before, Ordering::Relaxed) - before;
        self.observer.progress(done, self.total);
    }
}

impl Item {
    /// How much of it is here; a guess until it is opened.
    pub(super) fn here(&self) -> u64 {
        let path = Partial::path_of(&self.target);
        std::fs::metadata(path).map_or(0, |metadata| metadata.len()).min(self.size)
    }

    /// Fetches it. `here` is what [`Item::here`] said when progress began to be counted.
    pub(super) fn fetch(&self, shared: &Shared<'_>, here: u64) -> Result<(), HubError> {
        let _lock = self.lock(shared)?;
        if self.target.exists() {
            // Another process was faster.
            shared.moved(here, self.size);
            return Ok(());
        }
        let mut partial = Partial::open(&self.target, self.size)?;
        shared.moved(here, partial.len());
        self.complete(shared, &mut partial)?;
        if self.expected(&partial).is_some() {
            // It may have begun with something else; once more, all of it.
            shared.observer.note(&format!("{} has a wrong checksum: starting anew", self.name));
            shared.moved(partial.len(), 0);
            partial.restart()?;
            self.complete(shared, &mut partial)?;
        }
        if let Some(expected) = self.expected(&partial) {
            let found = partial.sha256();
            // So that the next start does not go on with it.
            partial.restart()?;
            return Err(HubError::Checksum { file: self.name.clone(), expected, found });
        }
        partial.finish(&self.target)
    }

    /// The checksum that it should have, if it has another.
    fn expected(&self, partial: &Partial) -> Option<String> {
        self.sha256.clone().filter(|expected| partial.sha256() != *expected)
    }

    fn complete(&self, shared: &Shared<'_>, partial: &mut Partial) -> Result<(), HubError> {
        let last_word = |attempts, error: HubError| match error {
            HubError::Unreachable { reason, .. } if attempts > 0 => {
                HubError::Transfer { file: self.name.clone(), attempts, reason }
            }
            error => error,
        };
        let patience = shared.http.settings().patience;
        with_retries(&patience, shared.observer, || self.attempt(shared, partial), last_word)
    }

    /// Appends to `partial` what one request brings, until it is complete.
    fn attempt(&self, shared: &Shared<'_>, partial: &mut Partial) -> Result<(), Failure> {
        let start = partial.len();
        if start == self.size {
            return Ok(());
        }
        let response = match shared.http.get(&self.url, (start > 0).then_some(start)) {
            Ok(response) => response,
            // The hub does not have what should come next: what is here is of something else.
            Err(Failure { error: HubError::Status { status: 416, .. }, .. }) if start > 0 => {
                shared.moved(start, 0);
                partial.restart()?;
                shared.http.get(&self.url, None)?
            }
            Err(failure) => return Err(failure),
        };
        let problem = |problem| Failure::from(answer(&self.url, problem));
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            let expected = format!("bytes {}-{}/{}", partial.len(), self.size - 1, self.size);
            if range != Some(expected.as_str()) {
                let range = range.unwrap_or("nothing");
                return Err(problem(format!("it sends {range} where {expected} is wanted")));
            }
        } else if partial.len() > 0 {
            // It knows no ranges, and sends all of it.
            shared.moved(partial.len(), 0);
            partial.restart()?;
        }
        let start = partial.len();
        let wanted = self.size - start;
        if let Some(length) = content_length(response.headers()).filter(|length| *length != wanted)
        {
            return Err(problem(format!("it sends {length} bytes where {wanted} are wanted")));
        }
        // One byte more tells a content that is too long.
        let mut body = response.into_body().into_reader().take(wanted + 1);
        let mut chunk = vec![0; CHUNK];
        let reason = loop {
            if shared.stop.load(Ordering::Relaxed) {
                return Err(HubError::Stopped.into());
            }
            match body.read(&mut chunk) {
                Ok(0) => break "it broke off".to_owned(),
                Ok(read) if read as u64 > self.size - partial.len() => {
                    return Err(problem(format!("it is longer than its {} bytes", self.size)));
                }
                Ok(read) => {
                    partial.append(&chunk[..read])?;
                    shared.moved(partial.len() - read as u64, partial.len());
                }
                Err(error) => break error.to_string(),
            }
        };
        if partial.len() == self.size {
            return Ok(());
        }
        let error = shared.http.unreachable(&self.url, reason);
        let got_further = partial.len() - start >= FURTHER;
        Err(Failure { got_further, ..Failure::passing(error) })
    }

    /// Waits until no other process fetches the file, or until the one that does gets no further.
    fn lock(&self, shared: &Shared<'_>) -> Result<File, HubError> {
        let io = HubError::io(&self.lock);
        create_parent(&self.lock)?;
        create_parent(&self.target)?;
        let file = File::options().write(true).create(true).truncate(false).open(&self.lock);
        let file = file.map_err(&io)?;
        let mut is_said = false;
        let (mut seen, mut since) = (self.here(), Instant::now());
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => return Err(io(error)),
            }
            if shared.stop.load(Ordering::Relaxed) {
                return Err(HubError::Stopped);
            }
            if !is_said {
                is_said = true;
                shared.observer.note(&format!("{}: waiting for another process", self.name));
            }
            let here = self.here();
            if here != seen {
                (seen, since) = (here, Instant::now());
            }
            if since.elapsed() > shared.http.settings().patience.lock {
                return Err(HubError::Locked(self.lock.clone()));
            }
            std::thread::sleep(LOCK_POLL);
        }
    }
}

/// Makes the folder that `path` is to lie in.
pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(HubError::io(folder))
}

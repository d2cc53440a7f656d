//! Why a model did not come, each in a sentence that says what to do.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// No name of a model or revision.
    #[error("{name:?} is not {what}")]
    Name {
        /// What was given.
        name: String,
        /// What it should have been.
        what: &'static str,
    },
    /// An environment variable that makes no sense.
    #[error("{variable} {problem}")]
    Setting {
        /// Its name.
        variable: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The hub must not be asked, and the files are not there.
    #[error(
        "{model} is not in {cache} ({missing}), and HF_HUB_OFFLINE is set: unset it to download, or \
         give --model a folder"
    )]
    Offline {
        /// Name and revision.
        model: String,
        /// The folder of models.
        cache: PathBuf,
        /// What is not there.
        missing: String,
    },
    /// No connection.
    #[error(
        "cannot reach {origin} ({reason}): check the network and proxy settings, set \
         {endpoint_variable} to a mirror, or give --model a folder"
    )]
    Unreachable {
        /// Scheme, host and port.
        origin: String,
        /// Why not.
        reason: String,
        /// What says where the hub is.
        endpoint_variable: &'static str,
    },
    /// No such model, or none for those without a token.
    #[error(
        "{page} does not exist, or is private: check the name; if it is private, set \
         {token_variable} to a token that may read it"
    )]
    MissingOrPrivate {
        /// Where it would be.
        page: String,
        /// What says the token.
        token_variable: &'static str,
    },
    /// No such model.
    #[error("{page} does not exist, or the token may not see it: check the name")]
    Missing {
        /// Where it would be.
        page: String,
    },
    /// No such branch, tag or commit.
    #[error("{page} has no revision {revision}: see its branches, tags and commits there")]
    MissingRevision {
        /// The model's page.
        page: String,
        /// What was asked for.
        revision: String,
    },
    /// The token is not known.
    #[error("the hub refuses the token: check {token_variable} (it may have expired)")]
    Unauthorized {
        /// What says the token.
        token_variable: &'static str,
    },
    /// The model's terms are to be accepted first.
    #[error(
        "{page} is gated: {}", if *has_token {
            "the account of this token has no access yet; accept the terms on that page, and wait \
             if access is granted by hand".to_owned()
        } else {
            format!("accept the terms on that page, then set {token_variable} to a token of that \
                     account")
        }
    )]
    Gated {
        /// Where to accept them.
        page: String,
        /// Whether a token was sent.
        has_token: bool,
        /// What says the token.
        token_variable: &'static str,
    },
    /// Refused for another reason.
    #[error("the hub refuses {page}: {message}")]
    Forbidden {
        /// The model's page.
        page: String,
        /// What it says.
        message: String,
    },
    /// A status that no more tries will change, or that many tries did not.
    #[error("{url} answers {status}{message}")]
    Status {
        /// What was asked for, without a query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it says, with a colon before it, if anything.
        message: String,
    },
    /// An answer that is not what a hub says.
    #[error("{url} is not answered as a hub would: {problem}")]
    Answer {
        /// What was asked for, without a query.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A file that every model needs.
    #[error("{model} has no {file}: {reason}")]
    NoFile {
        /// Name and revision.
        model: String,
        /// What is missing.
        file: &'static str,
        /// What that means.
        reason: &'static str,
    },
    /// A transfer that broke off too often.
    #[error("{file} did not come in {attempts} tries: {reason}; start again to go on from there")]
    Transfer {
        /// Its name.
        file: String,
        /// How often it was tried without getting further.
        attempts: u32,
        /// Why the last try ended.
        reason: String,
    },
    /// Not the file that the hub lists, twice.
    #[error("{file} is broken: its SHA-256 is {found}, the hub lists {expected}")]
    Checksum {
        /// Its name.
        file: String,
        /// What the hub lists.
        expected: String,
        /// What came.
        found: String,
    },
    /// No room.
    #[error(
        "{} has {:.2} GB free, but {:.2} GB are still to come: make room, or set {cache_variable}",
        folder.display(), gigabytes(*free), gigabytes(*needed)
    )]
    DiskFull {
        /// Where the files go.
        folder: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes to come.
        needed: u64,
        /// What says where files go.
        cache_variable: &'static str,
    },
    /// Somebody else holds the file and gets no further.
    #[error("another process holds {} and gets no further: stop it, or remove the file", .0.display())]
    Locked(PathBuf),
    /// The operating system refused something.
    #[error("{}: {source}", path.display())]
    Io {
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another file failed first.
    #[error("stopped, since another file failed")]
    Stopped,
}

impl HubError {
    /// For `map_err`: what went wrong with `path`.
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// What happened, without advice: for when it may still turn out well.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Unreachable { origin, reason, .. } => format!("cannot reach {origin} ({reason})"),
            error => error.to_string(),
        }
    }

    /// Whether the hub is away, rather than having said no.
    pub(super) fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

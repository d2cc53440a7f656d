//! Errors of this crate. Knows no noun from above it.

use crate::{PageId, RowId};

/// What can go wrong when pages are asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A page size outside the allowed range.
    #[error("page size {got} is not allowed: use 1 to {max}")]
    PageSize {
        /// The value given.
        got: usize,
        /// The largest value allowed.
        max: usize,
    },
    /// A limit of [`crate::KvConfig`] is zero or too large.
    #[error("{name} = {got} is not allowed: use 1 to {max}")]
    Limit {
        /// Which limit.
        name: &'static str,
        /// The value given.
        got: usize,
        /// The largest value allowed.
        max: usize,
    },
    /// More pages were asked for than are free or evictable.
    #[error("{wanted} more pages are needed, {available} are free or evictable")]
    OutOfPages {
        /// Pages asked for.
        wanted: usize,
        /// Pages free or evictable.
        available: usize,
    },
    /// A table row cannot hold so many pages.
    #[error("a table row holds at most {max} pages, {wanted} were asked for")]
    RowFull {
        /// Pages asked for.
        wanted: usize,
        /// Pages a row holds.
        max: usize,
    },
    /// The pool could not be allocated.
    #[error("the KV pool of {bytes} bytes could not be allocated: {source}")]
    Pool {
        /// Size asked for.
        bytes: usize,
        /// Why.
        source: Box<minisgl_kernels::Error>,
    },
}

/// The books don't balance: a bug in this crate or in its caller.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum IntegrityError {
    /// `free + cached + held != total`.
    #[error("free {free} + cached {cached} + held {held} pages are not the total of {total}")]
    Conservation {
        /// Pages on the free list.
        free: usize,
        /// Pages owned by the prefix cache.
        cached: usize,
        /// Pages owned by requests.
        held: usize,
        /// Pages there are.
        total: usize,
    },
    /// A page has two owners.
    #[error("{page} is owned twice: {first} and {second}")]
    OwnedTwice {
        /// The page.
        page: PageId,
        /// Its first owner.
        first: &'static str,
        /// Its second owner.
        second: &'static str,
    },
    /// A page has no owner.
    #[error("{page} is lost: nobody owns it")]
    Lost {
        /// The page.
        page: PageId,
    },
    /// The prefix cache's own structure is broken.
    #[error("prefix cache: {0}")]
    PrefixCache(String),
    /// A table row points at a page that neither the row nor the cache owns.
    #[error("{row} points at {page}, which it may not read")]
    Dangling {
        /// The row.
        row: RowId,
        /// The page.
        page: PageId,
    },
}

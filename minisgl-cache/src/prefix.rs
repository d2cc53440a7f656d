//! The prefix-cache contract: which pages already hold the KV of a token sequence's start.
//! Knows token ids and page ids; never how the pages came to be filled.

use std::fmt;
use std::str::FromStr;

use crate::naive::NaiveCache;
use crate::page::TokenId;
use crate::radix::RadixCache;
use crate::{IntegrityError, PageId, PageSize};

/// A place in the prefix cache, and with it the prefix that ends there.
///
/// Valid while it is locked; an unlocked node may be evicted by the next `insert` or `evict`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// The empty prefix: never evicted.
    pub const ROOT: NodeId = NodeId(0);
}

/// What is cached of a token sequence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrefixMatch {
    /// Where the cached prefix ends.
    pub node: NodeId,
    /// Its pages in order; it covers `pages.len() * page_size` tokens.
    pub pages: Vec<PageId>,
}

/// Maps prefixes, in whole pages, to the pages that hold their KV.
///
/// A page handed to [`PrefixCache::insert`] belongs to the cache until [`PrefixCache::evict`]
/// returns it. A page is *locked* while a node at or below its own is, else *evictable*.
pub trait PrefixCache: fmt::Debug + Send {
    /// Finds the longest cached prefix of `tokens` and marks it as just used.
    ///
    /// May split nodes, which changes neither what is cached nor what is locked. Lock the result
    /// before calling anything else.
    fn match_prefix(&mut self, tokens: &[TokenId]) -> PrefixMatch;

    /// Caches `pages` as the KV of `tokens`, which fill exactly `pages.len()` pages, and returns
    /// what [`PrefixCache::match_prefix`] finds for `tokens` from now on.
    ///
    /// Where the result names the page that was passed at the same index, that page now belongs to
    /// the cache (or did before); where it names another one, the cache had that part already and
    /// the page passed stays the caller's. A cache that keeps nothing returns an empty prefix.
    fn insert(&mut self, tokens: &[TokenId], pages: &[PageId]) -> PrefixMatch;

    /// Pins `node` and all above it; counted, so lock and unlock in pairs.
    fn lock(&mut self, node: NodeId);

    /// Takes one pin off `node` and all above it.
    fn unlock(&mut self, node: NodeId);

    /// Drops up to `count` evictable pages, least recently used first, last page of a prefix
    /// before the ones before it, and returns them.
    fn evict(&mut self, count: usize) -> Vec<PageId>;

    /// Pages that [`PrefixCache::evict`] could return now.
    fn evictable_pages(&self) -> usize;

    /// Pages in use by someone.
    fn locked_pages(&self) -> usize;

    /// All pages the cache owns, in no particular order.
    fn pages(&self) -> Vec<PageId>;

    /// Checks the cache's own structure.
    ///
    /// # Errors
    /// [`IntegrityError::PrefixCache`] with what is wrong.
    fn check(&self) -> Result<(), IntegrityError>;
}

/// Which prefix cache to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheKind {
    /// Token-exact reuse of any shared prefix.
    Radix,
    /// No reuse.
    Naive,
}

impl CacheKind {
    /// An empty cache of this kind.
    pub fn build(self, page_size: PageSize) -> Box<dyn PrefixCache> {
        match self {
            CacheKind::Radix => Box::new(RadixCache::new(page_size)),
            CacheKind::Naive => Box::new(NaiveCache),
        }
    }
}

impl FromStr for CacheKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "radix" => Ok(CacheKind::Radix),
            "naive" => Ok(CacheKind::Naive),
            _ => Err(format!("unknown prefix cache `{text}`: use radix or naive")),
        }
    }
}

impl fmt::Display for CacheKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CacheKind::Radix => "radix",
            CacheKind::Naive => "naive",
        })
    }
}

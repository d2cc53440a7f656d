//! A prefix cache that keeps nothing: the baseline, and what `--cache naive` asks for.

use crate::IntegrityError;
use crate::PageId;
use crate::page::TokenId;
use crate::prefix::{NodeId, PrefixCache, PrefixMatch};

/// Matches nothing, keeps nothing.
#[derive(Debug)]
pub struct NaiveCache;

impl PrefixCache for NaiveCache {
    fn match_prefix(&mut self, _tokens: &[TokenId]) -> PrefixMatch {
        PrefixMatch { node: NodeId::ROOT, pages: Vec::new() }
    }

    fn insert(&mut self, _tokens: &[TokenId], _pages: &[PageId]) -> PrefixMatch {
        PrefixMatch { node: NodeId::ROOT, pages: Vec::new() }
    }

    fn lock(&mut self, _node: NodeId) {}

    fn unlock(&mut self, _node: NodeId) {}

    fn evict(&mut self, _count: usize) -> Vec<PageId> {
        Vec::new()
    }

    fn evictable_pages(&self) -> usize {
        0
    }

    fn locked_pages(&self) -> usize {
        0
    }

    fn pages(&self) -> Vec<PageId> {
        Vec::new()
    }

    fn check(&self) -> Result<(), IntegrityError> {
        Ok(())
    }
}

//! The radix prefix cache: a tree whose edges are runs of whole pages, shared by all requests that
//! begin with the same tokens. Token-exact: keys are compared in full, never by hash.
//!
//! Same idea as RadixAttention (SGLang, arXiv 2312.07104), with pages as the unit, a logical clock
//! in place of the wall clock, and an ordered set of evictable leaves in place of a tree walk.
//! Never knows who holds a lock, nor what time it is.

mod check;
mod node;

use std::collections::BTreeSet;

use self::node::{Arena, Node};
use crate::page::TokenId;
use crate::prefix::{NodeId, PrefixCache, PrefixMatch};
use crate::{IntegrityError, PageId, PageSize};

/// See the [module](self).
#[derive(Debug)]
pub struct RadixCache {
    page_size: usize,
    nodes: Arena,
    /// Leaves with no lock, least recently used first: what eviction takes from.
    evictable_leaves: BTreeSet<(u64, NodeId)>,
    evictable_pages: usize,
    locked_pages: usize,
    clock: u64,
}

impl RadixCache {
    /// An empty tree.
    pub fn new(page_size: PageSize) -> Self {
        Self {
            page_size: page_size.get(),
            nodes: Arena::new(),
            evictable_leaves: BTreeSet::new(),
            evictable_pages: 0,
            locked_pages: 0,
            clock: 0,
        }
    }

    /// Follows `tokens` down from the root as far as whole pages agree, splitting the last edge if
    /// it agrees only in part, and marks the path as used now.
    fn walk(&mut self, tokens: &[TokenId]) -> PrefixMatch {
        self.clock += 1;
        let mut found = PrefixMatch { node: NodeId::ROOT, pages: Vec::new() };
        let mut rest = tokens;
        while rest.len() >= self.page_size {
            let Some(child) = self.nodes[found.node].child(&rest[..self.page_size]) else { break };
            let shared = self.nodes[child].common_pages(rest, self.page_size);
            let child = if shared < self.nodes[child].pages.len() {
                self.split(child, shared)
            } else {
                child
            };
            self.touch(child);
            found.pages.extend_from_slice(&self.nodes[child].pages);
            found.node = child;
            rest = &rest[shared * self.page_size..];
        }
        found
    }

    /// Cuts the edge to `node` after `pages` pages; returns the new upper node.
    fn split(&mut self, node: NodeId, pages: usize) -> NodeId {
        let lower = &mut self.nodes[node];
        let lower_tokens = lower.tokens.split_off(pages * self.page_size);
        let lower_pages = lower.pages.split_off(pages);
        let upper = Node {
            tokens: std::mem::replace(&mut lower.tokens, lower_tokens),
            pages: std::mem::replace(&mut lower.pages, lower_pages),
            children: Default::default(),
            parent: lower.parent,
            lock_ref: lower.lock_ref,
            last_used: lower.last_used,
        };
        let parent = upper.parent;
        let upper = self.nodes.insert(upper);
        self.nodes[node].parent = upper;
        self.nodes.link(parent, upper, self.page_size);
        self.nodes.link(upper, node, self.page_size);
        upper
    }

    fn touch(&mut self, node: NodeId) {
        let was = self.nodes[node].last_used;
        if self.evictable_leaves.remove(&(was, node)) {
            self.evictable_leaves.insert((self.clock, node));
        }
        self.nodes[node].last_used = self.clock;
    }

    /// Puts `node` on the list of what can be evicted if it belongs there.
    fn offer(&mut self, node: NodeId) {
        let candidate = &self.nodes[node];
        if node != NodeId::ROOT && candidate.lock_ref == 0 && candidate.children.is_empty() {
            self.evictable_leaves.insert((candidate.last_used, node));
        }
    }

    fn withdraw(&mut self, node: NodeId) {
        self.evictable_leaves.remove(&(self.nodes[node].last_used, node));
    }
}

impl PrefixCache for RadixCache {
    fn match_prefix(&mut self, tokens: &[TokenId]) -> PrefixMatch {
        self.walk(tokens)
    }

    fn insert(&mut self, tokens: &[TokenId], pages: &[PageId]) -> PrefixMatch {
        assert_eq!(tokens.len(), pages.len() * self.page_size, "insert takes whole pages");
        let mut found = self.walk(tokens);
        let known = found.pages.len();
        if known < pages.len() {
            self.withdraw(found.node);
            let leaf = self.nodes.insert(Node {
                tokens: tokens[known * self.page_size..].to_vec(),
                pages: pages[known..].to_vec(),
                children: Default::default(),
                parent: found.node,
                lock_ref: 0,
                last_used: self.clock,
            });
            self.nodes.link(found.node, leaf, self.page_size);
            self.evictable_pages += pages.len() - known;
            self.offer(leaf);
            found.pages.extend_from_slice(&pages[known..]);
            found.node = leaf;
        }
        found
    }

    fn lock(&mut self, node: NodeId) {
        let mut at = node;
        while at != NodeId::ROOT {
            if self.nodes[at].lock_ref == 0 {
                self.withdraw(at);
                self.evictable_pages -= self.nodes[at].pages.len();
                self.locked_pages += self.nodes[at].pages.len();
            }
            self.nodes[at].lock_ref += 1;
            at = self.nodes[at].parent;
        }
    }

    fn unlock(&mut self, node: NodeId) {
        let mut at = node;
        while at != NodeId::ROOT {
            assert!(self.nodes[at].lock_ref > 0, "unlock without lock");
            self.nodes[at].lock_ref -= 1;
            if self.nodes[at].lock_ref == 0 {
                self.locked_pages -= self.nodes[at].pages.len();
                self.evictable_pages += self.nodes[at].pages.len();
                self.offer(at);
            }
            at = self.nodes[at].parent;
        }
    }

    fn evict(&mut self, count: usize) -> Vec<PageId> {
        let mut evicted = Vec::new();
        while evicted.len() < count
            && let Some((_, node)) = self.evictable_leaves.first().copied()
        {
            let leaf = &mut self.nodes[node];
            let keep = leaf.pages.len().saturating_sub(count - evicted.len());
            evicted.extend(leaf.pages.drain(keep..).rev());
            if keep > 0 {
                leaf.tokens.truncate(keep * self.page_size);
            } else {
                self.withdraw(node);
                let parent = self.nodes.remove(node, self.page_size);
                self.offer(parent);
            }
        }
        self.evictable_pages -= evicted.len();
        evicted
    }

    fn evictable_pages(&self) -> usize {
        self.evictable_pages
    }

    fn locked_pages(&self) -> usize {
        self.locked_pages
    }

    fn pages(&self) -> Vec<PageId> {
        self.nodes.iter().flat_map(|(_, node)| node.pages.iter().copied()).collect()
    }

    fn check(&self) -> Result<(), IntegrityError> {
        check::check(self).map_err(IntegrityError::PrefixCache)
    }
}

#[cfg(test)]
mod tests;

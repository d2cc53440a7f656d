//! Recounts the radix tree from scratch and compares with what it keeps up to date.

use std::collections::{BTreeMap, BTreeSet};

use super::RadixCache;
use crate::prefix::NodeId;

/// What is wrong with `cache`, if anything.
pub(super) fn check(cache: &RadixCache) -> Result<(), String> {
    let mut evictable_pages = 0;
    let mut locked_pages = 0;
    let mut evictable_leaves = BTreeSet::new();
    let mut owners = BTreeMap::new();
    for (id, node) in cache.nodes.iter() {
        for (first_page, child) in &node.children {
            let child_node = &cache.nodes[*child];
            if child_node.parent != id {
                return Err(format!("{child:?} does not know its parent {id:?}"));
            }
            if !child_node.tokens.starts_with(first_page) {
                return Err(format!("{child:?} is filed under the wrong first page"));
            }
            if child_node.lock_ref > node.lock_ref && id != NodeId::ROOT {
                return Err(format!("{child:?} is locked more often than its parent {id:?}"));
            }
            if child_node.last_used > node.last_used && id != NodeId::ROOT {
                return Err(format!("{child:?} was used after its parent {id:?}"));
            }
        }
        if id == NodeId::ROOT {
            continue;
        }
        if node.pages.is_empty() || node.tokens.len() != node.pages.len() * cache.page_size {
            return Err(format!(
                "{id:?} has {} tokens in {} pages",
                node.tokens.len(),
                node.pages.len()
            ));
        }
        if cache.nodes[node.parent].child(&node.tokens[..cache.page_size]) != Some(id) {
            return Err(format!("{id:?} cannot be reached from its parent"));
        }
        for page in &node.pages {
            if let Some(other) = owners.insert(*page, id) {
                return Err(format!("{page} is in {other:?} and in {id:?}"));
            }
        }
        if node.lock_ref > 0 {
            locked_pages += node.pages.len();
        } else {
            evictable_pages += node.pages.len();
            if node.children.is_empty() {
                evictable_leaves.insert((node.last_used, id));
            }
        }
    }
    if (evictable_pages, locked_pages) != (cache.evictable_pages, cache.locked_pages) {
        return Err(format!(
            "{evictable_pages} evictable and {locked_pages} locked pages were counted as {} and {}",
            cache.evictable_pages, cache.locked_pages
        ));
    }
    if evictable_leaves != cache.evictable_leaves {
        return Err("the list of evictable leaves is stale".to_owned());
    }
    Ok(())
}

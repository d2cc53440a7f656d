//! Nodes of the radix tree and the arena they live in. Knows the tree's links, not its clock.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use crate::PageId;
use crate::page::TokenId;
use crate::prefix::NodeId;

/// A run of whole pages, below its parent's.
#[derive(Debug)]
pub(super) struct Node {
    /// `pages.len() * page_size` tokens; empty for the root only.
    pub(super) tokens: Vec<TokenId>,
    pub(super) pages: Vec<PageId>,
    /// By the first page of the child's tokens.
    pub(super) children: BTreeMap<Box<[TokenId]>, NodeId>,
    pub(super) parent: NodeId,
    /// Locks on this node or one below it.
    pub(super) lock_ref: u32,
    /// The logical clock when a match or insert last passed here.
    pub(super) last_used: u64,
}

impl Node {
    /// The child that begins with the page `first_page`.
    pub(super) fn child(&self, first_page: &[TokenId]) -> Option<NodeId> {
        self.children.get(first_page).copied()
    }

    /// How many whole pages of this node agree with the start of `tokens`.
    pub(super) fn common_pages(&self, tokens: &[TokenId], page_size: usize) -> usize {
        common_prefix(&self.tokens, tokens) / page_size
    }
}

/// How many tokens two sequences have in common at their start.
fn common_prefix(a: &[TokenId], b: &[TokenId]) -> usize {
    // Whole chunks compare as memory, many times faster than token by token.
    const CHUNK: usize = 64;
    let equal = a.chunks_exact(CHUNK).zip(b.chunks_exact(CHUNK)).take_while(|(a, b)| a == b);
    let start = equal.count() * CHUNK;
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}

/// Nodes by id; the root is always there.
#[derive(Debug)]
pub(super) struct Arena {
    slots: Vec<Option<Node>>,
    free: Vec<NodeId>,
}

impl Arena {
    pub(super) fn new() -> Self {
        let root = Node {
            tokens: Vec::new(),
            pages: Vec::new(),
            children: BTreeMap::new(),
            parent: NodeId::ROOT,
            lock_ref: 0,
            last_used: 0,
        };
        Self { slots: vec![Some(root)], free: Vec::new() }
    }

    /// Stores `node`; the caller links it to its parent.
    pub(super) fn insert(&mut self, node: Node) -> NodeId {
        if let Some(id) = self.free.pop() {
            self.slots[id.0 as usize] = Some(node);
            return id;
        }
        let id = NodeId(u32::try_from(self.slots.len()).expect("fewer nodes than pages"));
        self.slots.push(Some(node));
        id
    }

    /// Makes `child` the child of `parent` that begins with the child's first page.
    pub(super) fn link(&mut self, parent: NodeId, child: NodeId, page_size: usize) {
        let first_page = self[child].tokens[..page_size].into();
        self[parent].children.insert(first_page, child);
    }

    /// Drops the leaf `node` and returns its parent.
    pub(super) fn remove(&mut self, node: NodeId, page_size: usize) -> NodeId {
        let removed = self.slots[node.0 as usize].take().expect("a live node");
        debug_assert!(removed.children.is_empty() && removed.lock_ref == 0);
        self[removed.parent].children.remove(&removed.tokens[..page_size]);
        self.free.push(node);
        removed.parent
    }

    /// All live nodes with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let ids = (0..).map(NodeId);
        ids.zip(&self.slots).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }
}

impl Index<NodeId> for Arena {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        self.slots[id.0 as usize].as_ref().expect("a live node")
    }
}

impl IndexMut<NodeId> for Arena {
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        self.slots[id.0 as usize].as_mut().expect("a live node")
    }
}

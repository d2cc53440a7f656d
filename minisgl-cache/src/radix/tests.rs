//! The radix cache against a naive map from whole prefixes to pages.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The definition: every cached prefix (in whole pages) with its last page, when it was last used
/// and how often it is locked.
#[derive(Default)]
struct Model {
    entries: BTreeMap<Vec<TokenId>, Entry>,
    clock: u64,
}

#[derive(Clone)]
struct Entry {
    page: PageId,
    last_used: u64,
    locks: u32,
}

impl Model {
    fn prefixes(tokens: &[TokenId], page_size: usize) -> impl Iterator<Item = &[TokenId]> {
        (1..=tokens.len() / page_size).map(move |pages| &tokens[..pages * page_size])
    }

    fn match_prefix(&mut self, tokens: &[TokenId], page_size: usize) -> Vec<PageId> {
        self.clock += 1;
        let mut pages = Vec::new();
        for prefix in Self::prefixes(tokens, page_size) {
            let Some(entry) = self.entries.get_mut(prefix) else { break };
            entry.last_used = self.clock;
            pages.push(entry.page);
        }
        pages
    }

    fn insert(&mut self, tokens: &[TokenId], pages: &[PageId], page_size: usize) -> Vec<PageId> {
        let known = self.match_prefix(tokens, page_size).len();
        for (prefix, page) in Self::prefixes(tokens, page_size).zip(pages).skip(known) {
            let entry = Entry { page: *page, last_used: self.clock, locks: 0 };
            self.entries.insert(prefix.to_vec(), entry);
        }
        self.match_prefix(tokens, page_size)
    }

    fn lock(&mut self, tokens: &[TokenId], page_size: usize, change: i32) {
        for prefix in Self::prefixes(tokens, page_size) {
            let locks = &mut self.entries.get_mut(prefix).unwrap().locks;
            *locks = locks.checked_add_signed(change).unwrap();
        }
    }

    /// Whether `page` may be evicted now: unlocked, nothing cached beyond it, and nothing else of
    /// that kind used longer ago.
    fn evict(&mut self, page: PageId) -> Result<(), String> {
        let leaf = |prefix: &[TokenId]| {
            !self
                .entries
                .keys()
                .any(|other| other.len() > prefix.len() && other.starts_with(prefix))
        };
        let (prefix, entry) =
            self.entries.iter().find(|(_, entry)| entry.page == page).ok_or("unknown page")?;
        if entry.locks > 0 || !leaf(prefix) {
            return Err(format!("{page} is locked or not a leaf"));
        }
        let oldest = self.entries.iter().filter(|(prefix, other)| other.locks == 0 && leaf(prefix));
        let oldest = oldest.map(|(_, other)| other.last_used).min().unwrap();
        if oldest < entry.last_used {
            return Err(format!("{page} is not the least recently used"));
        }
        let prefix = prefix.clone();
        self.entries.remove(&prefix);
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Op {
    Match(Vec<TokenId>),
    Insert(Vec<TokenId>),
    Lock(Vec<TokenId>),
    Unlock(usize),
    Evict(usize),
}

/// Few distinct tokens, so that prefixes collide often.
fn tokens() -> impl Strategy<Value = Vec<TokenId>> {
    prop::collection::vec(0..3u32, 0..24)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => tokens().prop_map(Op::Match),
        4 => tokens().prop_map(Op::Insert),
        2 => tokens().prop_map(Op::Lock),
        2 => any::<usize>().prop_map(Op::Unlock),
        1 => (0..12usize).prop_map(Op::Evict),
    ]
}

fn run(page_size: usize, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut radix = RadixCache::new(PageSize::new(page_size).unwrap());
    let mut model = Model::default();
    let mut locked: Vec<(NodeId, Vec<TokenId>)> = Vec::new();
    let mut fresh_pages = (0..).map(PageId);
    for op in ops {
        match op {
            Op::Match(tokens) => {
                let found = radix.match_prefix(&tokens);
                prop_assert_eq!(found.pages, model.match_prefix(&tokens, page_size));
            }
            Op::Insert(mut tokens) => {
                tokens.truncate(tokens.len() / page_size * page_size);
                let pages: Vec<_> = fresh_pages.by_ref().take(tokens.len() / page_size).collect();
                let found = radix.insert(&tokens, &pages);
                prop_assert_eq!(&found.pages, &model.insert(&tokens, &pages, page_size));
                prop_assert_eq!(found.pages.len(), pages.len());
                prop_assert_eq!(radix.match_prefix(&tokens), found);
                model.match_prefix(&tokens, page_size);
            }
            Op::Lock(mut tokens) => {
                let found = radix.match_prefix(&tokens);
                model.match_prefix(&tokens, page_size);
                tokens.truncate(found.pages.len() * page_size);
                radix.lock(found.node);
                model.lock(&tokens, page_size, 1);
                locked.push((found.node, tokens));
            }
            Op::Unlock(index) if !locked.is_empty() => {
                let (node, tokens) = locked.swap_remove(index % locked.len());
                radix.unlock(node);
                model.lock(&tokens, page_size, -1);
            }
            Op::Unlock(_) => {}
            Op::Evict(count) => {
                let evictable = radix.evictable_pages();
                let evicted = radix.evict(count);
                prop_assert_eq!(evicted.len(), count.min(evictable));
                for page in evicted {
                    prop_assert_eq!(model.evict(page), Ok(()));
                }
            }
        }
        prop_assert_eq!(radix.check(), Ok(()));
        let locked_pages = model.entries.values().filter(|entry| entry.locks > 0).count();
        prop_assert_eq!(radix.locked_pages(), locked_pages);
        prop_assert_eq!(radix.evictable_pages(), model.entries.len() - locked_pages);
        let mut pages = radix.pages();
        let mut expected: Vec<_> = model.entries.values().map(|entry| entry.page).collect();
        pages.sort();
        expected.sort();
        prop_assert_eq!(pages, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_with_a_map_of_prefixes(
        page_size in prop::sample::select(vec![1usize, 2, 4]),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        run(page_size, ops)?;
    }
}

#[test]
fn eviction_keeps_what_is_locked_and_takes_the_rest_from_the_end() {
    let mut radix = RadixCache::new(PageSize::new(1).unwrap());
    let trunk = radix.insert(&[1, 2, 3, 4], &[0, 1, 2, 3].map(PageId));
    radix.insert(&[1, 2, 9], &[0, 1, 4].map(PageId));
    let inner = radix.match_prefix(&[1, 2, 3]);
    radix.lock(inner.node);
    assert_eq!(radix.locked_pages(), 3);
    assert_eq!(radix.evict(1), [PageId(3)], "the longest unused of those not locked");
    assert_eq!(radix.evict(10), [PageId(4)]);
    assert_eq!(radix.evict(10), []);
    radix.unlock(inner.node);
    assert_eq!(radix.evict(2), [2, 1].map(PageId));
    assert_eq!(radix.match_prefix(&[1, 2, 3, 4]).pages, [PageId(0)]);
    assert_eq!(trunk.pages.len(), 4);
}

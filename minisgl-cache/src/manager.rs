//! One request's pages from opening to closing, over the allocator, the page table and the prefix
//! cache; and the check that no page is lost or owned twice.
//!
//! A request's row holds, by half-open ranges of its entries:
//!
//! ```text
//! [0, shared)      pages of the prefix cache, locked for this request, never written by it
//! [shared, len)    pages of its own
//! ```
//!
//! [`KvManager::publish`] moves the border to the right: full pages become the cache's, and where
//! the cache has the same prefix already, the row is re-pointed at the cache's page *before* the
//! duplicate may be freed.
//!
//! Never knows requests, steps or time. What a step in flight may still read or write is the
//! caller's business: [`KvManager::publish`] hands duplicates back, and [`KvManager::close`] is to
//! be called when no such step is left.

use crate::allocator::PageAllocator;
use crate::page::TokenId;
use crate::prefix::{CacheKind, NodeId, PrefixCache};
use crate::table::{PageTable, TableUpdate};
use crate::{CacheError, PageId, PageSize, RowId};

mod check;

/// Sizes, all fixed at start.
#[derive(Clone, Copy, Debug)]
pub struct KvConfig {
    /// Pages in the pool.
    pub num_pages: usize,
    /// Tokens in a page.
    pub page_size: PageSize,
    /// Rows in the page table: requests that can hold pages at one time.
    pub num_rows: usize,
    /// Pages one request can hold.
    pub max_pages_per_row: usize,
    /// Which prefix cache.
    pub cache: CacheKind,
}

/// What one request holds: a row of the page table and a lock in the prefix cache.
///
/// Not returned by itself: pass it to [`KvManager::close`].
#[derive(Debug)]
#[must_use = "a lease dropped is a row and its pages lost; close it"]
pub struct Lease {
    row: RowId,
    node: NodeId,
    shared: usize,
}

impl Lease {
    /// The row of the page table.
    pub fn row(&self) -> RowId {
        self.row
    }

    /// Pages at the start of the row that belong to the prefix cache.
    pub fn shared_pages(&self) -> usize {
        self.shared
    }
}

/// Where the pages are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// On the free list.
    pub free: usize,
    /// In the prefix cache and in use by nobody.
    pub evictable: usize,
    /// In the prefix cache and in use.
    pub locked: usize,
    /// Owned by requests, or retired by them and not yet freed.
    pub held: usize,
    /// All there are.
    pub total: usize,
}

impl Usage {
    /// Pages in the prefix cache.
    pub fn cached(&self) -> usize {
        self.evictable + self.locked
    }

    /// Pages that can be had now.
    pub fn available(&self) -> usize {
        self.free + self.evictable
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct KvManager {
    page_size: PageSize,
    allocator: PageAllocator,
    table: PageTable,
    prefix: Box<dyn PrefixCache>,
    held: usize,
}

impl KvManager {
    /// All pages and rows free.
    ///
    /// # Errors
    /// [`CacheError::Limit`] if a size is zero or does not fit 31 bits (page tables are `i32` on
    /// the device).
    pub fn new(config: KvConfig) -> Result<Self, CacheError> {
        let limit = |name, got: usize, max: usize| match u32::try_from(got) {
            Ok(value) if (1..=max).contains(&got) => Ok(value),
            _ => Err(CacheError::Limit { name, got, max }),
        };
        let max_slots = i32::MAX as usize;
        let num_pages = limit("num_pages", config.num_pages, max_slots / config.page_size.get())?;
        let num_rows = limit("num_rows", config.num_rows, max_slots)?;
        limit("max_pages_per_row", config.max_pages_per_row, max_slots)?;
        Ok(Self {
            page_size: config.page_size,
            allocator: PageAllocator::new(num_pages),
            table: PageTable::new(num_rows, config.max_pages_per_row),
            prefix: config.cache.build(config.page_size),
            held: 0,
        })
    }

    /// Tokens in a page.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Where the pages are now.
    pub fn usage(&self) -> Usage {
        Usage {
            free: self.allocator.num_free(),
            evictable: self.prefix.evictable_pages(),
            locked: self.prefix.locked_pages(),
            held: self.held,
            total: self.allocator.total(),
        }
    }

    /// Rows nobody holds.
    pub fn num_free_rows(&self) -> usize {
        self.table.num_free_rows()
    }

    /// The pages `lease` covers so far, in order of position.
    pub fn pages(&self, lease: &Lease) -> &[PageId] {
        self.table.pages(lease.row)
    }

    /// Takes a row for a request and locks what is cached of `prompt`, but for its last token:
    /// that one is always computed, for its logits. `None` if no row is free.
    pub fn open(&mut self, prompt: &[TokenId]) -> Option<Lease> {
        let row = self.table.open()?;
        let longest = self.table.max_pages() * self.page_size.get();
        let reusable = &prompt[..prompt.len().saturating_sub(1).min(longest)];
        let found = self.prefix.match_prefix(reusable);
        self.prefix.lock(found.node);
        let shared = found.pages.len();
        self.table.push(row, found.pages);
        Some(Lease { row, node: found.node, shared })
    }

    /// Makes `lease` cover positions `0..num_tokens`, evicting cached pages if it must.
    ///
    /// # Errors
    /// [`CacheError::OutOfPages`] or [`CacheError::RowFull`]; the lease is then unchanged.
    pub fn grow(&mut self, lease: &Lease, num_tokens: usize) -> Result<(), CacheError> {
        let total = self.page_size.pages_for(num_tokens);
        if total > self.table.max_pages() {
            return Err(CacheError::RowFull { wanted: total, max: self.table.max_pages() });
        }
        let wanted = total.saturating_sub(self.table.pages(lease.row).len());
        let available = self.usage().available();
        if wanted > available {
            return Err(CacheError::OutOfPages { wanted, available });
        }
        let shortage = wanted.saturating_sub(self.allocator.num_free());
        self.allocator.free(self.prefix.evict(shortage));
        if let Some(pages) = self.allocator.allocate(wanted) {
            self.held += wanted;
            self.table.push(lease.row, pages);
        }
        Ok(())
    }

    /// Gives the full pages of `tokens`, whose KV is computed, to the prefix cache, and returns
    /// the lease's pages that turned out to be duplicates. The row points at the cache's pages
    /// from now on; pass the duplicates to [`KvManager::free`] when no step can read them.
    pub fn publish(&mut self, lease: &mut Lease, tokens: &[TokenId]) -> Vec<PageId> {
        let full = self.page_size.full_pages(tokens.len());
        if full <= lease.shared {
            return Vec::new();
        }
        let own = &self.table.pages(lease.row)[..full];
        let cached = self.prefix.insert(&tokens[..full * self.page_size.get()], own);
        let Some(newly_shared) = cached.pages.get(lease.shared..) else { return Vec::new() };
        // The cache had a part of this already, then comes what it took from us.
        let ours = own[lease.shared..].iter().zip(newly_shared);
        let known = ours.take_while(|(own, cached)| own != cached).count();
        let moved = newly_shared.len();
        let duplicates =
            self.table.replace(lease.row, lease.shared, newly_shared[..known].to_vec());
        self.prefix.lock(cached.node);
        self.prefix.unlock(std::mem::replace(&mut lease.node, cached.node));
        lease.shared += moved;
        self.held -= moved - known;
        duplicates
    }

    /// Frees pages that [`KvManager::publish`] returned.
    pub fn free(&mut self, pages: Vec<PageId>) {
        self.held -= pages.len();
        self.allocator.free(pages);
    }

    /// Ends a lease: caches the full pages of `tokens` (pass the tokens whose KV is computed, or
    /// none to cache nothing), frees the rest, and gives the row back.
    pub fn close(&mut self, mut lease: Lease, tokens: &[TokenId]) {
        let duplicates = self.publish(&mut lease, tokens);
        self.free(duplicates);
        self.prefix.unlock(lease.node);
        let own = self.table.close(lease.row).split_off(lease.shared);
        self.free(own);
    }

    /// Drops everything that is cached and not in use; returns how many pages that freed.
    pub fn flush(&mut self) -> usize {
        let evicted = self.prefix.evict(self.prefix.evictable_pages());
        let count = evicted.len();
        self.allocator.free(evicted);
        count
    }

    /// The page-table changes since the last call.
    pub fn take_table_updates(&mut self) -> Vec<TableUpdate> {
        self.table.take_updates()
    }
}

#[cfg(test)]
mod tests;

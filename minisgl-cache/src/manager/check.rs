//! The conservation check: every page has exactly one owner, and rows point only at pages they may
//! read. Knows the books, changes nothing.

use super::{KvManager, Lease};
use crate::{IntegrityError, PageId};

impl KvManager {
    /// Checks the books, given all leases that are open and all pages that
    /// [`KvManager::publish`] returned and that are not freed yet.
    ///
    /// # Errors
    /// [`IntegrityError`] with the first contradiction found.
    pub fn check<'a>(
        &self,
        leases: impl IntoIterator<Item = &'a Lease>,
        retired: impl IntoIterator<Item = &'a PageId>,
    ) -> Result<(), IntegrityError> {
        self.prefix.check()?;
        let usage = self.usage();
        if usage.free + usage.cached() + usage.held != usage.total {
            return Err(IntegrityError::Conservation {
                free: usage.free,
                cached: usage.cached(),
                held: usage.held,
                total: usage.total,
            });
        }
        let mut owners = Owners { of: vec![None; usage.total] };
        for index in 0..usage.total {
            let page = PageId(index as u32);
            if self.allocator.is_free(page) {
                owners.claim(page, "the free list")?;
            }
        }
        let cached = self.prefix.pages();
        for page in &cached {
            owners.claim(*page, "the prefix cache")?;
        }
        let mut is_cached = vec![false; usage.total];
        for page in cached {
            is_cached[page.0 as usize] = true;
        }
        for lease in leases {
            let (shared, own) = self.table.pages(lease.row).split_at(lease.shared);
            if let Some(page) = shared.iter().find(|page| !is_cached[page.0 as usize]) {
                return Err(IntegrityError::Dangling { row: lease.row, page: *page });
            }
            for page in own {
                owners.claim(*page, "a request")?;
            }
        }
        for page in retired {
            owners.claim(*page, "a request that shares the cache's twin of it")?;
        }
        match owners.of.iter().position(Option::is_none) {
            Some(lost) => Err(IntegrityError::Lost { page: PageId(lost as u32) }),
            None => Ok(()),
        }
    }
}

struct Owners {
    of: Vec<Option<&'static str>>,
}

impl Owners {
    fn claim(&mut self, page: PageId, owner: &'static str) -> Result<(), IntegrityError> {
        match self.of[page.0 as usize].replace(owner) {
            None => Ok(()),
            Some(first) => Err(IntegrityError::OwnedTwice { page, first, second: owner }),
        }
    }
}

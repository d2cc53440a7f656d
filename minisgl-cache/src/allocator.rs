//! The free list of pages. Knows page ids only, not who holds the others.

use std::collections::VecDeque;

use crate::PageId;

/// Hands out pages first in, first out, so that a page just freed is the last to be reused.
#[derive(Debug)]
pub struct PageAllocator {
    free: VecDeque<PageId>,
    is_free: Vec<bool>,
}

impl PageAllocator {
    /// All of `num_pages` pages free.
    pub fn new(num_pages: u32) -> Self {
        Self { free: (0..num_pages).map(PageId).collect(), is_free: vec![true; num_pages as usize] }
    }

    /// Pages there are, free or not.
    pub fn total(&self) -> usize {
        self.is_free.len()
    }

    /// Pages that are free.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// Takes `count` pages, or none if fewer are free.
    pub fn allocate(&mut self, count: usize) -> Option<Vec<PageId>> {
        if count > self.free.len() {
            return None;
        }
        let pages: Vec<PageId> = self.free.drain(..count).collect();
        for page in &pages {
            self.is_free[page.0 as usize] = false;
        }
        Some(pages)
    }

    /// Gives pages back.
    ///
    /// # Panics
    /// If a page is free already: a double free is a bug that must not spread.
    pub fn free(&mut self, pages: impl IntoIterator<Item = PageId>) {
        for page in pages {
            let is_free = &mut self.is_free[page.0 as usize];
            assert!(!*is_free, "{page} is freed twice");
            *is_free = true;
            self.free.push_back(page);
        }
    }

    /// Whether `page` is free.
    pub fn is_free(&self, page: PageId) -> bool {
        self.is_free[page.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing_and_first_in_first_out() {
        let mut pages = PageAllocator::new(4);
        assert_eq!(pages.allocate(3), Some(vec![PageId(0), PageId(1), PageId(2)]));
        assert_eq!(pages.allocate(2), None);
        assert_eq!(pages.num_free(), 1);
        pages.free([PageId(1)]);
        assert_eq!(pages.allocate(2), Some(vec![PageId(3), PageId(1)]));
        assert!(!pages.is_free(PageId(1)) && pages.total() == 4);
    }

    #[test]
    fn a_double_free_is_caught() {
        let mut pages = PageAllocator::new(2);
        let taken = pages.allocate(1).unwrap();
        pages.free(taken.clone());
        let again = std::panic::AssertUnwindSafe(|| pages.free(taken));
        assert!(std::panic::catch_unwind(again).is_err());
    }
}

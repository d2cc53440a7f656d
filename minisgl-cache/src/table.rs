//! The page table: one row per request, from page number to page. The host's copy is the truth;
//! every change is also recorded as a [`TableUpdate`], so that ranks can keep a device copy.
//! Never knows what the pages hold.

use std::collections::VecDeque;

use crate::{PageId, RowId};

/// Entries `first_page ..` of `row` become `pages`. Apply in the order recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableUpdate {
    /// The row that changes.
    pub row: RowId,
    /// Index of the first entry that changes.
    pub first_page: usize,
    /// The new entries.
    pub pages: Vec<PageId>,
}

/// Rows of page ids, with a free list of rows.
#[derive(Debug)]
pub struct PageTable {
    rows: Vec<Vec<PageId>>,
    free_rows: VecDeque<RowId>,
    max_pages: usize,
    updates: Vec<TableUpdate>,
}

impl PageTable {
    /// `num_rows` empty rows of at most `max_pages` pages each.
    pub fn new(num_rows: u32, max_pages: usize) -> Self {
        Self {
            rows: vec![Vec::new(); num_rows as usize],
            free_rows: (0..num_rows).map(RowId).collect(),
            max_pages,
            updates: Vec::new(),
        }
    }

    /// Rows that are free.
    pub fn num_free_rows(&self) -> usize {
        self.free_rows.len()
    }

    /// Takes a free row, empty.
    pub fn open(&mut self) -> Option<RowId> {
        self.free_rows.pop_front()
    }

    /// Gives `row` back and returns the pages that were in it.
    pub fn close(&mut self, row: RowId) -> Vec<PageId> {
        debug_assert!(!self.free_rows.contains(&row), "{row} is closed twice");
        self.free_rows.push_back(row);
        self.updates.retain(|update| update.row != row);
        std::mem::take(&mut self.rows[row.0 as usize])
    }

    /// The pages of `row`, in order of position.
    pub fn pages(&self, row: RowId) -> &[PageId] {
        &self.rows[row.0 as usize]
    }

    /// Pages a row holds at most.
    pub fn max_pages(&self) -> usize {
        self.max_pages
    }

    /// Appends pages to `row`.
    ///
    /// # Panics
    /// If the row would hold more than [`PageTable::max_pages`].
    pub fn push(&mut self, row: RowId, pages: Vec<PageId>) {
        if pages.is_empty() {
            return;
        }
        let entries = &mut self.rows[row.0 as usize];
        assert!(entries.len() + pages.len() <= self.max_pages, "{row} is full");
        let first_page = entries.len();
        entries.extend_from_slice(&pages);
        self.updates.push(TableUpdate { row, first_page, pages });
    }

    /// Replaces the entries of `row` from `first_page` on by `pages`; returns those replaced.
    pub fn replace(&mut self, row: RowId, first_page: usize, pages: Vec<PageId>) -> Vec<PageId> {
        let entries = &mut self.rows[row.0 as usize][first_page..first_page + pages.len()];
        let replaced = entries.to_vec();
        entries.copy_from_slice(&pages);
        if !pages.is_empty() {
            self.updates.push(TableUpdate { row, first_page, pages });
        }
        replaced
    }

    /// The changes since the last call, for a device copy of this table.
    pub fn take_updates(&mut self) -> Vec<TableUpdate> {
        std::mem::take(&mut self.updates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_rebuild_the_table() {
        let mut table = PageTable::new(2, 3);
        let row = table.open().unwrap();
        table.push(row, vec![PageId(5), PageId(6)]);
        table.push(row, vec![PageId(7)]);
        assert_eq!(table.replace(row, 1, vec![PageId(9)]), [PageId(6)]);

        let mut copy = [PageId(0); 3];
        for update in table.take_updates() {
            copy[update.first_page..][..update.pages.len()].copy_from_slice(&update.pages);
        }
        assert_eq!(copy, table.pages(row));
        assert!(table.take_updates().is_empty());
        assert_eq!(table.close(row), [PageId(5), PageId(9), PageId(7)]);
        assert_eq!(table.num_free_rows(), 2);
        assert!(table.pages(row).is_empty());
    }
}

//! Ids and page arithmetic. Knows numbers only.

use std::fmt;
use std::num::NonZeroUsize;

use crate::CacheError;

/// A token id, as the tokenizer numbers them.
pub type TokenId = u32;

/// One page of the KV pool: `page_size` consecutive token slots, in every layer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageId(pub u32);

/// One row of the page table, held by one request at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RowId(pub u32);

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}", self.0)
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", self.0)
    }
}

/// How many tokens one page holds; at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSize(NonZeroUsize);

impl PageSize {
    /// The largest page size accepted.
    pub const MAX: usize = 4096;

    /// Checks that `tokens` is in `1..=4096`.
    ///
    /// # Errors
    /// [`CacheError::PageSize`] if it is not.
    pub fn new(tokens: usize) -> Result<Self, CacheError> {
        match NonZeroUsize::new(tokens) {
            Some(size) if tokens <= Self::MAX => Ok(Self(size)),
            _ => Err(CacheError::PageSize { got: tokens, max: Self::MAX }),
        }
    }

    /// Tokens in one page.
    pub fn get(self) -> usize {
        self.0.get()
    }

    /// Pages needed to hold `tokens` tokens: rounded up.
    pub fn pages_for(self, tokens: usize) -> usize {
        tokens.div_ceil(self.get())
    }

    /// Pages that `tokens` tokens fill completely: rounded down.
    pub fn full_pages(self, tokens: usize) -> usize {
        tokens / self.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic() {
        let size = PageSize::new(16).unwrap();
        assert_eq!([0, 1, 16, 17].map(|tokens| size.pages_for(tokens)), [0, 1, 1, 2]);
        assert_eq!([0, 15, 16, 33].map(|tokens| size.full_pages(tokens)), [0, 0, 1, 2]);
        assert!(PageSize::new(0).is_err() && PageSize::new(4097).is_err());
    }
}

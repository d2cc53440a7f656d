//! Who owns which KV page.
//!
//! A *page* is `page_size` token slots of the KV pool, for all layers at once.
//! This crate hands pages out, keeps each request's table from position to page, and remembers the
//! pages of finished requests in a prefix cache so that a later request with the same first tokens
//! need not compute them again.
//!
//! Never knows: requests, models, ranks, time. Everything but [`pool`] is integer bookkeeping.
//!
//! # Reading order
//! 1. [`page`]: ids and page arithmetic, the unit everything else is counted in.
//! 2. [`allocator`], [`table`]: free pages; rows of the page table.
//! 3. [`prefix`]: the prefix-cache contract, with [`naive`] and [`radix`] behind it.
//! 4. [`manager`]: one request's pages from opening to closing, and the conservation check.
//! 5. [`pool`]: the device memory the page ids point into.
//!
//! **Invariant:** `free + cached + held == total`, in pages, after every public call.
//!
//! ```
//! use minisgl_cache::{CacheKind, KvConfig, KvManager, PageSize};
//!
//! let page_size = PageSize::new(4).unwrap();
//! let config = KvConfig {
//!     num_pages: 16, page_size, num_rows: 2, max_pages_per_row: 8, cache: CacheKind::Radix,
//! };
//! let mut kv = KvManager::new(config)?;
//! let prompt: Vec<u32> = (0..10).collect();
//! let lease = kv.open(&prompt).expect("a row is free");
//! kv.grow(&lease, prompt.len())?;
//! kv.close(lease, &prompt);
//! // Two full pages of the prompt stay cached and serve the next request with the same start.
//! assert_eq!(kv.usage().cached(), 2);
//! assert_eq!(kv.open(&prompt).expect("a row is free").shared_pages(), 2);
//! # Ok::<(), minisgl_cache::CacheError>(())
//! ```
#![forbid(unsafe_code)]

pub mod allocator;
pub mod error;
pub mod manager;
pub mod naive;
pub mod page;
pub mod pool;
pub mod prefix;
pub mod radix;
pub mod table;

pub use error::{CacheError, IntegrityError};
pub use manager::{KvConfig, KvManager, Lease, Usage};
pub use page::{PageId, PageSize, RowId};
pub use pool::{KvLayout, KvPool};
pub use prefix::{CacheKind, PrefixCache};
pub use table::TableUpdate;

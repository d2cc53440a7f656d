//! The scheduler's limits, all fixed at start. Knows numbers only.

use minisgl_cache::{CacheKind, KvConfig, PageSize};

use crate::SchedError;

/// See the fields.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerConfig {
    /// Pages in the KV pool.
    pub num_pages: usize,
    /// Tokens in a page.
    pub page_size: PageSize,
    /// Which prefix cache.
    pub cache: CacheKind,
    /// Requests that run at one time; more wait.
    pub max_running_requests: usize,
    /// Prompt tokens computed in one step; longer prompts are cut into chunks.
    pub max_prefill_tokens: usize,
    /// Prompt and output tokens of one request.
    pub max_seq_len: usize,
}

impl Default for SchedulerConfig {
    /// Small: for tests and examples.
    fn default() -> Self {
        Self {
            num_pages: 256,
            page_size: PageSize::new(1).expect("1 is a page size"),
            cache: CacheKind::Radix,
            max_running_requests: 8,
            max_prefill_tokens: 64,
            max_seq_len: 256,
        }
    }
}

impl SchedulerConfig {
    /// Checks the limits; the KV manager checks its own.
    pub(crate) fn kv_config(&self) -> Result<KvConfig, SchedError> {
        for (name, got) in [
            ("max_running_requests", self.max_running_requests),
            ("max_prefill_tokens", self.max_prefill_tokens),
            ("max_seq_len", self.max_seq_len),
        ] {
            if got == 0 {
                return Err(SchedError::Limit { name });
            }
        }
        // A row is released one step late at worst, so a request can find none free once; a second
        // set of rows would only hide that.
        Ok(KvConfig {
            num_pages: self.num_pages,
            page_size: self.page_size,
            num_rows: self.max_running_requests,
            max_pages_per_row: self.page_size.pages_for(self.max_seq_len),
            cache: self.cache,
        })
    }
}

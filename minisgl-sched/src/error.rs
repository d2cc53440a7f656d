//! Errors of this crate: what is refused, and why.

use minisgl_cache::CacheError;

use crate::RequestId;

/// Why something was refused. A refused request leaves no trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchedError {
    /// A limit of [`crate::SchedulerConfig`] is zero.
    #[error("{name} = 0 is not allowed: use at least 1")]
    Limit {
        /// Which limit.
        name: &'static str,
    },
    /// The KV manager refused its configuration.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A request without a prompt.
    #[error("{id}: the prompt is empty")]
    EmptyPrompt {
        /// Whose.
        id: RequestId,
    },
    /// A request for no tokens.
    #[error("{id}: max_tokens is 0, at least 1 is needed")]
    NoTokens {
        /// Whose.
        id: RequestId,
    },
    /// A request that can never run.
    #[error(
        "{id}: a prompt of {prompt} tokens and {max_tokens} tokens of output exceed the {max} \
         tokens a request may have"
    )]
    TooLong {
        /// Whose.
        id: RequestId,
        /// Tokens in the prompt.
        prompt: usize,
        /// Tokens to generate at most.
        max_tokens: usize,
        /// What fits.
        max: usize,
    },
    /// A request with more of something than there is room for.
    #[error("{id}: {count} {what}, at most {max} are allowed")]
    TooMany {
        /// Whose.
        id: RequestId,
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are possible.
        max: usize,
    },
    /// A request with the number of one that is open.
    #[error("{id} is open already")]
    Duplicate {
        /// Whose.
        id: RequestId,
    },
}

//! A request and what comes back of it. Knows tokens; never text, never who asked.

use std::fmt;
use std::sync::Arc;

use minisgl_cache::page::TokenId;

use crate::adjustment::Adjustments;

/// A request's number, chosen by the caller; unique among the requests that are open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.0)
    }
}

/// How a token is chosen from the logits. The scheduler only hands it on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy (the most likely token, whatever the other fields say).
    pub temperature: f32,
    /// Only the `top_k` most likely tokens; 0 is all.
    pub top_k: u32,
    /// Only the most likely tokens whose probabilities add up to this much, in (0, 1].
    pub top_p: f32,
    /// Only tokens at least this likely relative to the most likely one, in [0, 1]; 0 is all.
    pub min_p: f32,
    /// Seed of the random choice; the choice depends on it, the position and the logits alone.
    pub seed: u64,
    /// If set, report the log-probability of the token chosen and of this many most likely ones.
    pub logprobs: Option<u32>,
}

impl SamplingParams {
    /// The most likely token every time, no log-probabilities.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, logprobs: None };
}

/// One prompt to continue.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// Its number.
    pub id: RequestId,
    /// The prompt; at least one token.
    pub prompt: Vec<TokenId>,
    /// Tokens to generate at most; at least one.
    pub max_tokens: usize,
    /// Tokens that end the output (and are its last token). Empty to go on to `max_tokens`.
    pub stop_token_ids: Arc<[TokenId]>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// What is done to the logits before; `None` if nothing.
    pub adjustments: Option<Arc<Adjustments>>,
}

/// Log-probabilities at one position, under the model's distribution: before adjustments and
/// temperature.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenLogprobs {
    /// Of the token chosen.
    pub chosen: f32,
    /// The most likely tokens, most likely first.
    pub top: Vec<(TokenId, f32)>,
}

/// Why a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FinishReason {
    /// One of its stop tokens was generated.
    Stop,
    /// `max_tokens` tokens were generated.
    Length,
    /// [`crate::Scheduler::abort`] was called.
    Abort,
    /// The step failed, for all requests or for this one.
    Error(Arc<str>),
}

/// What happened to a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// One more token.
    Token {
        /// Whose.
        id: RequestId,
        /// The token.
        token: TokenId,
        /// If the request asked for them.
        logprobs: Option<TokenLogprobs>,
    },
    /// The last event of a request.
    Finished {
        /// Whose.
        id: RequestId,
        /// Why.
        reason: FinishReason,
        /// Prompt tokens whose KV came from the prefix cache.
        cached_tokens: usize,
    },
}

//! One admitted request. Knows its own progress, not the queue it came from.

use std::sync::Arc;

use minisgl_cache::Lease;
use minisgl_cache::page::TokenId;

use crate::adjustment::{Adjusting, FirstAdjusting, TokenSet};
use crate::request::{FinishReason, Request};
use crate::step::{InputTokens, StepId};

/// Three lengths, `computed <= tokens.len() + 1`: with a step in flight, the position after the
/// last token known here may be computed already, from a token only the device knows.
#[derive(Debug)]
pub(super) struct Running {
    /// Its `prompt` has moved to `tokens`.
    pub(super) request: Request,
    pub(super) prompt_len: usize,
    /// Prompt and committed output.
    pub(super) tokens: Vec<TokenId>,
    pub(super) lease: Lease,
    pub(super) cached_tokens: usize,
    /// Positions computed by committed and planned steps.
    pub(super) computed: usize,
    /// Tokens sampled by committed and planned steps.
    pub(super) num_sampled: usize,
    pub(super) last_step: StepId,
}

impl Running {
    pub(super) fn new(mut request: Request, lease: Lease, cached_tokens: usize) -> Self {
        let tokens = std::mem::take(&mut request.prompt);
        Self {
            prompt_len: tokens.len(),
            request,
            tokens,
            lease,
            cached_tokens,
            computed: cached_tokens,
            num_sampled: 0,
            last_step: StepId(0),
        }
    }

    /// Output tokens known here.
    pub(super) fn num_outputs(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Whether a part of the prompt is still to be planned.
    pub(super) fn is_prefilling(&self) -> bool {
        self.computed < self.prompt_len
    }

    /// Whether every token it may have is sampled or being sampled.
    pub(super) fn is_fully_planned(&self) -> bool {
        self.num_sampled == self.request.max_tokens
    }

    /// Positions whose KV it can ever need: the last token's is never read.
    pub(super) fn max_positions(&self) -> usize {
        self.prompt_len + self.request.max_tokens - 1
    }

    /// Plans up to `budget` more tokens in `step`; returns where they start and what they are.
    pub(super) fn advance(&mut self, budget: usize, step: StepId) -> (usize, InputTokens) {
        let start = self.computed;
        let known = &self.tokens[start.min(self.tokens.len())..];
        let input = if known.is_empty() {
            debug_assert_eq!(self.num_sampled, self.num_outputs() + 1, "one token is in flight");
            InputTokens::Sampled
        } else {
            InputTokens::Host(known[..known.len().min(budget)].to_vec())
        };
        self.computed += input.len();
        self.last_step = step;
        if !self.is_prefilling() {
            self.num_sampled += 1;
        }
        (start, input)
    }

    /// What the step planned last does to the logits.
    pub(super) fn adjusting(&self) -> Option<Adjusting> {
        let adjustments = self.request.adjustments.as_ref()?;
        match self.num_sampled {
            0 => None,
            1 => {
                let counts_prompt = adjustments.repetition_penalty != 1.0;
                let prompt = if counts_prompt { &self.tokens[..self.prompt_len] } else { &[] };
                let holds_back = adjustments.min_tokens > 0;
                let held_back = holds_back.then(|| Arc::clone(&self.request.stop_token_ids));
                Some(Adjusting::First(Box::new(FirstAdjusting {
                    adjustments: Arc::clone(adjustments),
                    prompt: TokenSet::of(prompt),
                    held_back: held_back.unwrap_or_default(),
                })))
            }
            _ => Some(Adjusting::Next),
        }
    }

    /// Whether the last token known ends the request.
    pub(super) fn finish_reason(&self) -> Option<FinishReason> {
        let last = self.tokens.last()?;
        if self.request.stop_token_ids.contains(last) {
            Some(FinishReason::Stop)
        } else if self.num_outputs() == self.request.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// Its lease, its last planned step, and the tokens whose KV is computed once that step is done
    /// (none if they are not to be kept).
    pub(super) fn into_parts(self, keep: bool) -> (Lease, StepId, Vec<TokenId>) {
        let mut tokens = self.tokens;
        tokens.truncate(if keep { self.computed } else { 0 });
        (self.lease, self.last_step, tokens)
    }
}

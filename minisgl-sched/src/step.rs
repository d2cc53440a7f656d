//! The contract with the executor: what one forward pass computes, and what it answers.
//! Plain data; knows neither how it was decided nor how it is computed.

use minisgl_cache::page::TokenId;
use minisgl_cache::{RowId, TableUpdate};

use crate::adjustment::Adjusting;
use crate::request::{RequestId, SamplingParams, TokenLogprobs};

/// Steps are numbered from 1 and run in that order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct StepId(pub u64);

/// One forward pass.
#[derive(Clone, PartialEq, Debug)]
pub struct StepPlan {
    /// Its number.
    pub step: StepId,
    /// Changes of the page table, to be applied in order before the pass.
    pub table_updates: Vec<TableUpdate>,
    /// What to compute; decodes first, in the order the requests were admitted.
    pub sequences: Vec<SequencePlan>,
}

impl StepPlan {
    /// Tokens computed in this step.
    pub fn num_tokens(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.input.len()).sum()
    }

    /// The sequences of which a token is sampled, in the order of [`StepOutput::samples`].
    pub fn sampled(&self) -> impl Iterator<Item = &SequencePlan> {
        self.sequences.iter().filter(|sequence| sequence.sampling.is_some())
    }
}

/// The part of one step that belongs to one request: compute `input` at positions
/// `start .. start + input.len()`, attending to all positions before.
#[derive(Clone, PartialEq, Debug)]
pub struct SequencePlan {
    /// Whose.
    pub request: RequestId,
    /// Its row of the page table; covers all positions of this step.
    pub row: RowId,
    /// Position of the first token computed; the KV of all before it is in the pool.
    pub start: usize,
    /// The tokens.
    pub input: InputTokens,
    /// Sample a token after the last one, like this; `None` for a chunk with more to come.
    pub sampling: Option<SamplingParams>,
    /// If the logits are to be changed before that; never set where no token is sampled.
    pub adjusting: Option<Adjusting>,
}

/// Where input tokens come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InputTokens {
    /// From here: part of a prompt, or a token sampled in a step already answered.
    Host(Vec<TokenId>),
    /// One token: the last one sampled for this row, in the step before, whose answer the
    /// scheduler has not seen yet. It never leaves the device.
    Sampled,
}

impl InputTokens {
    /// How many tokens.
    pub fn len(&self) -> usize {
        match self {
            InputTokens::Host(tokens) => tokens.len(),
            InputTokens::Sampled => 1,
        }
    }

    /// Whether there are none; never so in a plan.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The answer to one step.
#[derive(Clone, PartialEq, Debug)]
pub struct StepOutput {
    /// Which step.
    pub step: StepId,
    /// One per sampled sequence, in the plan's order.
    pub samples: Vec<Sample>,
}

/// What was sampled for one sequence.
#[derive(Clone, PartialEq, Debug)]
pub enum Sample {
    /// A token.
    Token {
        /// The token.
        token: TokenId,
        /// If the sequence's sampling parameters ask for them.
        logprobs: Option<TokenLogprobs>,
    },
    /// The logits were not finite: no token can be chosen. Only this request fails.
    NotFinite,
}

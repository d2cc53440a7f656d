//! What a request may ask for to change the logits before a token is chosen: penalties for tokens that
//! appeared, a bias for single tokens, no end before so many tokens. The scheduler only hands it on.
//! Never knows logits, nor how many tokens the model has.

use std::sync::Arc;

use minisgl_cache::page::TokenId;

/// Entries that [`Adjustments::logit_bias`] may have.
pub const MAX_LOGIT_BIAS: usize = 1024;

/// Stop tokens that a request with [`Adjustments::min_tokens`] may have.
pub const MAX_HELD_BACK: usize = 256;

/// How the logits of a request are changed before a token is chosen, in this order: the bias is
/// added, the repetition penalty divides or multiplies, the other penalties are subtracted.
#[derive(Clone, PartialEq, Debug)]
pub struct Adjustments {
    /// Of tokens in the prompt or the output: positive logits are divided by it, others multiplied; 1
    /// changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time that it is in the output; 0 changes nothing.
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit if it is in the output; 0 changes nothing.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens, each named once; at most [`MAX_LOGIT_BIAS`].
    pub logit_bias: Vec<(TokenId, f32)>,
    /// None of the request's stop tokens is chosen before so many others were.
    pub min_tokens: usize,
}

impl Adjustments {
    /// Changes nothing.
    pub const NONE: Self = Self {
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        logit_bias: Vec::new(),
        min_tokens: 0,
    };

    /// Whether they change anything.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// A set of tokens, as a bit for each id up to the highest in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TokenSet(Vec<u32>);

impl TokenSet {
    /// The set of these.
    pub fn of(tokens: &[TokenId]) -> Self {
        let highest = tokens.iter().max();
        let mut words = vec![0; highest.map_or(0, |id| *id as usize / 32 + 1)];
        for token in tokens {
            words[*token as usize / 32] |= 1 << (token % 32);
        }
        Self(words)
    }

    /// The set with these [`TokenSet::words`].
    pub fn from_words(words: Vec<u32>) -> Self {
        Self(words)
    }

    /// Bit `i % 32` of word `i / 32` says whether the token `i` is in the set; words beyond the last
    /// are 0.
    pub fn words(&self) -> &[u32] {
        &self.0
    }
}

/// What a sequence that samples says about the adjustments of its row.
#[derive(Clone, PartialEq, Debug)]
pub enum Adjusting {
    /// The first token of a request. Whatever is known of the row is of another request.
    First(Box<FirstAdjusting>),
    /// A later token; those sampled for the row since its first are the output.
    Next,
}

/// What [`Adjusting::First`] tells.
#[derive(Clone, PartialEq, Debug)]
pub struct FirstAdjusting {
    /// What to change.
    pub adjustments: Arc<Adjustments>,
    /// The tokens of the prompt, wherever their KV came from; empty without a repetition penalty.
    pub prompt: TokenSet,
    /// The stop tokens, which must not come yet; empty without [`Adjustments::min_tokens`].
    pub held_back: Arc<[TokenId]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_a_bit_for_each_token() {
        let set = TokenSet::of(&[33, 0, 5, 33, 95]);
        assert_eq!(set.words(), [0b10_0001, 0b10, 1 << 31]);
        assert_eq!(TokenSet::of(&[]).words(), [0u32; 0]);
        assert_eq!(TokenSet::from_words(set.words().to_vec()), set);
    }

    #[test]
    fn none_changes_nothing() {
        assert!(Adjustments::NONE.is_none());
        let bias = Adjustments { logit_bias: vec![(3, 0.0)], ..Adjustments::NONE };
        assert!(!bias.is_none());
    }
}

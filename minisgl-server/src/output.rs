//! One output in the making: tokens in; text, log-probabilities and the reason of its end out.
//!
//! Streamed or not, every output goes through here, so both give the same text.
//! Never knows: how the result is sent.

use std::sync::Arc;

use minisgl_sched::{TokenId, TokenLogprobs};

use crate::detokenizer::Detokenizer;
use crate::stop::{StopMatcher, StopStrings};
use crate::tokenizer::TokenBytes;

/// Most likely tokens that may be reported per token.
pub const MAX_LOGPROBS: u32 = 20;

/// How tokens become the text of an output.
#[derive(Clone, Debug)]
pub struct OutputOptions {
    /// Leave special tokens out of the text.
    pub skip_special_tokens: bool,
    /// Strings that end the output.
    pub stop: Arc<StopStrings>,
    /// Tokens that end the output; they do not become text.
    pub stop_token_ids: Arc<[TokenId]>,
    /// What ended the output is part of its text.
    pub include_stop: bool,
    /// Stop strings are not looked for in the text of so many tokens at the beginning.
    pub min_tokens: usize,
}

impl Default for OutputOptions {
    fn default() -> Self {
        Self {
            skip_special_tokens: true,
            stop: Arc::default(),
            stop_token_ids: Arc::new([]),
            include_stop: false,
            min_tokens: 0,
        }
    }
}

/// A token with its place in the text and its log-probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredToken {
    /// The token.
    pub token: TokenId,
    /// Characters of the output before it.
    pub text_offset: usize,
    /// Its log-probability and those of the most likely tokens.
    pub logprobs: TokenLogprobs,
}

/// What has become certain since the last time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// More text; whole characters, no part of a stop string.
    pub text: String,
    /// The tokens that `text` reaches into, if log-probabilities were asked for.
    pub tokens: Vec<ScoredToken>,
}

impl Delta {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty()
    }
}

/// The state of one output.
#[derive(Clone, Debug)]
pub struct Output {
    detokenizer: Detokenizer,
    matcher: StopMatcher,
    stop_token_ids: Arc<[TokenId]>,
    include_stop: bool,
    min_tokens: usize,
    num_tokens: usize,
    /// Decoded with the last token.
    decoded: String,
    decoded_bytes: usize,
    decoded_chars: usize,
    /// Of the decoded text, what is certain to be part of the output.
    certain_bytes: usize,
    /// Tokens whose text is not certain yet, with the number of bytes before them.
    held: Vec<(usize, ScoredToken)>,
}

impl Output {
    /// At its beginning, as a text of its own.
    pub fn new(options: &OutputOptions) -> Self {
        Self::with(Detokenizer::new(options.skip_special_tokens), options)
    }

    /// At its beginning, as what comes after the text of `prompt`.
    pub fn after(options: &OutputOptions, vocabulary: &TokenBytes, prompt: &[TokenId]) -> Self {
        let skip_special_tokens = options.skip_special_tokens;
        Self::with(Detokenizer::after(skip_special_tokens, vocabulary, prompt), options)
    }

    fn with(detokenizer: Detokenizer, options: &OutputOptions) -> Self {
        Self {
            detokenizer,
            matcher: StopMatcher::new(options.stop.clone(), options.include_stop),
            stop_token_ids: options.stop_token_ids.clone(),
            include_stop: options.include_stop,
            min_tokens: options.min_tokens,
            num_tokens: 0,
            decoded: String::new(),
            decoded_bytes: 0,
            decoded_chars: 0,
            certain_bytes: 0,
            held: Vec::new(),
        }
    }

    /// Takes the next token and adds to `delta` what becomes certain. Returns whether a stop string
    /// is complete: the output has ended then, and [`Output::finish`] is not to be called.
    pub fn push(
        &mut self,
        vocabulary: &TokenBytes,
        token: TokenId,
        logprobs: Option<TokenLogprobs>,
        delta: &mut Delta,
    ) -> bool {
        if !self.include_stop && self.stop_token_ids.contains(&token) {
            return false;
        }
        if let Some(logprobs) = logprobs {
            let token = ScoredToken { token, text_offset: self.decoded_chars, logprobs };
            self.held.push((self.decoded_bytes, token));
        }
        self.num_tokens += 1;
        self.decoded.clear();
        self.detokenizer.push(vocabulary, token, &mut self.decoded);
        self.advance(delta)
    }

    /// Adds to `delta` what was held back: the output has ended for another reason than a stop
    /// string. Returns whether it ends with a stop string now.
    pub fn finish(&mut self, delta: &mut Delta) -> bool {
        self.decoded.clear();
        self.detokenizer.finish(&mut self.decoded);
        let stopped = self.advance(delta);
        if !stopped {
            self.matcher.finish(&mut delta.text);
            delta.tokens.extend(self.held.drain(..).map(|(_, token)| token));
        }
        stopped
    }

    /// Passes what was decoded through the matcher, once it is time for stop strings.
    fn advance(&mut self, delta: &mut Delta) -> bool {
        self.decoded_bytes += self.decoded.len();
        self.decoded_chars += self.decoded.chars().count();
        let known = delta.text.len();
        let stopped = if self.num_tokens > self.min_tokens {
            self.matcher.push(&self.decoded, &mut delta.text)
        } else {
            delta.text.push_str(&self.decoded);
            false
        };
        self.certain_bytes += delta.text.len() - known;
        let certain = self.certain_bytes;
        let reached = self.held.iter().take_while(|(before, _)| *before < certain).count();
        delta.tokens.extend(self.held.drain(..reached).map(|(_, token)| token));
        stopped
    }
}

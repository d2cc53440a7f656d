//! Tokens to text, one token at a time.
//!
//! A token may end inside a character. Its bytes are held back until the character is complete or
//! known to be broken, so that what is given out is always whole characters. The work per token is
//! its own bytes and at most three held ones, however long the text.
//! Never knows: stop strings, requests.

use std::str;

use minisgl_sched::TokenId;

use crate::tokenizer::{LeadingSpace, TokenBytes};

/// The state of one text.
///
/// The pieces that come out add up to the lossy UTF-8 decoding of all bytes at once. For byte-level
/// tokenizers that is what Hugging Face's `decode` gives. For byte-fallback tokenizers it is the
/// same for valid UTF-8; for broken UTF-8, `decode` replaces a whole run of byte tokens, good
/// characters included, while here only what is broken becomes U+FFFD.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    skip_special_tokens: bool,
    /// Whether no token with text has been seen.
    at_start: bool,
    /// Leading spaces dropped so far.
    stripped: usize,
    /// The beginning of a character.
    held: Vec<u8>,
}

impl Detokenizer {
    /// At the beginning of a text.
    pub fn new(skip_special_tokens: bool) -> Self {
        Self { skip_special_tokens, at_start: true, stripped: 0, held: Vec::new() }
    }

    /// After the text of `prompt`: a space before the next word is one between words.
    pub fn after(skip_special_tokens: bool, vocabulary: &TokenBytes, prompt: &[TokenId]) -> Self {
        let is_text =
            |token: &TokenId| !vocabulary.is_special(*token) && !vocabulary.get(*token).is_empty();
        let at_start = !prompt.iter().rev().any(is_text);
        Self { at_start, ..Self::new(skip_special_tokens) }
    }

    /// Appends to `out` what becomes certain with `token`.
    pub fn push(&mut self, vocabulary: &TokenBytes, token: TokenId, out: &mut String) {
        if self.skip_special_tokens && vocabulary.is_special(token) {
            return;
        }
        let bytes = vocabulary.get(token);
        if bytes.is_empty() {
            return;
        }
        if self.at_start {
            let bytes = self.without_leading_space(vocabulary.leading_space(), bytes);
            self.decode(&bytes, out);
        } else {
            self.decode(bytes, out);
        }
    }

    /// Appends what is held back: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            self.held.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }

    fn without_leading_space(&mut self, rule: LeadingSpace, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match rule {
            LeadingSpace::Keep => self.at_start = false,
            LeadingSpace::Strip(max) => {
                let spaces = bytes.iter().take_while(|byte| **byte == b' ').count();
                let stripped = spaces.min(max - self.stripped);
                bytes.drain(..stripped);
                self.stripped += stripped;
                self.at_start = bytes.is_empty() && self.stripped < max;
            }
            LeadingSpace::DropInFirstToken => {
                bytes.retain(|byte| *byte != b' ');
                self.at_start = false;
            }
        }
        bytes
    }

    fn decode(&mut self, bytes: &[u8], out: &mut String) {
        if self.held.is_empty() {
            let held = decode_lossy(bytes, out);
            self.held.extend_from_slice(held);
        } else {
            let mut all = std::mem::take(&mut self.held);
            all.extend_from_slice(bytes);
            let held = decode_lossy(&all, out).len();
            all.drain(..all.len() - held);
            self.held = all;
        }
    }
}

/// Appends the text of `bytes` with U+FFFD for what is broken; returns the beginning of a character
/// at their end, at most three bytes.
fn decode_lossy<'a>(mut bytes: &'a [u8], out: &mut String) -> &'a [u8] {
    loop {
        match str::from_utf8(bytes) {
            Ok(text) => {
                out.push_str(text);
                return &[];
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                out.push_str(str::from_utf8(valid).unwrap_or_default());
                let Some(broken) = error.error_len() else { return rest };
                out.push(char::REPLACEMENT_CHARACTER);
                bytes = &rest[broken..];
            }
        }
    }
}

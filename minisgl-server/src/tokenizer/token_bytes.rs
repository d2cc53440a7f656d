//! The bytes that each token of a vocabulary stands for. Not always UTF-8: a token may be a part of
//! a character.

use minisgl_sched::TokenId;

use super::LeadingSpace;

/// A table by token id. Ids outside of the vocabulary have no bytes: a model may have more rows
/// than its tokenizer has tokens.
#[derive(Debug)]
pub struct TokenBytes {
    bytes: Vec<u8>,
    /// Where in `bytes` each token ends; it begins where the one before ends.
    ends: Vec<usize>,
    special: Vec<bool>,
    leading_space: LeadingSpace,
}

impl TokenBytes {
    pub(super) fn new(leading_space: LeadingSpace) -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), special: Vec::new(), leading_space }
    }

    /// Adds the token with the next id.
    pub(super) fn push(&mut self, bytes: &[u8], special: bool) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.special.push(special);
    }

    /// How many token ids there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of `token` in the middle of a text.
    pub fn get(&self, token: TokenId) -> &[u8] {
        let index = token as usize;
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..end]
    }

    /// The text of `token` alone; bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self, token: TokenId) -> String {
        String::from_utf8_lossy(self.get(token)).into_owned()
    }

    /// Whether `token` controls the model rather than spelling text.
    pub fn is_special(&self, token: TokenId) -> bool {
        self.special.get(token as usize).copied().unwrap_or(false)
    }

    /// All tokens, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len() as TokenId).map(|id| self.get(id))
    }

    pub(crate) fn leading_space(&self) -> LeadingSpace {
        self.leading_space
    }
}

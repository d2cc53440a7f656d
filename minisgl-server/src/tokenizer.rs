//! Text to tokens and back, as a model's `tokenizer.json` says.
//!
//! Never knows: chats, requests, where the file came from.

mod decoder;
mod token_bytes;

use minisgl_sched::TokenId;

use crate::ServerError;
use crate::detokenizer::Detokenizer;
use crate::tokenizer::decoder::Decoding;

pub(crate) use self::decoder::LeadingSpace;
pub use self::token_bytes::TokenBytes;

/// The most token ids that are believed: ten times the largest vocabulary in use.
const MAX_VOCAB_SIZE: usize = 1 << 22;

const FILE: &str = "tokenizer.json";

/// A Hugging Face tokenizer with a table of the bytes of each token.
#[derive(Debug)]
pub struct Tokenizer {
    /// Nothing if tokens are numbers only.
    inner: Option<tokenizers::Tokenizer>,
    token_bytes: TokenBytes,
    max_token_bytes: usize,
}

/// Whether to add what the tokenizer puts around a text, such as a BOS token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddSpecial {
    /// For a bare text.
    Yes,
    /// For the output of a chat template, which has written them already.
    No,
}

impl Tokenizer {
    /// Reads the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// If it is no such file, or its decoder is neither byte-level nor of the SentencePiece kind.
    pub fn from_json(json: &[u8]) -> Result<Self, ServerError> {
        let file_error = |problem: String| ServerError::File { file: FILE, problem };
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|error| file_error(error.to_string()))?;
        // Some files keep the settings of a training run. A prompt is never cut or filled up.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| file_error(error.to_string()))?;

        let decoder = inner.get_decoder().ok_or_else(|| file_error("no decoder".to_owned()))?;
        let decoding = Decoding::from_decoder(decoder).map_err(file_error)?;
        let vocab_size =
            inner.get_vocab(true).into_values().max().map_or(0, |max| max as usize + 1);
        if vocab_size > MAX_VOCAB_SIZE {
            let problem = format!("{vocab_size} token ids, at most {MAX_VOCAB_SIZE} are allowed");
            return Err(file_error(problem));
        }
        let mut token_bytes = TokenBytes::new(decoding.leading_space());
        let added = inner.get_added_vocabulary();
        for id in 0..vocab_size as TokenId {
            match inner.id_to_token(id) {
                Some(token) => {
                    token_bytes.push(&decoding.bytes(&token), added.is_special_token(&token));
                }
                None => token_bytes.push(&[], false),
            }
        }
        let max_token_bytes = token_bytes.iter().map(<[u8]>::len).max().unwrap_or(0).max(1);
        Ok(Self { inner: Some(inner), token_bytes, max_token_bytes })
    }

    /// For a model without a tokenizer: tokens are shown as their ids with a space after each, and
    /// no text becomes tokens.
    pub fn numbers(vocab_size: usize) -> Self {
        let mut token_bytes = TokenBytes::new(LeadingSpace::Keep);
        for id in 0..vocab_size {
            token_bytes.push(format!("{id} ").as_bytes(), false);
        }
        let max_token_bytes = vocab_size.to_string().len() + 1;
        Self { inner: None, token_bytes, max_token_bytes }
    }

    /// The tokens of `text`. Special tokens that are spelled out in it become those tokens.
    ///
    /// # Errors
    /// [`ServerError::Encode`] if the tokenizer has no way to express a part of it,
    /// [`ServerError::NoTokenizer`] if there is none.
    pub fn encode(&self, text: &str, special: AddSpecial) -> Result<Vec<TokenId>, ServerError> {
        let inner = self.inner.as_ref().ok_or(ServerError::NoTokenizer)?;
        let encoding = inner.encode_fast(text, special == AddSpecial::Yes);
        let encoding = encoding.map_err(|error| ServerError::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `tokens`; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[TokenId], skip_special_tokens: bool) -> String {
        let mut detokenizer = Detokenizer::new(skip_special_tokens);
        let mut text = String::new();
        for &token in tokens {
            detokenizer.push(&self.token_bytes, token, &mut text);
        }
        detokenizer.finish(&mut text);
        text
    }

    /// The id of a token, spelled as in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<TokenId> {
        self.inner.as_ref()?.token_to_id(token)
    }

    /// What each token stands for.
    pub fn token_bytes(&self) -> &TokenBytes {
        &self.token_bytes
    }

    /// The length in bytes above which a text cannot fit into `num_tokens` tokens. To be checked
    /// before [`Tokenizer::encode`], whose time grows faster than the text.
    pub fn max_text_bytes(&self, num_tokens: usize) -> usize {
        num_tokens.saturating_mul(self.max_token_bytes)
    }
}

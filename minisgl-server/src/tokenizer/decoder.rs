//! How the decoder of a `tokenizer.json` turns a token's spelling into bytes.
//!
//! Two families are known: byte-level BPE (GPT-2's alphabet of 256 printable characters) and
//! SentencePiece conversions (`▁` for a space, `<0xAB>` for a byte that no token spells).
//! Never knows: token ids.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use tokenizers::DecoderWrapper;

/// What happens to spaces at the beginning of a decoded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeadingSpace {
    /// They stay.
    Keep,
    /// Up to so many are dropped.
    Strip(usize),
    /// All in the first token are dropped.
    DropInFirstToken,
}

/// The decoders of the `tokenizers` crate that models use, in its JSON form.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum Config {
    ByteLevel {},
    ByteFallback {},
    Fuse {},
    Metaspace { replacement: char, prepend_scheme: PrependScheme },
    Replace { pattern: Pattern, content: String },
    Sequence { decoders: Vec<Config> },
    Strip { content: char, start: usize, stop: usize },
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum PrependScheme {
    Always,
    First,
    Never,
}

#[derive(Deserialize)]
enum Pattern {
    String(String),
}

/// A decoder reduced to what it does to one token, and to the beginning of a text.
#[derive(Debug)]
pub(super) struct Decoding {
    byte_level: Option<HashMap<char, u8>>,
    byte_fallback: bool,
    replace: Vec<(String, String)>,
    leading_space: LeadingSpace,
}

impl Decoding {
    /// Reads a decoder, or says why it is not supported.
    pub(super) fn from_decoder(decoder: &DecoderWrapper) -> Result<Self, String> {
        let json = serde_json::to_value(decoder).map_err(|error| error.to_string())?;
        let config = Config::deserialize(json)
            .map_err(|error| format!("the decoder is not supported: {error}"))?;
        let mut decoding = Self {
            byte_level: None,
            byte_fallback: false,
            replace: Vec::new(),
            leading_space: LeadingSpace::Keep,
        };
        let mut fused = false;
        decoding.add(config, &mut fused)?;
        Ok(decoding)
    }

    fn add(&mut self, config: Config, fused: &mut bool) -> Result<(), String> {
        match config {
            Config::ByteLevel {} => self.byte_level = Some(byte_level_alphabet()),
            Config::ByteFallback {} => self.byte_fallback = true,
            Config::Fuse {} => *fused = true,
            Config::Metaspace { replacement, prepend_scheme } => {
                self.replace.push((replacement.to_string(), " ".to_owned()));
                if prepend_scheme != PrependScheme::Never {
                    self.leading_space = LeadingSpace::DropInFirstToken;
                }
            }
            Config::Replace { pattern: Pattern::String(from), content } => {
                self.replace.push((from, content));
            }
            Config::Sequence { decoders } => {
                for decoder in decoders {
                    self.add(decoder, fused)?;
                }
            }
            Config::Strip { content: ' ', start, stop: 0 } if *fused => {
                self.leading_space = LeadingSpace::Strip(start);
            }
            Config::Strip { .. } => {
                return Err("the decoder is not supported: it strips more than leading spaces of \
                            the whole text"
                    .to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn leading_space(&self) -> LeadingSpace {
        self.leading_space
    }

    /// The bytes of a token in the middle of a text.
    pub(super) fn bytes(&self, token: &str) -> Vec<u8> {
        if let Some(alphabet) = &self.byte_level {
            let bytes: Option<Vec<u8>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
            // A token with other characters was added to the vocabulary as it is.
            return bytes.unwrap_or_else(|| token.as_bytes().to_vec());
        }
        if self.byte_fallback
            && let Some(byte) = fallback_byte(token)
        {
            return vec![byte];
        }
        let replaced = self.replace.iter().fold(Cow::Borrowed(token), |token, (from, to)| {
            Cow::Owned(token.replace(from.as_str(), to))
        });
        replaced.into_owned().into_bytes()
    }
}

/// `<0xAB>` is the byte AB.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// GPT-2's spelling of bytes: printable Latin-1 characters stand for themselves, the other bytes
/// for the characters from U+0100 on.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=u8::MAX).filter(|byte| !is_printable(*byte));
    let others = ('\u{100}'..).zip(others);
    let printable = (0..=u8::MAX).filter(|byte| is_printable(*byte));
    printable.map(|byte| (char::from(byte), byte)).chain(others).collect()
}

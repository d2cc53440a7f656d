//! The `prompt` of completions: a text, several texts, token ids, or several lists of those.
//! Never knows what becomes of them.

use std::fmt;

use minisgl_sched::TokenId;
use serde::Deserialize;
use serde::de::{Error, SeqAccess, Visitor};

/// Prompts in one request: each costs a place in the queue.
pub(crate) const MAX_PROMPTS: usize = 64;

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// Still to be tokenized.
    Text(String),
    /// Tokens, not checked against the vocabulary.
    Tokens(Vec<TokenId>),
}

/// 1 to [`MAX_PROMPTS`] prompts, as one field.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prompts(pub(crate) Vec<Prompt>);

impl Prompts {
    /// What the field is to be.
    pub(crate) const EXPECTED: &str = "a string, a list of strings, a list of token ids, or a list \
                                       of such lists; at most 64 prompts";
}

/// An element of the outer list.
enum Element {
    Prompt(Prompt),
    Token(TokenId),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id, or a list of token ids")
            }

            fn visit_u64<E: Error>(self, token: u64) -> Result<Element, E> {
                TokenId::try_from(token).map(Element::Token).map_err(E::custom)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Prompt(Prompt::Text(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = list.next_element()? {
                    tokens.push(token);
                }
                Ok(Element::Prompt(Prompt::Tokens(tokens)))
            }
        }

        deserializer.deserialize_any(ElementVisitor)
    }
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PromptsVisitor;

        impl<'de> Visitor<'de> for PromptsVisitor {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Prompts::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts(vec![Prompt::Text(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prompts, A::Error> {
                let mut tokens = Vec::new();
                let mut prompts = Vec::new();
                while let Some(element) = list.next_element()? {
                    match element {
                        Element::Token(token) if prompts.is_empty() => tokens.push(token),
                        Element::Prompt(prompt)
                            if tokens.is_empty() && prompts.len() < MAX_PROMPTS =>
                        {
                            prompts.push(prompt);
                        }
                        _ => return Err(A::Error::custom("mixed elements, or too many")),
                    }
                }
                if !tokens.is_empty() {
                    prompts.push(Prompt::Tokens(tokens));
                }
                if prompts.is_empty() {
                    return Err(A::Error::custom("no prompt"));
                }
                Ok(Prompts(prompts))
            }
        }

        deserializer.deserialize_any(PromptsVisitor)
    }
}

#[cfg(test)]
mod tests;

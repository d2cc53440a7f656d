//! The fields of a request that change logits: penalties, `logit_bias`, `min_tokens`; with the ranges
//! of OpenAI and vLLM. Never knows how logits are changed.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use minisgl_sched::adjustment::MAX_LOGIT_BIAS;
use minisgl_sched::{Adjustments, TokenId};
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::text::{REPETITION_PENALTIES, TextModel};

/// Of penalties that are subtracted.
pub(crate) const PENALTIES: RangeInclusive<f64> = -2.0..=2.0;
/// Of the values of a bias.
pub(crate) const BIASES: RangeInclusive<f64> = -100.0..=100.0;

/// Takes the fields. `max_tokens` is what the request allows at most, if it says.
pub(super) fn take(
    fields: &mut Fields<'_>,
    text: &TextModel,
    max_tokens: Option<usize>,
) -> Result<Adjustments, ApiError> {
    let frequency_penalty = fields.number("frequency_penalty", PENALTIES)?;
    let presence_penalty = fields.number("presence_penalty", PENALTIES)?;
    let repetition_penalty = fields.number("repetition_penalty", REPETITION_PENALTIES)?;
    let min_tokens = fields.integer("min_tokens", 0..=i64::MAX)?.unwrap_or(0) as usize;
    if let Some(max) = max_tokens.filter(|max| min_tokens > *max) {
        let problem = format!("must be at most the {max} of `max_tokens`");
        return Err(ApiError::field("min_tokens", &problem));
    }
    Ok(Adjustments {
        repetition_penalty: repetition_penalty
            .map_or(text.sampling.repetition_penalty, |penalty| penalty as f32),
        frequency_penalty: frequency_penalty.unwrap_or(0.0) as f32,
        presence_penalty: presence_penalty.unwrap_or(0.0) as f32,
        logit_bias: logit_bias(fields, text.vocab_size)?,
        min_tokens,
    })
}

fn logit_bias(fields: &mut Fields<'_>, vocab_size: usize) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let expected = format!(
        "an object of at most {MAX_LOGIT_BIAS} token ids with numbers from {} to {}",
        BIASES.start(),
        BIASES.end()
    );
    let bias: Option<LogitBias> = fields.get("logit_bias", &expected)?;
    let bias = bias.unwrap_or_default().0;
    match bias.last_key_value() {
        Some((token, _)) if *token as usize >= vocab_size => {
            let problem = format!("names the token {token}; ids are below {vocab_size}");
            Err(ApiError::field("logit_bias", &problem))
        }
        _ => Ok(bias.into_iter().collect()),
    }
}

/// Of a token named twice the last value counts.
#[derive(Debug, Default)]
struct LogitBias(BTreeMap<TokenId, f32>);

impl<'de> Deserialize<'de> for LogitBias {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BiasVisitor;

        impl<'de> Visitor<'de> for BiasVisitor {
            type Value = LogitBias;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers by token id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LogitBias, A::Error> {
                let mut bias = BTreeMap::new();
                while let Some((token, value)) = map.next_entry::<TokenId, f64>()? {
                    if !BIASES.contains(&value) {
                        return Err(A::Error::custom("a bias out of range"));
                    }
                    bias.insert(token, value as f32);
                    if bias.len() > MAX_LOGIT_BIAS {
                        return Err(A::Error::custom("too many tokens"));
                    }
                }
                Ok(LogitBias(bias))
            }
        }

        deserializer.deserialize_map(BiasVisitor)
    }
}

//! The fields that chats and completions share: checked against the ranges of the OpenAI API and
//! against the model, with everything refused that would otherwise be ignored silently.
//! Never knows prompts.

use std::fmt;
use std::sync::Arc;

use minisgl_sched::{SamplingParams, TokenId};
use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};
use uuid::Uuid;

use crate::api::adjustments;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::generation::{self, GenerationParams};
use crate::output::OutputOptions;
use crate::stop::StopStrings;
use crate::text::{TextModel, or_greedy};
use crate::tokenizer::AddSpecial;

/// Choices per prompt.
pub(crate) const MAX_N: i64 = 16;
const MAX_STOP_STRINGS: usize = 16;
const MAX_STOP_BYTES: usize = 1024;
const MAX_STOP_TOKENS: usize = 128;

/// Fields that do nothing here, with the values that ask for nothing.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("add_generation_prompt", &["true"]),
    ("allowed_token_ids", &["[]"]),
    ("audio", &[]),
    ("bad_words", &["[]"]),
    ("cache_salt", &[]),
    ("chat_template", &[]),
    ("continue_final_message", &["false"]),
    ("custom_logit_processor", &[]),
    ("documents", &["[]"]),
    ("ebnf", &[]),
    ("function_call", &["\"none\"", "\"auto\""]),
    ("functions", &["[]"]),
    ("guided_choice", &[]),
    ("guided_grammar", &[]),
    ("guided_json", &[]),
    ("guided_regex", &[]),
    ("json_schema", &[]),
    ("length_penalty", &["1"]),
    ("logits_processors", &["[]"]),
    ("lora_path", &[]),
    ("modalities", &["[\"text\"]"]),
    ("prediction", &[]),
    ("prompt_embeds", &[]),
    ("prompt_logprobs", &[]),
    ("reasoning_effort", &[]),
    ("regex", &[]),
    ("response_format", &["{\"type\":\"text\"}"]),
    ("return_hidden_states", &["false"]),
    ("return_token_ids", &["false"]),
    ("return_tokens_as_token_ids", &["false"]),
    ("stop_regex", &["[]"]),
    ("structured_outputs", &[]),
    ("tool_choice", &["\"none\"", "\"auto\""]),
    ("tools", &["[]"]),
    ("truncate_prompt_tokens", &[]),
    ("use_beam_search", &["false"]),
    ("web_search_options", &[]),
];

/// Fields that make no difference to the output.
const HARMLESS: &[&str] = &[
    "metadata",
    "parallel_tool_calls",
    "priority",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
];

/// What a request says besides its prompt.
#[derive(Debug)]
pub(crate) struct CommonParams {
    pub(crate) generation: GenerationParams,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl CommonParams {
    /// Takes the shared fields. What differs comes from the endpoint: `logprobs`, already taken, and
    /// how many tokens to generate if the request does not say; `None` is the rest of the context.
    pub(crate) fn take(
        fields: &mut Fields<'_>,
        text: &TextModel,
        logprobs: Option<u32>,
        default_max_tokens: Option<usize>,
    ) -> Result<Self, ApiError> {
        let n = fields.integer("n", 1..=MAX_N)?.unwrap_or(1) as usize;
        fields.refuse("best_of", &[&n.to_string()])?;
        // The newer name wins.
        let max_completion_tokens = fields.integer("max_completion_tokens", 1..=i64::MAX)?;
        let max_tokens = max_completion_tokens.or(fields.integer("max_tokens", 1..=i64::MAX)?);
        let max_tokens = max_tokens.map(|tokens| tokens as usize).or(default_max_tokens);
        let sampling = sampling(fields, text, logprobs)?;
        let adjustments = adjustments::take(fields, text, max_tokens)?;
        let output = output(fields, text, adjustments.min_tokens)?;

        let stream = fields.flag("stream")?;
        let options: Option<StreamOptions> =
            fields.get("stream_options", "an object such as {\"include_usage\": true}")?;
        if options.as_ref().is_some_and(|options| options.continuous_usage_stats == Some(true)) {
            let problem = "has `continuous_usage_stats`, which is not supported by this server";
            return Err(ApiError::field("stream_options", problem));
        }
        if options.is_some() && !stream {
            let problem = "is only allowed with `stream`: true";
            return Err(ApiError::field("stream_options", problem));
        }
        refuse_unsupported(fields)?;
        HARMLESS.iter().for_each(|name| fields.ignore(name));
        Ok(Self {
            generation: GenerationParams {
                n,
                continues: true,
                max_tokens,
                sampling,
                adjustments: generation::adjustments(adjustments, &output.stop_token_ids),
                output,
            },
            stream,
            include_usage: options.and_then(|options| options.include_usage).unwrap_or(false),
        })
    }
}

/// `add_special_tokens`: what the tokenizer puts around a bare text, unless it is false.
pub(super) fn take_special(fields: &mut Fields<'_>) -> Result<AddSpecial, ApiError> {
    let special: Option<bool> = fields.get("add_special_tokens", "true or false")?;
    Ok(if special.unwrap_or(true) { AddSpecial::Yes } else { AddSpecial::No })
}

/// Refuses what does nothing here, unless its value asks for nothing.
pub(super) fn refuse_unsupported(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    UNSUPPORTED.iter().try_for_each(|(name, neutral)| fields.refuse(name, neutral))
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
    /// vLLM's; refused.
    continuous_usage_stats: Option<bool>,
}

fn sampling(
    fields: &mut Fields<'_>,
    text: &TextModel,
    logprobs: Option<u32>,
) -> Result<SamplingParams, ApiError> {
    let defaults = text.sampling;
    let temperature = fields.number("temperature", 0.0..=2.0)?;
    let temperature = temperature.unwrap_or(f64::from(defaults.temperature));
    let top_p = fields.number("top_p", 0.0..=1.0)?.unwrap_or(f64::from(defaults.top_p));
    if top_p <= 0.0 {
        return Err(ApiError::field("top_p", "must be more than 0, and at most 1"));
    }
    let top_k = fields.integer("top_k", -1..=i64::from(u32::MAX))?;
    let seed = fields.integer("seed", i64::MIN..=i64::MAX)?;
    Ok(SamplingParams {
        temperature: or_greedy(temperature as f32),
        // -1 and 0 are both "all".
        top_k: top_k.map_or(defaults.top_k, |k| k.max(0) as u32),
        top_p: (top_p as f32).max(f32::MIN_POSITIVE),
        min_p: fields.number("min_p", 0.0..=1.0)?.map_or(defaults.min_p, |p| p as f32),
        seed: seed.map_or_else(random_seed, |seed| seed as u64),
        logprobs,
    })
}

/// From the operating system's randomness.
pub(crate) fn random_seed() -> u64 {
    // Two halves, so that the fixed bits of the version are not in the same places.
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high.rotate_left(32) ^ low
}

fn output(
    fields: &mut Fields<'_>,
    text: &TextModel,
    min_tokens: usize,
) -> Result<OutputOptions, ApiError> {
    let stop: Option<Stop> =
        fields.get("stop", "a string or a list of at most 16 strings, each of 1 to 1024 bytes")?;
    let vocab_size = text.vocab_size;
    let in_vocabulary = |token: &TokenId| (*token as usize) < vocab_size;
    let stop_tokens: Vec<TokenId> =
        fields.get("stop_token_ids", "a list of token ids")?.unwrap_or_default();
    if stop_tokens.len() > MAX_STOP_TOKENS || !stop_tokens.iter().all(in_vocabulary) {
        let problem = format!("must have at most {MAX_STOP_TOKENS} ids below {vocab_size}");
        return Err(ApiError::field("stop_token_ids", &problem));
    }
    let eos: &[TokenId] = if fields.flag("ignore_eos")? { &[] } else { &text.eos_token_ids };
    // The same under its names in vLLM and SGLang.
    let include_stop = fields.flag("include_stop_str_in_output")? | fields.flag("no_stop_trim")?;
    Ok(OutputOptions {
        skip_special_tokens: fields.get("skip_special_tokens", "true or false")?.unwrap_or(true),
        stop: Arc::new(StopStrings::new(stop.unwrap_or_default().0)),
        stop_token_ids: eos.iter().copied().chain(stop_tokens).collect(),
        include_stop,
        min_tokens,
    })
}

#[derive(Debug, Default)]
struct Stop(Vec<String>);

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StopVisitor;

        impl<'de> Visitor<'de> for StopVisitor {
            type Value = Stop;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Stop, E> {
                let mut stop = Stop::default();
                stop.add(text.to_owned())?;
                Ok(stop)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Stop, A::Error> {
                let mut stop = Stop::default();
                while let Some(text) = list.next_element()? {
                    stop.add(text)?;
                }
                Ok(stop)
            }
        }

        deserializer.deserialize_any(StopVisitor)
    }
}

impl Stop {
    fn add<E: serde::de::Error>(&mut self, text: String) -> Result<(), E> {
        if self.0.len() == MAX_STOP_STRINGS || !(1..=MAX_STOP_BYTES).contains(&text.len()) {
            return Err(E::custom("too many stop strings, or one of a bad length"));
        }
        self.0.push(text);
        Ok(())
    }
}

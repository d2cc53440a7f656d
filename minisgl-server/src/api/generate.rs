//! `POST /generate`, the bare endpoint of Mini-SGLang: `{prompt, max_tokens, ignore_eos}` to a
//! stream of text, the most likely token each time.
//!
//! Mini-SGLang ends an event with one line break, so that text with line breaks cannot be told from
//! events. Here it is as the standard of server-sent events says: a blank line ends an event, and a
//! text of several lines has several `data` lines.

use std::sync::Arc;

use hyper::Response;
use minisgl_sched::SamplingParams;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::params::{CommonParams, refuse_unsupported};
use crate::api::reply::Format;
use crate::api::response::Body;
use crate::generation::GenerationParams;
use crate::output::OutputOptions;
use crate::tokenizer::AddSpecial;

/// What the other endpoints let clients choose, with the values that are taken here.
const FIXED: &[(&str, &[&str])] = &[
    ("add_special_tokens", &["true"]),
    ("frequency_penalty", &["0"]),
    ("logit_bias", &["{}"]),
    ("logprobs", &[]),
    ("min_p", &["0"]),
    ("min_tokens", &["0"]),
    ("n", &["1"]),
    ("presence_penalty", &["0"]),
    ("repetition_penalty", &["1"]),
    ("stop", &["[]"]),
    ("stop_token_ids", &["[]"]),
    ("stream", &["true"]),
    ("temperature", &["0"]),
    ("top_k", &["-1", "0", "1"]),
    ("top_p", &["1"]),
];

impl Api {
    pub(super) async fn generate(&self, body: &[u8]) -> Result<Response<Body>, ApiError> {
        let mut fields = Fields::parse(body)?;
        self.check_model(fields.get("model", "a string")?)?;
        let prompt: String = fields.require("prompt", "a string")?;
        let max_tokens = fields.integer("max_tokens", 1..=i64::MAX)?;
        let max_tokens = max_tokens.ok_or_else(|| ApiError::field("max_tokens", "is missing"))?;
        let ignore_eos = fields.flag("ignore_eos")?;
        FIXED.iter().try_for_each(|(name, only)| fields.refuse(name, only))?;
        refuse_unsupported(&mut fields)?;
        self.finish(fields);

        let eos =
            if ignore_eos { Arc::default() } else { self.text.eos_token_ids.as_slice().into() };
        let params = CommonParams {
            generation: GenerationParams {
                n: 1,
                continues: true,
                max_tokens: Some(max_tokens as usize),
                sampling: SamplingParams::GREEDY,
                adjustments: None,
                output: OutputOptions { stop_token_ids: eos, ..OutputOptions::default() },
            },
            stream: true,
            include_usage: false,
        };
        let submission = self.open(1)?;
        let prompt = self.with_text(move |text| text.encode(&prompt, AddSpecial::Yes)).await?;
        let prompt = prompt.map_err(|error| ApiError::from(error).about("prompt"))?;
        self.respond(vec![prompt], params, submission, Format::Text).await
    }
}

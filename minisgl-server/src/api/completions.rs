//! `POST /v1/completions`.

use std::iter;
use std::sync::Arc;

use hyper::Response;
use minisgl_sched::TokenId;

use crate::ServerError;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::params::{CommonParams, take_special};
use crate::api::prompt::{Prompt, Prompts};
use crate::api::reply::Format;
use crate::api::response::Body;
use crate::output::MAX_LOGPROBS;
use crate::text::TextModel;
use crate::tokenizer::AddSpecial;

/// Tokens to generate if the request does not say, as in the OpenAI API.
const DEFAULT_MAX_TOKENS: usize = 16;

impl Api {
    pub(super) async fn completions(&self, body: &[u8]) -> Result<Response<Body>, ApiError> {
        let mut fields = Fields::parse(body)?;
        self.check_model(fields.get("model", "a string")?)?;
        let Prompts(prompts) = fields.require("prompt", Prompts::EXPECTED)?;
        let logprobs = fields.integer("logprobs", 0..=MAX_LOGPROBS.into())?.map(|top| top as u32);
        let echo = fields.flag("echo")?;
        if echo && logprobs.is_some() {
            return Err(ApiError::field("echo", "is not supported together with `logprobs`"));
        }
        fields.refuse("suffix", &["\"\""])?;
        let special = take_special(&mut fields)?;
        let params =
            CommonParams::take(&mut fields, &self.text, logprobs, Some(DEFAULT_MAX_TOKENS))?;
        self.finish(fields);

        let n = params.generation.n;
        let submission = self.open(n * prompts.len())?;
        let encoded = self.with_text(move |text| encode(text, prompts, special, echo)).await?;
        let encoded = encoded.map_err(|error| ApiError::from(error).about("prompt"))?;
        let (mut prompts, mut echo) = (Vec::new(), Vec::new());
        for Encoded { tokens, text } in encoded {
            prompts.push(tokens);
            echo.extend(iter::repeat_n(text, n));
        }
        self.respond(prompts, params, submission, Format::Completion { echo }).await
    }
}

/// A prompt ready to be computed.
struct Encoded {
    tokens: Vec<TokenId>,
    /// Its text if that is to be echoed, else nothing.
    text: Arc<str>,
}

fn encode(
    model: &TextModel,
    prompts: Vec<Prompt>,
    special: AddSpecial,
    echo: bool,
) -> Result<Vec<Encoded>, ServerError> {
    let encode = |prompt| {
        let (tokens, text) = match prompt {
            Prompt::Text(text) => {
                let tokens = model.encode(&text, special)?;
                (tokens, echo.then_some(text))
            }
            Prompt::Tokens(tokens) => {
                model.check(&tokens)?;
                let text = echo.then(|| model.tokenizer.decode(&tokens, true));
                (tokens, text)
            }
        };
        Ok(Encoded { tokens, text: text.unwrap_or_default().into() })
    };
    prompts.into_iter().map(encode).collect()
}

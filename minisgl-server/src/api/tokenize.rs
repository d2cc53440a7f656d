//! `POST /tokenize` and `POST /detokenize`, in the form of vLLM: what a prompt costs, and what
//! tokens mean.

use hyper::{Response, StatusCode};
use minisgl_sched::TokenId;
use serde::Serialize;

use crate::api::Api;
use crate::api::chat::{take_messages, take_variables};
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::params::{refuse_unsupported, take_special};
use crate::api::response::{Body, json_response};
use crate::text::TextModel;
use crate::tokenizer::AddSpecial;

#[derive(Serialize)]
struct Tokenized {
    count: usize,
    max_model_len: usize,
    tokens: Vec<TokenId>,
}

#[derive(Serialize)]
struct Detokenized {
    prompt: String,
}

impl Api {
    /// Takes `prompt` (and `add_special_tokens`) or `messages`, like the endpoints that generate.
    pub(super) async fn tokenize(&self, body: &[u8]) -> Result<Response<Body>, ApiError> {
        let mut fields = Fields::parse(body)?;
        self.check_model(fields.get("model", "a string")?)?;
        fields.refuse("return_token_strs", &["false"])?;
        let prompt: Option<String> = fields.get("prompt", "a string")?;
        let tokens = match prompt {
            Some(prompt) => {
                // One of both.
                fields.refuse("messages", &[])?;
                let special = take_special(&mut fields)?;
                self.finish(fields);
                self.with_text(move |text| text.tokenize(&prompt, special)).await??
            }
            None => {
                let messages = take_messages(&mut fields)?;
                let variables = take_variables(&mut fields)?;
                // The template has written them.
                fields.refuse("add_special_tokens", &["false"])?;
                refuse_unsupported(&mut fields)?;
                self.finish(fields);
                let tokenize = move |text: &TextModel| {
                    text.tokenize(&text.render(&messages, &variables)?, AddSpecial::No)
                };
                self.with_text(tokenize).await??
            }
        };
        let max_model_len = self.text.max_seq_len;
        let tokenized = Tokenized { count: tokens.len(), max_model_len, tokens };
        Ok(json_response(StatusCode::OK, &tokenized))
    }

    /// Takes `tokens`.
    pub(super) async fn detokenize(&self, body: &[u8]) -> Result<Response<Body>, ApiError> {
        let mut fields = Fields::parse(body)?;
        self.check_model(fields.get("model", "a string")?)?;
        let tokens: Vec<TokenId> = fields.require("tokens", "a list of token ids")?;
        self.finish(fields);
        let prompt = self.with_text(move |text| text.tokenizer.decode(&tokens, false)).await?;
        Ok(json_response(StatusCode::OK, &Detokenized { prompt }))
    }
}

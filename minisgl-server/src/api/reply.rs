//! How the outputs of a call are written: as chunks of a stream or as one response, in the format
//! of its endpoint. Never knows where outputs come from.

use std::mem;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use minisgl_sched::TokenId;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::response::{Body, json_response, response};
use crate::api::wire::{
    AssistantMessage, ChatChoice, ChatChunkChoice, ChatDelta, ChatLogprobs, ChatTokenLogprob,
    CompletionChoice, CompletionLogprobs, Envelope, TokenLogprob, TopLogprobs, Usage,
};
use crate::generation::{Choice, End, Generation, TokenCounts};
use crate::output::ScoredToken;
use crate::tokenizer::TokenBytes;

const CHAT_CHUNK: &str = "chat.completion.chunk";
const COMPLETION: &str = "text_completion";
const ASSISTANT: &str = "assistant";

/// The end of every stream.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// Log-probabilities go down to minus infinity, JSON does not.
const MIN_LOGPROB: f32 = -9999.0;

/// What all chunks of a call have in common.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: Arc<str>,
    pub(crate) format: Format,
    /// Whether log-probabilities were asked for.
    pub(crate) logprobs: bool,
    /// Whether a stream ends with a chunk of token counts.
    pub(crate) include_usage: bool,
}

/// The format of an endpoint.
#[derive(Debug)]
pub(crate) enum Format {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion {
        /// By choice: the text of its prompt, if that is to be repeated; else nothing.
        echo: Vec<Arc<str>>,
    },
    /// `/generate`: bare text.
    Text,
}

impl Reply {
    /// Writes what is new in a choice; `is_first` if nothing of it was written before.
    pub(crate) fn write_chunk(
        &self,
        out: &mut Vec<u8>,
        vocabulary: &TokenBytes,
        index: usize,
        choice: &mut Choice,
        is_first: bool,
    ) {
        let finish_reason = choice.end.map(End::as_str);
        let delta = &mut choice.delta;
        match &self.format {
            Format::Chat => {
                let mut write = |delta, logprobs, finish_reason| {
                    let choice = ChatChunkChoice { index, delta, logprobs, finish_reason };
                    self.write_envelope(out, CHAT_CHUNK, &[choice]);
                };
                if is_first {
                    let delta = ChatDelta { role: Some(ASSISTANT), content: Some("") };
                    write(delta, None, None);
                }
                if !delta.is_empty() {
                    let content = ChatDelta { role: None, content: Some(&delta.text) };
                    write(content, self.chat_logprobs(vocabulary, &delta.tokens), None);
                }
                if finish_reason.is_some() {
                    write(ChatDelta::default(), None, finish_reason);
                }
            }
            Format::Completion { echo } => {
                let echo = echo.get(index).map_or("", AsRef::as_ref);
                if is_first {
                    delta.text.insert_str(0, echo);
                }
                if !delta.is_empty() || finish_reason.is_some() {
                    let logprobs = self.completion_logprobs(vocabulary, &delta.tokens, echo);
                    let text = &delta.text;
                    let choice = CompletionChoice { text, index, logprobs, finish_reason };
                    self.write_envelope(out, COMPLETION, &[choice]);
                }
            }
            Format::Text => {
                if !delta.text.is_empty() {
                    write_text_event(out, &delta.text);
                }
            }
        }
        delta.text.clear();
        delta.tokens.clear();
    }

    /// Writes the end of a stream that went well.
    pub(crate) fn write_end(&self, out: &mut Vec<u8>, counts: TokenCounts) {
        if self.include_usage {
            let object = if let Format::Chat = self.format { CHAT_CHUNK } else { COMPLETION };
            let no_choices: &[CompletionChoice<'_>] = &[];
            write_event(out, &self.envelope(object, no_choices, Some(Some(counts.into()))));
        }
        out.extend_from_slice(DONE);
    }

    /// Writes the end of a stream that failed.
    pub(crate) fn write_error(&self, out: &mut Vec<u8>, error: &ApiError) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&error.to_json());
        out.extend_from_slice(b"\n\n");
        out.extend_from_slice(DONE);
    }

    /// All outputs, which have ended, in one response.
    pub(crate) fn whole(&self, mut generation: Generation) -> Response<Body> {
        let usage = Some(Some(generation.counts().into()));
        let text = generation.text().clone();
        let vocabulary = text.tokenizer.token_bytes();
        let choices = generation.choices().iter_mut();
        match &self.format {
            Format::Chat => {
                let choices = choices.enumerate().map(|(index, choice)| ChatChoice {
                    index,
                    logprobs: self.chat_logprobs(vocabulary, &choice.delta.tokens),
                    message: AssistantMessage {
                        role: ASSISTANT,
                        content: mem::take(&mut choice.delta.text),
                        refusal: None,
                    },
                    finish_reason: choice.end.map(End::as_str),
                });
                let choices: Vec<_> = choices.collect();
                json_response(StatusCode::OK, &self.envelope("chat.completion", &choices, usage))
            }
            Format::Completion { echo } => {
                let choices = choices.enumerate().map(|(index, choice)| {
                    let echo = echo.get(index).map_or("", AsRef::as_ref);
                    let delta = &mut choice.delta;
                    delta.text.insert_str(0, echo);
                    CompletionChoice {
                        logprobs: self.completion_logprobs(vocabulary, &delta.tokens, echo),
                        text: &delta.text,
                        index,
                        finish_reason: choice.end.map(End::as_str),
                    }
                });
                let choices: Vec<_> = choices.collect();
                json_response(StatusCode::OK, &self.envelope(COMPLETION, &choices, usage))
            }
            Format::Text => {
                let text: String = choices.map(|choice| choice.delta.text.as_str()).collect();
                response(StatusCode::OK, "text/plain; charset=utf-8", text)
            }
        }
    }

    fn write_envelope<C: Serialize>(&self, out: &mut Vec<u8>, object: &'static str, choices: &[C]) {
        let usage = self.include_usage.then_some(None);
        write_event(out, &self.envelope(object, choices, usage));
    }

    fn envelope<'a, C>(
        &'a self,
        object: &'static str,
        choices: &'a [C],
        usage: Option<Option<Usage>>,
    ) -> Envelope<'a, C> {
        Envelope { id: &self.id, object, created: self.created, model: &self.model, choices, usage }
    }

    fn chat_logprobs(
        &self,
        vocabulary: &TokenBytes,
        tokens: &[ScoredToken],
    ) -> Option<ChatLogprobs> {
        let token_logprob = |(token, logprob): (TokenId, f32)| TokenLogprob {
            token: vocabulary.text(token),
            logprob: finite(logprob),
            bytes: vocabulary.get(token).to_vec(),
        };
        let content = tokens.iter().map(|scored| ChatTokenLogprob {
            chosen: token_logprob((scored.token, scored.logprobs.chosen)),
            top_logprobs: scored.logprobs.top.iter().copied().map(token_logprob).collect(),
        });
        self.logprobs.then(|| ChatLogprobs { content: content.collect(), refusal: None })
    }

    fn completion_logprobs(
        &self,
        vocabulary: &TokenBytes,
        tokens: &[ScoredToken],
        echo: &str,
    ) -> Option<CompletionLogprobs> {
        if !self.logprobs {
            return None;
        }
        let echo_chars = echo.chars().count();
        let mut logprobs = CompletionLogprobs::default();
        for ScoredToken { token, text_offset, logprobs: scores } in tokens {
            let chosen = (*token, scores.chosen);
            // The chosen token is always among them, with the same bits.
            let mut top: Vec<(String, f32)> = Vec::with_capacity(scores.top.len() + 1);
            for (token, logprob) in scores.top.iter().chain([&chosen]) {
                let text = vocabulary.text(*token);
                if top.iter().all(|(other, _)| *other != text) {
                    top.push((text, finite(*logprob)));
                }
            }
            logprobs.text_offset.push(echo_chars + text_offset);
            logprobs.token_logprobs.push(finite(scores.chosen));
            logprobs.tokens.push(vocabulary.text(*token));
            logprobs.top_logprobs.push(TopLogprobs(top));
        }
        Some(logprobs)
    }
}

fn finite(logprob: f32) -> f32 {
    logprob.max(MIN_LOGPROB)
}

fn write_event(out: &mut Vec<u8>, value: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    // Neither the types of `wire` nor memory can fail to be written.
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok());
    out.extend_from_slice(b"\n\n");
}

/// An event whose data is `text`: a line break in it begins another `data` line, as the standard of
/// server-sent events has it, which knows `\r`, `\n` and both as one line break.
fn write_text_event(out: &mut Vec<u8>, text: &str) {
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
}

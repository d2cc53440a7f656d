//! `POST /v1/chat/completions`.

use std::fmt;

use hyper::Response;
use minijinja::Value;
use serde::Deserialize;
use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::Map;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::params::CommonParams;
use crate::api::reply::Format;
use crate::api::response::Body;
use crate::output::MAX_LOGPROBS;
use crate::template::ChatMessage;
use crate::text::TextModel;
use crate::tokenizer::AddSpecial;

const MESSAGES: &str = "a list of messages with role and content";

/// Variables of the template that a request may not set: they are the server's.
const RESERVED_VARIABLES: &[&str] = &[
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "documents",
    "messages",
    "padding",
    "return_dict",
    "return_tensors",
    "tokenize",
    "tools",
    "truncation",
];
const MAX_VARIABLES: usize = 16;
const MAX_VARIABLE_BYTES: usize = 1024;

impl Api {
    pub(super) async fn chat(&self, body: &[u8]) -> Result<Response<Body>, ApiError> {
        let mut fields = Fields::parse(body)?;
        self.check_model(fields.get("model", "a string")?)?;
        let messages = take_messages(&mut fields)?;
        let variables = take_variables(&mut fields)?;
        let logprobs = take_logprobs(&mut fields)?;
        fields.refuse("echo", &["false"])?;
        // The template has written them.
        fields.refuse("add_special_tokens", &["false"])?;
        let mut params = CommonParams::take(&mut fields, &self.text, logprobs, None)?;
        params.generation.continues = false;
        self.finish(fields);

        let submission = self.open(params.generation.n)?;
        let encode = move |text: &TextModel| {
            text.encode(&text.render(&messages, &variables)?, AddSpecial::No)
        };
        let prompt = self.with_text(encode).await?;
        let prompt = prompt.map_err(|error| ApiError::from(error).about("messages"))?;
        self.respond(vec![prompt], params, submission, Format::Chat).await
    }
}

/// The messages of a chat, checked.
pub(super) fn take_messages(fields: &mut Fields<'_>) -> Result<Vec<ChatMessage>, ApiError> {
    let messages: Vec<WireMessage> = fields.require("messages", MESSAGES)?;
    if messages.is_empty() {
        return Err(ApiError::field("messages", "must not be empty"));
    }
    messages.into_iter().enumerate().map(|(index, message)| message.check(index)).collect()
}

#[derive(Deserialize)]
struct WireMessage {
    role: String,
    content: Option<Content>,
    name: Option<String>,
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<IgnoredAny>>,
    function_call: Option<IgnoredAny>,
}

impl WireMessage {
    fn check(self, index: usize) -> Result<ChatMessage, ApiError> {
        let error = |problem: &str| ApiError::field(format!("messages[{index}]"), problem);
        let role = match self.role.as_str() {
            // The newer name of the same.
            "developer" => "system",
            "system" | "user" | "assistant" => &self.role,
            "tool" | "function" => return Err(error("is of a tool: tools are not supported")),
            _ => return Err(error("must have role system, developer, user or assistant")),
        };
        if self.function_call.is_some() || self.tool_calls.is_some_and(|calls| !calls.is_empty()) {
            return Err(error("has tool calls: tools are not supported"));
        }
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::NotText) => {
                return Err(error("has a part that is not text: only text is supported"));
            }
            None if role == "assistant" => String::new(),
            None => return Err(error("has no content")),
        };
        Ok(ChatMessage {
            role: role.to_owned(),
            content,
            name: self.name,
            reasoning_content: self.reasoning_content,
            ..ChatMessage::default()
        })
    }
}

/// A string, or a list of parts, whose texts become lines of one.
#[derive(Debug, PartialEq)]
enum Content {
    Text(String),
    NotText,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;

        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of text parts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
                let mut all: Option<String> = None;
                let mut is_text = true;
                while let Some(Part { kind, text }) = list.next_element()? {
                    match (text, &mut all) {
                        (Some(text), Some(all)) if kind == "text" => {
                            all.push('\n');
                            all.push_str(&text);
                        }
                        (Some(text), None) if kind == "text" => all = Some(text),
                        _ => is_text = false,
                    }
                }
                Ok(if is_text { Content::Text(all.unwrap_or_default()) } else { Content::NotText })
            }
        }

        deserializer.deserialize_any(ContentVisitor)
    }
}

/// Variables for the template: strings, numbers and booleans, none of the server's own.
pub(super) fn take_variables(fields: &mut Fields<'_>) -> Result<Vec<(String, Value)>, ApiError> {
    const NAME: &str = "chat_template_kwargs";
    let given: Option<Map<String, serde_json::Value>> = fields.get(NAME, "an object")?;
    let given = given.unwrap_or_default();
    if given.len() > MAX_VARIABLES {
        return Err(ApiError::field(NAME, &format!("must have at most {MAX_VARIABLES} entries")));
    }
    let variables = given.into_iter().map(|(name, value)| {
        if RESERVED_VARIABLES.contains(&name.as_str()) || name.ends_with("_token") {
            return Err(ApiError::field(NAME, "must not set what the server sets"));
        }
        let value = match value {
            serde_json::Value::Null => Value::from(()),
            serde_json::Value::Bool(flag) => Value::from(flag),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(integer) => Value::from(integer),
                None => Value::from(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) if text.len() <= MAX_VARIABLE_BYTES => {
                Value::from(text)
            }
            _ => {
                let problem = "must have short strings, numbers and booleans only";
                return Err(ApiError::field(NAME, problem));
            }
        };
        Ok((name, value))
    });
    variables.collect()
}

/// `logprobs` and `top_logprobs`: how many of the most likely tokens to report, if any.
fn take_logprobs(fields: &mut Fields<'_>) -> Result<Option<u32>, ApiError> {
    let wanted = fields.flag("logprobs")?;
    let top = fields.integer("top_logprobs", 0..=MAX_LOGPROBS.into())?;
    if top.is_some_and(|top| top > 0) && !wanted {
        return Err(ApiError::field("top_logprobs", "needs `logprobs`: true"));
    }
    Ok(wanted.then(|| top.unwrap_or(0) as u32))
}

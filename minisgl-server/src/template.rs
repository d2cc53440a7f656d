//! Chat templates: messages to the text of a prompt, as Hugging Face's `apply_chat_template` does it
//! (Jinja with `trim_blocks` and `lstrip_blocks`, Python's string methods, `raise_exception`,
//! `strftime_now`, its own `tojson`).
//!
//! The template comes from the model's files or the command line, never from a request, and runs on
//! a budget of work, memory and output.
//! Never knows: tokens.

mod json;
mod methods;

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::calendar::DateTime;

/// Instructions, or 64 bytes made or looked at, that one rendering may cost: a fraction of a second.
const FUEL: u64 = 4_000_000;

/// The longest text of a prompt: more than any context has room for.
const MAX_OUTPUT: usize = 32 << 20;

/// A piece of it is as much work as so many bytes: a list printed as it is comes in very small ones.
const PIECE_COST: usize = 32;

const NAME: &str = "chat_template";

/// The template that a model has for chats with tools, if it has two.
const TOOL_USE: &str = "tool_use";

/// One message of a chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Its text.
    pub content: String,
    /// Who of several wrote it; few templates look at it.
    pub name: Option<String>,
    /// What the assistant thought before it answered, for templates that ask for it.
    pub reasoning_content: Option<String>,
    /// The calls of tools that the assistant made, in the form of the API; the arguments should be an
    /// object, as templates expect.
    pub tool_calls: Vec<Value>,
    /// Which call a message of a tool answers.
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    /// A message without the rarer fields.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }

    fn to_value(&self) -> Value {
        let optional = [
            ("name", &self.name),
            ("reasoning_content", &self.reasoning_content),
            ("tool_call_id", &self.tool_call_id),
        ];
        // Templates ask whether there is such a key.
        let calls = (!self.tool_calls.is_empty())
            .then(|| ("tool_calls", Value::from(self.tool_calls.clone())));
        let optional = optional
            .into_iter()
            .filter_map(|(key, text)| text.as_ref().map(|text| (key, Value::from(text.as_str()))));
        let required = [("role", &self.role), ("content", &self.content)];
        let required = required.into_iter().map(|(key, text)| (key, Value::from(text.as_str())));
        Value::from_pairs(required.chain(optional).chain(calls))
    }
}

/// What a prompt is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chat<'a> {
    /// What has been said.
    pub messages: &'a [ChatMessage],
    /// The tools that the assistant may call, each in the form of the API.
    pub tools: &'a [Value],
    /// What the assistant may look into, for models that are made for that.
    pub documents: &'a [Value],
    /// More variables that the template may look at, such as `enable_thinking`; they hide none of the
    /// standard ones.
    pub variables: &'a [(String, Value)],
}

/// Why messages became no prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template is no template.
    #[error("the chat template is not valid: {0}")]
    Syntax(String),
    /// The template called `raise_exception`: the messages are not what the model expects.
    #[error("{0}")]
    Raised(String),
    /// The template went wrong.
    #[error("the chat template failed: {0}")]
    Failed(String),
}

/// A compiled template with what all its renderings share.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Vec<(String, Value)>,
    has_tool_use: bool,
}

impl ChatTemplate {
    /// Compiles `source`. `special_tokens` are variables such as `bos_token` with their spelling.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn new(
        source: &str,
        special_tokens: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Syntax(error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(methods::call);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| DateTime::now().strftime(format));
        let special_tokens = special_tokens.into_iter();
        let special_tokens = special_tokens.map(|(name, text)| (name, Value::from(text))).collect();
        let mut template = Self { environment, special_tokens, has_tool_use: false };
        template.add(NAME, source)?;
        Ok(template)
    }

    /// Takes `source` for chats with tools.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn with_tool_use(mut self, source: &str) -> Result<Self, TemplateError> {
        self.add(TOOL_USE, source)?;
        self.has_tool_use = true;
        Ok(self)
    }

    fn add(&mut self, name: &'static str, source: &str) -> Result<(), TemplateError> {
        let added = self.environment.add_template_owned(name, without_generation_tags(source));
        added.map_err(|error| TemplateError::Syntax(error.to_string()))
    }

    /// The prompt that asks for the assistant's next message, without tools and documents.
    ///
    /// # Errors
    /// As [`ChatTemplate::render_chat`].
    pub fn render(
        &self,
        messages: &[ChatMessage],
        variables: &[(String, Value)],
    ) -> Result<String, TemplateError> {
        self.render_chat(&Chat { messages, variables, ..Chat::default() })
    }

    /// The prompt that asks for the assistant's next message.
    ///
    /// # Errors
    /// [`TemplateError::Raised`] or [`TemplateError::Failed`].
    pub fn render_chat(&self, chat: &Chat<'_>) -> Result<String, TemplateError> {
        // Templates compare with none.
        let list = |items: &[Value]| match items {
            [] => Value::from(()),
            items => Value::from(items.to_vec()),
        };
        let standard = [
            ("messages", chat.messages.iter().map(ChatMessage::to_value).collect()),
            ("add_generation_prompt", Value::from(true)),
            ("tools", list(chat.tools)),
            ("documents", list(chat.documents)),
        ];
        let standard = standard.into_iter().map(|(name, value)| (name.to_owned(), value));
        let variables = chat.variables.iter().chain(&self.special_tokens).cloned();
        let context = Value::from_pairs(variables.chain(standard));
        let name = if self.has_tool_use && !chat.tools.is_empty() { TOOL_USE } else { NAME };
        let template = self.environment.get_template(name).map_err(describe)?;
        let mut out = Output { text: Vec::new(), left: MAX_OUTPUT };
        template.render_captured_to(context, &mut out).map_err(describe)?;
        String::from_utf8(out.text).map_err(|error| TemplateError::Failed(error.to_string()))
    }
}

/// Text up to [`MAX_OUTPUT`].
struct Output {
    text: Vec<u8>,
    left: usize,
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let cost = bytes.len().saturating_add(PIECE_COST);
        self.left =
            self.left.checked_sub(cost).ok_or_else(|| io::Error::other("it is too long"))?;
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a template gave to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "raise_exception was called");
    Err(error.with_source(Raised(message)))
}

fn describe(error: Error) -> TemplateError {
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return TemplateError::Raised(message.clone());
        }
        source = cause.source();
    }
    TemplateError::Failed(error.to_string())
}

/// Replaces `{% generation %}`, which only marks for training what the assistant wrote, by a block
/// that does nothing.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        let Some(end) = tag.find("%}") else { break };
        let (tag, after) = tag.split_at(end);
        let word = tag[2..].trim_matches(['-', '+', ' ', '\t', '\r', '\n']);
        out.push_str(before);
        out.push_str(&match word {
            "generation" => tag.replace(word, "if true"),
            "endgeneration" => tag.replace(word, "endif"),
            _ => tag.to_owned(),
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;

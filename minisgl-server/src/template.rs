//! Chat templates: messages to the text of a prompt, as Hugging Face's `apply_chat_template` does it
//! (Jinja with `trim_blocks` and `lstrip_blocks`, Python's string methods, `raise_exception`,
//! `strftime_now`, its own `tojson`).
//!
//! The template comes from the model's files or the command line, never from a request, and runs on
//! a budget of work and memory.
//! Never knows: tokens.

mod json;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::calendar::DateTime;

/// Instructions, or 64 bytes made or looked at, that one rendering may cost: a fraction of a second.
const FUEL: u64 = 4_000_000;

const NAME: &str = "chat_template";

/// One message of a chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
    /// Who of several wrote it; few templates look at it.
    pub name: Option<String>,
    /// What the assistant thought before it answered, for templates that ask for it.
    pub reasoning_content: Option<String>,
}

impl ChatMessage {
    /// A message without the rarer fields.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }

    fn to_value(&self) -> Value {
        let optional = [("name", &self.name), ("reasoning_content", &self.reasoning_content)];
        let optional = optional
            .into_iter()
            .filter_map(|(key, text)| text.as_ref().map(|text| (key, Value::from(text.as_str()))));
        let required = [("role", &self.role), ("content", &self.content)];
        let required = required.into_iter().map(|(key, text)| (key, Value::from(text.as_str())));
        Value::from_pairs(required.chain(optional))
    }
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
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| DateTime::now().strftime(format));
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| TemplateError::Syntax(error.to_string()))?;
        let special_tokens = special_tokens.into_iter();
        let special_tokens = special_tokens.map(|(name, text)| (name, Value::from(text))).collect();
        Ok(Self { environment, special_tokens })
    }

    /// The prompt that asks for the assistant's next message. `variables` are more variables that
    /// the template may look at, such as `enable_thinking`; they hide none of the standard ones.
    ///
    /// # Errors
    /// [`TemplateError::Raised`] or [`TemplateError::Failed`].
    pub fn render(
        &self,
        messages: &[ChatMessage],
        variables: &[(String, Value)],
    ) -> Result<String, TemplateError> {
        let standard = [
            ("messages", messages.iter().map(ChatMessage::to_value).collect()),
            ("add_generation_prompt", Value::from(true)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ];
        let standard = standard.into_iter().map(|(name, value)| (name.to_owned(), value));
        let context = variables.iter().chain(&self.special_tokens).cloned().chain(standard);
        let template = self.environment.get_template(NAME).map_err(describe)?;
        template.render(Value::from_pairs(context)).map_err(describe)
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

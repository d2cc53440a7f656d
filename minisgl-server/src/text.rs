//! What a checkpoint says about text: tokenizer, chat template, end tokens, sampling defaults.
//! Never knows weights, requests.

use std::ops::RangeInclusive;

use minijinja::Value;
use minisgl_model::Checkpoint;
use minisgl_sched::TokenId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Map;

use crate::ServerError;
use crate::template::{ChatMessage, ChatTemplate, TemplateError};
use crate::tokenizer::{AddSpecial, Tokenizer};

/// See the fields.
#[derive(Debug)]
pub struct TextModel {
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// Messages to text, if the model is for chats.
    pub template: Option<ChatTemplate>,
    /// Every token that ends an output, whichever file names it; sorted.
    pub eos_token_ids: Vec<TokenId>,
    /// How tokens are chosen where a request does not say.
    pub sampling: SamplingDefaults,
    /// Token ids are below this: the rows of the model, which may be more than the tokenizer has
    /// tokens, or less.
    pub vocab_size: usize,
    /// Tokens that prompt and output of one request may have together.
    pub max_seq_len: usize,
}

/// How tokens are chosen where a request does not say: as `generation_config.json` recommends, else
/// as the API's specification says. The other fields are
/// those of [`minisgl_sched::SamplingParams`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "documented where they are used")]
pub struct SamplingDefaults {
    pub temperature: f32,
    pub top_p: f32,
    pub top_k: u32,
    pub min_p: f32,
    /// See [`minisgl_sched::Adjustments::repetition_penalty`].
    pub repetition_penalty: f32,
}

/// The repetition penalties that are allowed: more than 2 is refused by vLLM and SGLang too, and less
/// than this would but make logits overflow.
pub const REPETITION_PENALTIES: RangeInclusive<f64> = 0.01..=2.0;

/// Below this the most likely token is taken: dividing logits by less gains nothing, and overflows in
/// the end.
const MIN_TEMPERATURE: f32 = 1e-5;

/// `temperature`, or 0 if it is as good as that.
pub(crate) fn or_greedy(temperature: f32) -> f32 {
    if temperature < MIN_TEMPERATURE { 0.0 } else { temperature }
}

impl Default for SamplingDefaults {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

impl TextModel {
    /// Reads the files of `checkpoint`. `template` takes the place of the model's own chat template;
    /// `eos_token_ids` are those of its `config.json`, `vocab_size` and `max_seq_len` what the
    /// engine takes.
    ///
    /// # Errors
    /// If there is no `tokenizer.json` in a folder, or a file is not what its name says.
    pub fn load(
        checkpoint: &Checkpoint,
        template: Option<&str>,
        eos_token_ids: &[TokenId],
        vocab_size: usize,
        max_seq_len: usize,
    ) -> Result<Self, ServerError> {
        let tokenizer = match checkpoint.read("tokenizer.json")? {
            Some(json) => Tokenizer::from_json(&json)?,
            // Its weights will be random: speed is measured, and nobody reads the text.
            None if matches!(checkpoint, Checkpoint::Config(_)) => Tokenizer::numbers(vocab_size),
            None => {
                return Err(ServerError::MissingFile {
                    file: "tokenizer.json",
                    purpose: "without it there is no text, only numbers",
                });
            }
        };
        let config: TokenizerConfig =
            read_json(checkpoint, "tokenizer_config.json")?.unwrap_or_default();
        let generation: GenerationConfig =
            read_json(checkpoint, "generation_config.json")?.unwrap_or_default();

        let mut eos: Vec<TokenId> = eos_token_ids.to_vec();
        eos.extend(generation.eos_token_id.iter().flat_map(OneOrMany::as_slice));
        eos.extend(config.special_token("eos_token").and_then(|text| tokenizer.token_id(text)));
        eos.sort_unstable();
        eos.dedup();

        let sources = match template {
            Some(source) => Some(Templates::one(source)),
            None => Templates::of(checkpoint, &config)?,
        };
        let template = sources.map(|sources| sources.compile(config.special_tokens()));
        Ok(Self {
            tokenizer,
            template: template.transpose()?,
            eos_token_ids: eos,
            sampling: generation.sampling(),
            vocab_size,
            max_seq_len,
        })
    }

    /// The text that asks for the assistant's next message. It is to be encoded with
    /// [`AddSpecial::No`]: the template has written a BOS token if the model wants one.
    ///
    /// # Errors
    /// [`ServerError::NoTemplate`] or [`ServerError::Template`].
    pub fn render(
        &self,
        messages: &[ChatMessage],
        variables: &[(String, Value)],
    ) -> Result<String, ServerError> {
        let template = self.template.as_ref().ok_or(ServerError::NoTemplate)?;
        Ok(template.render(messages, variables)?)
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// Those of [`TextModel::tokenize`] and [`TextModel::check`].
    pub fn encode(&self, text: &str, special: AddSpecial) -> Result<Vec<TokenId>, ServerError> {
        let tokens = self.tokenize(text, special)?;
        self.check(&tokens)?;
        Ok(tokens)
    }

    /// The tokens of a text that is not absurdly long.
    ///
    /// # Errors
    /// [`ServerError::TextTooLong`] or [`ServerError::Encode`].
    pub fn tokenize(&self, text: &str, special: AddSpecial) -> Result<Vec<TokenId>, ServerError> {
        let max = self.max_seq_len;
        if text.len() > self.tokenizer.max_text_bytes(max) {
            return Err(ServerError::TextTooLong { bytes: text.len(), max });
        }
        self.tokenizer.encode(text, special)
    }

    /// Checks that `prompt` can be continued.
    ///
    /// # Errors
    /// [`ServerError::EmptyPrompt`], [`ServerError::TooLong`] or [`ServerError::UnknownToken`].
    pub fn check(&self, prompt: &[TokenId]) -> Result<(), ServerError> {
        let vocab_size = self.vocab_size;
        if prompt.is_empty() {
            return Err(ServerError::EmptyPrompt);
        }
        if prompt.len() >= self.max_seq_len {
            return Err(ServerError::TooLong { prompt: prompt.len(), max: self.max_seq_len });
        }
        match prompt.iter().find(|token| **token as usize >= vocab_size) {
            Some(&token) => Err(ServerError::UnknownToken { token, vocab_size }),
            None => Ok(()),
        }
    }
}

fn read_json<T: DeserializeOwned>(
    checkpoint: &Checkpoint,
    file: &'static str,
) -> Result<Option<T>, ServerError> {
    let Some(bytes) = checkpoint.read(file)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| ServerError::File { file, problem: error.to_string() })
}

/// `tokenizer_config.json`: names of all kinds, of which few matter here.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct TokenizerConfig(Map<String, serde_json::Value>);

impl TokenizerConfig {
    /// The spelling of a special token: a string, or an object with the string as `content`.
    fn special_token(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?;
        value.as_str().or_else(|| value.get("content")?.as_str())
    }

    fn special_tokens(&self) -> impl Iterator<Item = (String, String)> {
        let names = self.0.keys().filter(|name| name.ends_with("_token"));
        names.filter_map(|name| Some((name.clone(), self.special_token(name)?.to_owned())))
    }
}

/// The sources of a model's chat templates.
struct Templates {
    default: String,
    /// For chats with tools, if that is another.
    tool_use: Option<String>,
}

impl Templates {
    fn one(source: impl Into<String>) -> Self {
        Self { default: source.into(), tool_use: None }
    }

    /// Those of the first file that has any: `chat_template.jinja`, which is newest, the tokenizer's
    /// configuration, and `chat_template.json`, which models have that see pictures as well.
    fn of(checkpoint: &Checkpoint, config: &TokenizerConfig) -> Result<Option<Self>, ServerError> {
        if let Some(bytes) = checkpoint.read("chat_template.jinja")? {
            return Ok(Some(Self::one(String::from_utf8_lossy(&bytes))));
        }
        if let Some(templates) = config.0.get("chat_template").and_then(Self::in_json) {
            return Ok(Some(templates));
        }
        let file: Option<Map<String, serde_json::Value>> =
            read_json(checkpoint, "chat_template.json")?;
        Ok(file.and_then(|file| Self::in_json(file.get("chat_template")?)))
    }

    /// A string, or a list of templates with names.
    fn in_json(value: &serde_json::Value) -> Option<Self> {
        let Some(list) = value.as_array() else { return Some(Self::one(value.as_str()?)) };
        let named = |name: &str| {
            let mut found = list.iter().filter(|template| template["name"] == name);
            Some(found.next()?["template"].as_str()?.to_owned())
        };
        Some(Self { default: named("default")?, tool_use: named("tool_use") })
    }

    fn compile(
        &self,
        special_tokens: impl IntoIterator<Item = (String, String)>,
    ) -> Result<ChatTemplate, TemplateError> {
        let template = ChatTemplate::new(&self.default, special_tokens)?;
        match &self.tool_use {
            Some(source) => template.with_tool_use(source),
            None => Ok(template),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(TokenId),
    Many(Vec<TokenId>),
}

impl OneOrMany {
    fn as_slice(&self) -> &[TokenId] {
        match self {
            OneOrMany::One(token) => std::slice::from_ref(token),
            OneOrMany::Many(tokens) => tokens,
        }
    }
}

/// `generation_config.json`: how the model's makers sample from it.
#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<OneOrMany>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    fn sampling(&self) -> SamplingDefaults {
        let default = SamplingDefaults::default();
        let in_range = |value: Option<f32>, range: RangeInclusive<f32>, default| {
            value.filter(|value| range.contains(value)).unwrap_or(default)
        };
        let repetition_penalty = self.repetition_penalty.filter(|penalty| {
            let is_allowed = REPETITION_PENALTIES.contains(penalty);
            if !is_allowed {
                let (least, most) = (REPETITION_PENALTIES.start(), REPETITION_PENALTIES.end());
                tracing::warn!(
                    "generation_config.json asks for repetition_penalty {penalty}; {least} to {most} \
                     is allowed: outputs are sampled without it"
                );
            }
            is_allowed
        });
        SamplingDefaults {
            temperature: in_range(self.temperature, 0.0..=2.0, default.temperature),
            top_p: in_range(self.top_p, f32::MIN_POSITIVE..=1.0, default.top_p),
            top_k: self.top_k.and_then(|k| u32::try_from(k).ok()).unwrap_or(default.top_k),
            min_p: in_range(self.min_p, 0.0..=1.0, default.min_p),
            repetition_penalty: repetition_penalty
                .map_or(default.repetition_penalty, |penalty| penalty as f32),
        }
    }
}

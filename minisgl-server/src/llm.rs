//! A model without a server: prompts in, outputs out, in this thread.
//!
//! Never knows the network.

mod generating;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use minisgl_model::{Checkpoint, EngineOptions, LaunchObserver, RankGroup};
use minisgl_sched::adjustment::MAX_LOGIT_BIAS;
use minisgl_sched::{
    Adjustments, Driver, Executor, Request, RequestId, SamplingParams, Scheduler, TokenId,
};

use crate::api::{BIASES, PENALTIES, random_seed};
use crate::generation::{self, End};
use crate::output::{MAX_LOGPROBS, OutputOptions, ScoredToken};
use crate::stop::StopStrings;
use crate::template::ChatMessage;
use crate::text::{REPETITION_PENALTIES, TextModel, or_greedy};
use crate::tokenizer::AddSpecial;
use crate::{ServerError, demo};

pub use self::generating::Generating;

/// What to load.
#[derive(Clone, Debug)]
pub struct LlmOptions {
    /// A folder in the Hugging Face layout; the demo model if not given.
    pub model: Option<PathBuf>,
    /// How to run it.
    pub engine: EngineOptions,
    /// Plan each step while the one before runs.
    pub overlap: bool,
}

impl Default for LlmOptions {
    fn default() -> Self {
        Self { model: None, engine: EngineOptions::default(), overlap: true }
    }
}

/// What to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text as it is.
    Text(String),
    /// Tokens.
    Tokens(Vec<TokenId>),
    /// A chat, in the form of the model's template.
    Chat(Vec<ChatMessage>),
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Prompt::Text(text.to_owned())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Prompt::Text(text)
    }
}

impl From<Vec<TokenId>> for Prompt {
    fn from(tokens: Vec<TokenId>) -> Self {
        Prompt::Tokens(tokens)
    }
}

impl From<Vec<ChatMessage>> for Prompt {
    fn from(messages: Vec<ChatMessage>) -> Self {
        Prompt::Chat(messages)
    }
}

/// How to continue it. What is `None` is as the model's `generation_config.json` recommends.
#[derive(Clone, Debug)]
pub struct LlmParams {
    /// Tokens to generate at most; the rest of the context if `None`.
    pub max_tokens: Option<usize>,
    /// See [`SamplingParams::temperature`].
    pub temperature: Option<f32>,
    /// See [`SamplingParams::top_k`].
    pub top_k: Option<u32>,
    /// See [`SamplingParams::top_p`].
    pub top_p: Option<f32>,
    /// See [`SamplingParams::min_p`].
    pub min_p: Option<f32>,
    /// See [`Adjustments::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
    /// See [`Adjustments::frequency_penalty`].
    pub frequency_penalty: f32,
    /// See [`Adjustments::presence_penalty`].
    pub presence_penalty: f32,
    /// See [`Adjustments::logit_bias`]. Of a token named twice the last value counts.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Neither an end token nor a stop string ends the output before so many tokens.
    pub min_tokens: usize,
    /// Random if `None`.
    pub seed: Option<u64>,
    /// Report the log-probability of each token, and of so many most likely ones, up to
    /// [`MAX_LOGPROBS`].
    pub logprobs: Option<u32>,
    /// Strings that end the output.
    pub stop: Vec<String>,
    /// Go on after the model's end tokens.
    pub ignore_eos: bool,
    /// Leave special tokens out of the text.
    pub skip_special_tokens: bool,
}

impl Default for LlmParams {
    fn default() -> Self {
        Self {
            max_tokens: None,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            min_tokens: 0,
            seed: None,
            logprobs: None,
            stop: Vec::new(),
            ignore_eos: false,
            skip_special_tokens: true,
        }
    }
}

/// One output.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// Its text.
    pub text: String,
    /// All tokens generated, an end token included.
    pub token_ids: Vec<TokenId>,
    /// Why it ended; `None` if it was not done when [`Generating::finish`] was called.
    pub end: Option<End>,
    /// The tokens that `text` reaches into, if log-probabilities were asked for.
    pub logprobs: Vec<ScoredToken>,
}

/// A model and all that runs it.
#[derive(Debug)]
pub struct Llm<E = RankGroup> {
    driver: Driver<E>,
    text: TextModel,
    /// Of the next request.
    next_id: u64,
}

impl Llm {
    /// Loads a model.
    ///
    /// # Errors
    /// If a file is missing or wrong, or the model does not fit.
    pub fn load(options: &LlmOptions) -> Result<Self, ServerError> {
        let checkpoint = match &options.model {
            Some(folder) => Checkpoint::folder(folder)?,
            None => demo::checkpoint(),
        };
        let (group, text) = load_model(&checkpoint, &options.engine, None, &Silent)?;
        let scheduler = Scheduler::new(group.limits().scheduler)?;
        Ok(Self::new(Driver::new(scheduler, group, options.overlap), text))
    }
}

/// Starts the ranks of a model and reads what it says about text. `template` takes the place of its
/// chat template.
///
/// # Errors
/// If a file is missing or wrong, or the model does not fit.
pub fn load_model(
    checkpoint: &Checkpoint,
    engine: &EngineOptions,
    template: Option<&str>,
    observer: &dyn LaunchObserver,
) -> Result<(RankGroup, TextModel), ServerError> {
    let group = RankGroup::launch(checkpoint, engine, observer)?;
    let limits = group.limits();
    let text = TextModel::load(
        checkpoint,
        template,
        &limits.eos_token_ids,
        limits.vocab_size,
        limits.context_len,
    )?;
    Ok((group, text))
}

/// Tells nobody how a launch gets on; warnings go to the log.
pub struct Silent;

impl LaunchObserver for Silent {
    fn rank_ready(&self, _rank: usize, _world_size: usize) {}

    fn weights_loaded(&self, _bytes: u64, _total: u64) {}

    fn warn(&self, message: &str) {
        tracing::warn!("{message}");
    }
}

impl<E: Executor> Llm<E> {
    /// From parts.
    pub fn new(driver: Driver<E>, text: TextModel) -> Self {
        Self { driver, text, next_id: 0 }
    }

    /// What the model knows of text.
    pub fn text(&self) -> &TextModel {
        &self.text
    }

    /// Continues all prompts, together; the outputs are in their order.
    ///
    /// # Errors
    /// If a prompt or parameter makes no sense, before anything is generated; or if the engine
    /// fails.
    pub fn generate(
        &mut self,
        prompts: &[Prompt],
        params: &LlmParams,
    ) -> Result<Vec<Generated>, ServerError> {
        let mut generating = self.start(prompts, params)?;
        while !generating.is_done() {
            generating.step()?;
        }
        Ok(generating.finish())
    }

    /// The same, step by step.
    ///
    /// # Errors
    /// If a prompt or parameter makes no sense.
    pub fn start(
        &mut self,
        prompts: &[Prompt],
        params: &LlmParams,
    ) -> Result<Generating<'_, E>, ServerError> {
        let sampling = self.sampling(params)?;
        let encode = |prompt| Ok((self.encode(prompt)?, !matches!(prompt, Prompt::Chat(_))));
        let prompts: Vec<(Vec<TokenId>, bool)> =
            prompts.iter().map(encode).collect::<Result<_, ServerError>>()?;
        let eos: &[TokenId] = if params.ignore_eos { &[] } else { &self.text.eos_token_ids };
        let options = OutputOptions {
            skip_special_tokens: params.skip_special_tokens,
            stop: Arc::new(StopStrings::new(&params.stop)),
            stop_token_ids: eos.into(),
            include_stop: false,
            min_tokens: params.min_tokens,
        };
        let adjustments =
            generation::adjustments(self.adjustments(params)?, &options.stop_token_ids);
        let max_seq_len = self.text.max_seq_len;
        let mut generating = Generating::new(self);
        for (prompt, continues) in prompts {
            let left = max_seq_len - prompt.len();
            let request = Request {
                // Chosen when it is added.
                id: RequestId(0),
                max_tokens: params.max_tokens.unwrap_or(left).min(left),
                prompt,
                stop_token_ids: options.stop_token_ids.clone(),
                sampling,
                adjustments: adjustments.clone(),
            };
            generating.add(request, &options, continues)?;
        }
        Ok(generating)
    }

    fn encode(&self, prompt: &Prompt) -> Result<Vec<TokenId>, ServerError> {
        match prompt {
            Prompt::Text(text) => self.text.encode(text, AddSpecial::Yes),
            Prompt::Chat(messages) => {
                self.text.encode(&self.text.render(messages, &[])?, AddSpecial::No)
            }
            Prompt::Tokens(tokens) => {
                self.text.check(tokens)?;
                Ok(tokens.clone())
            }
        }
    }

    fn adjustments(&self, params: &LlmParams) -> Result<Adjustments, ServerError> {
        let penalty = |name, value, range: &RangeInclusive<f64>| {
            in_range(name, value, *range.start() as f32, *range.end() as f32)
        };
        let count = |name, count: usize, max: usize| in_range(name, count as f32, 0.0, max as f32);
        let bias: BTreeMap<TokenId, f32> = params.logit_bias.iter().copied().collect();
        count("number of logit_bias", bias.len(), MAX_LOGIT_BIAS)?;
        for (&token, &value) in &bias {
            let vocab_size = self.text.vocab_size;
            if token as usize >= vocab_size {
                return Err(ServerError::UnknownToken { token, vocab_size });
            }
            penalty("logit_bias", value, &BIASES)?;
        }
        if let Some(max_tokens) = params.max_tokens {
            count("min_tokens", params.min_tokens, max_tokens)?;
        }
        let repetition = params.repetition_penalty.unwrap_or(self.text.sampling.repetition_penalty);
        let (frequency, presence) = (params.frequency_penalty, params.presence_penalty);
        Ok(Adjustments {
            repetition_penalty: penalty("repetition_penalty", repetition, &REPETITION_PENALTIES)?,
            frequency_penalty: penalty("frequency_penalty", frequency, &PENALTIES)?,
            presence_penalty: penalty("presence_penalty", presence, &PENALTIES)?,
            logit_bias: bias.into_iter().collect(),
            min_tokens: params.min_tokens,
        })
    }

    fn sampling(&self, params: &LlmParams) -> Result<SamplingParams, ServerError> {
        let defaults = self.text.sampling;
        let logprobs = params.logprobs.unwrap_or(0) as f32;
        in_range("logprobs", logprobs, 0.0, MAX_LOGPROBS as f32)?;
        let temperature = params.temperature.unwrap_or(defaults.temperature);
        let top_p = params.top_p.unwrap_or(defaults.top_p);
        let min_p = params.min_p.unwrap_or(defaults.min_p);
        Ok(SamplingParams {
            temperature: or_greedy(in_range("temperature", temperature, 0.0, 100.0)?),
            top_k: params.top_k.unwrap_or(defaults.top_k),
            top_p: in_range("top_p", top_p, f32::MIN_POSITIVE, 1.0)?,
            min_p: in_range("min_p", min_p, 0.0, 1.0)?,
            seed: params.seed.unwrap_or_else(random_seed),
            logprobs: params.logprobs,
        })
    }
}

fn in_range(name: &'static str, value: f32, min: f32, max: f32) -> Result<f32, ServerError> {
    let is_in_range = (min..=max).contains(&value);
    is_in_range.then_some(value).ok_or(ServerError::Param { name, value, min, max })
}

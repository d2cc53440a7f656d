//! Errors of this crate: what keeps a server from starting or a prompt from being encoded.
//! Errors that a client of the API sees are in [`crate::api::error`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use minisgl_model::ModelError;
use minisgl_sched::{SchedError, TokenId};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A file that every model needs.
    #[error("the model has no {file}: {purpose}")]
    MissingFile {
        /// Its name.
        file: &'static str,
        /// What it is needed for.
        purpose: &'static str,
    },
    /// A file that is not what its name says.
    #[error("{file}: {problem}")]
    File {
        /// Its name.
        file: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer refused a text.
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
    /// The chat template refused the messages, or went wrong.
    #[error(transparent)]
    Template(#[from] crate::template::TemplateError),
    /// A chat with a model that has no chat template.
    #[error("this model has no chat template: use completions, or start with --chat-template FILE")]
    NoTemplate,
    /// A text for a model without a tokenizer.
    #[error("this model has no tokenizer.json: prompts must be token ids, in completions")]
    NoTokenizer,
    /// A prompt without tokens.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A token that the model does not have.
    #[error("token {token} is not in the vocabulary: ids are below {vocab_size}")]
    UnknownToken {
        /// Its id.
        token: TokenId,
        /// How many the model has.
        vocab_size: usize,
    },
    /// A parameter out of its range.
    #[error("{name} = {value} is not allowed: use {min} to {max}")]
    Param {
        /// Its name.
        name: &'static str,
        /// What it is.
        value: f32,
        /// The least that is allowed.
        min: f32,
        /// The most.
        max: f32,
    },
    /// The engine could not go on.
    #[error("the engine has failed: {0}")]
    Engine(Arc<str>),
    /// A prompt that leaves no room for output.
    #[error(
        "maximum context length is {max} tokens, but the prompt has {prompt} and at least 1 must \
         be left for the output"
    )]
    TooLong {
        /// Tokens in the prompt.
        prompt: usize,
        /// Tokens that prompt and output may have.
        max: usize,
    },
    /// A text that cannot be short enough, however it is tokenized.
    #[error("maximum context length is {max} tokens; a text of {bytes} bytes has more")]
    TextTooLong {
        /// Its length.
        bytes: usize,
        /// Tokens that prompt and output may have.
        max: usize,
    },
    /// The model's files, or the engine.
    #[error(transparent)]
    Model(Box<ModelError>),
    /// The scheduler refused its configuration or a request.
    #[error(transparent)]
    Scheduler(Box<SchedError>),
    /// A host without an address.
    #[error("cannot listen on {host}: {source}")]
    Host {
        /// Which one.
        host: String,
        /// Why there is none.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
}

// Boxed, since they are several times as large as the others.
impl From<ModelError> for ServerError {
    fn from(error: ModelError) -> Self {
        ServerError::Model(Box::new(error))
    }
}

impl From<SchedError> for ServerError {
    fn from(error: SchedError) -> Self {
        ServerError::Scheduler(Box::new(error))
    }
}
